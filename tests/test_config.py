"""A config is refused in one line that says where and what to do, or means the same wherever it is read."""

from __future__ import annotations

import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensembler.config import Config
from ensembler.config_text import MAX_CONFIG_BYTES
from ensembler.errors import ConfigError
from ensembler.store import RunStore

GOOD = "name: x\ndata: {source: digits}\nbackbones: [resnet10t]\n"

#: what comes after GOOD -> what the message says after the file
BAD = {
    "unknown key": ("metrc: x\n", ":4 metrc: unknown key; did you mean 'metric'?"),
    "unknown nested key": ("search: {epoch: 3}\n", ":4 search.epoch: unknown key; did you mean 'epochs'?"),
    "unknown nested key, block": (
        "folds:\n  k: 3\n  monitr: 0.1\n",
        ":6 folds.monitr: unknown key; did you mean 'monitor'?",
    ),
    "unknown key of a union": (
        "numerics: {precison: fp32}\n",
        ":4 numerics.precison: unknown key; did you mean 'precision'?",
    ),
    "nothing near": (
        "resources: {zzz: 1}\n",
        ":4 resources.zzz: unknown key; valid: cpus, gpus",
    ),
    "nothing near, screening": ("screen: {zzz: 1}\n", ":4 screen.zzz: unknown key; valid: "),
    "wrong type": ("folds: {k: a}\n", ":4 folds.k: 'a': input should be a valid integer"),
    "a word for a mapping": ("search: fast\n", ":4 search: 'fast': input should be a valid mapping"),
    "a word for a union": ("numerics: fast\n", ":4 numerics: 'fast': input should be 'auto'"),
    "a list for a mapping": ("resources: [1]\n", ":4 resources: a list: input should be a valid mapping"),
    "a word for a list": ("ensembles: mean\n", ":4 ensembles: 'mean': input should be a valid list"),
    "too few folds": ("folds: {k: 1}\n", ":4 folds.k: 1: input should be greater than or equal to 2"),
    "monitor share": ("folds: {monitor: 0.5}\n", ":4 folds.monitor: 0.5: input should be less than 0.5"),
    "negative seed": ("seed: -1\n", ":4 seed: -1: input should be greater than or equal to 0"),
    "keep": ("keep: 0\n", ":4 keep: 0: input should be greater than or equal to 1"),
    "negative share": ("resources: {gpus: -1}\n", ":4 resources.gpus: -1: input should be greater"),
    "algorithm": (
        "search: {algorithm: bayes}\n",
        ":4 search.algorithm: 'bayes': input should be 'optuna', 'gp', 'random' or 'grid'",
    ),
    "duration": ("budget: 3x\n", ":4 budget: '3x': expected a duration such as 90s, 30m or 2h"),
    "duration below zero": ("budget: -3\n", ":4 budget: -3: input should be greater than 0"),
    "key that is no word": ("1: 2\n", ": keys should be strings"),
    "metric": ("metric: log_los\n", ":4 metric: unknown metric 'log_los'; did you mean 'log_loss'?"),
    "strategy": (
        "strategies: [full, lpft]\n",
        ":4 strategies.1: unknown strategy 'lpft'; did you mean 'lp-ft'?",
    ),
    "no strategy": ("strategies: []\n", ":4 strategies: a list: list should have at least 1 item"),
    "combiner": (
        "ensembles:\n  - mean\n  - stackng\n",
        ":6 ensembles.1: unknown combiner 'stackng'; did you mean 'stacking'?",
    ),
    "combiner parameter": (
        "ensembles: [{greedy: {round: 3}}]\n",
        ":4 ensembles.0: greedy: unknown parameter 'round'; did you mean 'rounds'?",
    ),
    "combiner parameter out of range": (
        "ensembles: [{greedy: {rounds: 0}}]\n",
        ":4 ensembles.0: greedy: rounds is 0; expected an integer of 1 or more",
    ),
    "combiner twice": ("ensembles: [mean, mean]\n", ":4 ensembles.1: combiner 'mean' appears twice"),
    "combiner under another's name": (
        "ensembles: [{mean: {combiner: greedy}}]\n",
        ":4 ensembles.0: name 'mean' is that of another combiner; choose one of its own",
    ),
    "combiner under a name, unknown": (
        "ensembles: [{mine: {combiner: gredy}}]\n",
        ":4 ensembles.0: unknown combiner 'gredy'; did you mean 'greedy'?",
    ),
    "combiner under a name, parameter": (
        "ensembles:\n  - mean\n  - mine: {combiner: calibrated, base: greedy, base_params: {rounds: 0}}\n",
        ":6 ensembles.1: calibrated: base: greedy: rounds is 0; expected an integer of 1 or more",
    ),
    "combiner under a name that is no file's": (
        "ensembles: [{my/mean: {combiner: mean}}]\n",
        ":4 ensembles.0: name 'my/mean'; expected letters, digits, '.', '_' and '-'",
    ),
    "combiner's name twice": (
        "ensembles: [{mine: {combiner: mean}}, {mine: {combiner: greedy}}]\n",
        ":4 ensembles.1: combiner 'mine' appears twice; give each once, or named as {mine-2: {combiner: greedy}}",
    ),
    "combiner's label": (
        "ensembles: [{greedy: {label: mine}}]\n",
        ":4 ensembles.0: label: name it as {my-name: {combiner: greedy, ...}}",
    ),
    "combiner renamed": ("ensembles: [{mean: {name: greedy}}]\n", ":4 ensembles.0: "),
    "combiner that is a number": ("ensembles: [3]\n", ":4 ensembles.0: 3: expected a name, or a name with"),
    "combiner with a number": ("ensembles: [{mean: 3}]\n", ":4 ensembles.0: "),
    "hyperparameter": (
        "recipe: {epoch: 3}\n",
        ":4 recipe.epoch: unknown hyperparameter 'epoch'; did you mean 'epochs'?",
    ),
    "hyperparameter that is no number": ("recipe: {lr: fast}\n", ":4 recipe.lr: 'fast'; expected a number"),
    "hyperparameter that is not whole": (
        "recipe: {epochs: 1.5}\n",
        ":4 recipe.epochs: 1.5; expected a whole number",
    ),
    "hyperparameter that is infinite": (
        "recipe: {epochs: .inf}\n",
        ":4 recipe.epochs: inf; expected a whole number",
    ),
    "hyperparameter that is not a number": ("recipe: {lr: .nan}\n", ":4 recipe.lr: nan; expected a number"),
    "hyperparameter out of range": ("recipe: {epochs: 0}\n", ":4 recipe.epochs: 0; expected 1 to 10000"),
    "negative rate": ("recipe: {lr: -1}\n", ":4 recipe.lr: -1; expected 0 or more"),
    "layer decay above 1": (
        "recipe: {layer_decay: 1.5}\n",
        ":4 recipe.layer_decay: 1.5; expected 1e-06 to 1",
    ),
    "switch": ("recipe: {flip: 1}\n", ":4 recipe.flip: 1; expected true or false"),
    "space, key": (
        "search: {space: {weight_decy: [0]}}\n",
        ":4 search.space.weight_decy: unknown hyperparameter 'weight_decy'; did you mean 'weight_decay'?",
    ),
    "space, one value": (
        "search: {space: {lr: 3}}\n",
        ":4 search.space.lr: 3; expected a list of values or {low: ..., high: ..., log: true}",
    ),
    "space, end": (
        "search: {space: {lr: {low: a, high: 1}}}\n",
        ":4 search.space.lr.low: 'a'; expected a number",
    ),
    "space, ends": ("search: {space: {lr: {low: 1, high: 1}}}\n", ":4 search.space.lr: "),
    "space, value": ("search: {space: {ema: [0.9, 1]}}\n", ":4 search.space.ema: 1; expected 0 to 0.999999"),
    "space, condition": (
        "search: {space: {rand_ops: {values: [2], when: {polcy: [rand]}}}}\n",
        ":4 search.space.rand_ops: when 'polcy'; expected `strategy` or another hyperparameter",
    ),
    "space, value of a condition": (
        "search: {space: {rand_ops: {values: [2], when: {policy: [random]}}}}\n",
        ": 'random'; expected one of standard, trivial, rand",
    ),
    "space, strategy of a condition": (
        "search: {space: {frozen: {values: [0.5], when: {strategy: part}}}}\n",
        "unknown strategy 'part'; did you mean 'partial'?",
    ),
    "space, condition's values": (
        "search: {space: {rand_ops: {values: [99]}}}\n",
        ":4 search.space.rand_ops: 99; expected 1 to 14",
    ),
    "refine without a search": ("search: null\nrefine: runs/x\n", ":5 refine: there is no search to refine"),
    "screen, key": ("screen: {kep: 3}\n", ":4 screen.kep: unknown key; did you mean 'keep'?"),
    "screen, nothing kept": ("screen: {keep: 0}\n", ":4 screen.keep: 0: input should be greater than"),
    "space, range of a switch": ("search: {space: {flip: {low: 0, high: 1}}}\n", ":4 search.space.flip: "),
    "key twice": ("seed: 1\nkeep: 2\nseed: 3\n", ":6 seed: given twice; keep one"),
    "nested key twice": ("folds: {k: 2, seed: 1, k: 3}\n", ":4 k: given twice; keep one"),
    "syntax": ("folds: {k: 2\nseed: 1\n", ": not valid YAML: "),
    "tab": ("folds:\n\tk: 2\n", ":5: not valid YAML: found character '\\t' that cannot start any token"),
    "object": (
        "keep: !!python/object/apply:os.system [exit 1]\n",
        ":4: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not allowed; write the value plainly",
    ),
    "impossible date": ("metric: 2024-13-45\n", ": not valid YAML: month must be in 1..12"),
    "impossible number": ("seed: 0b_\n", ": not valid YAML: invalid literal for int() with base 2: ''"),
    "key that is a list": ("? [a]\n: b\n", ":4: not valid YAML: found unhashable key"),
    "alias": ("metric: &a log_loss\nensembles: [*a]\n", ":5: alias *a is not allowed; write the value out"),
    "alias of itself": ("recipe: &a {lr: *a}\n", ":4: alias *a is not allowed"),
}


def _message(text: str, path: Path = Path("c.yaml")) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.parse(text, path)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("case", BAD)
def test_a_bad_config_is_one_line_with_file_line_field_and_the_way_out(case: str) -> None:
    text, expected = BAD[case]
    assert _message(GOOD + text).startswith("c.yaml")
    assert expected in _message(GOOD + text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.yaml: is empty; expected keys and values"),
        ("# a comment\n", "c.yaml: is empty; expected keys and values"),
        ("- a\n", "c.yaml: holds a list; expected keys and values"),
        ("just a sentence\n", "c.yaml: holds a str; expected keys and values"),
        ("name: x\n", "c.yaml:1 data: missing; this key is required"),
        ("name: x\ndata: {}\nbackbones: [a]\n", "c.yaml:2 data.source: missing; this key is required"),
        (GOOD.replace("x", "../x", 1), "c.yaml:1 name: '../x': string should match pattern"),
        (GOOD.replace("[resnet10t]", "[]"), "c.yaml:3 backbones: a list: list should have at least 1 item"),
        (
            GOOD.replace("[resnet10t]", "[{resnet10t: {weight: x}}]"),
            "c.yaml:3 backbones.0.weight: unknown key; did",
        ),
        (
            GOOD.replace("[resnet10t]", "[a, a]"),
            "c.yaml:3 backbones.1: backbone 'a' with weights 'pretrained' appears",
        ),
        (GOOD.replace("digits", "[1]"), "c.yaml:2 data.source: a list: input should be a valid string"),
        (
            GOOD.replace("digits", "digits, image_size: 4"),
            "c.yaml:2 data.image_size: 4: input should be greater",
        ),
        (
            GOOD.replace("digits", "digits, unreadable: no"),
            "c.yaml:2 data.unreadable: False: input should be 'fail'",
        ),
        ("[" * 100_000, "c.yaml:1: nested too deeply"),
        ("name: x\n" + "a: [" + "1, " * 30_000 + "]\n", "c.yaml:2: nested too deeply or too long"),
    ],
)
def test_what_is_missing_or_malformed_as_a_whole_is_named_too(text: str, expected: str) -> None:
    assert _message(text).startswith(expected)


def test_the_name_of_an_unknown_combiner_is_found_in_a_config_of_many_lines() -> None:
    text = (
        GOOD
        + "\n" * 7
        + "# which\nensembles:\n  # ours\n  - greedy: {rounds: 5}\n\n  - stacking\n  - boostin\n"
    )
    assert _message(text) == "c.yaml:17 ensembles.2: unknown combiner 'boostin'; did you mean 'boosting'?"


@pytest.mark.parametrize("depth", [9, 60])
def test_a_bomb_of_aliases_is_refused_at_once_and_fits_in_memory(depth: int) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, depth)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.thread_time()
    assert "is not allowed" in _message(GOOD + "\n".join(lines) + "\n")
    assert time.thread_time() - began < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000


# ---------------------------------------------------------------------- files


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.load(tmp_path / "no.yaml")
    assert str(caught.value) == f"{tmp_path / 'no.yaml'}: no such file; give the path of a config in YAML"


def test_a_folder_a_binary_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    binary, huge = tmp_path / "b.yaml", tmp_path / "h.yaml"
    binary.write_bytes(bytes(range(256)))
    with huge.open("wb") as stream:
        os.truncate(stream.fileno(), MAX_CONFIG_BYTES + 1)
    for path, reason in ((tmp_path, "Is a directory"), (binary, "can't decode"), (huge, "this is no config")):
        with pytest.raises(ConfigError, match=reason) as caught:
            Config.load(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_null_byte_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_bytes(GOOD.encode() + b"metric: \x00\n")
    with pytest.raises(ConfigError, match="not valid YAML: unacceptable character"):
        Config.load(tmp_path / "c.yaml")


# ---------------------------------------------------------------------- good configs


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5h", 5400), ("45", 45), ("45.5", 45.5), ("null", None)],
)
def test_durations(written: str, seconds: float | None) -> None:
    assert Config.parse(GOOD + f"budget: {written}\n", Path("c.yaml")).budget == seconds


def test_numbers_may_be_written_with_an_exponent_alone() -> None:
    text = "recipe: {lr: 1e-3}\nsearch: {space: {weight_decay: [1e-4, 1E-3], head_lr: {low: 1e-3, high: 1e-1}}}\n"
    config = Config.parse(GOOD + text, Path("c.yaml"))
    assert config.recipe["lr"] == 1e-3
    assert config.search is not None
    assert config.search.space["weight_decay"] == [1e-4, 1e-3]
    assert config.search.space["head_lr"] == {"low": 1e-3, "high": 1e-1}


def test_names_that_look_like_numbers_stay_names() -> None:
    config = Config.parse(GOOD.replace("name: x", "name: v1e3"), Path("c.yaml"))
    assert config.name == "v1e3"


def test_defaults_are_those_of_the_design() -> None:
    config = Config.parse(GOOD, Path("c.yaml"))
    assert (config.metric, config.folds.k, config.keep, config.budget) == ("log_loss", 5, 6, None)
    assert [e.name for e in config.ensembles] == ["mean", "greedy", "bagging", "boosting", "stacking"]
    assert config.search is not None
    assert (config.search.trials, config.search.algorithm, config.search.scheduler) == (12, "optuna", "asha")
    assert config.backbones[0].weights == "pretrained"
    assert Config.parse(GOOD + "resources: auto\n", Path("c.yaml")) == config


def test_one_combiner_may_be_in_several_ensembles_under_names() -> None:
    text = "ensembles: [greedy, {greedy-9: {combiner: greedy, rounds: 9}}, {calm: {combiner: calibrated}}]\n"
    entries = Config.parse(GOOD + text, Path("c.yaml")).ensembles
    assert [(e.name, e.combiner, e.params) for e in entries] == [
        ("greedy", "greedy", {}),
        ("greedy-9", "greedy", {"rounds": 9}),
        ("calm", "calibrated", {}),
    ]


def test_settings_cannot_be_changed_afterwards() -> None:
    config = Config.parse(GOOD, Path("c.yaml"))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3


FULL = """
name: all
data: {source: images, test: 0.25, image_size: 48, label: kind, path: file, group: dog, unreadable: skip}
folds: {k: 4, seed: 7, stratify: false, group: null, predefined: part, monitor: 0.2}
metric: accuracy
backbones:
  - resnet10t: {weights: w.safetensors}
  - test_vit: {weights: random}
  - test_resnet
strategies: [lp-ft, full]
recipe: {lr: 1e-3, flip: false}
screen: false
search: {trials: 3, epochs: 2, algorithm: grid, scheduler: none, seed: 5, space: {ema: [0.0, 0.9]}}
keep: 2
ensembles: [mean, {greedy: {rounds: 7}}, {calm: {combiner: calibrated, base: greedy}}]
budget: 30m
resources: {cpus: 1, gpus: 0.5}
numerics: {precision: bf16, channels_last: false}
seed: 11
"""


@pytest.mark.parametrize("text", [GOOD, FULL, GOOD + "search: null\nensembles: []\nnumerics: auto\n"])
def test_what_a_run_keeps_is_the_same_config(text: str, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "w.safetensors").touch()
    config = Config.parse(text, tmp_path / "c.yaml")
    store = RunStore(tmp_path / "elsewhere" / "run")
    store.write_config(config.resolved())
    again = Config.load(store.path / "config.yaml")
    assert again.resolved() == config.resolved()
    changed: dict[str, Any] = {"data", "backbones"}  # paths are absolute now
    assert again.model_dump(exclude=changed) == config.model_dump(exclude=changed)


def test_relative_paths_are_relative_to_the_file_and_words_stay_words(tmp_path: Path) -> None:
    for name in ("images", "digits", "random", "pretrained"):
        (tmp_path / name).mkdir()
    (tmp_path / "w.safetensors").touch()
    kept = Config.parse(FULL, tmp_path / "c.yaml").resolved()
    assert kept["data"]["source"] == str(tmp_path / "images")
    assert kept["backbones"][0] == {"resnet10t": {"weights": str(tmp_path / "w.safetensors")}}
    assert kept["backbones"][1:] == [
        {"test_vit": {"weights": "random"}},
        {"test_resnet": {"weights": "pretrained"}},
    ]
    # A folder called like the word is not what the word means.
    assert Config.parse(GOOD, tmp_path / "c.yaml").resolved()["data"]["source"] == "digits"


def test_the_kept_config_is_plain_yaml(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    store.write_config(Config.parse(FULL, tmp_path / "c.yaml").resolved())
    text = (tmp_path / "config.yaml").read_text()
    assert "!!" not in text
    assert yaml.safe_load(text)["budget"] == 1800.0


def test_every_config_that_comes_with_the_project_is_valid() -> None:
    files = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
    assert files
    for file in files:
        assert Config.load(file).name == file.stem
