"""Configs: YAML from anybody is read, or refused with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ensembler.combiners import COMBINERS
from ensembler.config import Config
from ensembler.metrics import METRICS
from ensembler.training.recipe import Recipe
from ensembler.training.strategies import STRATEGIES

from .choices import Choices, changed, damaged, one_in, pick, words
from .target import CASES, Target

#: A config that says everything.
WHOLE: dict[str, Any] = {
    "name": "pets",
    "data": {
        "source": "images", "test": 0.2, "image_size": 64, "label": "label", "path": "path", "group": None,
        "unreadable": "skip", "duplicates": "ignore", "leaks": "allow",
    },
    "folds": {"k": 3, "seed": 1, "stratify": False, "group": None, "predefined": None, "monitor": 0.2},
    "metric": {"cost": [[0, 1], [5, 0]]},
    "backbones": ["resnet18", {"vit_tiny_patch16_224": {"weights": "random"}}],
    "accept_licenses": ["cc-by-nc-4.0"],
    "strategies": ["lp-ft", "full"],
    "recipe": {"lr": 1e-3, "flip": True, "policy": "trivial", "batch_size": 8},
    "screen": {"keep": 2},
    "search": {
        "trials": 4, "epochs": "auto", "algorithm": "random", "scheduler": "halving", "seed": 3,
        "space": {"lr": {"low": 1e-4, "high": 1e-2, "log": True}, "augment": [0, 1]},
    },
    "refine": None,
    "keep": 2,
    "boosted": {"rounds": 1, "backbones": ["resnet18"]},
    "soups": True,
    "collapse": ["folds", "refit"],
    "ensembles": ["mean", {"greedy-9": {"combiner": "greedy", "rounds": 9}}],
    "limits": {"max_latency_ms": 5.0, "max_members": 3},
    "budget": "30m",
    "resources": {"cpus": 1.0, "gpus": 0},
    "numerics": {"precision": "bf16", "channels_last": False, "compile": False},
    "seed": 7,
}  # fmt: skip

#: Names that lead further into the checks than any text made of pieces would.
NAMES = (
    *COMBINERS,
    *METRICS,
    *STRATEGIES,
    *Recipe.__dataclass_fields__,
    "combiner",
    "values",
    "when",
    "low",
    "high",
    "log",
)

#: What YAML can say and JSON cannot.
YAML = (
    "!!python/object/apply:os.system ['touch outside']", "!!python/name:os.system", "!!binary aGk=", "!!set {a, b}",
    "!!timestamp 2001-99-99", "!!omap [a: 1]", "!!float x", "!!int '0x'", "&a [*a]", "*a", "&a 1", "<<: {a: 1}",
    "<<: 3", "? [a]\n: 1",
    "? {a: 1}\n: 2", "---\na: 1\n---\nb: 2", "%YAML 9.9\n---", "%TAG ! tag:x,2000:", "a: [", "'", "|\n x", "0o9",
    "1:60:60", "2001-01-01",
    "9" * 5000, "- " * 60, "[" * 60, "{a: " * 60, "\t", "!<tag:yaml.org,2002:python/module:os> ''", "!", "!!null ''",
    "@", "`",
)  # fmt: skip


def generate(choices: Choices, shared: Any) -> bytes:
    """The text of a config."""
    tree: Any = WHOLE
    for _ in range(choices.whole(0, 3)):
        tree = changed(choices, tree)
    text = yaml.safe_dump(
        tree, allow_unicode=True, sort_keys=False, default_flow_style=pick(choices, (False, True, None))
    )
    for _ in range(choices.whole(0, 2)):
        at = choices.whole(0, len(text))
        piece = pick(choices, (pick(choices, YAML), pick(choices, NAMES), words(choices)))
        text = text[:at] + piece + text[at + choices.whole(0, 8) :]
    data = text.encode("utf-8", "surrogatepass")
    return damaged(choices, data) if one_in(choices, 3) else data


def run(case: bytes, shared: Any, inside: Path) -> object:
    """Reads a config from a file, and writes it as the run directory keeps it."""
    file = inside / "config.yaml"
    file.write_bytes(case)
    return yaml.safe_dump(Config.load(file).resolved())


CONFIGS = Target("configs", lambda inside: None, generate, run)


def test_a_config_is_read_or_refused(tmp_path: Path) -> None:
    outcomes = CONFIGS.hold(tmp_path)
    assert outcomes.get("accepted", 0) > CASES / 100
    assert len(outcomes) > min(30, CASES / 20), outcomes
