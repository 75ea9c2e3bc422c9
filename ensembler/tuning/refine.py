"""The next search around what the last one found: `refine: runs/previous`.

For each arm that the previous run tried, the best recipe becomes the default and the space shrinks around it: ranges
to between a quarter and a half of what they were, choices to what the best few used. A run that refined another is
itself refined from its own narrowed space, so the loop closes in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..config import Config
from ..metrics import get_metric
from ..training.candidate import Candidate, digest
from ..training.recipe import Recipe
from ..training.recipes import apply
from ..training.space import Choice, Distribution, Range, Space
from .arms import Arm
from .ledger import SweepStore
from .select import rank

#: How many of an arm's best recipes say where the next search looks.
TOP = 3

#: Half width of a narrowed range, as shares of the old one: as far as the best few lie apart, within these limits.
NARROWEST, WIDEST = 1 / 8, 1 / 4


@dataclass(frozen=True)
class Previous:
    """What an earlier run found.

    Attributes:
        path: of the run, as it is recorded.
        metric: by which its trials were scored.
        trials: candidates with their records.
        spaces: of its arms as (backbone, weights, strategy, space), if it says.
        identity: fingerprint, folds and size of its images, and its seed.
    """

    path: str
    metric: str
    trials: Sequence[tuple[Candidate, Mapping[str, Any]]]
    spaces: Sequence[tuple[str, str, str, Space]] = ()
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, path: str, manifest: Mapping[str, Any], trials: Sequence[Mapping[str, Any]]) -> Previous:
        """From a run's manifest and the records of its search."""
        spaces = [
            (arm["backbone"], arm["weights"], arm["strategy"], space_from_dict(arm["space"]))
            for arm in manifest.get("space", [])
        ]
        candidates = [(Candidate.from_dict(t["candidate"]), t) for t in trials]
        return cls(path, manifest["metric"], candidates, spaces, manifest.get("identity", {}))

    def same_question(self, identity: Mapping[str, Any], metric: str) -> bool:
        """Whether its scores are those that the new run would find: same images, folds, seed and metric."""
        return metric == self.metric and bool(self.identity) and dict(self.identity) == dict(identity)


def refine(arms: Sequence[Arm], previous: Previous, pinned: Sequence[str]) -> list[Arm]:
    """Each arm narrowed around the best that was found for it; one that the previous run lacks as it is.

    Args:
        arms: of the new run.
        previous: the run that is refined.
        pinned: hyperparameters that the new run's config fixes, `epochs` among them.
    """
    return [_refine_arm(arm, previous, pinned) for arm in arms]


def _refine_arm(arm: Arm, previous: Previous, pinned: Sequence[str]) -> Arm:
    own = [(candidate, trial) for candidate, trial in previous.trials if arm.is_of(candidate)]
    best = rank(own, get_metric(previous.metric)).best_first[:TOP]
    if not best:
        return arm
    named = (arm.backbone, arm.weights, arm.strategy)
    old = next((space for *names, space in previous.spaces if tuple(names) == named), {})
    fixed = {key: getattr(arm.recipe, key) for key in pinned}
    winner = apply(best[0].recipe, fixed)
    # What was drawn is read at the batch size of the new default, where the new rates are drawn too.
    around = dataclasses.replace(arm, recipe=winner)
    top = [around.drawn(candidate) for candidate in best]
    space: dict[str, Distribution] = {}
    for key, distribution in arm.space.items():
        before = _inside(old.get(key, distribution), distribution)
        values = [drawn[key] for drawn in top if key in drawn]
        centre = getattr(winner, key) if key in top[0] else None
        space[key] = _narrow(before, centre, values)
    return dataclasses.replace(around, space=space)


def _inside(old: Distribution, new: Distribution) -> Distribution:
    """The previous run's distribution; the new config's, where they are not of one kind or do not overlap."""
    if isinstance(old, Range) and isinstance(new, Range) and old.log == new.log:
        low, high = max(old.low, new.low), min(old.high, new.high)
        return dataclasses.replace(new, low=low, high=high) if low < high else new
    if isinstance(old, Choice) and isinstance(new, Choice):
        both = tuple(v for v in new.values if v in old.values)
        return dataclasses.replace(new, values=both) if both else new
    return new


def _narrow(distribution: Distribution, centre: Any, values: Sequence[Any]) -> Distribution:
    """A distribution around the winner's value; as it is where the winner has none.

    What the best few differ in is worth drawing from the first trial on.
    """
    if centre is None:
        return distribution
    after = 0 if len(set(values)) > 1 else distribution.after
    if isinstance(distribution, Choice):
        used = tuple(v for v in distribution.values if v in values)
        return dataclasses.replace(distribution, values=used or (centre,), after=after)
    middle = min(1.0, max(0.0, distribution.share(centre)))
    spread = max((abs(distribution.share(v) - middle) for v in values), default=0.0)
    half = min(WIDEST, max(NARROWEST, spread))
    low = distribution.at(max(0.0, middle - half))
    high = distribution.at(min(1.0, middle + half))
    return dataclasses.replace(distribution, low=low, high=high, after=after)


# ---------------------------------------------------------------------- in the manifest


def refined_arms(
    arms: Sequence[Arm], config: Config, store: SweepStore, previous: Callable[[], Previous]
) -> tuple[list[Arm], list[tuple[Candidate, float]]]:
    """The arms narrowed, and what the earlier run knows that this one may be told: candidates and their scores.

    What was read of the earlier run is kept in the manifest: a run that goes on neither needs it nor follows its
    changes.
    """
    manifest = store.manifest()
    asked = digest([config.refine, arms_to_dicts(arms)])
    refined = manifest.get("refined", {})
    if refined.get("asked") != asked:
        found = previous()
        same = found.same_question(manifest.get("identity", {}), config.metric)
        hints = [
            [candidate.to_dict(), trial["score"]]
            for candidate, trial in found.trials
            if same and trial["status"] != "failed" and trial["score"] is not None
        ]
        narrowed = refine(arms, found, ["epochs", *config.recipe])
        refined = {"asked": asked, "from": found.path, "arms": arms_to_dicts(narrowed), "hints": hints}
        store.update_manifest(refined=refined)
    return (
        arms_from_dicts(refined["arms"]),
        [(Candidate.from_dict(candidate), score) for candidate, score in refined["hints"]],
    )


def space_to_dict(space: Space) -> dict[str, Any]:
    """Plain values for the manifest."""
    return {key: dataclasses.asdict(distribution) for key, distribution in space.items()}


def space_from_dict(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Distribution]:
    """The inverse of `space_to_dict`, also of what JSON makes of it: lists for tuples."""
    space: dict[str, Distribution] = {}
    for key, fields in values.items():
        when = {other: tuple(expected) for other, expected in fields["when"].items()}
        if "values" in fields:
            space[key] = Choice(tuple(fields["values"]), when, fields["after"])
        else:
            space[key] = Range(fields["low"], fields["high"], fields["log"], when, fields["after"])
    return space


def arms_to_dicts(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Arms with their default recipes and spaces, for the manifest."""
    return [
        {
            "backbone": arm.backbone,
            "weights": arm.weights,
            "strategy": arm.strategy,
            "recipe": dataclasses.asdict(arm.recipe),
            "space": space_to_dict(arm.space),
        }
        for arm in arms
    ]


def arms_from_dicts(values: Sequence[Mapping[str, Any]]) -> list[Arm]:
    """The inverse of `arms_to_dicts`."""
    return [
        Arm(v["backbone"], v["weights"], v["strategy"], Recipe(**v["recipe"]), space_from_dict(v["space"]))
        for v in values
    ]
