"""Every operation on the files of a small run fails, one after another, with each errno, once and for good.

A run is filled by verbs of the command line, one step after another. Each step begins with the run as the steps
before it have left it, and goes through quietly first; then again for every n with the n-th operation failing. After
each of these:

- the command has ended with exit 2 and one line that names path, cause and way out; or with 0 where nothing was lost;
- every file that is there is one that stood there before, or one that the quiet pass wrote, to the byte;
- the store can be read: Cells and ensembles whole or absent, every line of the log but the last;
- the same command, once the cause is gone, leaves what the quiet pass left, to the byte.

Ray is replaced by a loop that hands the real searcher's trials to the real worker class, and training by arrays drawn
from the job's seed, so that a step takes a tenth of a second; frozen features and heads are the real ones. The process
has to be started with the shim (`tests/faults/shim.py`).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import errno
import functools
import io
import itertools
import json
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .shim import KINDS, Shim

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

#: Names that belong to whoever works on the run now.
SCRATCH, LOCKS = ".tmp-", (".lock", ".driver.json")

CODES = (errno.ENOSPC, errno.EIO, errno.EPERM)


# ---------------------------------------------------------------------- a quick run


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


def execute_here(
    chain: Any, data: Any, sink: Any, resources: Any, observer: Any, metric: Any, *_: Any, **__: Any
) -> None:
    """In place of Ray: the searcher's trials, one after another, through the worker class."""
    from ray.tune.search import Searcher

    from ensembler.errors import StoreError, TrainingError
    from ensembler.tuning.bridge import PlanSearcher, TrialWatch
    from ensembler.tuning.plan import IDLE
    from ensembler.tuning.trainable import CellTrainable

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
        worker.setup(config, data, sink, toy_cell)
        while not (result := worker.step())["done"]:
            searcher.on_trial_result(trial_id, result)
        searcher.on_trial_complete(trial_id, result)
    if searcher.store_problem:
        raise StoreError(searcher.store_problem)
    if not chain.finished:
        raise TrainingError("the sweep ended early")


@contextlib.contextmanager
def _no_ray(*_: Any) -> Iterator[tuple[float, float]]:
    yield 1.0, 0.0


def stand_in() -> None:
    """Replaces Ray, training and every clock whose reading is stored."""
    from ensembler import experiment
    from ensembler.bundle.member import Member
    from ensembler.tuning import sweep

    sweep.ray_session, sweep.execute = _no_ray, execute_here
    experiment._commit = lambda _folder: None
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


def _verb(*arguments: str) -> Callable[[Path], None]:
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
    Step("sweep", None, _verb("sweep", "{home}/small.yaml", "-o", "{run}")),
    Step("run", "sweep", _verb("run", "{home}/small.yaml", "-o", "{run}")),
    Step("combine", "run", _verb("combine", "{run}")),
    Step("compare", "run", _verb("compare", "{run}")),
    Step("leaderboard", "run", _verb("leaderboard", "{run}")),
    Step("save", "run", _saves, ("stands on the leaderboard already",)),
    Step("forget", "save", _forgets, ("no saved ensemble",)),
    Step("export", "run", _verb("export", "{run}", "--format", "torch", "-o", "{run}/bundle")),
    Step("bare", None, _verb("combine", "--predictions", "{home}/bare.csv", "-o", "{run}")),
)


# ---------------------------------------------------------------------- what is on disk

#: Relative path -> content, without what is read off a clock.
Tree = dict[str, bytes]


def tree(run: Path) -> Tree:
    """Every file of a run but locks and logs."""
    return {
        name: content(file)
        for file in sorted(run.rglob("*"))
        if file.is_file() and not _passing(name := file.relative_to(run).as_posix())
    }


def _passing(name: str) -> bool:
    return name in LOCKS or name == "events.jsonl" or any(p.startswith(SCRATCH) for p in name.split("/"))


def content(file: Path) -> bytes:
    """A file's bytes; of the manifest and of trials without times, and with their keys in order."""
    data = file.read_bytes()
    if file.suffix != ".json" or file.parent.name == "bundle":
        return data
    value = json.loads(data)
    for key in ("created", "seconds"):
        value.pop(key, None)
    if "stages" in value:
        value["stages"] = sorted(value["stages"])
    return json.dumps(value, sort_keys=True).encode()


class Seen:
    """Contents that a quiet pass puts into place, by path."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.versions: dict[str, set[bytes]] = collections.defaultdict(set)

    def note(self, target: Path) -> None:
        files = [target] if target.is_file() else [f for f in target.rglob("*") if f.is_file()]
        for file in files:
            if file.is_relative_to(self.run) and not _passing(n := file.relative_to(self.run).as_posix()):
                self.versions[n].add(content(file))

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Notes whatever a rename puts into place."""
        originals = Path.replace, Path.rename

        def wrap(real: Any) -> Any:
            def call(path: Path, target: Any) -> Any:
                done = real(path, target)
                self.note(Path(target))
                return done

            return call

        Path.replace, Path.rename = map(wrap, originals)  # type: ignore[method-assign,assignment]
        try:
            yield
        finally:
            Path.replace, Path.rename = originals  # type: ignore[method-assign]


def unreadable(run: Path) -> list[str]:
    """What of a run cannot be read through its store."""
    from ensembler.errors import StoreError
    from ensembler.store import RunStore

    store, found = RunStore(run), []

    def attempt(what: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:
            found.append(f"{what}: {type(error).__name__}: {error}")
            return None

    if not store.exists():
        return []
    attempt("manifest", store.manifest)
    attempt("config", store.config)
    attempt("trials", store.trials)
    attempt("leaderboard", store.leaderboard)
    attempt("test", store.test_predictions)
    attempt("bare", store.bare_predictions)
    if (run / "table.parquet").exists():
        attempt("table", store.table)
    for folder in (run / "cells").glob("*/[!.]*"):
        cell = attempt(folder.name, lambda f=folder: store.cell(f.parent.name, int(f.name)))  # type: ignore[misc]
        if cell is not None:
            attempt("weights", cell.weights)
            attempt("history", cell.history)
    for name in store.ensembles():
        attempt(name, lambda n=name: store.ensemble(n))  # type: ignore[misc]
    for file in (run / "features").glob("[!.]*.npy"):
        attempt(file.name, lambda f=file: np.load(f))  # type: ignore[misc]
    lines = (run / "events.jsonl").read_bytes().split(b"\n") if (run / "events.jsonl").exists() else []
    for line in filter(None, lines[:-1]):
        attempt("event", lambda t=line: json.loads(t))  # type: ignore[misc]
    del StoreError
    return found


# ---------------------------------------------------------------------- one case


@dataclasses.dataclass
class Result:
    """One operation failed: which, what came of it, and what promises were broken."""

    step: str
    at: int
    code: str
    for_good: bool
    kind: str
    path: str
    exit: int
    message: str
    broken: list[str]


class Campaign:
    """The steps over one folder."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "run"
        self.shim = Shim()
        self.after: dict[str, Tree] = {}
        self.seen: dict[str, Seen] = {}

    def prepare(self) -> None:
        """The quiet pass: what each step leaves, and what it puts into place on its way."""
        write_experiment(self.home)
        stand_in()
        os.environ["ENSEMBLER_CACHE"] = str(self.home / "cache")
        for step in STEPS:
            self._begin(step)
            seen = Seen(self.run)
            if self.run.exists():
                seen.note(self.run)
            with seen.watching():
                code, said = self._call(step)
            assert code == 0, f"{step.name}: {said}"
            self.seen[step.name], self.after[step.name] = seen, tree(self.run)
            shutil.copytree(self.run, self._kept(step.name))
            self._begin(step)
            self._call(step)
            assert tree(self.run) == self.after[step.name], f"{step.name} is not deterministic"

    def count(self, step: Step, code: int) -> int:
        """How many operations of a quiet pass an errno may befall."""
        self._begin(step)
        self.shim.arm(self.run, KINDS[code], 0, 0, False)
        self._call(step)
        seen = self.shim.seen
        self.shim.disarm()
        return seen

    def case(self, step: Step, at: int, code: int, for_good: bool) -> Result:
        """Fails one operation of a step, looks at what is left, and runs the step again."""
        self._begin(step)
        self.shim.arm(self.run, KINDS[code], at, code, for_good)
        exit_code, said = self._call(step)
        failed, (kind, path) = self.shim.failed, self.shim.first
        self.shim.disarm()
        message = next((x for x in reversed(said.splitlines()) if x.startswith("error: ")), "")
        broken = [] if failed else ["the operation was not met"]
        broken += self._told(exit_code, message, said, path, code, kind)
        broken += self._whole(step)
        again, said = self._call(step)
        if again == 2 and any(done in said for done in step.done):
            again, said = self._call(dataclasses.replace(step, call=_verb("combine", "{run}")))
        if again != 0:
            broken.append(f"does not go on: {said[-300:]}")
        else:
            broken += _differences("after going on", tree(self.run), self.after[step.name])
            left = [p.name for p in self.run.rglob(f"{SCRATCH}*")]
            if left and step.name not in ("leaderboard", "export"):  # which take no lock
                broken.append(f"scratch is left: {left[:3]}")
        place = re.sub(r"[0-9a-f]{32}", "*", os.path.relpath(path, self.run)) if path else ""
        return Result(step.name, at, errno.errorcode[code], for_good, kind, place, exit_code, message, broken)

    def _told(self, exit_code: int, message: str, said: str, path: str, code: int, kind: str) -> list[str]:
        if exit_code == 0:
            return []
        if exit_code != 2 or not message:
            return [f"exit {exit_code}: {said[-1500:]}"]
        broken = []
        named = re.findall(re.escape(str(self.run)) + r"[^\s:;,)']*", message)
        meant = Path(re.sub(re.escape(SCRATCH) + r"(old-)?[0-9a-f]{32}-", "", path))
        cleaning = kind == "remove" and SCRATCH in path  # is tried once: what is told is what came after it
        if not cleaning and not any(meant.is_relative_to(n) or Path(n).is_relative_to(meant) for n in named):
            broken.append(f"the message names another path than {meant}: {message}")
        if os.strerror(code) not in message:
            broken.append(f"the message does not tell the cause: {message}")
        if ";" not in message.rsplit(os.strerror(code), maxsplit=1)[-1]:
            broken.append(f"the message tells no way out: {message}")
        return broken

    def _whole(self, step: Step) -> list[str]:
        known = self.seen[step.name].versions
        strange = [name for name, data in tree(self.run).items() if data not in known[name]]
        return [f"{name}: neither old nor new" for name in strange] + unreadable(self.run)

    def _begin(self, step: Step) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        if step.after is not None:
            shutil.copytree(self._kept(step.after), self.run)

    def _kept(self, name: str) -> Path:
        return self.home / "kept" / name

    def _call(self, step: Step) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                step.call(self.home)
            except SystemExit as end:
                return int(end.code or 0), said.getvalue()
            except BaseException:
                return 1, said.getvalue() + traceback.format_exc()
        return 0, said.getvalue()


def _differences(when: str, found: Tree, expected: Tree) -> list[str]:
    names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    return [f"{when}, {len(names)} files differ from the quiet pass: {names[:4]}"] if names else []


# ---------------------------------------------------------------------- all of them, or some


def cases(campaign: Campaign, sample: int | None, seed: int) -> list[tuple[Step, int, int, bool]]:
    """Every (step, n, errno, once or for good); or so many of them, drawn by the seed, some of each step."""
    everything = [
        (step, at, code, for_good)
        for step in STEPS
        for code in CODES
        for at in range(1, campaign.count(step, code) + 1)
        for for_good in (False, True)
    ]
    if sample is None or sample >= len(everything):
        return everything
    rng = random.Random(seed)
    by_step = collections.defaultdict(list)
    for one in everything:
        by_step[one[0].name].append(one)
    share = max(1, sample // len(by_step))
    return [one for group in by_step.values() for one in rng.sample(group, min(share, len(group)))]


def main(argv: Sequence[str] | None = None) -> int:
    """Prints a line of JSON a case; exit 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="so many cases rather than all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--step", action="append", help="only these steps")
    parser.add_argument("-o", "--output", type=Path, help="the lines of JSON (default: standard output)")
    args = parser.parse_args(argv)
    memory = Path("/dev/shm")  # files in memory: what fails is decided here, and syncing disks takes the time
    home = Path(tempfile.mkdtemp(prefix="ensembler-faults-", dir=memory if memory.is_dir() else None))
    broken = 0
    try:
        campaign = Campaign(home)
        campaign.prepare()
        chosen = [
            c for c in cases(campaign, args.sample, args.seed) if not args.step or c[0].name in args.step
        ]
        with args.output.open("w") if args.output else contextlib.nullcontext(sys.stdout) as out:
            for step, at, code, for_good in chosen:
                result = campaign.case(step, at, code, for_good)
                broken += bool(result.broken)
                print(json.dumps(dataclasses.asdict(result)), file=out, flush=True)
    finally:
        shutil.rmtree(home, ignore_errors=True)
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
