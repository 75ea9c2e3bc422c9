"""What a sweep decides, with the training replaced by a formula: no Ray, no torch, milliseconds."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.config import Config
from ensembler.errors import TrainingError
from ensembler.training.blueprint import BackboneInfo
from ensembler.training.candidate import Candidate, CellJob, TrainingData
from ensembler.training.weights import Weights
from ensembler.tuning import sweep as module
from ensembler.tuning.arms import make_arms
from ensembler.tuning.execute import TrialResources, share_resources, slots_for, threads_for
from ensembler.tuning.plan import Chain, Outcome, Trial
from ensembler.tuning.refine import Previous
from ensembler.tuning.screen import score_backbones
from ensembler.tuning.sweep import Sweep

BASE = "name: x\ndata: {source: digits}\nmetric: log_loss\nbackbones: [a]\nnumerics: {precision: fp32}\n"


def _score(candidate: Candidate) -> float:
    """Lowest for net "a" near lr 1e-2."""
    return abs(math.log10(candidate.recipe.lr) + 2) + {"a": 0, "b": 3, "c": 6}[candidate.backbone]


class MemoryStore:
    """A run's store in memory."""

    def __init__(self) -> None:
        self.cells: dict[tuple[str, int], str] = {}
        self.notes: dict[int, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}
        self.trained: list[str] = []

    def has_cell(self, job: CellJob, fingerprint: str) -> bool:
        return self.cells.get((job.candidate.id, job.fold)) == job.key(fingerprint)

    def commit_cell(self, result: Any, fingerprint: str) -> bool:
        raise AssertionError("workers commit")

    def cell(self, candidate_id: str, fold: int) -> Any:
        return SimpleNamespace(score=0.5, train_s=1.0, history=pd.DataFrame)

    def trials(self) -> list[dict[str, Any]]:
        return [self.notes[n] for n in sorted(self.notes)]

    def write_trial(self, number: int, record: Mapping[str, Any]) -> None:
        self.notes[number] = {"number": number, **record}

    def manifest(self) -> dict[str, Any]:
        return self.values

    def update_manifest(self, **changes: Any) -> dict[str, Any]:
        self.values |= changes
        return self.values


class Killed(Exception):
    pass


def _fine(trial: Trial) -> Outcome:
    if trial.kind == "measure":
        speeds = {"fp32 channels_last": 1e6}
        return Outcome("finished", extra={"precision": "fp32", "channels_last": True, "images_per_s": speeds})
    candidate = trial.job.candidate
    return Outcome(
        "finished", _score(candidate), history=({"epoch": 1},) * candidate.recipe.epochs, seconds=1.0
    )


@dataclasses.dataclass
class World:
    """Ray, as far as a sweep sees it."""

    store: MemoryStore = dataclasses.field(default_factory=MemoryStore)
    outcome: Callable[[Trial], Outcome] = _fine
    sessions: int = 0
    kill_before_note: int | None = None
    slots: int = 2

    def execute(self, chain: Chain, data: TrainingData, sink: Any, *_: Any, **__: Any) -> None:
        running: list[Trial] = []
        while True:
            while len(running) < self.slots and (trial := chain.ask()) is not None:
                running.append(trial)
            if not running:
                assert chain.finished
                return
            trial = running.pop()  # the later one ends first: order of arrival must not matter
            outcome = self.outcome(trial)
            if outcome.status == "finished" and trial.kind == "cell":
                self.store.cells[trial.job.candidate.id, trial.job.fold] = trial.job.key(data.fingerprint)
                self.store.trained.append(f"{trial.stage} {trial.job.candidate.backbone} {trial.job.fold}")
            if self.kill_before_note is not None:
                self.kill_before_note -= 1
                if self.kill_before_note < 0:
                    self.kill_before_note = None
                    raise Killed
            chain.tell(trial, outcome)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()

    @contextlib.contextmanager
    def session(*_: Any) -> Iterator[tuple[float, float]]:
        world.sessions += 1
        yield 2.0, 0.0

    monkeypatch.setattr(module, "ray_session", session)
    monkeypatch.setattr(module, "execute", world.execute)
    return world


def _sweep(
    world: World, text: str = "", backbones: str = "a", base: str = BASE, weights: str = "random"
) -> Sweep:
    names = [n for n in backbones.split(",") if n]
    config = Config.parse(base.replace("[a]", f"[{', '.join(names)}]") + text, Path("c.yaml"))
    rows = np.arange(4, dtype=np.int64)
    data = TrainingData(
        Path("p"), rows, ("x", "y"), ((rows, rows, rows),) * 3, "f", {}, Path("features"), config.metric
    )
    ready = [
        module.ReadyBackbone(
            n, Weights(weights, None if weights == "random" else Path("w")), BackboneInfo(10, False, "")
        )
        for n in names
    ]
    return Sweep(config, data, ready, world.store, SimpleNamespace())  # type: ignore[arg-type]


SEARCH = "search: {trials: %d, epochs: 2, algorithm: %s, scheduler: none}\n"


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_the_best_are_kept_and_at_least_one_of_every_backbone(algorithm: str, world: World) -> None:
    result = _sweep(world, SEARCH % (12, algorithm) + "keep: 4\n", "a,b,c").run()
    names = [c.backbone for c in result.candidates]
    assert len(names) == 4
    assert set(names) == {"a", "b", "c"}
    assert names[0] == "a"  # best first
    ranked = sorted((t for t in world.store.trials()), key=lambda t: t["score"])
    assert result.candidates[0].to_dict() == ranked[0]["candidate"]
    assert all((c.id, f) in world.store.cells for c in result.candidates for f in range(3))
    assert len(world.store.trials()) == 12


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna", "gp"])
def test_trial_0_is_the_default_recipe(algorithm: str, world: World) -> None:
    sweep = _sweep(world, SEARCH % (6, algorithm), "a,b")
    sweep.run()
    firsts = [Candidate.from_dict(t["candidate"]) for t in world.store.trials()[:2]]
    assert firsts == [arm.default for arm in sweep.arms]
    assert all(c.recipe.epochs == 2 for c in firsts)


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_the_same_again_trains_nothing_and_starts_no_ray(algorithm: str, world: World) -> None:
    text = SEARCH % (7, algorithm) + "keep: 3\n"
    first = _sweep(world, text, "a,b").run()
    trained, notes = list(world.store.trained), dict(world.store.notes)
    again = _sweep(world, text, "a,b").run()
    assert again.candidates == first.candidates
    assert world.store.trained == trained
    assert world.store.notes == notes
    assert world.sessions == 1


@pytest.mark.parametrize("algorithm", ["random", "grid"])
@pytest.mark.parametrize("moment", range(0, 18, 2))
def test_killed_after_any_commit_the_result_is_that_of_a_quiet_sweep(
    moment: int, algorithm: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = SEARCH % (7, algorithm) + "keep: 3\n"
    quiet = World()
    monkeypatch.setattr(module, "execute", quiet.execute)
    expected = _sweep(quiet, text, "a,b").run().candidates
    monkeypatch.setattr(module, "execute", world.execute)
    # Adopted Cells are scored from their files: those of this store say 0.5, so let the formula say it again.
    world.store.cell = lambda i, f: SimpleNamespace(  # type: ignore[method-assign]
        score=next(_score(c) for c in expected_all if c.id == i), train_s=1.0, history=pd.DataFrame
    )
    expected_all = [Candidate.from_dict(t["candidate"]) for t in quiet.store.trials()]
    world.kill_before_note = moment
    with contextlib.suppress(Killed):
        _sweep(world, text, "a,b").run()
    done = set(world.store.cells)
    before = list(world.store.trained)
    assert _sweep(world, text, "a,b").run().candidates == expected
    assert done <= set(world.store.cells)
    assert len(world.store.trained) - len(before) == len(quiet.store.cells) - len(done)
    assert world.store.cells == quiet.store.cells
    numbers = [t["number"] for t in world.store.trials()]
    assert len({t["name"] for t in world.store.trials()}) == len(numbers) == 7


def test_optuna_goes_on_after_a_kill_without_overwriting_a_trial(world: World) -> None:
    text = SEARCH % (9, "optuna")
    world.kill_before_note = 4
    with pytest.raises(Killed):
        _sweep(world, text, "a,b").run()
    before = dict(world.store.notes)
    _sweep(world, text, "a,b").run()
    assert {n: world.store.notes[n] for n in before} == before
    assert len(world.store.notes) == 9


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_a_further_backbone_trains_its_own_cells_alone(algorithm: str, world: World) -> None:
    _sweep(world, SEARCH % (4, algorithm) + "keep: 2\n", "a,b").run()
    notes, trained = dict(world.store.notes), len(world.store.trained)
    result = _sweep(world, SEARCH % (5, algorithm) + "keep: 3\n", "a,b,c").run()
    assert {c.backbone for c in result.candidates} == {"a", "b", "c"}
    assert {row.split()[1] for row in world.store.trained[trained:]} == {"c"}
    assert {n: world.store.notes[n] for n in notes} == notes


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_a_backbone_that_is_taken_away_is_not_kept(algorithm: str, world: World) -> None:
    _sweep(world, SEARCH % (6, algorithm), "a,b").run()
    sessions = world.sessions
    result = _sweep(world, SEARCH % (3, algorithm) + "keep: 2\n", "b").run()
    assert {c.backbone for c in result.candidates} == {"b"}
    assert world.sessions >= sessions


def test_candidates_of_another_config_do_not_come_back(world: World) -> None:
    _sweep(world, SEARCH % (4, "optuna") + "keep: 4\n", "a").run()
    other = (SEARCH % (3, "optuna")).replace("epochs: 2", "epochs: 5")
    result = _sweep(world, other + "keep: 4\n", "a").run()
    assert {c.recipe.epochs for c in result.candidates} == {5}


# ---------------------------------------------------------------------- failures


def test_a_failed_trial_is_recorded_and_tried_again_by_a_list_but_not_by_optuna(world: World) -> None:
    fine = world.outcome

    def outcome(trial: Trial) -> Outcome:
        bad = trial.job.candidate.backbone == "b" and trial.stage == "search"
        return Outcome("failed", reason="out of memory") if bad else fine(trial)

    for algorithm in ("random", "optuna"):
        world.store, world.outcome = MemoryStore(), outcome
        text = SEARCH % (4, algorithm)
        first = _sweep(world, text, "a,b").run()
        assert {c.backbone for c in first.candidates} == {"a"}
        failed = {f["name"]: f for f in first.failed}
        assert all(f["reason"] == "out of memory" and f["stage"] == "search" for f in failed.values())
        assert failed
        sessions = world.sessions
        again = _sweep(world, text, "a,b").run()
        assert {f["name"] for f in again.failed} == set(failed)  # still on record
        assert (world.sessions > sessions) == (algorithm == "random")
        world.outcome = fine
        if algorithm == "random":
            mended = _sweep(world, text, "a,b").run()
            assert {c.backbone for c in mended.candidates} == {"a", "b"}
            assert mended.failed == []
            assert [t["number"] for t in world.store.trials()] == [0, 1, 2, 3]


def test_a_candidate_that_fails_on_one_fold_is_left_out_with_its_reason(world: World) -> None:
    fine = world.outcome
    world.outcome = lambda t: (
        Outcome("failed", reason="its worker died")
        if (t.job.candidate.backbone, t.job.fold) == ("b", 2)
        else fine(t)
    )
    result = _sweep(world, SEARCH % (2, "random"), "a,b").run()
    assert [c.backbone for c in result.candidates] == ["a"]
    assert [(f["candidate"]["backbone"], f["fold"], f["stage"], f["reason"]) for f in result.failed] == [
        ("b", 2, "crossval", "its worker died")
    ]


def test_when_nothing_can_be_trained_the_reasons_are_told(world: World) -> None:
    world.outcome = lambda _: Outcome("failed", reason="loss is nan")
    with pytest.raises(TrainingError, match=r"no candidate could be trained on every fold: .*: loss is nan"):
        _sweep(world, SEARCH % (2, "random"), "a,b").run()


def test_stopped_trials_are_kept_only_when_there_is_nothing_better(world: World) -> None:
    fine = world.outcome

    def outcome(trial: Trial) -> Outcome:
        weak = trial.stage == "search" and trial.number % 2
        return Outcome("stopped", 0.0, history=({"epoch": 1},), seconds=1.0) if weak else fine(trial)

    world.outcome = outcome
    result = _sweep(world, SEARCH % (6, "random") + "keep: 3\n", "a").run()
    status = {t["name"]: t["status"] for t in world.store.trials()}
    assert [status[c.name] for c in result.candidates] == ["finished"] * 3
    again = _sweep(world, SEARCH % (6, "random") + "keep: 5\n", "a").run()
    assert [status[c.name] for c in again.candidates] == ["finished"] * 3 + ["stopped"] * 2
    # Cross-validated now, they are still what the search found them to be.
    assert {t["name"]: t["status"] for t in world.store.trials()} == status
    assert _sweep(world, SEARCH % (6, "random") + "keep: 5\n", "a").run().candidates == again.candidates


# ---------------------------------------------------------------------- budget


def test_a_budget_may_be_given_to_a_run_that_had_none(world: World) -> None:
    """Its arithmetic was pinned, so that nobody knows how fast its backbones are."""
    _sweep(world, SEARCH % (4, "random"), "a,b").run()
    assert "images_per_s" not in world.store.values["numerics"]["a"]
    result = _sweep(world, SEARCH % (4, "random") + "budget: 1h\n", "a,b").run()
    assert {c.backbone for c in result.candidates} == {"a", "b"}
    assert world.store.values["numerics"]["a"]["images_per_s"]


def test_a_backbone_that_could_not_be_measured_is_still_trained(world: World) -> None:
    world.outcome = lambda t: Outcome("failed", reason="x") if t.kind == "measure" else _fine(t)
    assert _sweep(world, SEARCH % (2, "random") + "budget: 1h\n", "a,b").run().candidates


# ---------------------------------------------------------------------- arms, probes, arithmetic


def test_random_weights_are_neither_probed_nor_given_a_fitted_head(world: World) -> None:
    sweep = _sweep(world, "strategies: [probe, lp-ft, full]\n")
    assert [arm.strategy for arm in sweep.arms] == ["full"]
    assert sweep._probes() == []


def test_weights_are_probed_and_searched_by_every_strategy_asked_for(world: World) -> None:
    sweep = _sweep(world, "strategies: [lp-ft, full]\n" + SEARCH % (2, "random"), weights="w#1")
    assert [arm.strategy for arm in sweep.arms] == ["lp-ft", "full"]
    result = sweep.run()
    probe, *others = [c.strategy for c in result.candidates]
    assert probe == "probe"
    assert sorted(others) == ["full", "lp-ft"]
    assert not _sweep(world, "screen: false\n", weights="w#1")._probes()


def test_probes_alone_need_no_search_and_start_no_ray_twice(world: World) -> None:
    text = "strategies: [probe]\n"
    base = BASE.replace("numerics: {precision: fp32}\n", "")
    result = _sweep(world, text, base=base, weights="w#1").run()
    assert [c.strategy for c in result.candidates] == ["probe"]
    assert _sweep(world, text, base=base, weights="w#1").run().candidates == result.candidates
    assert world.sessions == 1


def test_without_a_search_the_defaults_are_cross_validated(world: World) -> None:
    sweep = _sweep(world, "search: null\n", "a,b")
    assert sweep.run().candidates == [arm.default for arm in sweep.arms]
    assert world.store.trials() == []


def test_arithmetic_is_measured_once_a_backbone_and_used_ever_after(world: World) -> None:
    measured: list[str] = []
    used: set[str] = set()
    fine = world.outcome

    def outcome(trial: Trial) -> Outcome:
        if trial.kind == "measure":
            measured.append(trial.job.candidate.backbone)
            return Outcome(
                "finished", extra={"precision": "bf16", "channels_last": False, "images_per_s": {}}
            )
        used.add(trial.job.numerics.precision)
        return fine(trial)

    world.outcome = outcome
    base = BASE.replace("numerics: {precision: fp32}\n", "")
    _sweep(world, SEARCH % (4, "random"), "a,b", base).run()
    assert sorted(measured) == ["a", "b"]
    assert used == {"bf16"}
    _sweep(world, SEARCH % (4, "random"), "a,b,c", base).run()
    assert sorted(measured) == ["a", "b", "c"]


def test_pinned_arithmetic_is_not_measured(world: World) -> None:
    _sweep(world, SEARCH % (2, "random")).run()
    pinned = world.store.values["numerics"]["a"]
    assert (pinned["precision"], pinned["channels_last"]) == ("fp32", True)
    assert "images_per_s" not in pinned


def test_what_the_recipe_pins_is_not_searched() -> None:
    config = Config.parse(BASE + "recipe: {lr: 0.5, epochs: 3}\nsearch: {epochs: 9}\n", Path("c.yaml"))
    ready = [module.ReadyBackbone("a", Weights("random", None), BackboneInfo(10, False, ""))]
    arm = make_arms(config, ready, 1000)[0]
    assert (arm.recipe.lr, arm.recipe.epochs) == (0.5, 3)
    assert "lr" not in arm.space


# ---------------------------------------------------------------------- resources


@pytest.mark.parametrize(
    ("cluster", "wanted", "expected", "slots"),
    [
        ((2, 0), (None, None), (1, 0), 2),
        ((16, 4), (None, None), (4, 1), 4),
        ((16, 1), (1, None), (1, 1), 1),
        ((2, 2), (None, 0.5), (1, 0.5), 2),
        ((2, 2), (0.5, 0.5), (0.5, 0.5), 4),
        ((16, 4), (None, 2), (8, 2), 2),
        ((16, 4), (3, 0), (3, 0), 5),
        ((16, 2), (None, 0.25), (2, 0.25), 8),
    ],
)
def test_what_a_trial_takes_and_how_many_run(
    cluster: tuple[float, float], wanted: Any, expected: tuple[float, float], slots: int
) -> None:
    found = share_resources(*cluster, wanted)
    assert (found.cpus, found.gpus) == expected
    assert slots_for(found, *cluster) == slots
    assert threads_for(found) == max(1, int(expected[0]))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((3, None), "a trial wants 3 CPUs and 0 GPUs, but the cluster has 2 and 0; lower `resources`"),
        ((None, 1), "a trial wants 1 CPUs and 1 GPUs, but the cluster has 2 and 0"),
        ((None, 1.5), "a trial wants 1.5 GPUs; give a share of one, or whole ones"),
    ],
)
def test_what_no_cluster_can_give_is_refused(wanted: Any, expected: str) -> None:
    with pytest.raises(TrainingError, match=expected):
        share_resources(2, 0, wanted)


@pytest.mark.parametrize("kind", [ConnectionError, Exception])
def test_a_cluster_out_of_reach_is_one_line(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from ensembler.tuning.execute import ray_session

    def init(**options: Any) -> None:
        raise kind(f"no cluster\nat {options['address']}")

    monkeypatch.setattr(ray, "init", init)
    with (
        pytest.raises(TrainingError, match="Ray: no cluster can be reached or started at 'host:1'") as caught,
        ray_session("host:1"),
    ):
        pytest.fail("connected to nothing")
    assert "\n" not in str(caught.value)
    assert isinstance(TrialResources(1, 0), TrialResources)


# ---------------------------------------------------------------------- refine


def _refined(world: World, text: str, previous: Any) -> Sweep:
    sweep = _sweep(world, text, "a,b")
    return Sweep(sweep.config, sweep.data, sweep.backbones, world.store, sweep.observer, None, previous)


@pytest.mark.parametrize("algorithm", ["random", "optuna", "gp"])
def test_a_refined_search_begins_with_what_won_and_needs_the_earlier_run_once(
    algorithm: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _sweep(world, SEARCH % (12, "random"), "a,b")
    first.run()
    manifest = {"metric": "log_loss", "identity": {"fingerprint": "f"}, **world.store.values}
    previous = Previous.read("runs/first", manifest, world.store.trials())
    best = {
        name: min((t for t in previous.trials if t[0].backbone == name), key=lambda t: t[1]["score"])[0]
        for name in "ab"
    }
    again = World()
    again.store.values["identity"] = {"fingerprint": "f"}
    monkeypatch.setattr(module, "execute", again.execute)
    text = SEARCH % (6, algorithm) + "refine: runs/first\n"
    sweep = _refined(again, text, lambda: previous)
    assert [arm.default for arm in sweep.arms] == [best["a"], best["b"]]
    assert len(sweep._hints) == 12
    result = sweep.run()
    scores = [t["score"] for t in again.store.trials()]
    assert min(scores) <= min(t["score"] for t in world.store.trials())
    assert len(scores) == 6  # what was known before is not counted

    def gone() -> Previous:
        raise AssertionError("read again")

    assert _refined(again, text, gone).run().candidates == result.candidates


# ---------------------------------------------------------------------- halving


@pytest.mark.parametrize("algorithm", ["random", "grid", "optuna"])
def test_halving_is_the_same_whatever_the_order_of_arrival(
    algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (SEARCH % (20, algorithm)).replace("epochs: 2", "epochs: 9").replace("none", "halving")
    kept, records = [], []
    for slots in (1, 2, 5):
        world = World(slots=slots)
        world.outcome = _in_rungs

        @contextlib.contextmanager
        def session(*_: Any) -> Iterator[tuple[float, float]]:
            yield 2.0, 0.0

        monkeypatch.setattr(module, "ray_session", session)
        monkeypatch.setattr(module, "execute", world.execute)
        result = _sweep(world, text + "keep: 3\n", "a,b").run()
        kept.append(result.candidates)
        records.append({t["name"]: (t["status"], t["epochs"]) for t in world.store.trials()})
        before = len(world.store.trained)
        assert _sweep(world, text + "keep: 3\n", "a,b").run().candidates == result.candidates
        assert len(world.store.trained) == before
    assert kept[0] == kept[1] == kept[2]
    assert records[0] == records[1] == records[2]
    assert {"finished", "stopped"} == {status for status, _ in records[0].values()}
    assert {epochs for _, epochs in records[0].values()} <= {3, 9}


def _in_rungs(trial: Trial) -> Outcome:
    if trial.kind == "measure":
        return _fine(trial)
    candidate = trial.job.candidate
    n = trial.until or candidate.recipe.epochs
    history = tuple({"epoch": e + 1, "score": _score(candidate) + 1 / (e + 1)} for e in range(n))
    status: Any = "stopped" if trial.until else "finished"
    return Outcome(status, history[-1]["score"], history=history, seconds=1.0)


@pytest.mark.parametrize("moment", range(0, 40, 3))
def test_halving_goes_on_after_a_kill_to_the_same_end(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (SEARCH % (12, "random")).replace("epochs: 2", "epochs: 9").replace(
        "none", "halving"
    ) + "keep: 3\n"

    @contextlib.contextmanager
    def session(*_: Any) -> Iterator[tuple[float, float]]:
        yield 2.0, 0.0

    monkeypatch.setattr(module, "ray_session", session)
    ends = []
    for kill in (None, moment):
        world = World(outcome=_in_rungs, kill_before_note=kill)
        monkeypatch.setattr(module, "execute", world.execute)
        world.store.cell = lambda i, f, w=world: _as_trained(w, i)  # type: ignore[method-assign,misc]
        with contextlib.suppress(Killed):
            _sweep(world, text, "a").run()
        ends.append(_sweep(world, text, "a").run().candidates)
    assert ends[0] == ends[1]


def _as_trained(world: World, candidate_id: str) -> Any:
    listed = _sweep(world, (SEARCH % (12, "random")).replace("epochs: 2", "epochs: 9"), "a")._plan.listed
    candidate = next(c for c in listed if c.id == candidate_id)
    trial = Trial("search", "cell", CellJob(candidate, 0), 0)
    outcome = _in_rungs(trial)
    frame = pd.DataFrame([dict(h) for h in outcome.history])
    return SimpleNamespace(score=outcome.score, train_s=1.0, history=lambda: frame)


# ---------------------------------------------------------------------- screening


def test_screening_keeps_the_most_promising_backbones_and_records_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def scores(probes: Any, data: TrainingData) -> dict[str, tuple[float, float]]:
        asked.append(len(probes))
        return {"resnet18": (-0.5, -0.4), "resnet10t": (-0.6, -0.5), "vit_tiny_patch16_224": (-0.9, -0.8)}

    monkeypatch.setattr("ensembler.tuning.screen.score_backbones", scores)
    names = "resnet18,resnet10t,vit_tiny_patch16_224"
    world.outcome = lambda t: dataclasses.replace(
        _fine(dataclasses.replace(t, job=dataclasses.replace(t.job, candidate=_renamed(t.job.candidate))))
    )
    text = SEARCH % (4, "random") + "screen: {keep: 2}\n"
    result = _sweep(world, text, names, weights="w#1").run()
    tuned = {c.backbone for c in result.candidates if c.strategy != "probe"}
    assert tuned == {"resnet18", "vit_tiny_patch16_224"}  # of two families, though the third scores better
    assert {c.backbone for c in result.candidates if c.strategy == "probe"} == set(names.split(","))
    (left_out,) = result.failed
    assert (left_out["candidate"]["backbone"], left_out["stage"]) == ("resnet10t", "screen")
    assert "dropped by screening" in left_out["reason"]
    assert "resnet18, vit_tiny_patch16_224" in left_out["reason"]
    assert {t["candidate"]["backbone"] for t in world.store.trials()} == tuned
    again = _sweep(world, text, names, weights="w#1").run()
    assert (again.candidates, again.failed) == (result.candidates, result.failed)
    assert asked == [3]
    assert world.sessions == 1


def _renamed(candidate: Candidate) -> Candidate:
    return dataclasses.replace(candidate, backbone="a")


def test_features_are_scored_on_the_fold_of_the_search(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 3
    fold = (np.arange(80), np.arange(80, 120), np.arange(0))
    data = TrainingData(Path("p"), labels, ("x", "y", "z"), (fold,), "f", {}, tmp_path)
    probes = [Candidate(name, "w#1", "probe") for name in ("telling", "noise", "failed")]
    for probe, strength in zip(probes[:2], (6.0, 0.0), strict=True):
        features = rng.normal(0, 1, (120, 8)) + strength * np.eye(8)[labels]
        np.save(data.features_file(probe), features.astype(np.float32))
    scores = score_backbones(probes, data)
    assert scores.keys() == {"telling", "noise"}
    assert all(good > bad for good, bad in zip(scores["telling"], scores["noise"], strict=True))
