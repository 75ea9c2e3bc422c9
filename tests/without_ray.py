"""A sweep without Ray: the real searcher's trials, one after another, through the real worker class, in this process.

For tests of what a sweep leaves, which would pay fifteen seconds of two cores for Ray's own processes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest


def execute_here(
    chain: Any,
    data: Any,
    sink: Any,
    resources: Any,
    observer: Any,
    metric: Any,
    *_: Any,
    train: Callable[..., Any] | None = None,
    **__: Any,
) -> None:
    """In place of `tuning.execute.execute`."""
    from ray import cloudpickle
    from ray.tune.search import Searcher

    from ensembler.errors import StoreError, TrainingError
    from ensembler.tuning.bridge import PlanSearcher, TrialWatch
    from ensembler.tuning.plan import IDLE
    from ensembler.tuning.trainable import CellTrainable

    data, sink = cloudpickle.loads(cloudpickle.dumps((data, sink)))  # as they come to a worker
    watch = TrialWatch()
    searcher = PlanSearcher(chain, observer, metric, watch, slots=1)
    for trial_id in map(str, itertools.count()):
        config = searcher.suggest(trial_id)
        if config == Searcher.FINISHED:
            break
        assert isinstance(config, dict), "one trial at a time never waits"
        watch.on_start(trial_id)
        if config["kind"] == IDLE:
            searcher.on_trial_complete(trial_id, {})
            continue
        worker = object.__new__(CellTrainable)
        worker.setup(
            json.loads(json.dumps(config)), data, sink, train
        )  # a config is plain, for it is stored too
        while not (result := worker.step())["done"]:
            searcher.on_trial_result(trial_id, result)
        searcher.on_trial_complete(trial_id, result)
    if searcher.store_problem:
        raise StoreError(searcher.store_problem)
    if not chain.finished:
        raise TrainingError("the sweep ended early")


@contextmanager
def without_ray() -> Iterator[None]:
    """Sweeps and collapses within need no Ray."""
    with pytest.MonkeyPatch.context() as patch:
        for module in ("sweep", "collapse"):
            patch.setattr(f"ensembler.tuning.{module}.ray_session", lambda *_: nullcontext((1.0, 0.0)))
            patch.setattr(f"ensembler.tuning.{module}.execute", execute_here)
        yield
