"""Which networks may take the place of fold models, and that each is trained once; no Ray, no torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ensembler.collapsed import collapse_table
from ensembler.config import Config
from ensembler.errors import ConfigError
from ensembler.metrics import get_metric
from ensembler.training.candidate import EVERY_ROW, Candidate, TrainingData
from ensembler.training.recipe import Recipe
from ensembler.tuning import collapse as module
from ensembler.tuning.collapse import Collapse, Teacher, options_of
from ensembler.tuning.plan import Chain, Outcome

ALL = ["folds", "refit", "soup", "distill"]
BASE = "name: x\ndata: {source: digits, test: 0.2}\nbackbones: [a]\ncollapse: [folds, refit, soup, distill]\n"
TUNED = Candidate("a", "w", "lp-ft", Recipe(epochs=8, average_best=3, label_smoothing=0.1))
PROBE = Candidate("a", "w", "probe")
BOOSTED = dataclasses.replace(TUNED, kind="boosted", parts=(TUNED.id,))
SOUP = Candidate("a", "w", "soup", Recipe(), "soup", (TUNED.id, BOOSTED.id))
K = 3


# ---------------------------------------------------------------------- what there is


def test_fold_models_come_first_and_each_way_has_a_candidate_of_its_own(tmp_path: Path) -> None:
    teacher = Teacher((PROBE.id, TUNED.id), tmp_path)
    folds, refit, soup, student = options_of(TUNED, ALL, [3, 8, 4], teacher)
    assert [o.way for o in (folds, refit, soup, student)] == ALL
    assert folds.deployed == TUNED
    assert refit.deployed is not None
    assert refit.deployed.recipe == dataclasses.replace(TUNED.recipe, epochs=4, average_best=1)  # the median
    assert soup.deployed is not None
    assert (soup.deployed.kind, soup.deployed.parts, soup.deployed.recipe) == (
        "fold-soup", (TUNED.id,), TUNED.recipe
    )  # fmt: skip
    assert student.deployed is not None
    assert student.deployed.parts == teacher.members
    assert student.deployed.recipe.label_smoothing == 0  # the teacher's probabilities take its place
    names = {o.deployed.name for o in (folds, refit, soup, student) if o.deployed}
    assert len(names) == 4
    assert [o.way for o in options_of(TUNED, ["folds", "soup"], [3], None)] == ["folds", "soup"]


def test_what_there_is_not_says_why(tmp_path: Path) -> None:
    teacher = Teacher((TUNED.id,), tmp_path)

    def reasons(candidate: Candidate, taught: Teacher | None = teacher) -> dict[str, str]:
        return {o.way: o.reason for o in options_of(candidate, ALL, [4], taught) if o.deployed is None}

    assert set(reasons(PROBE)) == {"refit", "soup", "distill"}
    assert reasons(BOOSTED) == {"refit": "what its rows weigh differs from fold to fold"}
    assert reasons(SOUP) == dict.fromkeys(("refit", "distill"), "a soup is mixed, not trained")
    assert reasons(TUNED) == {}
    assert reasons(TUNED, None) == {"distill": "there is no ensemble to learn from"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {source: digits}\ncollapse: [folds, refit]\n", "collapse: is compared on the test split"),
        ("data: {source: digits, test: 0.2}\ncollapse: [refit, refit]\n", "'refit' appears twice"),
        ("data: {source: digits, test: 0.2}\ncollapse: [melt]\n", "collapse.0: 'melt'"),
        ("data: {source: digits}\nstrategies: [probe]\nsoups: true\n", "soups: probe train no backbone"),
        (
            "data: {source: digits}\nstrategies: [probe, ridge]\nboosted: {rounds: 1}\n",
            "boosted: probe, ridge train",
        ),
        ("data: {source: digits}\nboosted: {rounds: 0}\n", "boosted.rounds: 0"),
        ("data: {source: digits}\nboosted: {backbones: [aa]}\n", "unknown backbone 'aa'; did you mean 'a'"),
        (
            "data: {source: digits}\nboosted: {round: 1}\n",
            "boosted.round: unknown key; did you mean 'rounds'",
        ),
    ],
)
def test_a_config_that_asks_for_what_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.parse(f"name: x\nbackbones: [a]\n{text}", Path("c.yaml"))
    assert message in str(error.value)


# ---------------------------------------------------------------------- what is trained


class Store:
    """Cells by name."""

    def __init__(self) -> None:
        self.done: dict[tuple[str, int], str] = {}
        self.values: dict[str, Any] = {}
        self.temperature = 1.0

    def has_cell(self, job: Any, fingerprint: str) -> bool:
        return self.done.get((job.candidate.id, job.fold)) == job.key(fingerprint)

    def cell(self, candidate_id: str, fold: int) -> Any:
        return SimpleNamespace(
            key=f"{candidate_id} {fold}", temperature=self.temperature, score=0.5, best_epoch=4, train_s=8.0,
            history=lambda: range(8),
        )  # fmt: skip

    def manifest(self) -> dict[str, Any]:
        return self.values

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        self.values |= changes
        return self.values


@dataclasses.dataclass
class World:
    """Ray, as far as a collapse sees it."""

    file: Path
    store: Store = dataclasses.field(default_factory=Store)
    trained: list[str] = dataclasses.field(default_factory=list)
    sessions: int = 0
    left_s: float | None = None
    fails: str = "nothing"

    def execute(self, chain: Chain, data: TrainingData, *_: Any, **__: Any) -> None:
        while (trial := chain.ask()) is not None:
            kind = trial.job.candidate.kind
            assert trial.job.fold == EVERY_ROW
            if kind == self.fails:
                chain.tell(trial, Outcome("failed", reason="out of luck"))
                continue
            assert data.teacher == self.file
            self.trained.append(kind)
            self.store.done[trial.job.candidate.id, EVERY_ROW] = trial.job.key(data.fingerprint)
            chain.tell(trial, Outcome("finished"))

    def run(self) -> dict[str, str]:
        """Reasons by way; those without are deployed."""
        rows = np.arange(30)
        data = TrainingData(
            Path("p"),
            rows % 3,
            ("x", "y", "z"),
            ((rows[:15], rows[15:20], rows[20:]),) * K,
            "f",
            {},
            Path("f"),
        )
        text = BASE + ("budget: 10m\n" if self.left_s is not None else "")
        budget: Any = SimpleNamespace(left_s=lambda n: self.left_s) if self.left_s is not None else None
        collapse = Collapse(
            Config.parse(text, Path("c.yaml")), data, self.store, SimpleNamespace(),  # type: ignore[arg-type]
            get_metric("log_loss"), budget, 2,
        )  # fmt: skip
        options = collapse.run([TUNED, PROBE], Teacher((PROBE.id, TUNED.id), self.file))
        assert all((o.deployed is None) == bool(o.reason) for o in options)
        return {o.way: o.reason for o in options if o.of == TUNED}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    np.save(tmp_path / "proba.npy", np.ones(3))
    world = World(tmp_path / "proba.npy")

    @contextlib.contextmanager
    def session(*_: Any) -> Iterator[tuple[float, float]]:
        world.sessions += 1
        yield 1.0, 0.0

    monkeypatch.setattr(module, "ray_session", session)
    monkeypatch.setattr(module, "execute", world.execute)
    return world


def test_everything_is_trained_once_and_read_without_ray_ever_after(world: World) -> None:
    assert world.run() == dict.fromkeys(ALL, "")
    assert world.trained == ["refit", "fold-soup", "student"]
    assert world.run() == dict.fromkeys(ALL, "")
    assert (len(world.trained), world.sessions) == (3, 1)


def test_another_teacher_makes_another_student_and_other_fold_models_another_everything(world: World) -> None:
    world.run()
    np.save(world.file, np.zeros(3))
    world.run()
    assert world.trained[3:] == ["student"]
    world.store.temperature = 1.5
    world.run()
    assert world.trained[4:] == ["refit", "fold-soup", "student"]


def test_a_failure_is_told_with_its_reason_and_the_others_stay(world: World) -> None:
    world.fails = "refit"
    assert world.run() == {"folds": "", "refit": "out of luck", "soup": "", "distill": ""}
    world.fails = "nothing"
    assert world.run()["refit"] == ""
    assert sorted(world.trained) == ["fold-soup", "refit", "student"]


def test_a_budget_takes_what_fits_in_turn_and_a_run_that_goes_on_keeps_to_it(world: World) -> None:
    world.left_s = 12.0  # an epoch of a fold takes a second, of everything two: refit 8, soup 1.5, student 8
    reasons = world.run()
    assert reasons == {
        "folds": "",
        "refit": "",
        "soup": "",
        "distill": "left out: needs about 18 s of training, the budget has 12 s left",
    }
    world.left_s = 1e6
    assert world.run() == reasons
    assert (world.trained, world.sessions) == (["refit", "fold-soup"], 1)


def test_the_table_shows_what_could_not_be_had_too() -> None:
    numbers = {"accuracy": 0.9, "log_loss": 0.25, "latency_ms": 1.5, "bytes": 2_500_000, "train_s": 12.4}
    rows = [
        {"candidate": "a-lp-ft-1", "way": "folds", "deployed": "a-lp-ft-1", "note": "", **numbers},
        {"candidate": "a-lp-ft-1", "way": "refit", "deployed": None, "note": "out of luck"},
    ]
    head, first, second = collapse_table(rows).splitlines()
    assert first.split() == ["a-lp-ft-1", "folds", "0.9000", "0.2500", "1.5", "2.5", "12"]
    assert second.split(maxsplit=6) == ["refit", "-", "-", "-", "-", "-", "out of luck"]
    assert first.index("0.9000") == head.index("accuracy") == second.index("-")
