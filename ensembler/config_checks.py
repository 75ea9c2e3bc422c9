"""Names that live in a table: combiners, metrics, strategies, hyperparameters, the space; and what excludes what."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config_settings import NAME
from .config_text import Lines, where_is
from .errors import ConfigError, did_you_mean
from .training.candidate import FROZEN_BODY
from .training.recipe import RECIPE_CHOICES, RECIPE_LIMITS, Recipe
from .training.space import STRATEGY, read_distribution

if TYPE_CHECKING:
    from .config import Config


def check_names(config: Config, lines: Lines, path: Path) -> None:
    """Raises ConfigError, which names file, line and field, for the first that is wrong."""
    from .metrics import get_metric
    from .training.strategies import STRATEGIES

    def fail(loc: tuple[Any, ...], message: str) -> None:
        raise ConfigError(f"{where_is(loc, lines, path)}: {message}")

    def known(loc: tuple[Any, ...], kind: str, name: str, valid: Sequence[str]) -> None:
        if name not in valid:
            fail(loc, f"unknown {kind} {name!r}; {did_you_mean(name, valid)}")

    try:
        get_metric(config.metric)
    except ConfigError as error:
        fail(("metric",), str(error))
    for i, strategy in enumerate(config.strategies):
        known(("strategies", i), "strategy", strategy, list(STRATEGIES))
    _check_ensembles(config, fail, known)
    fields = list(Recipe.__dataclass_fields__)
    for key, value in config.recipe.items():
        known(("recipe", key), "hyperparameter", key, fields)
        _check_hyperparameter(("recipe", key), key, value, fail)
    for key, value in (config.search.space if config.search else {}).items():
        known(("search", "space", key), "hyperparameter", key, fields)
        _check_space(("search", "space", key), key, value, fail)
    if config.refine is not None and config.search is None:
        fail(("refine",), "there is no search to refine; give `search`, or leave `refine` out")
    _check_after(config, fail, known)
    names = [(b.name, b.weights) for b in config.backbones]
    for i, pair in enumerate(names):
        if pair in names[:i]:
            fail(("backbones", i), f"backbone {pair[0]!r} with weights {pair[1]!r} appears twice")


def _check_ensembles(config: Config, fail: Any, known: Any) -> None:
    from .combiners import COMBINERS, make_combiner
    from .errors import CombinerError

    seen: set[str] = set()
    for i, entry in enumerate(config.ensembles):
        known(("ensembles", i), "combiner", entry.combiner, list(COMBINERS))
        if "label" in entry.options:
            fail(("ensembles", i), "label: name it as {my-name: {combiner: " + entry.combiner + ", ...}}")
        if entry.combiner != entry.name and entry.name in COMBINERS:
            fail(
                ("ensembles", i),
                f"name {entry.name!r} is that of another combiner; choose one of its own",
            )
        if not re.fullmatch(NAME, entry.name):
            fail(("ensembles", i), f"name {entry.name!r}; expected letters, digits, '.', '_' and '-'")
        try:
            combiner = make_combiner(entry.combiner, **entry.params)
        except (CombinerError, TypeError, ValueError) as error:
            fail(("ensembles", i), str(error))
        if combiner.needs_features and not (
            config.screen or {"probe", "ridge", "lp-ft"} & set(config.strategies)
        ):
            fail(("ensembles", i), "reads frozen features, which nothing makes here; give `screen: true`")
        if entry.name in seen:
            named = f"{{{entry.name}-2: {{combiner: {entry.combiner}}}}}"
            fail(
                ("ensembles", i),
                f"combiner {entry.name!r} appears twice; give each once, or named as {named}",
            )
        seen.add(entry.name)


def _check_after(config: Config, fail: Any, known: Any) -> None:
    """What follows cross-validation needs something to follow, and fold collapse something to be judged by."""
    for key, wanted in (("boosted", config.boosted), ("soups", config.soups)):
        if wanted and not set(config.strategies) - set(FROZEN_BODY):
            fail((key,), f"{', '.join(config.strategies)} train no backbone; add a strategy such as lp-ft")
    for i, name in enumerate(config.boosted.backbones if config.boosted else ()):
        known(("boosted", "backbones", i), "backbone", name, [b.name for b in config.backbones])
    twice = next((way for way in config.collapse if config.collapse.count(way) > 1), None)
    if twice is not None:
        fail(("collapse",), f"{twice!r} appears twice; give each once")
    if config.data.test is None and config.collapse != ["folds"]:
        fail(
            ("collapse",),
            "is compared on the test split, and there is none; give `data.test`, or leave it out",
        )


def _check_hyperparameter(loc: tuple[Any, ...], key: str, value: Any, fail: Any) -> None:
    default = getattr(Recipe(), key)
    if key in RECIPE_CHOICES:
        if value not in RECIPE_CHOICES[key]:
            fail(loc, f"{value!r}; expected one of {', '.join(RECIPE_CHOICES[key])}")
        return
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        if not isinstance(value, bool):
            fail(loc, f"{value!r}; expected true or false")
        return
    whole = isinstance(default, int)
    if not number or not math.isfinite(value) or (whole and value != int(value)):
        fail(loc, f"{value!r}; expected {'a whole number' if whole else 'a number'}")
    low, high = RECIPE_LIMITS[key]
    if not low <= value <= high:
        limit = f"{low:g} or more" if high == math.inf else f"{low:g} to {high:g}"
        fail(loc, f"{value!r}; expected {limit}")


def _check_space(loc: tuple[Any, ...], key: str, value: Any, fail: Any) -> None:
    """An override of the search space: every value that it can yield must be one that the recipe may hold."""
    values = value.get("values") if isinstance(value, Mapping) else value
    if isinstance(values, list):
        for one in values:
            _check_hyperparameter(loc, key, one, fail)
    elif isinstance(value, Mapping):
        if isinstance(getattr(Recipe(), key), bool):
            fail(loc, f"{dict(value)}; expected a list such as [true, false]")
        if key in RECIPE_CHOICES:
            fail(loc, f"{dict(value)}; expected a list of {', '.join(RECIPE_CHOICES[key])}")
        for end in ("low", "high"):
            if end in value:
                _check_hyperparameter((*loc, end), key, value[end], fail)
    try:
        distribution = read_distribution(key, value)
    except ConfigError as error:
        fail(loc, str(error).split(": ", 1)[1])
    for other, expected in distribution.when.items():
        for one in expected:
            if other == STRATEGY:
                _check_strategy((*loc, "when"), one, fail)
            else:
                _check_hyperparameter((*loc, "when"), other, one, fail)


def _check_strategy(loc: tuple[Any, ...], name: Any, fail: Any) -> None:
    from .training.strategies import STRATEGIES

    if name not in STRATEGIES:
        fail(loc, f"unknown strategy {name!r}; {did_you_mean(str(name), STRATEGIES)}")
