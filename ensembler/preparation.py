"""Everything that a user can get wrong, found before anything is trained: backbones, images, copies, folds, changes.

Nothing of the run is written before all of it holds.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config import WORDS, Config
from .data import load_table
from .data.cache import DecodedImages, build_cache, pixel_folder
from .data.places import cache_dir
from .errors import BackboneError, ConfigError, DataError, RunMismatchError
from .folds import Folds, make_folds
from .store import RunStore, machine
from .training.candidate import digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .data.duplicates import Duplicates
    from .data.table import ImageTable
    from .tuning.arms import ReadyBackbone


class Preparation:
    """What a config asks for, held against what is there.

    Args:
        config: validated settings.
        store: the run directory, which may not exist yet.
        origin: the run that this one is forked from.
    """

    def __init__(self, config: Config, store: RunStore, origin: RunStore | None = None) -> None:
        self.config = config
        self.store = store
        self.origin = origin

    def backbones(self) -> list[ReadyBackbone]:
        """The backbones of the config with the files of their weights.

        Raises:
            BackboneError: naming the entry: an unknown backbone, a licence that was not accepted, missing weights.
        """
        from .training.blueprint import describe
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

    def prepare(self, backbones: Sequence[ReadyBackbone]) -> tuple[DecodedImages, Folds]:
        """Images decoded, folds made, weights tried; only then is anything of the run written.

        Raises:
            EnsemblerError: whatever the user can mend.
            RunMismatchError: the run was made from something else; names each field.
        """
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
        """The images, decoded or found decoded.

        Raises:
            DataError: naming file, row or class.
        """
        return self._images()[0]

    def _images(self) -> tuple[DecodedImages, list[str]]:
        """The images, and the ids of those that left the test split because they are training images too."""
        data = self.config.data
        images = build_cache(self.table(), data.image_size, pixel_folder(), unreadable=data.unreadable)
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

    def table(self) -> ImageTable:
        """The images by their names, labels and splits; none is opened.

        Raises:
            DataError: naming file, row or class.
        """
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


def _commit(folder: Path) -> str | None:
    """The git commit that a config lies in, where it lies in one."""
    git = shutil.which("git")
    if git is None:
        return None
    command = [git, "rev-parse", "HEAD"]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    return found.stdout.strip() or None
