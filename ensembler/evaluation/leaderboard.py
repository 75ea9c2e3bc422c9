"""The leaderboard: one row a single model or ensemble, with the numbers everybody reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ..metrics import METRICS, Metric
from ..predictions import Predictions
from .cost import Cost
from .significance import includes_zero
from .tables import latex_table, text_table
from .verdict import Verdict, judge

if TYPE_CHECKING:
    from .cross_fit import CrossFit

#: Columns that come from `details`, for single models.
DETAILS = ("backbone", "strategy", "weights", "note")

#: Columns of the frame, in order. The numbers of a cost and of a test are missing where they are not known.
COLUMNS = (
    "name", "kind", "members", "metric", "cv", "cv_low", "cv_high", "fold_scores", "test",
    "accuracy", "log_loss", "ece", "delta_best_single", "delta_low", "delta_high", "p_value",
    "tied_with_best", "optimism", "latency_ms", "params", "train_s",
    "latency_32_ms", "flops", "weights_bytes", *DETAILS,
)  # fmt: skip

_FLOATS = (
    "cv", "cv_low", "cv_high", "test", "accuracy", "log_loss", "ece", "delta_best_single",
    "delta_low", "delta_high", "p_value", "optimism", "latency_ms", "train_s",
    "latency_32_ms",
)  # fmt: skip


#: Numbers that every row has, and every ensemble beside them.
_SCORED = ("cv", "cv_low", "cv_high")
_COMPARED = ("delta_best_single", "delta_low", "delta_high")


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Single models and ensembles, best first.

    Attributes:
        frame: one row each, columns `COLUMNS` and any further details. `kind` is "single" or "ensemble";
            `members` and `fold_scores` hold lists; `cv` is the metric over all out-of-fold rows with its 95 %
            interval; `delta_*` and `p_value` (Holm-corrected) compare with the best single model, positive is
            better. `by_hand` marks saved ensembles, and is there where there are any.
        failed: candidates that have no row, each a mapping with its name and what went wrong.
    """

    frame: pd.DataFrame
    failed: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_records(
        cls, records: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]] = ()
    ) -> Leaderboard:
        """The leaderboard whose `to_records` these are.

        Raises:
            ValueError: a row lacks what every row has; the message names it.
        """
        for number, record in enumerate(records):
            _require_whole(number, record)
        further = [key for key in dict.fromkeys(k for r in records for k in r) if key not in COLUMNS]
        frame = pd.DataFrame([dict(r) for r in records], columns=[*COLUMNS, *further])
        types: dict[str, Any] = dict.fromkeys(_FLOATS, "float64") | {
            **dict.fromkeys(("params", "flops", "weights_bytes"), "Int64"),
            "tied_with_best": "bool",
        }
        return cls(frame.astype(types), tuple(failed))

    def to_records(self) -> list[dict[str, Any]]:
        """A list of plain dicts, best first; what is missing is None."""
        names = [str(name) for name in self.frame.columns]
        columns = [_plain_column(self.frame[name]) for name in self.frame.columns]
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def to_json(self) -> str:
        """The records as a JSON list, an object a line."""
        # With an indent, Python's JSON encoder is ten times as slow.
        lines = [json.dumps(record, ensure_ascii=False, allow_nan=False) for record in self.to_records()]
        return "[\n" + ",\n".join(lines) + "\n]" if lines else "[]"

    def to_csv(self) -> str:
        """One line a row; the entries of a list are separated by semicolons."""
        frame = self.frame.copy()
        for column in ("members", "fold_scores"):
            frame[column] = [
                ";".join("" if v is None else str(v) for v in _plain(row)) for row in frame[column]
            ]
        return frame.to_csv(index=False)

    def to_latex(self) -> str:
        """A `tabular` for the booktabs package."""
        return latex_table(self.to_records())

    def to_table(self, width: int = 100) -> str:
        """Plain text of at most `width` columns; columns that do not fit are left out, names never are."""
        return text_table(self.to_records(), width)

    @cached_property
    def verdict(self) -> Verdict:
        """Is the best ensemble better than the best single model, and what does it cost?

        Ensembles that somebody made by hand, looking at the scores, are not asked: their scores flatter them.
        """
        kinds = self.frame["kind"].to_numpy(copy=True)
        if "by_hand" in self.frame:
            kinds[self.frame["by_hand"].eq(True).to_numpy()] = "by hand"
        firsts = [
            int(np.flatnonzero(kinds == kind)[0]) for kind in ("single", "ensemble") if (kinds == kind).any()
        ]
        return judge(Leaderboard(self.frame.iloc[sorted(firsts)]).to_records(), self.failed)


def _require_whole(number: int, record: Mapping[str, Any]) -> None:
    """Raises a ValueError where a record lacks what the tables and the verdict read without asking."""
    compared = _COMPARED if record.get("kind") == "ensemble" else ()
    kinds = (
        (("name", "kind", "metric"), str, "text"),
        (("members", "fold_scores"), list | tuple, "a list"),
        ((*_SCORED, *compared), int | float, "a number"),
    )
    for keys, kind, expected in kinds:
        for key in keys:
            if not isinstance(record.get(key), kind):
                raise ValueError(
                    f"row {number} of the leaderboard: {key}: {record.get(key)!r:.40}; expected {expected}"
                )


def build_leaderboard(
    predictions: Predictions,
    cross_fits: Sequence[CrossFit],
    metric: Metric,
    *,
    costs: Mapping[str, Cost] | None = None,
    groups: ArrayLike | None = None,
    test: Mapping[str, float] | None = None,
    details: Mapping[str, Mapping[str, Any]] | None = None,
    failed: Sequence[Mapping[str, Any]] = (),
    n_boot: int = 2000,
    seed: int = 0,
) -> Leaderboard:
    """Scores and compares single models and ensembles over the same out-of-fold rows.

    Args:
        predictions: out-of-fold rows of the single models.
        cross_fits: ensembles over them, see `cross_fit`.
        metric: that ranks the rows.
        costs: of the single models, by name; an ensemble costs the total of the members it uses, a cascade
            their time as often as it asks them.
        groups: (samples,), rows of one group are resampled together.
        test: score on the test split, by row name.
        details: further columns of the single models, by name.
        failed: candidates without predictions, each a mapping with its name and what went wrong.
        n_boot: resamples behind every interval and p-value.
        seed: of the resamples.

    Raises:
        PredictionsError: an ensemble is over other rows than `predictions`, or bears the name of another row.
    """
    everything = Predictions.concat([predictions, *(c.predictions for c in cross_fits)])
    ensembles = {c.name: c for c in cross_fits}
    labels = everything.labels
    from .paired import resample  # brings scipy, which a leaderboard that is only read does not need

    resampled = resample(everything, metric, groups=groups, n_boot=n_boot, seed=seed)
    scores, (lows, highs) = resampled.scores, resampled.intervals()

    # Stable, and singles come first: a single model wins a draw against an ensemble.
    ranking = np.argsort(-metric.sign * scores, kind="stable")
    best, best_single = ranking[0], ranking[ranking < predictions.n_members][0]
    to_single = {d.first: d for d in resampled.against(everything.members[best_single])}
    to_best = {d.first: d for d in resampled.against(everything.members[best])}

    records = []
    for row in ranking:
        name, slab = everything.members[row], everything.proba[row]
        ensemble = ensembles.get(name)
        asked = ensemble.combiner.asked_(predictions) if ensemble else {name: 1.0}
        members = tuple(asked)
        cost = Cost.total(costs or {}, asked)
        gain, to_first = to_single.get(name), to_best.get(name)
        records.append(
            {
                "name": name,
                "kind": "ensemble" if ensemble else "single",
                "members": list(members),
                "metric": metric.name,
                "cv": scores[row],
                "cv_low": lows[row],
                "cv_high": highs[row],
                "fold_scores": [
                    metric(labels[everything.fold == fold], slab[everything.fold == fold])
                    for fold in everything.folds
                ],
                "test": (test or {}).get(name),
                "accuracy": METRICS["accuracy"](labels, slab),
                "log_loss": METRICS["log_loss"](labels, slab),
                "ece": METRICS["ece"](labels, slab),
                "delta_best_single": gain.delta if gain else 0.0,
                "delta_low": gain.low if gain else 0.0,
                "delta_high": gain.high if gain else 0.0,
                "p_value": gain.corrected if gain else None,
                "tied_with_best": to_first is None or includes_zero(to_first.low, to_first.high),
                "optimism": ensemble.optimism if ensemble else None,
                **vars(cost),
                **dict.fromkeys(DETAILS),
                **(details or {}).get(name, {}),
            }
        )
    return Leaderboard.from_records(records, failed)


def _plain_column(column: pd.Series[Any]) -> list[Any]:
    """A column as JSON's own types, at once where its values are no lists."""
    if column.dtype == object:
        return [_plain(value) for value in column]
    missing = column.isna().to_numpy(copy=True)
    if column.dtype == np.float64:
        missing |= ~np.isfinite(column.to_numpy())
    values = column.astype(object).to_numpy(copy=True)
    values[missing] = None
    return list(values.tolist())


def _plain(value: Any) -> Any:
    """JSON's own types; NaN and NA become None."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return [_plain(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or (isinstance(value, float) and not np.isfinite(value)):
        return None
    return value
