"""What the report says of how sure it is: the winner's honest score, other tests of the verdict, what members add."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from numpy.typing import ArrayLike, NDArray

from ..evaluation.bbc import bias_corrected
from ..evaluation.contribution import contributions
from ..evaluation.cross_fit import CrossFit
from ..evaluation.diversity import Diversity, ambiguity, diversity
from ..evaluation.hypothesis_tests import critical_difference, fold_scores, fold_test, mcnemar_of
from ..evaluation.labels import label_issues, rows_without
from ..evaluation.leaderboard import build_leaderboard
from ..evaluation.learning_curve import learning_curve
from ..evaluation.overfitting import overfitting
from ..evaluation.stability import selection_stability
from ..evaluation.subsets import MeanValue
from ..evaluation.verdict import Verdict
from ..metrics import Metric
from ..predictions import Predictions
from .markup import number, p_value, signed, table, words

#: Most rows that are ranked over folds: with more, the critical difference is wider than all ranks.
MAX_RANKED = 12

#: Members of which each is told what it adds.
MAX_MEMBERS = 40

#: Suspect labels that are shown; the app and `label_issues` have them all.
MAX_SUSPECTS = 20


def certainty_section(
    everyone: Predictions,
    fits: Sequence[CrossFit],
    metric: Metric,
    verdict: Verdict,
    groups: ArrayLike | None = None,
) -> str:
    """Whether the verdict stands when it is asked in other ways.

    Args:
        everyone: single models, and ensembles as cross-fitted.
        fits: the ensembles.
        metric: of the leaderboard.
        verdict: of the leaderboard.
        groups: (samples,), rows of one group are resampled together.
    """
    parts = [_optimism(everyone, metric, groups)]
    if verdict.best_ensemble is not None:
        parts.append(_tests(everyone, metric, verdict.best_ensemble, verdict.best_single))
    single = everyone.select([verdict.best_single])
    found = [overfitting(fit, single, metric) for fit in fits]
    parts += [one.sentence for one in found if one.overfits]
    parts.append(_ranks(everyone, metric))
    return "\n\n".join(part for part in parts if part)


def members_section(
    predictions: Predictions, fits: Sequence[CrossFit], metric: Metric, groups: ArrayLike | None = None
) -> str:
    """How differently the single models err, what each adds to their mean, and how firmly each is chosen."""
    found = diversity(predictions)
    split = ambiguity(predictions)
    measures = ", ".join(
        f"{words(field.name)} {number(getattr(found, field.name), 3)}" for field in fields(Diversity)
    )
    text = (
        f"Means over all pairs of single models: {measures}. The members' Brier score is {split.members:.4f} on "
        f"average; that they differ takes {split.ambiguity:.4f} off it when they are averaged."
    )
    if not 2 <= predictions.n_members <= MAX_MEMBERS:
        return text
    value = MeanValue(predictions, metric)
    shares = contributions(value)
    curve = learning_curve(value)
    between = "" if curve.next_low is None else f" [{curve.next_low:+.4f}, {curve.next_high:+.4f}]"
    rows = [
        [m.member, f"{m.alone:+.4f}", f"{m.leave_one_out:+.4f}", f"{m.shapley:+.4f} ± {m.error:.4f}"]
        for m in sorted(shares.members, key=lambda m: -m.shapley)
    ]
    head = ["member", "alone", "lost without it", "Shapley value"]
    return (
        f"{text}\n\nWhat each adds to the mean of all, in {metric.title}, positive is an improvement: by "
        f"itself on knowing the class frequencies alone ({shares.empty:.4f}); what the mean of all ({shares.full:.4f}) "
        f"loses without it; and on average over {shares.n_orders} orders in which the mean can be built.\n\n"
        f"{table(head, rows)}\n\nOne more such member would be expected to bring the mean of all "
        f"{curve.next_gain:+.4f}{between}.\n\n{_stability(predictions, fits, metric, groups)}"
    ).rstrip()


def labels_section(
    predictions: Predictions, fits: Sequence[CrossFit], metric: Metric, groups: NDArray[Any] | None = None
) -> str:
    """Labels that are probably wrong, and the verdict without them."""
    issues = label_issues(predictions)
    if not issues:
        return "No label is suspected by the single models together (confident learning, out of fold)."
    rows = [
        [
            i.sample_id,
            i.label,
            i.suggested,
            f"{i.self_confidence:.3f}",
            f"{i.votes} of {predictions.n_members}",
        ]
        for i in issues[:MAX_SUSPECTS]
    ]
    shown = "" if len(issues) <= MAX_SUSPECTS else f"; the {MAX_SUSPECTS} most suspect"
    kept = rows_without(predictions, issues)
    without = [dataclasses.replace(fit, predictions=fit.predictions.rows(kept)) for fit in fits]
    board = build_leaderboard(
        predictions.rows(kept), without, metric, groups=None if groups is None else groups[kept], n_boot=1000
    )
    return (
        f"{len(issues)} of {predictions.n_samples} labels are probably wrong (confident learning over out-of-fold "
        f"probabilities: the average of the single models and half of them by themselves are surer of another class "
        f"than that class's own rows make them){shown}:\n\n"
        f"{table(['image', 'label', 'rather', 'probability of the label', 'suspected by'], rows)}\n\n"
        f"Without these rows, which flatters whoever agreed with the suspicion: {board.verdict.sentence}"
    )


def _stability(
    predictions: Predictions, fits: Sequence[CrossFit], metric: Metric, groups: ArrayLike | None
) -> str:
    weighted = [fit for fit in fits if fit.combiner.weights_ is not None and fit.combiner.name != "mean"]
    if not weighted:
        return ""
    fit = max(weighted, key=lambda one: metric.sign * one.score)
    found = selection_stability(fit.combiner, predictions, groups=groups, n_boot=50)
    rows = [
        [m.member, f"{m.weight:.2f}", f"{m.chosen:.0%}", f"{m.mean:.2f} [{m.low:.2f}, {m.high:.2f}]"]
        for m in sorted(found.members, key=lambda m: -m.mean)
        if m.chosen > 0 or m.weight > 0
    ]
    return (
        f"How firmly {fit.name} is made up as it is, over {found.n_boot} resamples of the rows: the same members in "
        f"{found.same_set:.0%} of them, an overlap of {found.overlap:.0%} on average.\n\n"
        + table(["member", "weight", "chosen", "weight over resamples"], rows)
    )


def _optimism(everyone: Predictions, metric: Metric, groups: ArrayLike | None) -> str:
    found = bias_corrected(everyone, metric, groups=groups)
    often = ", ".join(
        f"{name} {share:.0%}" for name, share in sorted(found.chosen.items(), key=lambda pair: -pair[1])[:4]
    )
    return (
        f"The best of {everyone.n_members} rows is partly the luckiest of them. When the choice itself is bootstrapped "
        f"(BBC-CV), {found.winner} may be expected to score {found.estimate:.4f} [{found.low:.4f}, {found.high:.4f}] "
        f"instead of {found.naive:.4f}. Chosen most often: {often}."
    )


def _tests(everyone: Predictions, metric: Metric, ensemble: str, single: str) -> str:
    right = mcnemar_of(everyone, ensemble, single)
    rows = [
        [
            "McNemar, " + ("exact" if right.exact else "chi-squared"),
            "are they right equally often?",
            f"{right.only_first} rows only the ensemble, {right.only_second} only the single model",
            p_value(right.p_value),
        ]
    ]
    if len(everyone.folds) > 1:
        folds = fold_test(everyone, metric, ensemble, single)
        rows.append(
            [
                "corrected resampled t-test",
                f"do their folds differ in {metric.title}?",
                signed(folds.delta, folds.low, folds.high),
                p_value(folds.p_value),
            ]
        )
    return (
        f"{ensemble} against {single}, asked in other ways (each by itself, nothing corrected for):\n\n"
        + table(["test", "question", "found", "p"], rows)
    )


def _ranks(everyone: Predictions, metric: Metric) -> str:
    scores = fold_scores(everyone, metric)
    best = (-metric.sign * scores.mean(axis=1)).argsort(kind="stable")[:MAX_RANKED]
    if len(everyone.folds) < 2 or len(best) < 2:
        return ""
    found = critical_difference(
        [everyone.members[i] for i in best], scores[best], greater_is_better=metric.greater_is_better
    )
    ranks = ", ".join(f"{name} {rank:.1f}" for name, rank in zip(found.names, found.ranks, strict=True))
    same = "; ".join(" = ".join(clique) for clique in found.cliques)
    return (
        f"Average rank over {found.n_blocks} folds: {ranks}. Ranks closer than {found.difference:.1f} (Nemenyi, 5 %) "
        f"are not shown to differ{': ' + same if same else ''}. Folds share training images, so this describes "
        "rather than proves."
    )
