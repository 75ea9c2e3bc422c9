"""YAML to validated, frozen settings; every error names the file, the line, the field and the way out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .config_text import MAX_CONFIG_BYTES, Lines, read_yaml, where_is
from .errors import ConfigError, did_you_mean
from .training.candidate import FROZEN_BODY
from .training.recipe import RECIPE_CHOICES, RECIPE_LIMITS, Recipe
from .training.space import STRATEGY, read_distribution

#: Sources, splits and weights that are words, whatever files lie beside the config.
WORDS = ("digits", "official", "random", "pretrained", "pretrained-or-random")

#: What names a folder: a run, an ensemble.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _seconds(value: Any) -> Any:
    """`30m`, `2h`, `90s`, or a number of seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", value)
        if not match:
            raise ValueError("expected a duration such as 90s, 30m or 2h")
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    return value


def _seconds_or_auto(value: Any) -> Any:
    """`auto`, or what `_seconds` reads."""
    return value if value == "auto" else _seconds(value)


def _named(value: Any) -> Any:
    """`name` or `{name: {option: value}}` to `{"name": ..., **options}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1:
        name, options = next(iter(value.items()))
        if options is None or (isinstance(options, Mapping) and "name" not in options):
            return {"name": str(name), **(options or {})}
    raise ValueError("expected a name, or a name with its options as {name: {option: value}}")


def _metric_name(value: Any) -> Any:
    """`{cost: matrix}` to the name of that metric, which is the same for equal matrices; a name as it is."""
    from .metrics import cost_name, get_metric

    try:
        if isinstance(value, str) and value.startswith("cost:"):
            return get_metric(value).name
        if isinstance(value, Mapping):
            if list(value) != ["cost"]:
                raise ValueError("expected a name, or what mistakes cost as {cost: [[0, 1], [5, 0]]}")
            return cost_name(value["cost"])
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return value


class DataSettings(_Settings):
    """Where the images are and how they are read.

    Attributes:
        source: class folders, a CSV or Parquet manifest, `digits`, or `torchvision:<Dataset>`.
        test: a second source, a fraction, or None; no step reads it until the winner is chosen.
        image_size: side in pixels to which every image is decoded.
        label, path, group: columns of a manifest; images of one group never straddle folds.
        unreadable: what a file that does not decode does: `fail`, or `skip` and be listed.
        duplicates: `group` keeps near-duplicates in one fold; `ignore` looks for none among the training images.
        leaks: what test images that are also training images do: `refuse` to run, `drop` them from the test split, or
            `allow`.
    """

    source: str
    test: str | float | None = None
    image_size: Annotated[int, Field(ge=8, le=1024)] = 224
    label: str = "label"
    path: str = "path"
    group: str | None = None
    unreadable: Literal["fail", "skip"] = "fail"
    duplicates: Literal["group", "ignore"] = "group"
    leaks: Literal["refuse", "drop", "allow"] = "refuse"


class FoldSettings(_Settings):
    """Cross-validation: `k` folds, stratified, grouped where there are groups, or predefined in a column."""

    k: Annotated[int, Field(ge=2, le=100)] = 5
    seed: Annotated[int, Field(ge=0)] = 0
    stratify: bool = True
    group: str | None = None
    predefined: str | None = None
    monitor: Annotated[float, Field(gt=0, lt=0.5)] = 0.15


class BackboneSettings(_Settings):
    """A timm backbone and the weights it starts from."""

    name: str
    weights: str = "pretrained"


class SearchSettings(_Settings):
    """The search for recipes on one fold.

    Attributes:
        trials: how many candidates are tried, the default recipe of every backbone first.
        epochs: of each trial and of the candidates that come out of it. `auto` is 8; with a budget, those that are
            cross-validated then have as many more as it has time for, up to 30.
        algorithm: `random` and `grid` are decided by the seed; `optuna` (tree-structured Parzen estimators) and
            `gp` (a Gaussian process) learn from what has finished.
        scheduler: `asha` and `median` stop the weak early, by order of arrival; `halving` in step, so that the
            whole search is decided by its seed; `none` lets every trial end.
        seed: of the sampling.
        space: overrides of the search space: `{lr: {low: 1e-4, high: 1e-2, log: true}, augment: [0, 1]}`, each
            with an optional `when: {policy: [rand]}`.
    """

    trials: Annotated[int, Field(ge=1, le=100_000)] = 12
    epochs: Annotated[int, Field(ge=1, le=10_000)] | Literal["auto"] = "auto"
    algorithm: Literal["optuna", "gp", "random", "grid"] = "optuna"
    scheduler: Literal["asha", "median", "halving", "none"] = "asha"
    seed: Annotated[int, Field(ge=0)] = 0
    space: dict[str, Any] = {}


class ScreenSettings(_Settings):
    """Screening that keeps the few most promising backbones, diverse families first, and drops the others."""

    keep: Annotated[int, Field(ge=1)]


class LimitSettings(_Settings):
    """What an ensemble may cost: for each limit that is given, the best ensemble within it stands on the leaderboard.

    Attributes:
        max_latency_ms: of one image at batch 1 on the machine of the run.
        max_bytes: of weights.
        max_members: single models.
    """

    max_latency_ms: Annotated[float, Field(gt=0)] | None = None
    max_bytes: Annotated[float, Field(gt=0)] | None = None
    max_members: Annotated[int, Field(ge=1)] | None = None

    @property
    def given(self) -> dict[str, float]:
        """The limits that there are, by name."""
        return {key: value for key, value in self.model_dump().items() if value is not None}


class BoostedSettings(_Settings):
    """Candidates after cross-validation, each on the errors of the ensemble before it.

    Attributes:
        rounds: how many.
        backbones: that take turns; none leaves it to the scores, the best first.
    """

    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    backbones: list[str] = []


class ResourceSettings(_Settings):
    """What one trial takes; `None` lets the machine decide.

    Attributes:
        cpus: logical ones.
        gpus: logical ones, or a share of one.
        stalled_after: seconds without a report after which its worker is ended, and the trial tried again; `auto`
            derives them from what has been measured, see `tuning/watchdog.py`.
    """

    cpus: Annotated[float, Field(gt=0)] | None = None
    gpus: Annotated[float, Field(ge=0)] | None = None
    stalled_after: Annotated[
        Literal["auto"] | Annotated[float, Field(gt=0)], BeforeValidator(_seconds_or_auto)
    ] = "auto"


class NumericsSettings(_Settings):
    """Pinned arithmetic of training."""

    precision: Literal["fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: bool = False


class CombinerSettings(BaseModel):
    """An ensemble: a combiner and its hyperparameters, under the combiner's key or a name of its own.

    `greedy`, `{greedy: {rounds: 9}}`, `{greedy-9: {combiner: greedy, rounds: 9}}`
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """All that is given in the config beside the name."""
        return dict(self.model_extra or {})

    @property
    def combiner(self) -> str:
        """Key of the combiner."""
        return str(self.options.get("combiner", self.name))

    @property
    def params(self) -> dict[str, Any]:
        """Hyperparameters of the combiner."""
        return {key: value for key, value in self.options.items() if key != "combiner"}


Named = BeforeValidator(_named)


class Config(_Settings):
    """One experiment; see `docs/configuration.md` for every key.

    Raises:
        ConfigError: from `load`, for a file that is not a valid config.
    """

    name: Annotated[str, Field(pattern=NAME)]
    data: DataSettings
    folds: FoldSettings = FoldSettings()
    metric: Annotated[str, BeforeValidator(_metric_name)] = "log_loss"
    backbones: Annotated[list[Annotated[BackboneSettings, Named]], Field(min_length=1)]
    accept_licenses: list[str] = []
    strategies: Annotated[list[str], Field(min_length=1)] = ["lp-ft"]
    recipe: dict[str, Any] = {}
    screen: bool | ScreenSettings = True
    search: SearchSettings | None = SearchSettings()
    refine: str | None = None
    keep: Annotated[int, Field(ge=1)] = 6
    boosted: BoostedSettings | None = None
    soups: bool = False
    collapse: Annotated[list[Literal["folds", "refit", "soup", "distill"]], Field(min_length=1)] = ["folds"]
    ensembles: list[Annotated[CombinerSettings, Named]] = [
        CombinerSettings(name=name) for name in ("mean", "greedy", "bagging", "boosting", "stacking")
    ]
    limits: LimitSettings = LimitSettings()
    budget: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_seconds)] = None
    resources: ResourceSettings = ResourceSettings()
    numerics: Literal["auto"] | NumericsSettings = "auto"
    seed: Annotated[int, Field(ge=0)] = 0

    _base_dir: Path = Path()
    _file: str = ""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("resources") == "auto":
            return {**values, "resources": {}}
        return values

    @property
    def base_dir(self) -> Path:
        """Folder of the file: what relative paths are relative to."""
        return self._base_dir

    @property
    def file(self) -> str:
        """The file's name with its folder's, to cite."""
        return self._file

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Reads and validates a file.

        Raises:
            ConfigError: one line, `file:line field: what; the way out`.
        """
        path = Path(path)
        try:
            if path.stat().st_size > MAX_CONFIG_BYTES:
                raise ConfigError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; this is no config")
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such file; give the path of a config in YAML") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read ({error}); give a config in YAML, as UTF-8") from error
        return cls.parse(text, path)

    @classmethod
    def parse(cls, text: str, path: Path) -> Config:
        """Validates the text of a config; `path` names it in errors and anchors relative paths."""
        values, lines = read_yaml(text, path)
        try:
            config = cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(_explain(error, lines, path, cls)) from error
        config._base_dir = path.resolve().parent
        config._file = f"{path.resolve().parent.name}/{path.name}"
        config._check_names(lines, path)
        return config

    def _check_names(self, lines: Lines, path: Path) -> None:  # noqa: PLR0912 - one branch a table
        """Names that live in a table: combiners, metrics, strategies, hyperparameters, the space."""
        from .combiners import COMBINERS, make_combiner
        from .errors import CombinerError
        from .metrics import get_metric
        from .training.strategies import STRATEGIES

        def fail(loc: tuple[Any, ...], message: str) -> None:
            raise ConfigError(f"{where_is(loc, lines, path)}: {message}")

        def known(loc: tuple[Any, ...], kind: str, name: str, valid: Sequence[str]) -> None:
            if name not in valid:
                fail(loc, f"unknown {kind} {name!r}; {did_you_mean(name, valid)}")

        try:
            get_metric(self.metric)
        except ConfigError as error:
            fail(("metric",), str(error))
        for i, strategy in enumerate(self.strategies):
            known(("strategies", i), "strategy", strategy, list(STRATEGIES))
        seen: set[str] = set()
        for i, entry in enumerate(self.ensembles):
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
                self.screen or {"probe", "ridge", "lp-ft"} & set(self.strategies)
            ):
                fail(("ensembles", i), "reads frozen features, which nothing makes here; give `screen: true`")
            if entry.name in seen:
                named = f"{{{entry.name}-2: {{combiner: {entry.combiner}}}}}"
                fail(
                    ("ensembles", i),
                    f"combiner {entry.name!r} appears twice; give each once, or named as {named}",
                )
            seen.add(entry.name)
        fields = list(Recipe.__dataclass_fields__)
        for key, value in self.recipe.items():
            known(("recipe", key), "hyperparameter", key, fields)
            _check_hyperparameter(("recipe", key), key, value, fail)
        for key, value in (self.search.space if self.search else {}).items():
            known(("search", "space", key), "hyperparameter", key, fields)
            _check_space(("search", "space", key), key, value, fail)
        if self.refine is not None and self.search is None:
            fail(("refine",), "there is no search to refine; give `search`, or leave `refine` out")
        self._check_after(fail, known)
        names = [(b.name, b.weights) for b in self.backbones]
        for i, pair in enumerate(names):
            if pair in names[:i]:
                fail(("backbones", i), f"backbone {pair[0]!r} with weights {pair[1]!r} appears twice")

    def _check_after(self, fail: Any, known: Any) -> None:
        """What follows cross-validation needs something to follow, and fold collapse something to be judged by."""
        for key, wanted in (("boosted", self.boosted), ("soups", self.soups)):
            if wanted and not set(self.strategies) - set(FROZEN_BODY):
                fail((key,), f"{', '.join(self.strategies)} train no backbone; add a strategy such as lp-ft")
        for i, name in enumerate(self.boosted.backbones if self.boosted else ()):
            known(("boosted", "backbones", i), "backbone", name, [b.name for b in self.backbones])
        twice = next((way for way in self.collapse if self.collapse.count(way) > 1), None)
        if twice is not None:
            fail(("collapse",), f"{twice!r} appears twice; give each once")
        if self.data.test is None and self.collapse != ["folds"]:
            fail(
                ("collapse",),
                "is compared on the test split, and there is none; give `data.test`, or leave it out",
            )

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults written out, relative paths made absolute: what the run directory keeps."""
        values = self.model_dump(mode="json")
        values["backbones"] = [
            {b.name: {"weights": _absolute(b.weights, self.base_dir)}} for b in self.backbones
        ]
        values["ensembles"] = [{e.name: e.options} if e.options else e.name for e in self.ensembles]
        for key in ("source", "test"):
            if isinstance(values["data"][key], str):
                values["data"][key] = _absolute(values["data"][key], self.base_dir)
        if self.refine is not None:
            values["refine"] = _absolute(self.refine, self.base_dir)
        return values


def _absolute(value: str, base_dir: Path) -> str:
    if value in WORDS:
        return value
    candidate = base_dir / value
    # Not Path's own, which raises where a name is too long.
    return str(candidate.resolve()) if os.path.exists(candidate) else value  # noqa: PTH110


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


# ---------------------------------------------------------------------- what pydantic found, in our words


def _explain(error: ValidationError, lines: Lines, path: Path, model: type[BaseModel]) -> str:
    problems = error.errors(include_url=False)
    # A misspelt key leaves the right one missing: the misspelling is what the reader has to see.
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    if problem["loc"][-1:] in (("literal['auto']",), ("bool",)):
        # Of the alternatives, a word or a switch and a mapping, the one that was matched furthest says most.
        same = [p for p in problems if p["loc"][:1] == problem["loc"][:1]]
        problem = max(same, key=lambda p: len(_plain(p["loc"])))
    loc = _plain(problem["loc"])
    where = where_is(loc, lines, path)
    if problem["type"] == "extra_forbidden":
        valid = _fields_at(model, loc[:-1])
        return f"{where}: unknown key; {did_you_mean(str(loc[-1]), valid)}"
    if problem["type"] == "missing":
        return f"{where}: missing; this key is required"
    message = (
        problem["msg"].removeprefix("Value error, ").replace("dictionary or instance of ", "mapping of ")
    )
    value = problem.get("input")
    shown = (
        repr(value)[:100]
        if isinstance(value, str | int | float | bool | None)
        else f"a {type(value).__name__}"
    )
    return f"{where}: {shown}: {message[0].lower()}{message[1:]}"


def _plain(loc: tuple[Any, ...]) -> tuple[Any, ...]:
    """A location without pydantic's names of the alternatives of a union."""
    return tuple(part for part in loc if part != "literal['auto']" and not _is_type_tag(part))


def _is_type_tag(part: Any) -> bool:
    return isinstance(part, str) and (part in ("str", "float", "int", "bool") or part.endswith("Settings"))


def _fields_at(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    """Valid keys of the settings class that a location leads to."""
    by_field: dict[str, type[BaseModel]] = {
        "data": DataSettings,
        "folds": FoldSettings,
        "search": SearchSettings,
        "screen": ScreenSettings,
        "boosted": BoostedSettings,
        "resources": ResourceSettings,
        "numerics": NumericsSettings,
        "backbones": BackboneSettings,
    }
    found = by_field.get(str(loc[0]), model) if loc else model
    return [name for name in found.model_fields if name != "name" or found is model]
