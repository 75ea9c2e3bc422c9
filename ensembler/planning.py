"""What a config would train, and about how long that takes: counted from the config, timed by earlier runs.

Nothing is trained, decoded or downloaded, and neither torch nor Ray is imported. What nobody has measured is said to be
unknown rather than guessed.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from .config import Config
from .config_text import Lines, where_is
from .data import SOURCES
from .data.folder import EXTENSIONS
from .errors import ConfigError, EnsemblerError
from .store import RunStore, find_runs
from .training.candidate import FROZEN_BODY, Candidate
from .training.recipe import Recipe
from .training.space import Choice, read_distribution
from .tuning.budget import OVERHEAD, Finish

#: Earlier runs that are asked for speeds, the newest first.
ASKED_RUNS = 20

#: Predicting is so many times as fast as training; screening predicts each image once.
PREDICTS_FASTER = 3.0

#: Seconds of imports, of Ray's start and of its end.
START_S = 15.0

#: Files beyond which a folder is not counted to its end.
MOST_FILES = 1_000_000

#: What garbage in an earlier run turns into; such a run is passed over.
_GARBAGE = (
    EnsemblerError,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RecursionError,
    yaml.YAMLError,
)


@dataclass(frozen=True)
class Speed:
    """How fast a backbone was trained.

    Attributes:
        images_per_s: of one worker, everything around the gradients included, at the image size asked for.
        run: that measured it.
        image_size: that it was measured at.
    """

    images_per_s: float
    run: str
    image_size: int


@dataclass(frozen=True)
class Step:
    """One stage of a sweep.

    Attributes:
        name: of the stage.
        candidates: that take part, at most.
        trainings: Cells and trials, at most.
        epochs: of each, at most; 0 where a head is fitted on frozen features.
        seconds: on all workers together; None where a speed is unknown.
    """

    name: str
    candidates: int
    trainings: int
    epochs: int
    seconds: float | None


@dataclass(frozen=True)
class Plan:
    """What a config would train.

    Attributes:
        images: for training, all folds together; None where it cannot be told without reading the source.
        folds: of the cross-validation.
        steps: in order.
        workers: trainings at a time.
        budget: seconds that the run may take; None without one.
        unknown: backbones whose speed nobody has measured.
        speeds: what the times rest on, by backbone.
    """

    images: int | None
    folds: int
    steps: tuple[Step, ...]
    workers: int
    budget: float | None
    unknown: tuple[str, ...]
    speeds: Mapping[str, Speed]

    @property
    def trainings(self) -> int:
        """Of all steps, at most."""
        return sum(step.trainings for step in self.steps)

    @property
    def seconds(self) -> float | None:
        """Of the whole run from its start to its leaderboard; None where a part is unknown."""
        parts = [step.seconds for step in self.steps if step.seconds is not None]
        return START_S + sum(parts) if len(parts) == len(self.steps) else None


def plan(config: Config, images: int | None, speeds: Mapping[str, Speed], workers: int) -> Plan:
    """What a config would train, at most: a scheduler stops weak trials, screening and a budget leave some out.

    Args:
        config: the experiment's.
        images: that are trained on, all folds together; None where unknown.
        speeds: by backbone.
        workers: trainings at a time.

    >>> config = Config.parse("{name: x, data: {source: digits}, backbones: [a, b], keep: 2}", Path("x.yaml"))
    >>> [(step.name, step.trainings) for step in plan(config, 1797, {}, 2).steps]
    [('screen', 10), ('search', 12), ('crossval', 8), ('combine', 0)]
    """
    counting = _Counting(config, images, speeds, workers)
    names = dict.fromkeys(b.name for b in config.backbones)
    unknown = tuple(name for name in names if name not in speeds)
    used = {name: speeds[name] for name in names if name in speeds}
    return Plan(images, config.folds.k, tuple(counting.steps()), workers, config.budget, unknown, used)


class _Counting:
    """The stages of a config, as `tuning.sweep` goes through them."""

    def __init__(self, config: Config, images: int | None, speeds: Mapping[str, Speed], workers: int) -> None:
        self._config = config
        self._images = images
        self._speeds = speeds
        self._workers = workers
        self._k = config.folds.k
        self._epochs = longest(config)
        self._arms = arms(config)

    def steps(self) -> Iterator[Step]:
        config, k = self._config, self._k
        wanted = {*config.strategies, *(("probe",) if config.screen else ())}
        probes = [
            b.name for s in FROZEN_BODY if s in wanted for b in config.backbones if b.weights != "random"
        ]
        if probes:
            looked = self._time([self._pass(name) for name in dict.fromkeys(probes)])
            yield Step("screen", len(probes), len(probes) * k, 0, looked)
        n = len(probes)
        for step in self._fine_tuning():
            n += step.candidates if step.name in ("crossval", "boosted") else 0
            yield step
        yield Step("combine", n, 0, 0, self._after(n))

    def _fine_tuning(self) -> Iterator[Step]:
        config, k = self._config, self._k
        if not self._arms:
            return
        in_turn = [name for name, _, _ in self._arms]
        if config.search is not None:
            tried = _spread(in_turn, max(config.search.trials, len(in_turn)))
            yield self._trained("search", tried, 1)
            backbones = len({(name, weights) for name, weights, _ in self._arms})
            kept = _spread(in_turn, min(len(tried), max(config.keep, backbones)))
            yield self._trained("crossval", kept, k - 1)  # the search has trained their first folds
        else:
            kept = in_turn
            yield self._trained("crossval", kept, k)
        if config.boosted is not None:
            turn = config.boosted.backbones or in_turn
            yield self._trained("boosted", _spread(turn, config.boosted.rounds), k)
        trained = [way for way in config.collapse if way in ("refit", "distill")]
        if trained:
            yield self._trained("collapse", kept * len(trained), 1, share=1.0)

    def _after(self, n: int) -> float | None:
        """Combining, comparing, testing: of as many classes as there are digits, since nobody has counted them."""
        if self._images is None:
            return None
        boosting = any(entry.combiner == "boosting" for entry in self._config.ensembles)
        return Finish(rows=self._images, classes=10, folds=self._k, boosting=boosting).seconds(n)

    def _trained(self, stage: str, backbones: Sequence[str], folds: int, share: float | None = None) -> Step:
        cells = [self._cell(name, share) for name in backbones for _ in range(folds)]
        return Step(stage, len(backbones), len(cells), self._epochs, self._time(cells))

    def _cell(self, backbone: str, share: float | None) -> float | None:
        """Seconds of a training on a share of the images: those of the other folds less the monitor rows."""
        if backbone not in self._speeds or self._images is None:
            return None
        if share is None:
            share = (1 - 1 / self._k) * (1 - self._config.folds.monitor)
        return self._epochs * self._images * share / self._speeds[backbone].images_per_s

    def _pass(self, backbone: str) -> float | None:
        if backbone not in self._speeds or self._images is None:
            return None
        return self._images / (PREDICTS_FASTER * self._speeds[backbone].images_per_s)

    def _time(self, cells: Sequence[float | None]) -> float | None:
        """Seconds of all on the workers; no sooner than the longest one."""
        known = [seconds for seconds in cells if seconds is not None]
        if len(known) < len(cells):
            return None
        return max(sum(known) / self._workers, max(known, default=0.0))


def arms(config: Config) -> list[tuple[str, str, str]]:
    """What is searched: (backbone, weights, strategy), as `tuning.arms` pairs them."""
    pairs = [(b, s) for b in config.backbones for s in config.strategies if s not in FROZEN_BODY]
    return list(dict.fromkeys((b.name, b.weights, "full" if b.weights == "random" else s) for b, s in pairs))


def longest(config: Config) -> int:
    """Most epochs of one training."""
    search = config.search
    epochs = search.epochs if search is not None and search.epochs != "auto" else Recipe().epochs
    epochs = int(config.recipe.get("epochs", epochs))
    if search is None or "epochs" not in search.space:
        return epochs
    drawn = read_distribution("epochs", search.space["epochs"])
    return max(epochs, round(max(drawn.values) if isinstance(drawn, Choice) else drawn.high))


def workers_here(config: Config) -> int:
    """Trainings at a time on this machine: one a GPU where there are any, else one a core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    wanted = config.resources
    by_cpu = math.floor(cores / wanted.cpus) if wanted.cpus else cores
    if wanted.gpus == 0 or not gpus:
        return max(1, by_cpu)
    by_gpu = math.floor(gpus / (wanted.gpus or 1.0))
    return max(1, min(by_cpu, by_gpu))


def _spread(names: Sequence[str], n: int) -> list[str]:
    """`n` names, in turn."""
    return [names[i % len(names)] for i in range(n)]


# ---------------------------------------------------------------------- what earlier runs tell


def known_speeds(runs: Iterable[RunStore], image_size: int) -> dict[str, Speed]:
    """The speed of every backbone that the runs have trained on a machine with as many cores as this one.

    Of several, that of the image size asked for comes first, then the first run's. A speed of another size is scaled
    by the number of pixels.
    """
    found: dict[str, Speed] = {}
    for store in list(runs)[:ASKED_RUNS]:
        try:
            manifest = store.manifest()
            if manifest.get("machine", {}).get("cpus") != os.cpu_count():
                continue
            size = int(manifest["identity"]["image_size"])
            measured = _measured(store)
        except _GARBAGE:
            continue
        for backbone, speed in measured.items():
            known = found.get(backbone)
            if known is None or (known.image_size != image_size and size == image_size):
                found[backbone] = Speed(speed * (size / image_size) ** 2, store.name, size)
    return found


def _measured(store: RunStore) -> dict[str, float]:
    """Images a second by backbone: of finished trainings, else as measured before the first."""
    manifest = store.manifest()
    speeds = {
        name: max(entry["images_per_s"].values()) / OVERHEAD
        for name, entry in manifest.get("numerics", {}).items()
        if entry.get("images_per_s")
    }
    trained: set[str] = set()
    for raw in manifest.get("candidates", []):
        candidate = Candidate.from_dict(raw)
        if candidate.fine_tuned and candidate.backbone not in trained:
            cell = store.cell(candidate.id, 0)
            history = cell.history()
            rows = float((history["images_per_s"] * history["seconds"]).sum())
            if rows > 0 and cell.train_s > 0:
                trained.add(candidate.backbone)
                speeds[candidate.backbone] = rows / cell.train_s
    return speeds


# ---------------------------------------------------------------------- what there is to train on


def require_source(config: Config, lines: Lines, path: Path) -> None:
    """Makes sure that the images are where the config says, as far as a look can tell.

    Raises:
        ConfigError: `file:line field: what; the way out`, as `Config.load` says it.
    """
    for key, value in (("source", config.data.source), ("test", config.data.test)):
        if not isinstance(value, str) or value == "official" or _reader(value) in ("digits", "torchvision"):
            continue
        place = _place(config, value)
        if not place.exists():
            raise ConfigError(
                f"{where_is(('data', key), lines, path)}: {value!r}: there is no {place}; paths are relative to "
                f"{config.base_dir}"
            )


def count_images(config: Config, runs: Iterable[RunStore]) -> int | None:
    """Images that are trained on: as an earlier run has found, else counted; None where that is too much for a look."""
    data = config.resolved()["data"]
    for store in list(runs)[:ASKED_RUNS]:
        try:
            other, manifest = store.config()["data"], store.manifest()
            if (other["source"], other["test"]) == (data["source"], data["test"]):
                return int(manifest["images"])
        except _GARBAGE:
            continue
    try:
        n = _counted(config)
    except (OSError, ValueError):
        return None
    share = config.data.test if isinstance(config.data.test, float) else 0.0
    return None if n is None else round(n * (1 - share))


def look(config: Config, folder: Path) -> Plan:
    """The plan of a config on this machine, from what the runs in a folder have measured."""
    try:
        runs = find_runs(folder)
    except OSError:
        runs = []
    speeds = known_speeds(runs, config.data.image_size)
    return plan(config, count_images(config, runs), speeds, workers_here(config))


def _counted(config: Config) -> int | None:
    kind = _reader(config.data.source)
    place = _place(config, config.data.source)
    if kind == "digits":
        return 1797
    if kind == "torchvision":
        return None
    if kind == "manifest" and place.suffix.lower() == ".parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(place).num_rows)
    if kind == "manifest":
        with place.open(newline="", encoding="utf-8", errors="replace") as stream:
            return max(0, sum(1 for _ in csv.reader(stream)) - 1)
    n = 0
    for _, _, files in os.walk(place):
        n += sum(name.lower().endswith(EXTENSIONS) for name in files)
        if n > MOST_FILES:
            return None
    return n or None


def _reader(source: str) -> str:
    return next(name for name, reader in SOURCES.items() if reader.recognises(source))


def _place(config: Config, source: str) -> Path:
    return config.base_dir / Path(source).expanduser()
