"""What only the values of several settings together tell: names, search spaces, and what follows cross-validation."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensembler.config import Config
from ensembler.errors import ConfigError

GOOD = "name: x\ndata: {source: digits}\nbackbones: [resnet10t]\n"

#: what comes after GOOD -> what is said of line 4
REFUSED = {
    "costs of nothing": (
        "metric: {costs: [[0, 1], [5, 0]]}",
        "metric: a dict: expected a name, or what mistakes cost as {cost: [[0, 1], [5, 0]]}",
    ),
    "costs that are no matrix": ("metric: {cost: [[0, 1]]}", "metric: a dict: cost: a matrix with 1 rows"),
    "a name of costs that is none": ("metric: 'cost:[['", "metric: 'cost:[[': cost: '[[' is not a matrix in JSON"),
    "features that nothing makes": (
        "ensembles: [{stacking: {passthrough: true}}]\nstrategies: [full]\nscreen: false",
        "ensembles.0: reads frozen features, which nothing makes here; give `screen: true`",
    ),
    "boosting without training": (
        "boosted: {}\nstrategies: [probe]",
        "boosted: probe train no backbone; add a strategy such as lp-ft",
    ),
    "a boosted backbone that is not there": (
        "boosted: {backbones: [resnet10]}",
        "boosted.backbones.0: unknown backbone 'resnet10'; did you mean 'resnet10t'?",
    ),
    "collapse twice": ("collapse: [folds, folds]", "collapse: 'folds' appears twice; give each once"),
    "collapse without a test split": (
        "collapse: [folds, refit]",
        "collapse: is compared on the test split, and there is none; give `data.test`, or leave it out",
    ),
    "a choice as a range": (
        "search: {space: {policy: {low: 1, high: 2}}}",
        "search.space.policy: {'low': 1, 'high': 2}; expected a list of",
    ),
    "a range beyond the recipe": (
        "search: {space: {lr: {low: 1e-5, high: -1}}}", "search.space.lr.high: -1; expected",
    ),
    "a range of one end": ("search: {space: {lr: {high: 1}}}", "search.space.lr: {'high': 1}; expected a list"),
    "a condition on a strategy that is none": (
        "search: {space: {lr: {values: [0.1], when: {strategy: [ful]}}}}",
        "search.space.lr.when: unknown strategy 'ful'; did you mean 'full'?",
    ),
    "a condition on a value that is none": (
        "search: {space: {lr: {values: [0.1], when: {policy: [rnd]}}}}",
        "search.space.lr.when: 'rnd'; expected one of",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_named(case: str) -> None:
    text, said = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        Config.parse(f"{GOOD}{text}\n", Path("c.yaml"))
    assert str(caught.value).startswith(f"c.yaml:4 {said}")


def test_conditions_that_can_be_met_are_taken() -> None:
    space = "lr: {values: [0.1], when: {strategy: [full, lp-ft]}}, dropout: {low: 0, high: 0.5, when: {policy: [rand]}}"
    config = Config.parse(f"{GOOD}search: {{space: {{{space}}}}}\n", Path("c.yaml"))
    assert config.search is not None
    assert set(config.search.space) == {"lr", "dropout"}


@pytest.mark.parametrize(
    "text", ["metric: {cost: [[0, 1], [5.0, 0]]}\n", "metric: 'cost:[[0, 1], [5, 0]]'\n"]
)
def test_costs_have_one_name_however_they_are_written(text: str) -> None:
    assert Config.parse(GOOD + text, Path("c.yaml")).metric == "cost:[[0,1],[5,0]]"


def test_a_run_to_refine_is_kept_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    config = Config.parse(GOOD + "search: {}\nrefine: runs/first\n", tmp_path / "c.yaml")
    assert config.resolved()["refine"] == str(tmp_path / "runs" / "first")
    with pytest.raises(ConfigError, match="refine: there is no search to refine; give `search`, or leave"):
        Config.parse(GOOD + "refine: runs/first\nsearch: null\n", tmp_path / "c.yaml")
