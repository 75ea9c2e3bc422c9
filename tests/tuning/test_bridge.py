"""Between Tune and our plans, driven as Tune drives it but without a cluster."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import Searcher

from ensembler.errors import StoreError
from ensembler.metrics import get_metric
from ensembler.training.candidate import Candidate, CellJob
from ensembler.training.recipe import Recipe
from ensembler.tuning import bridge
from ensembler.tuning.bridge import PlanSearcher, TrialWatch
from ensembler.tuning.events import EventWriter
from ensembler.tuning.plan import IDLE, Chain, Outcome, Stage, Trial
from ensembler.tuning.scheduler import MIN_TRIALS, MedianRule, plan_scheduler
from ensembler.tuning.watchdog import NO_NODE_S, Standstill, Watchdog

LOSS = get_metric("log_loss")


class Listener:
    def __init__(self, fail: str = "") -> None:
        self.heard: list[str] = []
        self.fail = fail

    def _hear(self, what: str) -> None:
        self.heard.append(what)
        if what.startswith(self.fail or "never"):
            raise StoreError("events.jsonl: cannot be written: No space left on device")

    def started(self, trial: Trial, stage_total: int) -> None:
        self._hear(f"started {trial.number} of {stage_total}")

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        self._hear(f"epoch {report['epoch']} of {trial.number}")

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        self._hear(f"retried {trial.number} after {attempt}: {reason}")

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        self._hear(f"ended {trial.number} {outcome.status} {outcome.score} {outcome.reason}".rstrip())


def _trials(n: int, stage: str = "search") -> list[Trial]:
    job = CellJob(Candidate("a", "random", "full", Recipe(epochs=4)), 0)
    return [Trial(stage, "cell", job, i) for i in range(n)]


def _result(epoch: int, score: float, **more: Any) -> dict[str, Any]:
    keys = dict.fromkeys(
        ("lr", "train_loss", "monitor_loss", "monitor_accuracy", "seconds", "images_per_s"), 1.0
    )
    return {**keys, "epoch": epoch, "score": score, "reported": True, "step_s": 0.5, **more}


@pytest.fixture
def told() -> list[Outcome]:
    return []


def _searcher(
    told: list[Outcome], listener: Listener, n: int = 2, slots: int = 1
) -> tuple[PlanSearcher, TrialWatch]:
    watch = TrialWatch()
    chain = Chain([lambda: Stage("search", _trials(n), lambda _t, o: told.append(o))])
    searcher = PlanSearcher(chain, listener, LOSS, watch, slots)
    for i in range(slots):  # the first suggestions only start the workers
        config = searcher.suggest(f"idle{i}")
        assert isinstance(config, dict)
        assert config["kind"] == IDLE
        watch.on_trial_start(0, [], SimpleNamespace(trial_id=f"idle{i}"))
    for i in range(slots):
        searcher.on_trial_complete(f"idle{i}", {})
    return searcher, watch


def test_a_finished_trial_is_told_with_its_best_score_history_and_time(told: list[Outcome]) -> None:
    listener = Listener()
    searcher, watch = _searcher(told, listener)
    config = searcher.suggest("t0")
    assert isinstance(config, dict)
    assert Trial.from_config(config).number == 0
    watch.on_trial_start(0, [], SimpleNamespace(trial_id="t0"))
    searcher.on_trial_result("t0", _result(1, 0.9))
    searcher.on_trial_result("t0", _result(2, 0.6))
    searcher.on_trial_result("t0", _result(3, 0.8))
    searcher.on_trial_complete("t0", _result(3, 0.7, reported=False, ended="finished"))
    assert listener.heard == [
        "started 0 of 2",
        "epoch 1 of 0",
        "epoch 2 of 0",
        "epoch 3 of 0",
        "ended 0 finished 0.6",
    ]
    assert [h["epoch"] for h in told[0].history] == [1, 2, 3]
    assert told[0].seconds == 2.0


def test_a_trial_that_the_scheduler_stopped_is_stopped_and_its_last_epoch_counts(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    searcher.suggest("t0")
    searcher.on_trial_result("t0", _result(1, 0.9))
    searcher.on_trial_complete("t0", _result(2, 0.5))
    assert (told[0].status, told[0].score) == ("stopped", 0.5)
    assert [h["epoch"] for h in told[0].history] == [1, 2]


def test_a_failure_is_told_with_its_reason(told: list[Outcome], tmp_path: Path) -> None:
    """As Tune calls: the scheduler at each death of a worker, the searcher after the last."""
    listener = Listener()
    searcher, watch = _searcher(told, listener, 3)
    for name in ("t0", "t1", "t2"):
        searcher.suggest(name)
    searcher.on_trial_complete(
        "t0", {"epoch": 0, "score": float("nan"), "ended": "failed", "reason": "loss is nan"}
    )
    scheduler = plan_scheduler(searcher, LOSS, "asha", 8)
    for number, again in ((1, True), (2, True), (3, False)):
        with (tmp_path / "error.txt").open("a") as file:
            file.write(
                f"Failure # {number} (occurred at noon)\ntrace\nOSError: {'b' if number == 3 else 'a'}\n"
            )
        dead = SimpleNamespace(
            **vars(_tune_trial(1)),
            error_file=str(tmp_path / "error.txt"),
        )
        dead.status = "ERROR" if again else "RUNNING"
        watch.on_trial_start(0, [], dead)
        scheduler.on_trial_add(None, dead)
        scheduler.on_trial_error(None, dead)
    searcher.on_trial_complete("t1", error=True)
    searcher.on_trial_complete("t2", error=True)
    assert [(o.status, o.score, o.reason) for o in told] == [
        ("failed", None, "loss is nan"),
        ("failed", None, "OSError: a; then OSError: b (tried 3 times)"),
        ("failed", None, "its worker died"),
    ]
    assert [h for h in listener.heard if h.startswith("retried")] == [
        "retried 1 after 1: OSError: a",
        "retried 1 after 2: OSError: a",
    ]


def test_a_trial_that_tune_gives_up_too_early_is_handed_out_again(told: list[Outcome]) -> None:
    """Tune hears of one lost node twice, the second time when the trial waits for its next worker."""
    listener = Listener()
    searcher, _ = _searcher(told, listener, 1)
    scheduler = plan_scheduler(searcher, LOSS, "asha", 8)
    for number in (1, 2, 3):
        config = searcher.suggest(f"t{number}")
        assert isinstance(config, dict)
        assert config["number"] == 0
        assert told == []
        dead = SimpleNamespace(**vars(_tune_trial(number)), error_file=None)
        for status in ("ERROR" if number < 3 else "RUNNING", "PENDING"):
            dead.status = status
            scheduler.on_trial_error(None, dead)
        searcher.on_trial_complete(f"t{number}", error=True)
    assert [o.reason for o in told] == ["its worker died (tried 3 times)"]
    assert [h for h in listener.heard if h.startswith("retried")] == [
        "retried 0 after 1: its worker died",
        "retried 0 after 2: its worker died",
    ]
    assert searcher.suggest("t4") == Searcher.FINISHED


def test_a_worker_that_hangs_is_ended_and_its_trial_says_so(
    told: list[Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    killed: list[str] = []
    monkeypatch.setattr(bridge.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bridge.ray, "kill", killed.append)
    listener = Listener()
    watch = TrialWatch(Watchdog(10.0))
    chain = Chain([lambda: Stage("search", _trials(1), lambda _t, o: told.append(o))])
    searcher = PlanSearcher(chain, listener, LOSS, watch, 1)
    searcher.suggest("idle")
    searcher.on_trial_complete("idle", {})
    searcher.suggest("t0")
    worker = SimpleNamespace(trial_id="t0", temporary_state=SimpleNamespace(ray_actor="the worker"))
    watch.on_trial_start(0, [], worker)
    for second in range(40):
        now[0] = float(second)
        if second in (5, 12):
            searcher.on_trial_result("t0", _result(1 + second // 10, 0.5))
        watch.on_step_end(0, [])
        assert killed == (["the worker"] if second >= 22 else []), second
    searcher.worker_failed("t0", "The actor died because of ray.kill", again=True)
    assert listener.heard[-1] == "retried 0 after 1: hung: its worker reported nothing for 11 s and was ended"


def test_a_cluster_that_has_lost_everything_ends_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(bridge.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(bridge.ray, "cluster_resources", dict)
    monkeypatch.setattr(bridge.ray, "available_resources", dict)
    watch = TrialWatch(Watchdog(), Standstill(1, 0))
    end = bridge.EndIf(watch)
    assert not end("t0", {})
    for second in range(int(NO_NODE_S) + 1):
        assert not end.stop_all()
        now[0] = float(second)
        watch.on_step_end(0, [])
    assert end.stop_all()
    assert watch.problem.startswith("Ray: no node is left that can run a trial")


def test_a_trial_started_again_forgets_the_epochs_of_the_worker_that_died(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    searcher.suggest("t0")
    searcher.on_trial_result("t0", _result(1, 0.1))
    searcher.on_trial_result("t0", _result(2, 0.2))
    searcher.on_trial_result("t0", _result(1, 0.9))
    searcher.on_trial_complete("t0", _result(1, 0.8, reported=False, ended="finished"))
    assert [h["epoch"] for h in told[0].history] == [1]
    assert told[0].score == 0.8


def test_where_an_epoch_ran_is_told_and_not_kept(told: list[Outcome]) -> None:
    reports: list[Mapping[str, Any]] = []
    listener = Listener()
    listener.epoch = lambda trial, report: reports.append(report)  # type: ignore[method-assign]
    searcher, _ = _searcher(told, listener)
    searcher.suggest("t0")
    searcher.on_trial_result("t0", _result(1, 0.9, pid=42, gpu_bytes=7, gpu_total_bytes=80, hostname="h"))
    searcher.on_trial_complete("t0", _result(1, 0.9, reported=False, ended="finished"))
    assert {key: reports[0][key] for key in ("pid", "gpu_bytes", "gpu_total_bytes")} == {
        "pid": 42, "gpu_bytes": 7, "gpu_total_bytes": 80,
    }  # fmt: skip
    assert "hostname" not in reports[0]
    assert not {"pid", "gpu_bytes", "gpu_total_bytes"} & set(told[0].history[0])


def test_the_start_of_a_trial_says_how_far_it_may_go() -> None:
    events: list[dict[str, Any]] = []

    class Log:
        def event(self, kind: str, **values: Any) -> None:
            events.append(values)

    writer = EventWriter(Log())
    (trial,) = _trials(1)
    writer.started(dataclasses.replace(trial, until=2), 5)
    writer.started(dataclasses.replace(trial, kind="measure"), 1)
    probe = CellJob(Candidate("a", "w", "probe"), 0)
    writer.started(dataclasses.replace(trial, job=probe), 1)
    assert [(e["epochs"], e["until"], e["total"]) for e in events] == [
        (4, 2, 5),
        (None, None, 1),
        (None, None, 1),
    ]


def test_when_all_is_told_the_search_is_finished(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener(), 1)
    searcher.suggest("t0")
    assert searcher.suggest("t1") is None
    searcher.on_trial_complete("t0", {"ended": "finished", "score": 0.5, "epoch": 1})
    assert searcher.suggest("t2") == Searcher.FINISHED
    assert searcher.may_leave("idle")


@pytest.mark.parametrize("moment", ["started", "epoch", "ended"])
def test_a_full_disk_in_the_driver_ends_the_sweep_instead_of_being_lost(
    moment: str, told: list[Outcome]
) -> None:
    searcher, watch = _searcher(told, Listener(fail=moment), 3)
    searcher.suggest("t0")
    watch.on_trial_start(0, [], SimpleNamespace(trial_id="t0"))
    searcher.on_trial_result("t0", _result(1, 0.5))
    searcher.on_trial_complete("t0", _result(1, 0.5, reported=False, ended="finished"))
    assert "No space left on device" in searcher.store_problem
    assert searcher.suggest("t1") == Searcher.FINISHED
    assert searcher.may_leave("idle")  # also a trial that only keeps a worker warm


def test_a_full_disk_in_a_worker_ends_the_sweep_too(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener(), 3)
    searcher.suggest("t0")
    problem = {"ended": "failed", "reason": "cells/x: No space left", "error_type": "StoreError", "epoch": 1}
    searcher.on_trial_complete("t0", {**problem, "score": 0.1})
    assert searcher.store_problem == "cells/x: No space left"
    assert searcher.suggest("t1") == Searcher.FINISHED


# ---------------------------------------------------------------------- scheduler


def _tune_trial(
    number: int, stage: str = "search", epochs: int = 8, stoppable: bool = True, until: int | None = None
) -> Any:
    if stage == IDLE:
        return SimpleNamespace(trial_id=f"t{number}", config={"stage": IDLE, "kind": IDLE}, status="RUNNING")
    job = CellJob(Candidate("a", "random", "full", Recipe(epochs=epochs)), 0)
    config = Trial(stage, "cell", job, number, stoppable, until).to_config()
    return SimpleNamespace(trial_id=f"t{number}", config=config, status="RUNNING")


def _decide(scheduler: Any, trial: Any, epoch: int, score: float, **more: Any) -> str:
    return str(
        scheduler.on_trial_result(None, trial, {"epoch": epoch, "score": score, "reported": True, **more})
    )


@pytest.mark.parametrize("metric", ["log_loss", "accuracy"])
def test_asha_stops_the_weak_of_the_search_and_no_other(metric: str, told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    direction = get_metric(metric)
    good, bad = (0.1, 0.9) if not direction.greater_is_better else (0.9, 0.1)
    scheduler = plan_scheduler(searcher, direction, "asha", 8)
    trials = [_tune_trial(i) for i in range(4)]
    other = _tune_trial(9, "crossval")
    for trial in [*trials, other]:
        scheduler.on_trial_add(None, trial)
    for trial in trials[:3]:
        assert _decide(scheduler, trial, 2, good) == TrialScheduler.CONTINUE
    assert _decide(scheduler, trials[3], 2, bad) == TrialScheduler.STOP
    assert _decide(scheduler, other, 2, bad) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("epochs", range(1, 13))
def test_a_trial_at_its_last_epoch_is_never_stopped(epochs: int, told: list[Outcome]) -> None:
    """Whatever the rungs are: it is about to predict its holdout."""
    searcher, _ = _searcher(told, Listener())
    scheduler = plan_scheduler(searcher, LOSS, "asha", epochs)
    trials = [_tune_trial(i, epochs=epochs) for i in range(5)]
    for i, trial in enumerate(trials):
        scheduler.on_trial_add(None, trial)
        decision = _decide(scheduler, trial, epochs, 0.1 + i)
        assert decision == TrialScheduler.CONTINUE
        scheduler.on_trial_complete(None, trial, {"epoch": epochs, "score": 0.1 + i, "reported": False})


def test_a_trial_that_must_not_be_stopped_is_not(told: list[Outcome]) -> None:
    """The default recipe of each backbone runs to its end, however weak it looks."""
    searcher, _ = _searcher(told, Listener())
    scheduler = plan_scheduler(searcher, LOSS, "asha", 8)
    trials = [_tune_trial(i, stoppable=i < 3) for i in range(4)]
    for trial in trials:
        scheduler.on_trial_add(None, trial)
    for trial in trials[:3]:
        _decide(scheduler, trial, 2, 0.1)
    assert _decide(scheduler, trials[3], 2, 0.9) == TrialScheduler.CONTINUE


def test_without_asha_nothing_is_stopped(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    scheduler = plan_scheduler(searcher, LOSS, "none", 8)
    for i in range(6):
        trial = _tune_trial(i)
        scheduler.on_trial_add(None, trial)
        assert _decide(scheduler, trial, 1, float(i)) == TrialScheduler.CONTINUE


def test_the_median_rule_stops_what_is_worse_than_the_median_of_the_others_best() -> None:
    rule = MedianRule(LOSS, grace=2)
    for i in range(MIN_TRIALS):
        assert not rule.stops(f"t{i}", 1, 9.0)
        assert not rule.stops(f"t{i}", 2, 1.0 + i)  # 1, 2, 3, 4: the median is 2.5
    assert not rule.stops("new", 1, 2.4)
    assert not rule.stops("new", 2, 7.0)  # its best so far counts, not its last
    assert not rule.stops("weak", 1, 99.0)  # within its grace
    assert rule.stops("weak", 2, 2.6)
    assert not MedianRule(LOSS, 1).stops("alone", 3, 1.0)


def test_the_median_rule_follows_the_direction_and_forgets_a_worker_that_died() -> None:
    rule = MedianRule(get_metric("accuracy"), grace=1)
    for i in range(MIN_TRIALS):
        rule.stops(f"t{i}", 1, 0.8)
    assert rule.stops("weak", 1, 0.7)
    assert not rule.stops("weak", 1, 0.9)  # started again, and better than what its dead worker had reported


def test_the_median_scheduler_stops_trials_of_the_search_that_may_be_stopped(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    scheduler = plan_scheduler(searcher, LOSS, "median", 8)
    trials = [_tune_trial(i, stoppable=i != 8) for i in range(9)]
    for trial in [*trials, _tune_trial(9, "crossval")]:
        scheduler.on_trial_add(None, trial)
    for trial in trials[:MIN_TRIALS]:
        assert _decide(scheduler, trial, 3, 0.5) == TrialScheduler.CONTINUE
    assert _decide(scheduler, trials[7], 3, 0.9) == TrialScheduler.STOP
    assert _decide(scheduler, trials[8], 3, 0.9) == TrialScheduler.CONTINUE
    assert _decide(scheduler, _tune_trial(9, "crossval"), 3, 0.9) == TrialScheduler.CONTINUE


def test_a_trial_of_a_rung_ends_there(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    scheduler = plan_scheduler(searcher, LOSS, "halving", 8)
    trial, to_the_end = _tune_trial(0, until=3, stoppable=False), _tune_trial(1)
    for one in (trial, to_the_end):
        scheduler.on_trial_add(None, one)
        assert _decide(scheduler, one, 2, 0.5) == TrialScheduler.CONTINUE
    assert _decide(scheduler, trial, 3, 0.5) == TrialScheduler.STOP
    assert _decide(scheduler, to_the_end, 3, 0.9) == TrialScheduler.CONTINUE


def test_a_failure_before_the_first_epoch_does_not_confuse_asha(told: list[Outcome]) -> None:
    searcher, _ = _searcher(told, Listener())
    scheduler = plan_scheduler(searcher, LOSS, "asha", 8)
    trial = _tune_trial(0)
    scheduler.on_trial_add(None, trial)
    failed = {"epoch": 0, "score": float("nan"), "reported": False, "ended": "failed"}
    assert scheduler.on_trial_result(None, trial, failed) == TrialScheduler.CONTINUE
    scheduler.on_trial_complete(None, trial, failed)
    assert _decide(scheduler, _added(scheduler, 1), 2, 0.5) == TrialScheduler.CONTINUE


def _added(scheduler: Any, number: int) -> Any:
    trial = _tune_trial(number)
    scheduler.on_trial_add(None, trial)
    return trial


def test_a_worker_is_kept_warm_until_all_have_started(told: list[Outcome]) -> None:
    watch = TrialWatch()
    chain = Chain([lambda: Stage("search", _trials(2), lambda _t, o: told.append(o))])
    searcher = PlanSearcher(chain, Listener(), LOSS, watch, 2)
    scheduler = plan_scheduler(searcher, LOSS, "asha", 8)
    idle = [_tune_trial(i, IDLE) for i in range(2)]
    for trial in idle:
        searcher.suggest(trial.trial_id)
        scheduler.on_trial_add(None, trial)
    watch.on_trial_start(0, [], idle[0])
    assert scheduler.on_trial_result(None, idle[0], {"epoch": 0}) == TrialScheduler.CONTINUE
    watch.on_trial_start(0, [], idle[1])
    assert scheduler.on_trial_result(None, idle[0], {"epoch": 0}) == TrialScheduler.STOP


def test_a_worker_is_given_up_to_a_trial_that_waits_for_one(told: list[Outcome]) -> None:
    """The first stage may hold fewer trials than there are workers, and be handed out before all have started."""
    watch = TrialWatch()
    makers = [lambda: Stage("measure", _trials(1, "measure")), lambda: Stage("search", _trials(3))]
    searcher = PlanSearcher(Chain(makers), Listener(), LOSS, watch, 2)
    for name in ("idle0", "idle1"):
        searcher.suggest(name)
    watch.on_trial_start(0, [], SimpleNamespace(trial_id="idle0"))
    assert isinstance(searcher.suggest("t0"), dict)
    assert searcher.suggest("nothing yet") is None
    watch.on_trial_start(0, [], SimpleNamespace(trial_id="idle1"))
    assert searcher.may_leave("idle0")
    assert not searcher.may_leave("idle1")  # one is enough: the other waits for the next stage
    searcher.on_trial_complete("idle0", {})
    watch.on_trial_start(0, [], SimpleNamespace(trial_id="t0"))
    assert not searcher.may_leave("idle1")
    searcher.on_trial_complete("t0", {"ended": "finished", "epoch": 0, "score": float("nan")})
    assert isinstance(searcher.suggest("t1"), dict)
    assert searcher.may_leave("idle1")


def test_what_tune_is_given_can_be_written_to_disk_whatever_progress_is_drawn_on(told: list[Outcome]) -> None:
    import threading

    from ray import cloudpickle

    listener = Listener()
    listener.lock = threading.RLock()  # type: ignore[attr-defined]
    searcher, watch = _searcher(told, listener)
    scheduler = plan_scheduler(searcher, LOSS, "asha", 4)
    for thing in (searcher, watch, scheduler):
        assert cloudpickle.loads(cloudpickle.dumps(thing)) is not None


def test_with_late_decisions_the_chain_is_asked_when_a_worker_is_free() -> None:
    told: list[Outcome] = []
    asked: list[int] = []

    class Asked(Stage):
        def ask(self) -> Trial | None:
            trial = super().ask()
            if trial is not None:
                asked.append(trial.number)
            return trial

    watch = TrialWatch()
    chain = Chain([lambda: Asked("search", _trials(4), lambda _t, o: told.append(o))])
    searcher = PlanSearcher(chain, Listener(), LOSS, watch, 2, late=True)

    def start(name: str) -> None:
        watch.on_trial_start(0, [], SimpleNamespace(trial_id=name))

    for name in ("idle0", "idle1"):
        assert searcher.suggest(name)["kind"] == IDLE  # type: ignore[index]
        start(name)
    for idle, name in (("idle0", "t0"), ("idle1", "t1")):
        assert searcher.suggest(name)["kind"] == "cell"  # type: ignore[index]
        assert searcher.may_leave(idle)
        searcher.on_trial_complete(idle, {})
        start(name)
    assert asked == [0, 1]
    assert searcher.suggest("idle2")["kind"] == IDLE  # type: ignore[index]
    assert searcher.suggest("x") is None  # one is ahead
    assert asked == [0, 1]
    searcher.on_trial_complete("t0", _result(1, 0.5, ended="finished"))
    start("idle2")  # the worker takes what was given ahead, and holds on to it
    assert not searcher.may_leave("idle2")
    assert searcher.suggest("t2")["kind"] == "cell"  # type: ignore[index]
    assert searcher.may_leave("idle2")
    assert asked == [0, 1, 2]
    assert len(told) == 1


# ---------------------------------------------------------------------- what is kept of what has ended


def test_trials_that_have_ended_share_what_the_first_of_them_holds() -> None:
    """Else Tune holds all of each trial until the sweep ends: a driver grew by 65 KiB a Cell."""
    watch = TrialWatch()
    trials = [
        SimpleNamespace(trial_id=f"t{n}", config={"n": n}, storage=[n], status="RUNNING") for n in range(3)
    ]
    for trial in trials[:2]:
        watch.on_trial_complete(0, trials, trial)
    assert trials[1].config == {"n": 1}  # Tune has still to let its worker go
    watch.on_step_end(0, trials)
    assert trials[0].config is trials[1].config
    assert trials[0].storage is trials[1].storage
    assert trials[1].trial_id == "t1"
    assert trials[2].config == {"n": 2}
    watch.on_trial_complete(0, trials, trials[2])
    watch.on_step_end(0, trials)
    assert trials[2].config is trials[0].config


def test_what_is_shared_is_what_a_trial_of_this_ray_holds() -> None:
    trial = RayTrial("none", stub=True)
    assert [name for name in bridge._HELD if not hasattr(trial, name)] == []


def test_of_the_config_tune_keeps_no_statistics() -> None:
    result = {"score": 0.5, "config": {"lr": 0.1}}
    TrialWatch().on_trial_result(0, [], None, result)
    assert result == {"score": 0.5}
