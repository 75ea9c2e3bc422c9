"""The verdict: is the best ensemble better than the best single model, by how much, and at what cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics import get_metric

#: A difference is shown when its 95 % interval excludes zero and its corrected p-value is at most this.
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Price:
    """What the best ensemble costs to run beyond the best single model; None where it was not measured.

    Attributes:
        latency_ratio: its latency as a multiple of the single model's.
        added_ms: milliseconds more for one image.
    """

    latency_ratio: float | None
    added_ms: float | None


@dataclass(frozen=True)
class Verdict:
    """A recommendation, and the numbers behind it.

    Attributes:
        winner: the row to use.
        best_single: the best single model by `cv`.
        best_ensemble: the best ensemble by `cv`; None where there is none.
        better: whether the best ensemble is shown to be better than the best single model.
        delta: its improvement in units of the metric, positive is better; None without an ensemble.
        low: lower end of the 95 % interval of `delta`.
        high: upper end.
        p_value: of `delta`, Holm-corrected for all rows.
        price: what the best ensemble costs beyond the best single model.
        sentence: all of it, to read.
        failed: candidates that could not be compared, each with its reason.
    """

    winner: str
    best_single: str
    best_ensemble: str | None
    better: bool
    delta: float | None
    low: float | None
    high: float | None
    p_value: float | None
    price: Price
    sentence: str
    failed: tuple[str, ...] = ()


def judge(records: Sequence[Mapping[str, Any]], failed: Sequence[Mapping[str, Any]] = ()) -> Verdict:
    """The verdict on the records of a leaderboard, best first, with at least one single model."""
    single = next(r for r in records if r["kind"] == "single")
    ensemble = next((r for r in records if r["kind"] == "ensemble"), None)
    companions = tuple(_failure(f) for f in failed)
    if ensemble is None:
        sentence = (
            f"{single['name']} is the best single model: {_metric(single)} {single['cv']:.4f} "
            f"(95 % interval {single['cv_low']:.4f} to {single['cv_high']:.4f}); "
            "there is no ensemble to compare it with."
        )
        return Verdict(
            winner=single["name"],
            best_single=single["name"],
            best_ensemble=None,
            better=False,
            delta=None,
            low=None,
            high=None,
            p_value=None,
            price=Price(None, None),
            sentence=sentence + _count(companions),
            failed=companions,
        )
    price = _price(single, ensemble)
    shown = ensemble["p_value"] is not None and ensemble["p_value"] <= SIGNIFICANCE
    better = bool(shown and ensemble["delta_low"] > 0)
    return Verdict(
        winner=ensemble["name"] if better else single["name"],
        best_single=single["name"],
        best_ensemble=ensemble["name"],
        better=better,
        delta=ensemble["delta_best_single"],
        low=ensemble["delta_low"],
        high=ensemble["delta_high"],
        p_value=ensemble["p_value"],
        price=price,
        sentence=_sentence(single, ensemble, better, price) + _count(companions),
        failed=companions,
    )


def _sentence(single: Mapping[str, Any], ensemble: Mapping[str, Any], better: bool, price: Price) -> str:
    metric = _metric(single)
    evidence = (
        f"95 % interval {ensemble['delta_low']:+.4f} to {ensemble['delta_high']:+.4f}, "
        f"Holm-corrected {_p_text(ensemble['p_value'])}"
    )
    if better:
        return (
            f"The best ensemble, {ensemble['name']}, beats the best single model, {single['name']}, by "
            f"{ensemble['delta_best_single']:.4f} {metric} ({ensemble['cv']:.4f} against {single['cv']:.4f}; "
            f"{evidence}), {_price_text(price)}."
        )
    return (
        f"The best ensemble, {ensemble['name']}, is not shown to be better than the best single model, "
        f"{single['name']}: {metric} {ensemble['cv']:.4f} against {single['cv']:.4f}, a gain of "
        f"{ensemble['delta_best_single']:+.4f} ({evidence}); use {single['name']}."
    )


def _price(single: Mapping[str, Any], ensemble: Mapping[str, Any]) -> Price:
    before, after = single["latency_ms"], ensemble["latency_ms"]
    if before is None or after is None:
        return Price(None, None)
    return Price(after / before if before > 0 else None, after - before)


def _price_text(price: Price) -> str:
    if price.added_ms is None:
        return "at a cost that was not measured"
    ratio = "" if price.latency_ratio is None else f"{price.latency_ratio:.1f} times the latency, "
    return f"at {ratio}{price.added_ms:+.1f} ms an image"


def _p_text(p_value: float | None) -> str:
    if p_value is None:
        return "p unknown"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def _metric(record: Mapping[str, Any]) -> str:
    return get_metric(record["metric"]).title


def _count(failed: Sequence[str]) -> str:
    if not failed:
        return ""
    one = len(failed) == 1
    return f" {len(failed)} candidate{'' if one else 's'} failed or {'was' if one else 'were'} left out, not compared."


def _failure(candidate: Mapping[str, Any]) -> str:
    """One line from a mapping with a name and, mostly, a reason and a fold; what else it holds is for programs."""
    name, reason, fold = str(candidate.get("name", "unnamed")), candidate.get("reason"), candidate.get("fold")
    if reason is None:
        return name
    if str(reason).startswith(f"{name}, "):  # it names candidate and fold by itself
        return str(reason)
    return f"{name}: {reason}" + ("" if fold is None else f" (fold {fold})")
