"""The data: classes, folds and index sets; sizes, copies and leaks once the files are read; what networks see."""

from __future__ import annotations

import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from ..data.duplicates import PREFIX
from ..data.survey import Survey, survey
from ..data.table import ImageTable
from ..errors import DataError, printable
from ..figures.data import (
    class_counts_figure,
    class_counts_frame,
    folds_figure,
    folds_frame,
    sets_frame,
    sizes_figure,
    sizes_frame,
)
from ..folds import Folds, make_folds
from ..store import RunStore, understood
from ..training.candidate import digest
from . import samples
from .charts import draw
from .states import progress
from .wording import count, headline, lines, plain

#: Classes that are drawn: the largest and the smallest; the table shows all.
DRAWN = 30

#: Files that are read for sizes and copies at most, and the largest of them.
MOST_FILES, MOST_BYTES = 20_000, 256 << 20

#: Rows of a table of copies or unreadable images.
LISTED = 200


@dataclass(frozen=True, eq=False)
class Data:
    """What the run knows of its images.

    Attributes:
        table: id, path, label, group, split, fold; without paths in a run of predictions alone.
        classes: all of them.
        unreadable: (id, reason) of the images that were skipped.
        folds: the index sets; None where the run was made by other folds than its config says now.
        image_size: side that the networks see; None where nobody says.
        bare: whether the run was made from predictions alone.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    folds: Folds | None
    image_size: int | None
    bare: bool

    @property
    def oof(self) -> pd.DataFrame:
        """The images that are trained on and predicted out of fold, in the order of the run."""
        return self.table[self.table["split"] == "oof"].reset_index(drop=True)

    @property
    def labels(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Of `oof`, as positions in `classes`."""
        code = {name: i for i, name in enumerate(self.classes)}
        return np.array([code[label] for label in self.oof["label"]], np.int64)


def page(store: RunStore) -> None:
    """Draws the page."""
    with understood(store.path):
        now = _stamp(store)
        data = _read(str(store.path), now)
    if data is None:
        _waiting(store)
        return
    counts = class_counts_frame(data.table, data.classes)
    n_test = int(counts["test"].sum())
    beside = f", {count(n_test, 'test image')} beside them" if n_test else ""
    images = count(int(counts["images"].sum()), "image")
    headline(f"{images} in {count(len(data.classes), 'class', 'classes')}{beside}")
    lines(*class_sentences(counts), *trouble(data))
    _classes(counts)
    _folds(data)
    _unreadable(data.unreadable)
    if data.bare:
        st.info(
            "This run was made from predictions alone: it does not know where its images are, so their sizes, copies "
            "and pictures cannot be shown.",
            icon=":material/hide_image:",
        )
        return
    _files(store, data, now)
    samples.section(store, data.oof, data.image_size or 0)


def class_sentences(counts: pd.DataFrame) -> list[str]:
    """How even the classes are, and what to do where they are not.

    Args:
        counts: of `figures.class_counts_frame`.
    """
    largest, smallest = counts.iloc[0], counts.iloc[-1]
    if not smallest["images"]:
        return [f"The class {smallest['label']} has no image to train on."]
    ratio = largest["images"] / smallest["images"]
    if ratio < 1.5:
        return ["The classes are about even."]
    said = (
        f"The largest class, {largest['label']}, has {ratio:.1f} times the images of the smallest, "
        f"{smallest['label']} ({count(int(smallest['images']), 'image')})."
    )
    advice = "Accuracy hides a class this rare: look at recall by class, or rank by balanced accuracy."
    return [said, advice] if ratio >= 5 else [said]


def trouble(data: Data) -> list[str]:
    """What should not be: groups that were torn apart, images that could not be read."""
    said = []
    if data.unreadable:
        one, many = "image could not be read and was", "images could not be read and were"
        said.append(f"{count(len(data.unreadable), one, many)} left out.")
    for what, torn in torn_groups(data.table).items():
        if torn:
            said.append(
                f"{count(len(torn), 'group')} in {what}, such as {torn[0]}: what is learned from one part of a group "
                "helps with the other, so scores are too good."
            )
    return said


def torn_groups(table: pd.DataFrame) -> dict[str, list[str]]:
    """Groups whose images lie in more than one place: {"more than one fold": [...], "training and test": [...]}."""
    known = table[table["group"].notna()]
    oof = known[known["split"] == "oof"]
    folds = oof.groupby("group")["fold"].nunique()
    splits = known.groupby("group")["split"].nunique()
    return {
        "more than one fold": sorted(map(str, folds.index[folds > 1])),
        "both training and test images": sorted(map(str, splits.index[splits > 1])),
    }


def fold_sentence(frame: pd.DataFrame) -> str:
    """How even the folds are; `frame` is of `figures.folds_frame`."""
    apart = (frame["count"] - frame["even"]).abs()
    worst = frame.iloc[int(apart.to_numpy().argmax())]
    if apart.max() < 1:
        return "Every class is spread evenly over the folds, to within one image."
    return (
        f"Least even: fold {worst['fold']} holds {worst['count']} of the class {worst['label']}, an even split "
        f"would be {worst['even']:.0f}."
    )


def size_sentence(sizes: pd.DataFrame, image_size: int | None) -> str:
    """The sizes of the images in words; `sizes` is of `figures.sizes_frame`."""
    weights = sizes["count"].to_numpy()
    width, height = (
        int(np.median(np.repeat(sizes[side].to_numpy(), weights))) for side in ("width", "height")
    )
    if len(sizes) == 1:
        said = f"All images have {width} × {height} pixels."
    else:
        said = f"{len(sizes):,} sizes; the median image has {width} × {height} pixels."
    if not image_size:
        return said
    small = sizes[["width", "height"]].min(axis=1) < image_size
    share = float(weights[small].sum() / weights.sum())
    said += f" The networks see {image_size} × {image_size}"
    return f"{said}, which enlarges {share:.0%} of them." if share else f"{said}."


def copies_table(found: Survey) -> pd.DataFrame:
    """Files with the same bytes, the most harmful first.

    Columns: Harm, Images, Classes, Where.
    """
    rows = found.table.frame.set_index("id")
    listed = []
    for same in found.copies:
        part = rows.loc[list(same)]
        places = [
            "test" if s == "test" else f"fold {f + 1}"
            for s, f in zip(part["split"], part["fold"], strict=True)
        ]
        classes = list(dict.fromkeys(part["label"]))
        if part["split"].nunique() > 1:
            rank, harm = 0, "in training and test: the test score is too good"
        elif len(classes) > 1:
            rank, harm = 1, "two classes for one picture: one of the labels is wrong"
        elif len(set(places)) > 1:
            rank, harm = 2, "in two folds: scores are a little too good"
        else:
            rank, harm = 3, "in one place: counts twice"
        where = ", ".join(dict.fromkeys(places))
        listed.append((rank, harm, ", ".join(map(printable, same)), ", ".join(classes), where))
    listed.sort(key=lambda row: row[0])
    return pd.DataFrame([row[1:] for row in listed], columns=["Harm", "Images", "Classes", "Where"])


def copies_sentence(found: Survey, n_read: int, n_all: int) -> str:
    """What the copies mean."""
    extra = sum(len(same) - 1 for same in found.copies)
    of = f" among the {n_read:,} files that were read, of {n_all:,}" if n_read < n_all else ""
    if not extra:
        return f"No two files have the same content{of}. Pictures that only look alike are not looked for."
    leaks = f"; {len(found.leaks)} of them are both training and test images" if found.leaks else ""
    return f"{count(extra, 'file is a copy', 'files are copies')} of another{of}{leaks}. Keep one of each."


def index_sets(
    oof: pd.DataFrame, labels: np.ndarray[Any, Any], config: Mapping[str, Any], identity: Mapping[str, Any]
) -> Folds | None:
    """The run's own train, monitor and holdout rows, drawn again by its seed.

    None where what is drawn is not what the run was made with, as its manifest knows.
    """
    settings = config.get("folds", {})
    group = oof["group"]
    try:
        folds = make_folds(
            labels,
            int(settings.get("k", 2)),
            int(settings.get("seed", 0)),
            groups=None if group.isna().all() else group.fillna("").to_numpy(np.str_),
            predefined=oof["fold"].to_numpy(np.int64),
            monitor_fraction=float(settings.get("monitor", 0.15)),
        )
    except DataError:
        return None
    drawn = digest([[list(map(int, part)) for part in (f.train, f.monitor, f.holdout)] for f in folds])
    return folds if drawn == identity.get("folds") else None


# ---------------------------------------------------------------------- reading


def _stamp(store: RunStore) -> tuple[int, ...]:
    files = [store.path / name for name in ("table.parquet", "oof.npz", "manifest.json", "config.yaml")]
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


@st.cache_resource(max_entries=8, show_spinner="Reading the table of images…")
def _read(path: str, stamp: tuple[int, ...]) -> Data | None:  # noqa: ARG001
    """Shared between sessions, which change nothing of it."""
    store = RunStore(path)
    manifest, config = store.manifest(), store.config()
    bare = store.bare_predictions()
    if bare is not None:
        return _of_predictions(*bare)
    if not (store.path / "table.parquet").exists():
        return None
    table = store.table()
    classes = tuple(map(str, manifest.get("classes") or sorted(table["label"].unique())))
    data = Data(
        table=table,
        classes=classes,
        unreadable=tuple((str(i), str(reason)) for i, reason in manifest.get("unreadable", [])),
        folds=None,
        image_size=config.get("data", {}).get("image_size"),
        bare=False,
    )
    folds = index_sets(data.oof, data.labels, config, manifest.get("identity", {}))
    return Data(**{**vars(data), "folds": folds})


def _of_predictions(oof: Any, test: Any) -> Data:
    parts = []
    for split, part in (("oof", oof), ("test", test)):
        if part is None:
            continue
        fold = part.fold if split == "oof" and part.fold is not None else -1
        labels = np.asarray(part.classes, object)[part.labels]
        parts.append(
            pd.DataFrame(
                {"id": list(part.sample_ids), "label": labels, "split": split, "fold": fold, "group": None}
            )
        )
    return Data(pd.concat(parts, ignore_index=True), tuple(oof.classes), (), None, None, True)


@st.cache_resource(show_spinner=False)
def _surveys() -> dict[tuple[str, tuple[int, ...]], tuple[Survey, int]]:
    """What has been read, for all sessions: the survey, and how many files it covers.

    By hand, because a bar that moves while a cached function runs cannot be drawn from within it.
    """
    return {}


def look(
    table: pd.DataFrame, classes: Sequence[str], progress: Any = None, most: int = MOST_FILES
) -> tuple[Survey, int]:
    """Reads the files of a table, at most so many, drawn at random; and how many were read.

    What is no plain file, or a huge one, is not opened.

    Raises:
        DataError: none of them is there.
    """
    if len(table) > most:
        table = table.sample(most, random_state=0).sort_index()
    plain_file = np.array([_is_readable(Path(path)) for path in table["path"]], bool)
    if not plain_file.any():
        raise DataError(
            f"{table['path'].iloc[0]}: none of the {len(table):,} files is where the run found it; open the app on a "
            "machine that has the images"
        )
    found = survey(ImageTable(table[plain_file], tuple(classes)), progress=progress)
    gone = [(str(i), "is no plain file, or too large") for i in table.loc[~plain_file, "id"]]
    return Survey(found.table, found.counts, found.sizes, (*found.unreadable, *gone), found.copies), len(
        table
    )


def _is_readable(path: Path) -> bool:
    try:
        about = path.stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(about.st_mode) and about.st_size <= MOST_BYTES


# ---------------------------------------------------------------------- pieces


def _waiting(store: RunStore) -> None:
    now = progress(store)
    headline("The images are not known yet")
    if now.state == "failed":
        st.error(f"The run stopped: {plain(now.reason)}", icon=":material/error:")
    st.markdown("A run writes the table of its images when it has read them all.")
    st.button("Look again", icon=":material/refresh:")


def _classes(counts: pd.DataFrame) -> None:
    st.subheader("How many images has each class?", anchor=False)
    shown = counts if len(counts) <= DRAWN else pd.concat([counts.head(DRAWN // 2), counts.tail(DRAWN // 2)])
    draw(class_counts_figure(shown), "classes", "Number of images of each class, the largest class on top")
    if len(counts) > DRAWN:
        st.caption(f"The {DRAWN // 2} largest and the {DRAWN // 2} smallest of {len(counts):,} classes.")
        with st.expander("All classes as a table"):
            names = {"label": "Class", "images": "Images", "test": "Test images"}
            st.dataframe(counts[list(names)].rename(columns=names), hide_index=True)


def _folds(data: Data) -> None:
    oof = data.oof
    if oof.empty or (oof["fold"] < 0).any():
        return
    st.subheader("Are the folds alike?", anchor=False)
    frame = folds_frame(data.labels, oof["fold"].to_numpy(), data.classes)
    lines(fold_sentence(frame), _groups(data.table))
    kept = set(frame.groupby("label")["off"].apply(lambda off: off.abs().max()).nlargest(DRAWN).index)
    shown = frame[frame["label"].isin(kept)]
    draw(folds_figure(shown), "folds", "Held-out images of each class in each fold")
    least = f" The {DRAWN} classes that are least even." if len(data.classes) > DRAWN else ""
    st.caption(
        f"Each image is held out in one fold: the models of that fold have not seen it.{least} The colour is how far "
        "a count is from an even split: orange is fewer, blue is more."
    )
    if data.folds is None:
        if not data.bare:
            st.caption(
                "Train, monitor and holdout rows are not shown: they can no longer be drawn as the run has them."
            )
        return
    table = sets_frame(data.labels, data.folds, data.classes)
    table["gap"] *= 100
    table["where"] = table["gap_class"] + ", " + table["gap_set"]
    names = {
        "fold": "Fold",
        "train": "Train",
        "monitor": "Monitor",
        "holdout": "Holdout",
        "gap": "Largest gap",
    }
    st.dataframe(
        table[[*names, "where"]].rename(columns={**names, "where": "Where"}),
        hide_index=True,
        column_config={
            "Largest gap": st.column_config.NumberColumn(
                "Largest gap, points",
                format="%.1f",
                help="Between a class's share, in per cent, of one of the three sets and of all images",
            )
        },
    )
    st.caption(
        "Train rows give gradients. Monitor rows choose the epoch, the temperature and the recipe. Holdout rows are "
        "predicted once, when training is over: they are what the leaderboard scores."
    )


def _groups(table: pd.DataFrame) -> str:
    groups = table.loc[table["split"] == "oof", "group"].dropna()
    if groups.empty:
        return ""
    if groups.str.startswith(PREFIX).all():
        pictures = count(groups.nunique(), "picture is", "pictures are")
        return f"{pictures} there more than once, all copies of each in one fold."
    torn = torn_groups(table)["more than one fold"]
    kept = "each in one fold" if not torn else f"{len(torn)} of them in more than one fold"
    return f"{count(groups.nunique(), 'group')} of images that belong together, {kept}."


def _unreadable(unreadable: Sequence[tuple[str, str]]) -> None:
    if not unreadable:
        return
    st.subheader("Images that could not be read", anchor=False)
    table = pd.DataFrame(unreadable[:LISTED], columns=["Image", "Reason"])
    st.dataframe(table, hide_index=True)
    if len(unreadable) > LISTED:
        st.caption(f"The first {LISTED} of {len(unreadable):,}.")


def _files(store: RunStore, data: Data, now: tuple[int, ...]) -> None:
    st.subheader("Sizes, copies and leaks", anchor=False)
    key = (str(store.path), now)
    if key not in _surveys():
        n_files = min(len(data.table), MOST_FILES)
        lines(
            f"Are there copies of one picture, perhaps in training and test at once? To find out, {n_files:,} files "
            "are read once."
        )
        if not st.button("Read the files", icon=":material/content_copy:", key="look"):
            return
        bar = st.progress(0.0, text="Reading the files…")
        every = max(1, n_files // 100)

        def told(done: int, total: int) -> None:
            if done % every == 0 or done == total:
                bar.progress(done / total, text=f"Reading the files: {done:,} of {total:,}")

        try:
            found = look(data.table, data.classes, told)
        except DataError as error:
            st.error(plain(error), icon=":material/broken_image:")
            return
        finally:
            bar.empty()
        if len(_surveys()) >= 8:
            _surveys().clear()
        _surveys()[key] = found
        st.rerun()
    seen, n_read = _surveys()[key]
    lines(copies_sentence(seen, n_read, len(data.table)))
    copies = copies_table(seen)
    if len(copies):
        st.dataframe(copies.head(LISTED), hide_index=True)
    _unreadable(seen.unreadable)
    sizes = sizes_frame(seen.sizes)
    lines(size_sentence(sizes, data.image_size))
    if len(sizes) > 1:
        draw(sizes_figure(sizes, data.image_size or 0), "sizes", "Width and height of the images")
        st.caption("Every image is brought to a square, squashed rather than cropped.")
