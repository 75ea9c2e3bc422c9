"""A small run that takes a tenth of a second, and the verbs that fill it, one after another.

Ray is replaced by a loop that hands the real searcher's trials to the real worker class, and training by arrays drawn
from the job's seed; frozen features and heads are the real ones. What is read off a clock is constant, so that a run
has the same bytes each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.without_ray import execute_here

CONFIG = """
name: small
data: {source: images/train, test: images/test, image_size: 32}
folds: {k: 2, seed: 0, monitor: 0.25}
backbones: [{test_resnet: {weights: weights.safetensors}}]
recipe: {batch_size: 8, layer_decay: 1.0}
search: {trials: 2, epochs: 1, algorithm: grid, scheduler: none, space: {lr: [1.0e-3, 2.0e-3], head_lr: [1.0e-2]}}
keep: 1
ensembles: [mean, greedy]
numerics: {precision: fp32, channels_last: true}
"""


def toy_cell(job: Any, data: Any) -> Iterator[Any]:
    """In place of `fit_cell`: arrays drawn from the job; what works on frozen features is trained as ever."""
    from ensembler.probability import softmax
    from ensembler.training.backbone import create, to_arrays
    from ensembler.training.candidate import CellResult, Epoch
    from ensembler.training.loop import fit_cell

    if job.candidate.frozen_body:
        result = yield from fit_cell(job, data)
        return dataclasses.replace(result, train_s=1.0)
    yield Epoch(1, job.candidate.recipe.lr, 1.0, 0.9, 0.5, 0.9, 0.1, 10.0)
    rng = np.random.default_rng(int(job.key(data.fingerprint)[:8], 16))
    holdout = data.rows(job.fold)[2]
    proba = softmax(rng.normal(size=(len(holdout), len(data.classes))) + 2 * np.eye(3)[data.labels[holdout]])
    weights = _body(job.candidate.backbone, len(data.classes), create, to_arrays)
    score = 0.5 + 1e2 * job.candidate.recipe.lr + 1e-3 * job.fold
    return CellResult(
        job, proba.astype(np.float32), weights, 1.0, score, 1,
        (Epoch(1, job.candidate.recipe.lr, 1.0, 0.9, 0.5, 0.9, 0.1, 10.0),), 1.0, 10,
    )  # fmt: skip


@functools.cache
def _body(backbone: str, classes: int, create: Any, to_arrays: Any) -> Any:
    import torch

    torch.manual_seed(0)
    return to_arrays(create(backbone, classes).state_dict())


def stand_in() -> None:
    """Replaces Ray, training and every clock whose reading is stored."""
    from ensembler import preparation
    from ensembler.bundle.member import Member
    from ensembler.tuning import sweep

    sweep.ray_session = lambda *_: contextlib.nullcontext((1.0, 0.0))
    sweep.execute = functools.partial(execute_here, train=toy_cell)
    preparation._commit = lambda _folder: None
    Member.latency_ms = lambda *_, **__: 1.0  # type: ignore[method-assign]


def write_experiment(home: Path) -> None:
    """Images of three colours, weights, the config, and a file of predictions."""
    import torch
    from PIL import Image
    from safetensors.numpy import save

    from ensembler.training.backbone import create, to_arrays

    rng = np.random.default_rng(0)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    for split, n in (("train", 24), ("test", 6)):
        for i in range(n):
            pixels = np.clip(colours[i % 3] + rng.normal(0, 60, (24, 24, 3)), 0, 255).astype(np.uint8)
            folder = home / "images" / split / ("ant", "bee", "cow")[i % 3]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    torch.manual_seed(0)
    (home / "weights.safetensors").write_bytes(save(to_arrays(create("test_resnet", 5).state_dict())))
    (home / "small.yaml").write_text(CONFIG)
    fold = [i % 3 for i in range(12)]
    lines = [
        f"{m},i{i},{'ab'[i % 2]},{fold[i]},{p:.3f},{1 - p:.3f}"
        for m in ("one", "two")
        for i, p in enumerate(rng.random(12))
    ]
    (home / "bare.csv").write_text("member,sample_id,label,fold,a,b\n" + "\n".join(lines) + "\n")


# ---------------------------------------------------------------------- steps


@dataclasses.dataclass(frozen=True)
class Step:
    """A verb.

    Attributes:
        name: shown to people.
        after: the step whose run it begins with; None begins with nothing.
        call: raises SystemExit where it fails.
        done: what it says where it has come so far the first time that there is nothing left but the leaderboard.
    """

    name: str
    after: str | None
    call: Callable[[Path], None]
    done: tuple[str, ...] = ()


def verb(*arguments: str) -> Callable[[Path], None]:
    def call(home: Path) -> None:
        from ensembler.cli import main

        code = main([a.format(home=home, run=home / "run") for a in arguments])
        if code:
            raise SystemExit(code)

    return call


def _saves(home: Path) -> None:
    """What the app's lab does."""
    from ensembler.saving import save_ensemble
    from ensembler.store import RunStore

    with _as_cli():
        save_ensemble(RunStore(home / "run"), "mine", {"combiner": "mean"})


def _forgets(home: Path) -> None:
    from ensembler.saving import forget_ensemble
    from ensembler.store import RunStore

    with _as_cli():
        forget_ensemble(RunStore(home / "run"), "mine")


@contextlib.contextmanager
def _as_cli() -> Iterator[None]:
    from ensembler.errors import EnsemblerError

    try:
        yield
    except EnsemblerError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


STEPS = (
    Step("sweep", None, verb("sweep", "{home}/small.yaml", "-o", "{run}")),
    Step("run", "sweep", verb("run", "{home}/small.yaml", "-o", "{run}")),
    Step("combine", "run", verb("combine", "{run}")),
    Step("compare", "run", verb("compare", "{run}")),
    Step("leaderboard", "run", verb("leaderboard", "{run}")),
    Step("save", "run", _saves, ("stands on the leaderboard already",)),
    Step("forget", "save", _forgets, ("no saved ensemble",)),
    Step("export", "run", verb("export", "{run}", "--format", "torch", "-o", "{run}/bundle")),
    Step("bare", None, verb("combine", "--predictions", "{home}/bare.csv", "-o", "{run}")),
)
