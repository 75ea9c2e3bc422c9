"""Which trials of the search are stopped early, and the end of those that only keep workers alive."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from ..metrics import Metric
from .plan import IDLE

if TYPE_CHECKING:
    from .bridge import PlanSearcher

#: Trials that must have reached an epoch before the median rule stops another there.
MIN_TRIALS = 4


def grace_epochs(epochs: int) -> int:
    """Epochs that every trial is given before it may be stopped."""
    return max(1, epochs // 4)


class MedianRule:
    """Stops a trial whose best score so far is worse than the median of what the others had reached by then.

    The median stopping rule of Golovin et al. 2017 ("Google Vizier"), with the others' best instead of their mean:
    a loss that falls makes every mean look worse than it is.

    Args:
        metric: direction of the scores.
        grace: first epoch after which a trial may be stopped.
    """

    def __init__(self, metric: Metric, grace: int) -> None:
        self._goal = metric
        self._grace = grace
        self._best: dict[str, dict[int, float]] = {}

    def stops(self, trial: str, epoch: int, score: float) -> bool:
        """Takes a score; True when the trial is to be stopped."""
        mine = self._best.setdefault(trial, {})
        for later in [e for e in mine if e >= epoch]:
            del mine[later]  # started again after its worker died
        before = mine[max(mine)] if mine else score
        mine[epoch] = score if self._goal.improvement(score, before) > 0 else before
        if epoch < self._grace:
            return False
        others = [best[epoch] for key, best in self._best.items() if key != trial and epoch in best]
        return len(others) >= MIN_TRIALS and self._goal.improvement(mine[epoch], median(others)) < 0


def plan_scheduler(searcher: PlanSearcher, metric: Metric, name: str, epochs: int) -> TrialScheduler:
    """The scheduler of a config over the trials of the stage "search".

    Args:
        searcher: knows when a worker may leave.
        metric: direction of the scores.
        name: "asha", "median", or what stops none: "halving", whose trials say themselves how far they go, and
            "none".
        epochs: most epochs of a trial of the search.
    """
    base: Any = ASHAScheduler if name == "asha" else FIFOScheduler
    rule = MedianRule(metric, grace_epochs(epochs)) if name == "median" else None

    class PlanScheduler(base):  # type: ignore[misc]
        def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
            if _in_search(trial):
                super().on_trial_add(tune_controller, trial)

        def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if trial.config["kind"] == IDLE:
                return str(
                    TrialScheduler.STOP if searcher.may_leave(trial.trial_id) else TrialScheduler.CONTINUE
                )
            # A trial at its last epoch is to predict its holdout, not to be stopped at a rung there.
            if not result.get("reported") or result["epoch"] >= _epochs(trial):
                self._heed(tune_controller, trial, result)
                return str(TrialScheduler.CONTINUE)
            if trial.config["until"] is not None and result["epoch"] >= trial.config["until"]:
                return str(TrialScheduler.STOP)
            stops = self._heed(tune_controller, trial, result) and trial.config["stoppable"]
            return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)

        def _heed(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> bool:
            """Lets the rule see a result, also one that cannot be stopped; whether it would stop it."""
            if not _in_search(trial) or not result.get("reported"):
                return False
            if rule is not None:
                return rule.stops(trial.trial_id, result["epoch"], result["score"])
            decision = super().on_trial_result(tune_controller, trial, result)
            return bool(decision == TrialScheduler.STOP)

        def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
            if _in_search(trial) and result.get("reported"):
                super().on_trial_complete(tune_controller, trial, result)

        def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
            # The only call of Tune's for each death of a worker, also the last, before the trial is over. One that is
            # to be started again has been given up by then; one that waits for a worker has lost none.
            if trial.status != Trial.PENDING:
                searcher.worker_failed(trial.trial_id, _said(trial), again=trial.status == Trial.ERROR)
            if _in_search(trial):
                super().on_trial_error(tune_controller, trial)

        def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
            if _in_search(trial):
                super().on_trial_remove(tune_controller, trial)

    if name != "asha":
        return PlanScheduler()
    return PlanScheduler(
        time_attr="epoch",
        metric="score",
        mode="max" if metric.greater_is_better else "min",
        max_t=epochs + 1,
        grace_period=grace_epochs(epochs),
        reduction_factor=2,
    )


def _said(trial: Any) -> str:
    """What Tune has noted of the errors of a trial; its `get_error` looks where they are copied to later, if at all."""
    file = trial.error_file
    return Path(file).read_text(encoding="utf-8", errors="replace") if file and Path(file).exists() else ""


def _epochs(trial: Any) -> int:
    return int(trial.config["job"]["candidate"]["recipe"]["epochs"])


def _in_search(trial: Any) -> bool:
    return bool(trial.config.get("stage") == "search")
