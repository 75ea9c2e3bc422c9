"""Between our plans and Ray Tune's interfaces: a searcher that asks a chain, and tells it what came of it."""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.search import Searcher

from ..errors import StoreError
from ..metrics import Metric
from .deaths import cause_of
from .plan import IDLE, Chain, Outcome, Status, Trial
from .watchdog import Standstill, Watchdog

#: How often a trial is started again after its worker died.
RETRIES = 2

#: Seconds that the first worker waits for the others to start.
WARM_UP_S = 60.0

#: What an observer is told of the worker beside the epoch, see `load.gpu_memory`; `pid` is from Tune, `again` says that
#: the epoch was trained before its worker died.
_WORKER = ("pid", "gpu_bytes", "gpu_total_bytes", "again")


#: Seconds between two looks at who is silent.
LOOK_EVERY_S = 1.0


#: What is large of Tune's trial: the last is the promise of a result that nobody has waited for.
_HELD = ("config", "evaluated_params", "storage", "run_metadata", "temporary_state", "placement_group_factory",
         "_Trial__unresolved_config", "_default_result_or_future")  # fmt: skip


class TrialWatch(Callback):  # type: ignore[misc]
    """Sees what Tune does with its workers: tells the searcher when one takes a trial, ends those that hang.

    Args:
        watchdog: says who hangs.
        standstill: says when nothing will ever run again; None never does.
    """

    def __init__(self, watchdog: Watchdog | None = None, standstill: Standstill | None = None) -> None:
        self._watchdog = watchdog or Watchdog()
        self._standstill = standstill
        self._running: dict[str, Any] = {}
        self._hung: dict[str, str] = {}
        self._looked = -math.inf
        self._ended: list[Any] = []
        self._any_ended: Any = None
        self.on_start: Any = None
        self.problem = ""

    def __reduce__(self) -> Any:
        """Tune writes what it was given to disk: nobody reads it, and a terminal's bars cannot be pickled."""
        return type(self), ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when a worker takes a trial, again after a retry."""
        del iteration, trials, info
        self._running[trial.trial_id] = trial
        self._watchdog.began(trial.trial_id, self.on_start(trial.trial_id))

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Called by Tune with each result before it keeps it, which may be changed.

        Of each number of a result Tune keeps six statistics, until the sweep ends; most numbers are of the config.
        """
        del iteration, trials, trial, info
        result.pop("config", None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Tune when a trial has ended, and the searcher has been told; Tune lets its worker go after this."""
        del iteration, trials, info
        self._ended.append(trial)

    def heard(self, trial_id: str, step_s: float) -> None:
        """A worker reported."""
        self._watchdog.heard(trial_id, step_s)

    def ended(self, trial_id: str) -> str:
        """A worker has ended with a trial, or died of it; why, if it was ended for hanging, or ""."""
        self._running.pop(trial_id, None)
        self._watchdog.ended(trial_id)
        return self._hung.pop(trial_id, "")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Called by Tune several times a second, whatever happens."""
        del iteration, trials, info
        self._forget()
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        for trial_id, reason in self._watchdog.overdue(now).items():
            self._hung[trial_id] = reason
            ray.kill(self._running[trial_id].temporary_state.ray_actor)  # Tune then sees a worker that died
        if self._standstill is not None:
            self.problem = self._standstill.problem(
                now, bool(self._running), lambda: (ray.cluster_resources(), ray.available_resources())
            )

    def _forget(self) -> None:
        """Has trials that have ended share what the first of them holds.

        Tune keeps them all until the sweep ends, which is 60 KiB a trial; nobody asks them for anything.
        """
        for trial in self._ended:
            first = self._any_ended = self._any_ended or trial
            for name in _HELD:
                if hasattr(trial, name):
                    setattr(trial, name, getattr(first, name))
        self._ended.clear()


class EndIf(Stopper):  # type: ignore[misc]
    """Ends the sweep when the watch has found that it cannot go on."""

    def __init__(self, watch: TrialWatch) -> None:
        self._watch = watch

    def __reduce__(self) -> Any:
        """See `TrialWatch`."""
        return type(self), (TrialWatch(),)

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether one trial is to stop: the scheduler decides that."""
        del trial_id, result
        return False

    def stop_all(self) -> bool:
        """Asked by Tune after each event."""
        return bool(self._watch.problem)


class PlanSearcher(Searcher):  # type: ignore[misc]
    """Hands the trials of a chain to Tune, and the results of Tune to the chain and the observer.

    Tune asks for trials before there is a worker for them: one that has nothing to do is ended. With `late`, what it is
    given ahead only keeps a worker busy until the chain, asked when a worker has become free, has decided: a budget
    must not be spent on what was chosen one Cell ago. It costs a third of a second a trial.
    """

    def __init__(
        self, chain: Chain, observer: Any, metric: Metric, watch: TrialWatch, slots: int, late: bool = False
    ) -> None:
        super().__init__(metric="score", mode="max" if metric.greater_is_better else "min")
        self._chain = chain
        self._observer = observer
        self._goal = metric
        self._watch = watch
        watch.on_start = self._started
        self._slots = slots
        self._late = late
        self._ahead = max(1, slots // 4)
        self._idle: set[str] = set()
        self._leaving: set[str] = set()
        self._begun: set[str] = set()
        self._alive: set[str] = set()
        self._cold = slots
        self._warm_by = math.inf
        self._trials: dict[str, Trial] = {}
        self._deaths: dict[Trial, list[str]] = {}
        self._given_back: deque[Trial] = deque()
        self._history: dict[str, list[dict[str, Any]]] = {}
        self._seconds: dict[str, float] = {}
        self.store_problem = ""

    def __reduce__(self) -> Any:
        """See `TrialWatch`."""
        return Searcher, ()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config; None when others have to end first."""
        if self._cold:
            self._cold -= 1
            return self._keep_alive(trial_id)
        if self._late and len(self._trials) >= self._slots:
            return self._keep_alive(trial_id) if len(self._idle) < self._ahead else None
        trial = None
        with self._stopping():
            trial = None if self.store_problem else self._next()
        if trial is None:
            if self._chain.finished or self.store_problem:
                return str(Searcher.FINISHED)
            if self._chain.waiting and len(self._idle) + len(self._trials) < self._slots:
                return self._keep_alive(trial_id)
            return None
        self._trials[trial_id] = trial
        self._history[trial_id] = []
        self._seconds[trial_id] = 0.0
        return trial.to_config()

    def _next(self) -> Trial | None:
        return self._given_back.popleft() if self._given_back else self._chain.ask()

    def may_leave(self, trial_id: str) -> bool:
        """Whether a trial that keeps a worker alive may end.

        Tune ends a worker that has nothing to do, and gives up one that is still starting when another becomes free.
        Starting takes seconds, so workers are held until all have started, and between two stages; but a trial that
        was handed out and has no worker yet is given one.
        """
        warm = len(self._alive) >= self._slots or time.monotonic() > self._warm_by
        needed = len(self._trials.keys() - self._begun) > len(self._leaving & self._idle)
        ending = self._chain.finished or bool(self.store_problem)
        leaves = ending or (warm and (needed or not (self._late or self._chain.waiting)))
        if leaves:
            self._leaving.add(trial_id)
        return leaves

    def _keep_alive(self, trial_id: str) -> dict[str, Any]:
        self._idle.add(trial_id)
        return {"stage": IDLE, "kind": IDLE}

    def _started(self, trial_id: str) -> str:
        """Takes the start of a trial; returns its backbone, "" for one that keeps a worker alive."""
        if trial_id in self._idle:
            self._alive.add(trial_id)
            self._warm_by = min(self._warm_by, time.monotonic() + WARM_UP_S)
        stage = self._chain.stage
        if trial_id in self._trials:
            self._begun.add(trial_id)
            with self._stopping():
                self._observer.started(self._trials[trial_id], stage.total if stage else 0)
            return self._trials[trial_id].job.candidate.backbone
        return ""

    def worker_failed(self, trial_id: str, error: str, again: bool) -> None:
        """Takes the death of a trial's worker.

        Args:
            trial_id: of Tune.
            error: Ray's words.
            again: whether Tune gives the trial another worker.
        """
        reason = self._watch.ended(trial_id) or cause_of(error)
        trial = self._trials.get(trial_id)
        if trial is None:
            return
        self._begun.discard(trial_id)
        deaths = self._deaths.setdefault(trial, [])
        deaths.append(reason)
        if again:
            with self._stopping():
                self._observer.retried(trial, reason, len(deaths))

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Passes an epoch on."""
        with self._stopping():
            self._note(trial_id, result)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Passes the end of a trial on."""
        with self._stopping():
            self._complete(trial_id, result, error)

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        """When the store cannot be written, no further trial starts: Tune would hide what is raised in here."""
        try:
            yield
        except StoreError as error:
            self.store_problem = self.store_problem or str(error)  # the first is the cause

    def _complete(self, trial_id: str, result: dict[str, Any] | None, error: bool) -> None:
        self._watch.ended(trial_id)
        for ids in (self._idle, self._leaving, self._begun):
            ids.discard(trial_id)
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        deaths = self._deaths.get(trial, [])
        if error and 0 < len(deaths) <= RETRIES:
            # Of a node that is lost Tune may hear twice, and gives up a trial that waits for its next worker already.
            del self._history[trial_id], self._seconds[trial_id]
            self._given_back.append(trial)
            return
        self._deaths.pop(trial, None)
        result = result or {}
        history = self._history.pop(trial_id)
        if result.get("reported") and (not history or history[-1]["epoch"] < result["epoch"]):
            self._note_epoch(trial, history, result)
        scores = [h["score"] for h in history]
        if result.get("ended") == "finished" and math.isfinite(result.get("score", math.nan)):
            scores.append(result["score"])
        best = max(scores, key=lambda s: self._goal.improvement(s, 0.0)) if scores else None
        status: Status = "failed" if error else result.get("ended", "stopped")
        reason = result.get("reason", "") if not error else _all_of(deaths)
        outcome = Outcome(
            status=status,
            score=best,
            reason=reason,
            history=tuple(history),
            extra=json.loads(result.get("extra", "{}")),
            seconds=self._seconds.pop(trial_id) + float(result.get("step_s", 0.0)),
        )
        unstored = result.get("error_type") == "StoreError"
        if unstored:
            self.store_problem = self.store_problem or reason
        self._observer.ended(trial, outcome)
        if not unstored:  # else nothing is put on record: it says nothing of the trial
            self._chain.tell(trial, outcome)

    def _note(self, trial_id: str, result: dict[str, Any]) -> None:
        self._watch.heard(trial_id, float(result.get("step_s", 0.0)))
        trial = self._trials.get(trial_id)
        if trial is None:
            return
        self._seconds[trial_id] += float(result.get("step_s", 0.0))
        if result.get("reported"):
            self._note_epoch(trial, self._history[trial_id], result)

    def _note_epoch(self, trial: Trial, history: list[dict[str, Any]], result: dict[str, Any]) -> None:
        keys = (
            "epoch",
            "lr",
            "train_loss",
            "monitor_loss",
            "monitor_accuracy",
            "score",
            "seconds",
            "images_per_s",
        )
        report = {key: result[key] for key in keys}
        if history and report["epoch"] <= history[-1]["epoch"]:
            history.clear()  # started again after its worker died
        history.append(report)
        # Where it ran is news, not a result: it stays out of what is kept of the trial.
        self._observer.epoch(trial, report | {key: result[key] for key in _WORKER if key in result})

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store decides what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def _all_of(deaths: list[str]) -> str:
    """Why the workers of one trial died, each reason once, and how often it was tried."""
    said = "; then ".join(dict.fromkeys(deaths)) or "its worker died"
    return f"{said} (tried {len(deaths)} times)" if len(deaths) > 1 else said
