"""An experiment: a config and the run directory that it fills, stage by stage.

    prepare -> sweep -> combine -> compare (-> collapse) -> test

Each stage reads what the one before it left in the store, so each can be run again by itself.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import comparison
from .config import WORDS, Config
from .data.cache import DecodedImages, build_cache, pixel_folder
from .errors import ConfigError
from .predictions import Predictions
from .preparation import Preparation
from .store import RunStore
from .training.candidate import Candidate, TrainingData

if TYPE_CHECKING:
    import pandas as pd

    from .bundle.options import ExportOptions
    from .data.audit import Audit
    from .evaluation.leaderboard import Leaderboard
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
        self.preparation = Preparation(config, store, origin)

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
            self.preparation.table(), data.image_size, pixel_folder(), unreadable="skip", progress=progress
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

    def images(self) -> DecodedImages:
        """The experiment's images, decoded or found decoded.

        Raises:
            DataError: naming file, row or class.
        """
        return self.preparation.images()

    # ------------------------------------------------------------------ stages, under the lock

    def _sweep(self, observer: Observer | None) -> None:
        from .tuning.sweep import Sweep

        began = time.monotonic()
        backbones = self.preparation.backbones()
        known = self.store.exists() and "refined" in self.store.manifest()
        previous = self._previous() if self.config.refine and not known else None
        images, folds = self.preparation.prepare(backbones)
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
