"""Runs a chain of trials on Ray Tune. Ray executes; the store is the truth."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..errors import StoreError, TrainingError
from ..metrics import Metric
from ..training.candidate import CellJob, CellResult, Epoch, TrainingData
from .loopback import on_loopback, warn_if_reachable, withhold_secrets
from .plan import Chain, Outcome, Trial
from .watchdog import Standstill, Watchdog

#: Trains a Cell, pausing after each epoch: `training.loop.fit_cell`.
Train = Callable[[CellJob, TrainingData], Generator[Epoch, None, CellResult]]

# No console output of Tune's own, no snapshot of its state more often than needed: our store
# decides what is done. Tune reads these when it is imported.
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    # Ray starts workers at niceness 15, where anything else on the machine starves them.
    "RAY_worker_niceness": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own ends the sweep as if it were complete
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


class Observer(Protocol):
    """Sees what happens, in the driver; draws progress or writes events."""

    def started(self, trial: Trial, stage_total: int) -> None:
        """A worker took a trial; again after a retry."""

    def epoch(self, trial: Trial, report: Mapping[str, Any]) -> None:
        """A trial reported an epoch; the keys are those of `Epoch`, and some about the worker."""

    def retried(self, trial: Trial, reason: str, attempt: int) -> None:
        """The worker of a trial died, for the `attempt`-th time; the trial is started again by another."""

    def ended(self, trial: Trial, outcome: Outcome) -> None:
        """A trial ended."""


@dataclass(frozen=True)
class TrialResources:
    """What one trial takes: logical CPUs and GPUs, or shares of one."""

    cpus: float
    gpus: float


def set_environment() -> None:
    """Sets what Ray and its workers read from the environment, where nobody has set it otherwise."""
    os.environ.update({k: v for k, v in _ENVIRONMENT.items() if k not in os.environ})


@contextmanager
def ray_session(address: str | None = None, gpus: int | None = None) -> Iterator[tuple[float, float]]:
    """Connects to a cluster, or starts a local one on loopback without a dashboard; yields its (cpus, gpus).

    Args:
        address: of a running cluster; None reads RAY_ADDRESS, and starts a local one if that is unset.
        gpus: logical GPUs of a local cluster; None counts those there are.
    """
    set_environment()
    import ray

    address = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        options["address"] = address
    else:
        options |= {
            "address": "local",
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
            "object_store_memory": 128 * 1024 * 1024,
            "num_gpus": gpus,
        }
    try:
        with _quiet(), nullcontext() if address else on_loopback(), _sigterm_as_it_was():
            ray.init(**options)
    except Exception as error:  # of a node that starts too slowly Ray says so by just that class
        where = f"at {address!r} (RAY_ADDRESS)" if address else "on this machine"
        reason = " ".join(str(error).split())[:300]
        way_out = (
            "start it, or unset RAY_ADDRESS"
            if address
            else "run `ray stop`, and see that /tmp has room and the machine time for it"
        )
        raise TrainingError(
            f"Ray: no cluster can be reached or started {where}: {reason}; {way_out}"
        ) from error
    try:
        if not address:
            warn_if_reachable()
        found = ray.cluster_resources()
        yield float(found.get("CPU", 0)), float(found.get("GPU", 0))
    finally:
        with _quiet():
            ray.shutdown()


@contextmanager
def _sigterm_as_it_was() -> Iterator[None]:
    """Keeps what SIGTERM does: Ray has it end the process with 15, which is better than the default alone.

    While Ray starts, a handler of its own ends its processes and then ours, with 1: the signal is handed on.
    """
    before = signal.getsignal(signal.SIGTERM)
    kept = before is not signal.SIG_DFL and threading.current_thread() is threading.main_thread()
    try:
        yield
    except SystemExit:
        if callable(before):
            before(signal.SIGTERM, None)
        raise
    finally:
        if kept:
            signal.signal(signal.SIGTERM, before)


def share_resources(cpus: float, gpus: float, wanted: tuple[float | None, float | None]) -> TrialResources:
    """What one trial takes of a cluster: as wanted, else one GPU and its share of the CPUs, or one CPU.

    Raises:
        TrainingError: when the cluster cannot ever run one such trial.
    """
    wanted_cpus, wanted_gpus = wanted
    trial_gpus = wanted_gpus if wanted_gpus is not None else (1.0 if gpus else 0.0)
    trial_cpus = wanted_cpus
    if trial_cpus is None:
        trial_cpus = max(1.0, cpus * trial_gpus // gpus) if trial_gpus and gpus else 1.0
    if trial_gpus > 1 and trial_gpus != int(trial_gpus):
        raise TrainingError(
            f"resources: a trial wants {trial_gpus:g} GPUs; give a share of one, or whole ones"
        )
    if trial_cpus > cpus or trial_gpus > gpus:
        raise TrainingError(
            f"resources: a trial wants {trial_cpus:g} CPUs and {trial_gpus:g} GPUs, but the cluster has {cpus:g} and "
            f"{gpus:g}; lower `resources`"
        )
    return TrialResources(trial_cpus, trial_gpus)


def execute(
    chain: Chain,
    data: TrainingData,
    sink: Any,
    resources: TrialResources,
    observer: Observer,
    metric: Metric,
    slots: int,
    scheduler: str = "none",
    epochs: int = 1,
    train: Train | None = None,
    late: bool = False,
    watchdog: Watchdog | None = None,
) -> None:
    """Runs every trial of a chain; returns when the chain has finished.

    Args:
        chain: what to train.
        data: what to train on; sent to each worker once.
        sink: see `CellSink`.
        resources: of one trial.
        observer: told of everything that happens.
        metric: direction of the scores.
        slots: trials that fit on the cluster at a time.
        scheduler: stops trials of the stage "search" early; see `plan_scheduler`.
        epochs: most epochs of such a trial.
        train: trains a Cell; `fit_cell` unless a benchmark measures what is around it.
        late: ask the chain for a trial only when a worker is free, see `PlanSearcher`.
        watchdog: says which trials hang.

    Raises:
        StoreError: a worker could not write a Cell.
        TrainingError: the cluster has lost what a trial needs.
    """
    from ray import tune

    from .bridge import RETRIES, EndIf, PlanSearcher, TrialWatch
    from .scheduler import plan_scheduler
    from .trainable import CellTrainable

    # As many trials wait as can run: with one, the worker that has just become free takes it each time, and the
    # start of a second worker, which takes longer than a short trial, is cancelled again and again.
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(slots)
    withhold_secrets()
    watch = TrialWatch(watchdog, Standstill(resources.cpus, resources.gpus))
    searcher = PlanSearcher(chain, observer, metric, watch, slots, late)
    stopping = plan_scheduler(searcher, metric, scheduler, epochs)
    # Tune keeps snapshots of its own, which nobody reads: they live and die with this call.
    scratch = Path(tempfile.mkdtemp(prefix="ensembler-tune-"))
    try:
        with _quiet():
            trainable = tune.with_parameters(CellTrainable, data=data, sink=sink, train=train)
            tuner = tune.Tuner(
                tune.with_resources(trainable, {"cpu": resources.cpus, "gpu": resources.gpus}),
                tune_config=tune.TuneConfig(
                    search_alg=searcher, scheduler=stopping, num_samples=-1, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    storage_path=str(scratch),
                    name="sweep",
                    verbose=0,
                    callbacks=[watch],
                    stop=EndIf(watch),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=RETRIES),
                ),
            )
            tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if searcher.store_problem:
        raise StoreError(searcher.store_problem)
    if watch.problem:
        raise TrainingError(watch.problem)
    if not chain.finished:
        raise TrainingError("Ray ended the sweep before its last trial; run the same command again to go on")


def slots_for(resources: TrialResources, cpus: float, gpus: float) -> int:
    """How many trials a cluster of so many CPUs and GPUs runs at a time, at least one."""
    by_cpu = cpus / resources.cpus
    by_gpu = gpus / resources.gpus if resources.gpus else by_cpu
    return max(1, math.floor(min(by_cpu, by_gpu)))


def threads_for(resources: TrialResources) -> int:
    """Threads of one trial: its whole CPUs, at least one."""
    return max(1, math.floor(resources.cpus))


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences Ray's own words: deprecations inside it, advice on settings made on purpose, tracebacks of workers.

    A trial that fails is told to the observer, with its reason.
    """
    loggers = [logging.getLogger(name) for name in ("ray", "ray.tune")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
