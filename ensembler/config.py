"""YAML to validated, frozen settings; every error names the file, the line, the field and the way out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from .config_checks import check_names
from .config_problems import explain
from .config_settings import (
    NAME,
    BackboneSettings,
    BoostedSettings,
    CombinerSettings,
    DataSettings,
    FoldSettings,
    LimitSettings,
    NumericsSettings,
    ResourceSettings,
    ScreenSettings,
    SearchSettings,
    Settings,
    metric_name,
    named,
    seconds,
)
from .config_text import MAX_CONFIG_BYTES, read_yaml
from .errors import ConfigError

#: Sources, splits and weights that are words, whatever files lie beside the config.
WORDS = ("digits", "official", "random", "pretrained", "pretrained-or-random")


class Config(Settings):
    """One experiment; see `docs/configuration.md` for every key.

    Raises:
        ConfigError: from `load`, for a file that is not a valid config.
    """

    name: Annotated[str, Field(pattern=NAME)]
    data: DataSettings
    folds: FoldSettings = FoldSettings()
    metric: Annotated[str, BeforeValidator(metric_name)] = "log_loss"
    backbones: Annotated[list[Annotated[BackboneSettings, BeforeValidator(named)]], Field(min_length=1)]
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
    ensembles: list[Annotated[CombinerSettings, BeforeValidator(named)]] = [
        CombinerSettings(name=name) for name in ("mean", "greedy", "bagging", "boosting", "stacking")
    ]
    limits: LimitSettings = LimitSettings()
    budget: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(seconds)] = None
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
            raise ConfigError(explain(error, lines, path, cls)) from error
        config._base_dir = path.resolve().parent
        config._file = f"{path.resolve().parent.name}/{path.name}"
        check_names(config, lines, path)
        return config

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
