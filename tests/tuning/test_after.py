"""What a sweep makes of cross-validated candidates, with the training replaced by a set of names: no Ray, no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensembler.config import Config
from ensembler.metrics import get_metric
from ensembler.training.candidate import Candidate, CellJob
from ensembler.training.recipe import Recipe
from ensembler.tuning.after import AfterCrossval, source_of
from ensembler.tuning.arms import Arm
from ensembler.tuning.boosted import next_boosted
from ensembler.tuning.plan import Outcome, Stage
from ensembler.tuning.soups import soups_of

BASE = "name: x\ndata: {source: digits}\nbackbones: [a, b]\n"
K = 3


def _candidate(
    backbone: str, lr: float, strategy: str = "lp-ft", weights: str = "w", **changes: Any
) -> Candidate:
    return Candidate(backbone, weights, strategy, Recipe(lr=lr, **changes))


A, A2, B = _candidate("a", 0.1), _candidate("a", 0.2), _candidate("b", 0.1)
PROBE = Candidate("a", "w", "probe")
SCORES = {A.id: 0.3, A2.id: 0.2, B.id: 0.5}
ARMS = [Arm(name, "w", "lp-ft", Recipe(lr=0.01), {}) for name in "ab"]
LOSS = get_metric("log_loss")


class Store:
    """Cells by name, scored by a formula."""

    def __init__(self) -> None:
        self.done = {(c.id, fold) for c in (A, A2, B, PROBE) for fold in range(K)}
        self.values: dict[str, Any] = {}
        self.temperature = 1.0

    def cell(self, candidate_id: str, fold: int) -> Any:
        assert (candidate_id, fold) in self.done
        return SimpleNamespace(
            key=candidate_id, temperature=self.temperature, score=SCORES.get(candidate_id, 0.4)
        )

    def manifest(self) -> dict[str, Any]:
        return self.values

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        self.values |= changes
        return self.values


@dataclasses.dataclass
class World:
    """A run after cross-validation."""

    text: str
    store: Store = dataclasses.field(default_factory=Store)
    left_s: float | None = None
    slots: int | None = 2
    cannot: tuple[str, ...] = ()
    trained: list[str] = dataclasses.field(default_factory=list)

    def after(self) -> AfterCrossval:
        budget = "" if self.left_s is None else "budget: 10m\n"
        spending: Any = SimpleNamespace(
            budget=SimpleNamespace(left_s=lambda _: self.left_s), pace=SimpleNamespace(cell_s=lambda _: 8.0)
        )
        return AfterCrossval(
            Config.parse(BASE + self.text + budget, Path("c.yaml")),
            self.store,  # type: ignore[arg-type]
            LOSS,
            spending if budget else None,
            K,
            complete=lambda: [PROBE, A, A2, B],
            arms=lambda: ARMS,
            missing=self.missing,
            slots=lambda: self.slots,
            on_end=lambda trial, outcome: None,
        )

    def missing(self, candidate: Candidate) -> Sequence[CellJob]:
        return [CellJob(candidate, fold) for fold in range(K) if (candidate.id, fold) not in self.store.done]

    def run(self) -> AfterCrossval:
        after = self.after()
        for make in after.makers:
            stage = make()
            while stage is not None and (trial := stage.ask()) is not None:
                candidate = trial.job.candidate
                fails = candidate.backbone in self.cannot
                if not fails:
                    self.store.done.add((candidate.id, trial.job.fold))
                    self.trained.append(f"{stage.name} {candidate.backbone} {trial.job.fold}")
                stage.tell(trial, Outcome("failed" if fails else "finished"))
        return after


# ---------------------------------------------------------------------- which


def test_the_default_recipe_of_the_best_backbone_is_boosted_first_then_the_next_best() -> None:
    first = next_boosted([A, A2, B], [], SCORES, ARMS, LOSS)
    assert first is not None
    assert (first.backbone, first.recipe, first.kind) == ("a", ARMS[0].recipe, "boosted")
    assert first.parts == tuple(sorted([A.id, A2.id, B.id]))
    scores = SCORES | {first.id: 0.1}
    second = next_boosted([A, A2, B, first], [first], scores, ARMS, LOSS)
    assert second is not None
    assert (second.backbone, first.id in second.parts) == ("b", True)
    third = next_boosted([A, A2, B, first], [first, second], scores, ARMS, LOSS)
    assert third is not None
    assert third.backbone == "a"


def test_a_metric_that_grows_turns_the_order_round_and_the_config_may_name_it() -> None:
    best = next_boosted([A, A2, B], [], SCORES, ARMS, get_metric("accuracy"))
    assert best is not None
    assert best.backbone == "b"
    named = next_boosted([A, A2, B], [], SCORES, ARMS, LOSS, backbones=["b"])
    assert named is not None
    assert named.backbone == "b"
    assert next_boosted([A], [], SCORES, ARMS, LOSS, backbones=["b"]) is None
    assert next_boosted([], [], SCORES, ARMS, LOSS) is None


def test_a_backbone_is_boosted_with_the_strategy_and_epochs_of_its_best_candidate() -> None:
    full = _candidate("a", 0.3, "full")
    arms = [*ARMS, Arm("a", "w", "full", Recipe(lr=0.02), {})]
    best = next_boosted([A, full], [], {A.id: 0.3, full.id: 0.2}, arms, LOSS)
    assert best is not None
    assert best.strategy == "full"
    long = full.with_epochs(20)
    best = next_boosted([A, long], [], {A.id: 0.3, long.id: 0.2}, arms, LOSS)
    assert best is not None
    assert best.recipe == dataclasses.replace(arms[-1].recipe, epochs=20)


def test_soups_are_of_one_backbone_one_start_and_one_shape() -> None:
    hidden = _candidate("a", 0.1, head_layers=1)
    mirrored = _candidate("a", 0.1, tta=True)
    random = [_candidate("b", lr, "full", "random") for lr in (0.1, 0.2)]
    other = _candidate("a", 0.1, weights="v")
    boosted = dataclasses.replace(A, kind="boosted", parts=(A.id,))
    (soup,) = soups_of([PROBE, A, B, A2, hidden, mirrored, *random, other, boosted])
    assert soup.parts == tuple(sorted([A.id, A2.id, boosted.id]))
    assert (soup.backbone, soup.weights, soup.strategy, soup.kind) == ("a", "w", "soup", "soup")
    assert soup.name == f"a-soup-{soup.id[:6]}"
    assert soups_of([A, B, soup]) == []
    assert soups_of([A2, A]) == soups_of([A, A2])  # whatever the order
    (deep,) = soups_of([hidden, _candidate("a", 0.2, head_layers=1)])
    assert deep.recipe.head_layers == 1


# ---------------------------------------------------------------------- when


def test_rounds_come_one_after_another_and_soups_of_everything_last() -> None:
    world = World("boosted: {rounds: 2}\nsoups: true\n")
    after = world.run()
    assert world.trained == [
        *(f"boosted a {fold}" for fold in range(K)),
        *(f"boosted b {fold}" for fold in range(K)),
        *(f"soup {name} {fold}" for name in "ab" for fold in range(K)),
    ]
    first, second, soup_a, soup_b = after.candidates
    assert first.id in second.parts
    assert soup_a.parts == tuple(sorted([A.id, A2.id, first.id]))
    assert soup_b.parts == tuple(sorted([B.id, second.id]))
    assert not after.left_out


def test_nothing_is_made_unless_it_is_asked_for() -> None:
    world = World("")
    assert world.after().makers == []
    assert world.run().candidates == []


@pytest.mark.parametrize("moment", range(12))
def test_killed_at_any_moment_the_same_is_made_and_nothing_twice(moment: int) -> None:
    quiet = World("boosted: {rounds: 2}\nsoups: true\n")
    expected = quiet.run().candidates
    world = World(quiet.text)
    made = [(c.id, fold) for c in expected for fold in range(K)]
    world.store.done |= set(made[:moment])
    again = world.run()
    assert again.candidates == expected
    assert len(world.trained) == len(made) - moment
    world.trained.clear()
    world.run()
    assert world.trained == []


def test_what_could_not_be_trained_is_no_part_of_what_comes_after() -> None:
    world = World("boosted: {rounds: 2}\nsoups: true\n", cannot=("a",))
    after = world.run()
    first, second, *soups = after.candidates
    assert (first.backbone, second.backbone) == ("a", "b")
    assert second.parts == first.parts
    assert all(first.id not in soup.parts for soup in soups)


def test_without_two_of_a_kind_there_is_no_soup_and_the_reason_is_noted() -> None:
    world = World("soups: true\n")
    world.store.done -= {(A2.id, 0)}
    after = world.after()
    after._complete = lambda: [PROBE, A, B]  # type: ignore[method-assign]
    assert [make() for make in after.makers] == [None]
    assert "no two candidates of one backbone" in after.left_out["soup"]


# ---------------------------------------------------------------------- with a budget


def test_a_budget_without_time_leaves_them_out_with_a_reason_and_keeps_to_it() -> None:
    world = World("boosted: {rounds: 2}\nsoups: true\n", left_s=2.5)
    after = world.run()
    assert world.trained == [
        f"soup a {fold}" for fold in range(K)
    ]  # half an epoch a part: a second each, two at a time
    assert [c.kind for c in after.candidates] == ["soup"]
    reason = after.left_out["boosted, round 1"]
    assert reason == "left out: needs about 19 s of training, the budget has 2 s left"
    assert after.left_out["boosted, round 2"] == "left out, as the round before it"
    world.left_s = 1e6
    world.trained.clear()
    assert world.run().left_out == after.left_out  # the clock of a run that goes on starts anew
    assert world.trained == []
    world.text = "boosted: {rounds: 1}\n"
    assert world.run().left_out == {}
    assert world.trained == [f"boosted a {fold}" for fold in range(K)]


def test_nothing_is_left_out_before_it_is_known_how_many_train_at_a_time() -> None:
    world = World("boosted: {rounds: 1}\n", left_s=0.0, slots=None)
    (make,) = world.after().makers
    assert isinstance(make(), Stage)
    assert world.store.values == {}


# ---------------------------------------------------------------------- who it is


def test_the_source_tells_of_parts_that_were_trained_again() -> None:
    store = Store()
    made = dataclasses.replace(A, kind="boosted", parts=(A.id, B.id))
    before = source_of(store, made, [0])  # type: ignore[arg-type]
    assert source_of(store, A, [0]) == ""  # type: ignore[arg-type]
    assert before != source_of(store, made, [0, 1])  # type: ignore[arg-type]
    store.temperature = 1.1
    after = source_of(store, made, [0])  # type: ignore[arg-type]
    assert before != after
    assert CellJob(made, 0, source=before).key("f") != CellJob(made, 0, source=after).key("f")
    assert CellJob(A, 0, source="").key("f") == CellJob(A, 0).key("f")


def test_a_candidate_that_is_made_of_others_survives_being_stored() -> None:
    made = dataclasses.replace(A, kind="boosted", parts=(A.id, B.id))
    assert Candidate.from_dict(made.to_dict()) == made
    assert "kind" not in A.to_dict()
    job = CellJob(made, 0, source="s")
    assert CellJob.from_dict(job.to_dict()) == job
