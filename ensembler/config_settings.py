"""The sections of a config as frozen settings, and how their values are read; `config.py` puts them together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from .errors import ConfigError

#: What names a folder: a run, an ensemble.
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


class Settings(BaseModel):
    """What no key is unknown to, and nobody alters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def seconds(value: Any) -> Any:
    """`30m`, `2h`, `90s`, or a number of seconds."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", value)
        if not match:
            raise ValueError("expected a duration such as 90s, 30m or 2h")
        return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]
    return value


def seconds_or_auto(value: Any) -> Any:
    """`auto`, or what `seconds` reads."""
    return value if value == "auto" else seconds(value)


def named(value: Any) -> Any:
    """`name` or `{name: {option: value}}` to `{"name": ..., **options}`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and len(value) == 1:
        name, options = next(iter(value.items()))
        if options is None or (isinstance(options, Mapping) and "name" not in options):
            return {"name": str(name), **(options or {})}
    raise ValueError("expected a name, or a name with its options as {name: {option: value}}")


def metric_name(value: Any) -> Any:
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


class DataSettings(Settings):
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


class FoldSettings(Settings):
    """Cross-validation: `k` folds, stratified, grouped where there are groups, or predefined in a column."""

    k: Annotated[int, Field(ge=2, le=100)] = 5
    seed: Annotated[int, Field(ge=0)] = 0
    stratify: bool = True
    group: str | None = None
    predefined: str | None = None
    monitor: Annotated[float, Field(gt=0, lt=0.5)] = 0.15


class BackboneSettings(Settings):
    """A timm backbone and the weights it starts from."""

    name: str
    weights: str = "pretrained"


class SearchSettings(Settings):
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


class ScreenSettings(Settings):
    """Screening that keeps the few most promising backbones, diverse families first, and drops the others."""

    keep: Annotated[int, Field(ge=1)]


class LimitSettings(Settings):
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


class BoostedSettings(Settings):
    """Candidates after cross-validation, each on the errors of the ensemble before it.

    Attributes:
        rounds: how many.
        backbones: that take turns; none leaves it to the scores, the best first.
    """

    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    backbones: list[str] = []


class ResourceSettings(Settings):
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
        Literal["auto"] | Annotated[float, Field(gt=0)], BeforeValidator(seconds_or_auto)
    ] = "auto"


class NumericsSettings(Settings):
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
