"""Predictions from files and tables that others made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .errors import PredictionsError
from .parquet import read_frame
from .predictions import Predictions, Split


def from_frame(frame: pd.DataFrame, split: Split = "oof") -> Predictions:
    """See `Predictions.from_frame`."""
    needed = ["member", "sample_id", "label"] + (["fold"] if split == "oof" else [])
    missing = [c for c in needed if c not in frame.columns]
    if missing:
        raise PredictionsError(f"columns {missing} missing; found {list(frame.columns)[:12]}")
    classes = [str(c) for c in frame.columns if c not in ("member", "sample_id", "label", "fold", "split")]
    if len(classes) < 2:
        raise PredictionsError(f"class columns: found {classes}; expected one probability column a class")
    frame = frame.assign(member=frame["member"].astype(str), sample_id=frame["sample_id"].astype(str))
    for column in needed[2:]:
        empty = frame[column].isna()
        if empty.any():
            row = frame[empty].iloc[0]
            raise PredictionsError(
                f"member {row['member']!r}, sample {row['sample_id']!r}: {column} is missing"
            )
    twice = frame.duplicated(["member", "sample_id"])
    if twice.any():
        row = frame[twice].iloc[0]
        raise PredictionsError(f"member {row['member']!r}: sample {row['sample_id']!r} appears twice")
    members = list(dict.fromkeys(frame["member"]))
    ids = list(dict.fromkeys(frame["sample_id"]))
    code = {name: i for i, name in enumerate(classes)}
    first: pd.DataFrame | None = None
    slabs = []
    for member in members:
        part = frame[frame["member"] == member].set_index("sample_id")
        absent = [i for i in ids if i not in part.index]
        if absent:
            raise PredictionsError(
                f"member {member!r}: lacks {len(absent)} of {len(ids)} samples, first {absent[0]!r}; "
                "every member must predict every sample"
            )
        part = part.loc[ids]
        if first is None:
            first = part
        for column in needed[2:]:
            differs = (part[column].astype(str) != first[column].astype(str)).to_numpy()
            if differs.any():
                where = ids[int(np.argmax(differs))]
                raise PredictionsError(
                    f"sample {where!r}: {column} is {part[column][where]!r} for member {member!r} but "
                    f"{first[column][where]!r} for {members[0]!r}"
                )
        slabs.append(part[classes].to_numpy(np.float32))
    if first is None:
        raise PredictionsError("the table is empty; expected one row a (member, sample)")
    names = [str(v) for v in first["label"]]
    unknown = sorted({n for n in names if n not in code})
    if unknown:
        raise PredictionsError(f"label {unknown[0]!r} has no probability column; columns: {classes[:12]}")
    fold = first["fold"].to_numpy() if split == "oof" else np.full(len(ids), -1)
    return Predictions.from_arrays(
        np.stack(slabs),
        [code[n] for n in names],
        fold,
        members=members,
        classes=classes,
        sample_ids=ids,
        split=split,
    )


def read(path: Path) -> tuple[Predictions, Predictions | None]:
    """See `Predictions.load`."""
    try:
        if path.suffix == ".npz":
            return _read_npz(path)
        if path.suffix in (".csv", ".parquet"):
            frame = (
                read_frame(path)
                if path.suffix == ".parquet"
                else pd.read_csv(path, dtype={"member": str, "sample_id": str, "label": str})
            )
            if "split" not in frame.columns:
                return from_frame(frame), None
            unknown = sorted({str(value) for value in frame["split"]} - {"oof", "test"})
            if unknown:
                raise PredictionsError(f"split {unknown[0]!r}; expected 'oof' or 'test'")
            test = frame[frame["split"] == "test"].drop(columns="split")
            oof = frame[frame["split"] != "test"].drop(columns="split")
            return from_frame(oof), from_frame(test, "test") if len(test) else None
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from error
    except FileNotFoundError:
        raise PredictionsError(f"{path}: no such file; give an .npz, .csv or .parquet") from None
    except Exception as error:  # numpy, pandas and pyarrow raise many kinds for a file that is not theirs
        raise PredictionsError(
            f"{path}: cannot be read as {path.suffix[1:]}: {error}; write it anew"
        ) from error
    raise PredictionsError(f"{path}: unknown format {path.suffix!r}; give an .npz, .csv or .parquet")


def _read_npz(path: Path) -> tuple[Predictions, Predictions | None]:
    with np.load(path, allow_pickle=False) as file:
        arrays: Mapping[str, NDArray[Any]] = {name: file[name] for name in file.files}
    oof_names = {"proba", "labels", "fold"}
    missing = sorted(oof_names - arrays.keys())
    if missing:
        raise PredictionsError(f"arrays {missing} missing; found {sorted(arrays)}")

    def build(prefix: str, split: Split) -> Predictions:
        members, classes = arrays.get("members"), arrays.get("classes")
        ids = arrays.get(f"{prefix}sample_ids")
        return Predictions.from_arrays(
            arrays[f"{prefix}proba"],
            arrays[f"{prefix}labels"],
            arrays.get(f"{prefix}fold"),
            members=None if members is None else [str(m) for m in members],
            classes=None if classes is None else [str(c) for c in classes],
            sample_ids=None if ids is None else [str(i) for i in ids],
            split=split,
            features=arrays.get(f"{prefix}features"),
        )

    if "test_proba" in arrays and "test_labels" not in arrays:
        raise PredictionsError("array 'test_labels' missing beside 'test_proba'; give both, or neither")
    return build("", "oof"), build("test_", "test") if "test_proba" in arrays else None
