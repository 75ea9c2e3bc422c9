"""An experiment: a config and the run directory that it fills, stage by stage.

    prepare -> sweep -> combine -> compare (-> collapse) -> test

Each stage reads what the one before it left in the store, so each can be run again by itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import comparison
from .config import WORDS, Config
from .data import load_table
from .data.cache import DecodedImages, build_cache, pixel_folder
from .data.places import cache_dir
from .errors import BackboneError, ConfigError, DataError, RunMismatchError
from .folds import Folds, make_folds
from .predictions import Predictions
from .store import RunStore, machine
from .training.candidate import Candidate, TrainingData, digest

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from .bundle.options import ExportOptions
    from .data.audit import Audit
    from .data.duplicates import Duplicates
    from .data.table import ImageTable
    from .evaluation.leaderboard import Leaderboard
    from .tuning.arms import ReadyBackbone
    from .tuning.collapse import Option
    from .tuning.execute import Observer
    from .tuning.refine import Previous


class Experiment:
    """A config and its run.

    >>> experiment = Experiment.from_config("configs/quickstart.yaml")     # doctest: +SKIP
    >>> experiment.run().verdict.sentence                                  # doctest: +SKIP
    'mean beats the best single model ...'

    Args:
        config: validated settings.
        store: the run directory.
        origin: the run that this one is forked from, see `fork`.
    """

    def __init__(self, config: Config, store: RunStore, origin: RunStore | None = None) -> None:
        self.config = config
        self.store = store
        self.origin = origin

    @classmethod
    def from_config(cls, path: str | Path, run: str | Path | None = None) -> Experiment:
        """The experiment of a config file; its run is `runs/<name>` unless told otherwise.

        Raises:
            ConfigError: naming file, line and field.
        """
        config = Config.load(path)
        return cls(config, RunStore(run or Path("runs") / config.name))

    @classmethod
    def from_run(cls, run: str | Path) -> Experiment:
        """The experiment that filled a run directory.

        Raises:
            StoreError: no run there.
            ConfigError: a run made from bare predictions has no config.
        """
        store = RunStore(run).require()
        file = store.path / "config.yaml"
        if not file.exists():
            raise ConfigError(
                f"{store.path}: made from bare predictions, so there is nothing to train or export"
            )
        return cls(Config.load(file), store)

    def fork(self, run: str | Path) -> Experiment:
        """The same experiment in a new run, which takes over what is still valid of this one and leaves it as it is.

        Raises:
            StoreError: this is no run, or there is another one in that folder.
        """
        from .forking import require_forkable

        store = RunStore(run)
        require_forkable(self.store, store)
        return Experiment(self.config, store, self.store)

    # ------------------------------------------------------------------ what a user calls

    def run(self, observer: Observer | None = None) -> Leaderboard:
        """All the stages; run again to resume.

        Raises:
            EnsemblerError: whatever the user can mend, before anything is half-written.
        """
        with self.store.lock():
            self._sweep(observer)
            fits = self._combine()
            return self._compare(fits, observer)

    def sweep(self, observer: Observer | None = None) -> None:
        """Trains whatever is missing, and no more."""
        with self.store.lock():
            self._sweep(observer)

    def predictions(self) -> Predictions:
        """Out-of-fold predictions of every candidate."""
        return self.store.predictions()

    def leaderboard(self) -> pd.DataFrame:
        """The leaderboard, best first; columns as in `docs/leaderboard.md`."""
        return comparison.read_leaderboard(self.store).frame

    def export(
        self,
        path: str | Path | None = None,
        ensemble: str | None = None,
        options: ExportOptions | None = None,
    ) -> Path:
        """Writes a row of the leaderboard as a bundle, the recommended one unless told otherwise.

        Args:
            path: a folder, or a file whose name ends in .zip; `bundles/<name>-<row>` unless told otherwise.
            ensemble: name of a row.
            options: formats, precision, what runs in place of the fold models, limits.

        Raises:
            BundleError: no such row, one that a bundle cannot answer for, a graph that differs from PyTorch, or the
                target is something else.
        """
        from .bundle.build import export_run
        from .bundle.options import ExportOptions

        return export_run(
            self.store,
            experiment=self.config.name,
            image_size=self.config.data.image_size,
            oof_pixels=lambda: self.images().oof,
            test_pixels=lambda: self.images().test if self.config.data.test is not None else None,
            path=Path(path) if path else None,
            ensemble=ensemble,
            options=options or ExportOptions(),
        )

    def audit(self, progress: Callable[[int, int], None] | None = None) -> Audit:
        """What is wrong or odd about the images, their copies, classes and files; no run is begun.

        Raises:
            DataError: the images cannot be listed, or none of them can be read.
        """
        from .data.audit import audit

        data, folds = self.config.data, self.config.folds
        source = (self.config.base_dir / data.source).expanduser()
        images = build_cache(
            self._table(), data.image_size, pixel_folder(), unreadable="skip", progress=progress
        )
        return audit(
            images,
            image_size=data.image_size,
            k=folds.k,
            seed=folds.seed,
            stratify=folds.stratify,
            monitor=folds.monitor,
            unreadable=data.unreadable,
            duplicates=data.duplicates,
            leaks=data.leaks,
            drawn=isinstance(data.test, float),
            folder=source.resolve() if data.source not in WORDS and source.is_dir() else None,
            progress=progress,
        )

    # ------------------------------------------------------------------ stages, under the lock

    def _sweep(self, observer: Observer | None) -> None:
        from .tuning.sweep import Sweep

        began = time.monotonic()
        backbones = self._find_backbones()
        known = self.store.exists() and "refined" in self.store.manifest()
        previous = self._previous() if self.config.refine and not known else None
        images, folds = self._prepare(backbones)
        data = TrainingData(
            pixels=images.oof,
            labels=images.table.oof.labels,
            classes=images.table.classes,
            folds=tuple((f.train, f.monitor, f.holdout) for f in folds),
            fingerprint=images.table.fingerprint,
            weights_files={b.weights.label: b.weights.file for b in backbones if b.weights.file},
            features=self.store.features,
            metric=self.config.metric,
            cells=self.store,
            unfinished=self.store.unfinished,
        )
        with self.store.stage("sweep"), self._watched(observer) as watchers:
            refined = (lambda: previous or self._previous()) if self.config.refine else None
            sweep = Sweep(self.config, data, backbones, self.store, watchers, began, refined)
            result = sweep.run()
            self.store.discard_unfinished()
        self._swept = data, sweep.budget
        notes = {(b.name, b.weights.label): b.weights.note for b in backbones}
        searched = self.config.search is not None and "epochs" in self.config.search.space
        wanted = 0 if searched else self.store.manifest().get("fitted_epochs", {}).get("wanted", 0)
        self.store.update_manifest(
            candidates=[c.to_dict() for c in result.candidates],
            failed=result.failed,
            details={
                c.name: {
                    "backbone": c.backbone,
                    "strategy": c.strategy,
                    "weights": c.weights,
                    "note": self._note(c, notes.get((c.backbone, c.weights)), wanted),
                }
                for c in result.candidates
            },
        )

    @contextmanager
    def _watched(self, observer: Observer | None) -> Iterator[Observer]:
        """Whoever is told of what happens in a sweep: a terminal, the run's events, the caller's observer."""
        from .metrics import get_metric
        from .tuning.events import EventWriter
        from .tuning.load import LoadWriter
        from .tuning.progress import Observers, progress_for

        with progress_for(get_metric(self.config.metric)) as progress, LoadWriter(self.store):
            yield Observers([progress, EventWriter(self.store), *([observer] if observer else [])])

    def _previous(self) -> Previous:
        """The run that the config refines."""
        from .tuning.refine import Previous

        refined = str(self.config.refine)
        run = RunStore(self.config.base_dir / refined)
        trials = run.trials() if run.exists() else []
        if not any(trial["status"] != "failed" for trial in trials):
            what = "a run without a finished search" if run.exists() else "no run there"
            raise ConfigError(
                f"{self.config.file} refine: {refined!r}: {what}; give the folder of a run that has searched, or "
                f"leave `refine` out"
            )
        return Previous.read(str(run.path), run.manifest(), trials)

    def _note(self, candidate: Candidate, start: str | None, wanted: int) -> str:
        """What a reader of the leaderboard has to know; `start` is of the weights it started from."""
        notes = [start, _boosted(candidate), _fitted(candidate, wanted), *self._cell_notes(candidate)]
        return "; ".join(filter(None, notes))

    def _cell_notes(self, candidate: Candidate) -> list[str]:
        """What its Cells have to say, each once, with the number of folds that say it."""
        notes = Counter(
            note
            for fold in range(self.store.manifest()["k"])
            for note in self.store.cell(candidate.id, fold).notes
        )
        return [f"{note} ({n} folds)" if n > 1 else note for note, n in notes.items()]

    def _combine(self) -> list[Any]:
        from .deployment import measure_costs

        with self.store.stage("combine"):
            if self.config.limits.given or comparison.needs_costs(self.store):
                measure_costs(self.store, self.config.data.image_size)
            return comparison.combine(self.store)

    def _compare(self, fits: Sequence[Any], observer: Observer | None) -> Leaderboard:
        from .collapsed import measure_collapse
        from .deployment import deploy

        with self.store.stage("compare"):
            board = comparison.compare(
                self.store, fits
            )  # the winner is chosen here, before any test row is read
        options = self._collapse(board, observer)
        with self.store.stage("test"):
            images = self.images() if self.config.data.test is not None else None
            if deploy(self.store, self.config.data.image_size, images):
                board = comparison.compare(self.store, fits)
            if options and images is not None:
                measure_collapse(self.store, options, self.config.data.image_size, images)
            elif self.store.collapse():
                self.store.write_collapse({})  # of a config that asked for more
        return board

    def _collapse(self, board: Leaderboard, observer: Observer | None) -> list[Option]:
        """Trains what may take the place of the fold models of the best single model and of the winner's members."""
        from .metrics import get_metric
        from .tuning.collapse import Collapse, Teacher

        if self.config.collapse == ["folds"]:
            return []
        data, budget = self._swept
        candidates = {c.name: c for c in self.store.candidates()}
        members = {row["name"]: row["members"] for row in board.to_records()}
        verdict = board.verdict
        teacher = None
        if verdict.best_ensemble is not None:
            ids = [candidates[name].id for name in members[verdict.best_ensemble]]
            teacher = Teacher(tuple(sorted(ids)), self.store.ensemble_file(verdict.best_ensemble))
        names = dict.fromkeys([verdict.best_single, *members[verdict.winner]])
        with self.store.stage("collapse"), self._watched(observer) as watchers:
            metric = get_metric(self.config.metric)
            collapse = Collapse(self.config, data, self.store, watchers, metric, budget, len(candidates))
            options = collapse.run([candidates[name] for name in names], teacher)
            self.store.discard_unfinished()
            return options

    # ------------------------------------------------------------------ pieces

    def _find_backbones(self) -> list[ReadyBackbone]:
        from .training.backbone import describe
        from .training.licences import refuse_unaccepted
        from .training.weights import find_weights
        from .tuning.arms import ReadyBackbone

        ready = []
        for number, setting in enumerate(self.config.backbones):
            try:
                info = describe(setting.name)
                refuse_unaccepted(setting.name, info.licence, setting.weights, self.config.accept_licenses)
                weights = find_weights(setting.name, setting.weights, self.config.base_dir)
            except BackboneError as error:
                raise type(error)(f"{self.config.file} backbones.{number}: {error}") from error
            if weights.note:
                print(f"warning: {setting.name}: {weights.note}", file=sys.stderr)
            ready.append(ReadyBackbone(setting.name, weights, info))
        return ready

    def _prepare(self, backbones: Sequence[ReadyBackbone]) -> tuple[DecodedImages, Folds]:
        """Images decoded, folds made, weights tried; only then is anything of the run written."""
        from .metrics import get_metric
        from .training.backbone import create

        images, moved = self._images()
        table = images.table
        try:
            get_metric(self.config.metric).require_classes(table.classes)
        except ConfigError as error:
            raise ConfigError(f"{self.config.file} metric: {error}") from error
        copies = self._copies(images)
        groups = (
            copies.groups()
            if copies is not None and self.config.data.duplicates == "group"
            else table.oof.groups
        )
        folds = self._folds(table, groups)
        for backbone in backbones:
            if backbone.weights.file is not None:
                create(
                    backbone.name,
                    len(table.classes),
                    backbone.weights.file,
                    image_size=self.config.data.image_size,
                )
        identity = {
            "fingerprint": table.fingerprint,
            "folds": digest(
                [[list(map(int, part)) for part in (f.train, f.monitor, f.holdout)] for f in folds]
            ),
            "image_size": self.config.data.image_size,
            "seed": self.config.seed,
        }
        if copies is not None and "identity" not in self.store.manifest():
            # First: a run with an identity and no word of copies began before they were looked for.
            policy = {"duplicates": self.config.data.duplicates, "leaks": self.config.data.leaks}
            self.store.update_manifest(copies={**policy, "out_of_test": moved, **copies.to_dict()})
        self._refuse_changes(identity, table)
        self.store.claim(identity)
        if self.origin is not None:
            self._take_over(self.origin, identity, table)
        self.store.write_config(self.config.resolved())
        frame = table.frame.copy()
        frame.loc[frame["split"] == "oof", "fold"] = folds.assignment
        if groups is not None:
            frame.loc[frame["split"] == "oof", "group"] = [group or None for group in groups.tolist()]
        self.store.write_table(frame[["id", "path", "label", "group", "split", "fold"]])
        self.store.update_manifest(
            name=self.config.name,
            config_file=self.config.file,
            metric=self.config.metric,
            ensembles=[[e.name, e.options] for e in self.config.ensembles],
            limits=self.config.limits.given,
            classes=list(table.classes),
            k=len(folds),
            images=len(table.oof),
            test_images=len(table.test),
            unreadable=[list(row) for row in images.unreadable],
            pixels={"oof": images.oof.name},
            weights_files={b.weights.label: str(b.weights.file) for b in backbones if b.weights.file},
            machine=machine(),
            commit=_commit(self.config.base_dir),
        )
        return images, folds

    def _changes(self, run: RunStore, identity: Mapping[str, Any], table: ImageTable) -> list[str]:
        from .changes import changes

        return changes(run, identity, table.frame, self.config.resolved(), machine()["versions"])

    def _refuse_changes(self, identity: Mapping[str, Any], table: ImageTable) -> None:
        """Refuses to go on with what is another run, field by field."""
        found = self._changes(self.store, identity, table)
        if found:
            raise RunMismatchError(
                f"{self.store.path}: made from something else: {'; '.join(found)}; undo that, choose another folder "
                "with -o, or take over what is still valid into a new run with --fork NEWRUN"
            )

    def _take_over(self, origin: RunStore, identity: Mapping[str, Any], table: ImageTable) -> None:
        from .forking import take_over, told

        changed = self._changes(origin, identity, table)
        forked = take_over(origin, self.store, identity, self.config.metric)
        self.store.update_manifest(forked={**forked, "changed": changed})
        print(told(forked, changed), file=sys.stderr)

    def _folds(self, table: ImageTable, groups: NDArray[Any] | None) -> Folds:
        settings = self.config.folds
        try:
            return make_folds(
                table.oof.labels,
                settings.k,
                settings.seed,
                groups=groups,
                predefined=table.oof.fold,
                stratify=settings.stratify,
                monitor_fraction=settings.monitor,
                class_names=table.classes,
            )
        except DataError as error:
            own = table.oof.groups
            if groups is None or (own is not None and (groups == own).all()):
                raise
            way_out = (
                "copies of one picture count as one here; data.duplicates: ignore lets folds separate them"
            )
            raise DataError(f"{error} ({way_out})") from error

    def _copies(self, images: DecodedImages) -> Duplicates | None:
        """Which images show the same picture; None in a run that began before that was asked.

        Raises:
            DataError: a test image is a training image too, and nobody said that this may be.
        """
        from .data.duplicates import find_duplicates

        if self._began_without_copies:
            print(
                "warning: the run began before copies were looked for; see `ensembler audit`", file=sys.stderr
            )
            return None
        copies = find_duplicates(images)
        if self.config.data.leaks == "refuse":
            copies.refuse_leaks()
        for line in copies.warnings(self.config.data.duplicates):
            print(f"warning: {line}", file=sys.stderr)
        return copies

    def images(self) -> DecodedImages:
        """The experiment's images, decoded or found decoded.

        Raises:
            DataError: naming file, row or class.
        """
        return self._images()[0]

    def _images(self) -> tuple[DecodedImages, list[str]]:
        """The images, and the ids of those that left the test split because they are training images too."""
        data = self.config.data
        images = build_cache(self._table(), data.image_size, pixel_folder(), unreadable=data.unreadable)
        for image_id, reason in images.unreadable:
            print(f"warning: skipped {image_id}: {reason}", file=sys.stderr)
        if self._began_without_copies or not len(images.table.test):
            return images, []
        # A share is drawn here, so it is drawn without leaks; who names a test split has to say what becomes of them.
        drawn = isinstance(data.test, float)
        if data.leaks == "allow" or (data.leaks == "refuse" and not drawn):
            return images, []
        from .data.leaks import without_leaks

        return without_leaks(
            images, data.image_size, pixel_folder(), give_back=drawn and data.leaks == "refuse"
        )

    def _table(self) -> ImageTable:
        data = self.config.data
        try:
            return self._load_table()
        except DataError as error:
            source = (self.config.base_dir / data.source).expanduser()
            if data.source in WORDS or ":" in data.source or source.exists() or not self.store.exists():
                raise
            where = f"if the images have moved, say where they are now: data.source in {self.config.file}"
            raise DataError(f"{error}; {where}") from error

    def _load_table(self) -> ImageTable:
        data, folds = self.config.data, self.config.folds
        return load_table(
            data.source,
            test=data.test,
            base_dir=self.config.base_dir,
            cache_dir=cache_dir(),
            label=data.label,
            path=data.path,
            group=data.group or folds.group,
            fold=folds.predefined,
            seed=folds.seed,
        )

    @property
    def _began_without_copies(self) -> bool:
        """Whether the run began before copies were looked for; what it has must stay as it is."""
        known = self.store.manifest()
        return "identity" in known and "copies" not in known


def _boosted(candidate: Candidate) -> str:
    """What a boosted candidate was boosted on; "" for any other."""
    n = len(candidate.parts)
    weighed = f"boosted: rows weigh the loss of {n} candidate{'' if n == 1 else 's'}"
    return weighed if candidate.kind == "boosted" else ""


def _fitted(candidate: Candidate, wanted: int) -> str:
    """What a budget took from a candidate's epochs, or added to those of the search; "" where it did neither."""
    epochs = candidate.recipe.epochs
    if not candidate.fine_tuned or not wanted or epochs == wanted:
        return ""
    return (
        f"{epochs} of {wanted} epochs: budget"
        if epochs < wanted
        else f"{epochs} epochs, {wanted} in the search"
    )


def _commit(folder: Path) -> str | None:
    """The git commit that a config lies in, where it lies in one."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "rev-parse", "HEAD"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    return found.stdout.strip() or None
