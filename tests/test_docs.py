"""The documentation tells of everything there is, and of nothing else."""

from __future__ import annotations

import argparse
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from ensembler import config_settings
from ensembler.arguments import parser
from ensembler.combiners import COMBINERS
from ensembler.config import Config
from ensembler.metrics import METRICS
from ensembler.training.recipe import Recipe
from ensembler.training.strategies import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def verbs() -> list[str]:
    (sub,) = (a for a in parser()._actions if isinstance(a, argparse._SubParsersAction))
    return list(sub.choices)


@pytest.mark.parametrize("verb", verbs())
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert f"ensembler {verb}" in README


def test_the_readme_names_no_verb_that_is_not_built() -> None:
    code = "\n".join(re.findall(r"```.*?```|`[^`]+`", README, re.DOTALL))
    named = set(re.findall(r"(?m)(?:^|`|auto )ensembler ([a-z]+)", code))
    assert named <= set(verbs())


def test_every_key_of_a_config_is_documented() -> None:
    sections = {
        "data": config_settings.DataSettings,
        "folds": config_settings.FoldSettings,
        "search": config_settings.SearchSettings,
    }
    keys = [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]
    keys += [key for key in Config.model_fields if key not in ("data", "folds")]
    missing = [key for key in keys if f"`{key}`" not in CONFIGURATION]
    assert not missing


def test_every_hyperparameter_and_strategy_is_documented() -> None:
    names = [*Recipe.__dataclass_fields__, *STRATEGIES]
    assert not [name for name in names if f"`{name}`" not in CONFIGURATION]


def test_every_combiner_and_its_options_are_documented() -> None:
    section = CONFIGURATION.split("## Ensembles")[1]
    missing = [name for name in COMBINERS if f"`{name}`" not in section]
    options = {f.name for combiner in COMBINERS.values() for f in fields(combiner) if f.init}
    missing += [name for name in sorted(options) if f"`{name}" not in section]
    assert not missing


@pytest.mark.parametrize("name", [*COMBINERS, *METRICS])
def test_every_combiner_and_metric_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


def test_every_dependency_has_its_line_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    used = [d for name in ("runtime", "serve", "train", "app", "all") for d in extras[name]]
    declared = {re.split(r"[\[<>=]", d)[0] for d in [*project["dependencies"], *used]} - {project["name"]}
    text = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?m)^\| ([a-z][\w-]*) \| [A-Z]", text))
    assert listed == declared


def test_a_bundle_is_installed_without_torch_and_ray() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = {re.split(r"[\[<>=]", d)[0] for d in project["dependencies"]}
    installed |= {re.split(r"[\[<>=]", d)[0] for d in project["optional-dependencies"]["runtime"]}
    assert installed == {"numpy", "pillow", "onnxruntime"}


def test_the_config_in_the_documentation_is_valid() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.DOTALL)
    assert Config.parse(block, ROOT / "docs" / "configuration.yaml").keep == 6


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_opens_with_its_command(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert f"ensembler run configs/{file.name}" in text.split("\nname:")[0]
    assert yaml.safe_load(text)["name"] == file.stem


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    gone = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not gone
