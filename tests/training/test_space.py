"""The space of recipes: every value is allowed, conditions hold, and a short search draws from a small one."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ensembler.errors import ConfigError
from ensembler.training.recipe import RECIPE_CHOICES, RECIPE_LIMITS, Recipe
from ensembler.training.recipes import default_recipe
from ensembler.training.space import (
    FULL_AFTER,
    MIXUP_IMAGES,
    WIDE_AFTER,
    Choice,
    Distribution,
    Range,
    cap_epochs,
    default_space,
    draw,
    rate_scale,
    read_distribution,
    read_space,
)

CORE = {"lr", "head_lr", "weight_decay", "layer_decay", "label_smoothing", "dropout", "augment"}


def _space(strategy: str = "lp-ft", large: bool = False, n_images: int = 3000) -> dict[str, Distribution]:
    recipe = default_recipe(10**8 if large else 10**6, False, strategy)
    return default_space(recipe, strategy, large=large, n_images=n_images)


def _draws(space: dict[str, Distribution], recipe: Recipe, number: int | None = None) -> list[dict[str, Any]]:
    rng = random.Random(0)

    def pick(_: str, d: Distribution) -> Any:
        return d.at(rng.random()) if isinstance(d, Range) else rng.choice(d.values)

    return [draw(space, recipe, pick, number) for _ in range(200)]


@pytest.mark.parametrize("strategy", ["lp-ft", "full", "partial", "gradual", "lora"])
@pytest.mark.parametrize(("params", "transformer"), [(10**6, False), (10**8, True), (10**8, False)])
def test_every_value_of_the_default_space_keeps_the_limits_and_the_default_lies_in_it(
    params: int, transformer: bool, strategy: str
) -> None:
    recipe = default_recipe(params, transformer, strategy)
    space = default_space(recipe, strategy, large=params > 10**7, n_images=30_000)
    for key, d in space.items():
        default = getattr(recipe, key)
        if isinstance(d, Range):
            low, high = RECIPE_LIMITS[key]
            assert low <= d.low < d.high <= high
            assert d.low <= default <= d.high
        else:
            allowed = RECIPE_CHOICES.get(key)
            for value in d.values:
                ok = value in allowed if allowed else RECIPE_LIMITS[key][0] <= value <= RECIPE_LIMITS[key][1]
                assert ok
            assert default in d.values


def test_a_small_net_is_searched_where_its_measured_recipe_lies() -> None:
    space = _space()
    assert space["lr"] == Range(1e-3, 1.2e-2, log=True)
    assert space["head_lr"] == Range(5e-4, 1.2e-2, log=True)


def test_a_dimension_is_there_only_where_it_can_matter() -> None:
    assert "frozen" in _space("partial")
    assert "lora_rank" in _space("lora")
    assert not {"layer_decay", "l2_sp"} & _space("lora").keys()
    assert not {"frozen", "lora_rank", "drop_path", "mixup", "cutmix"} & _space("lp-ft").keys()
    assert "drop_path" in _space(large=True)
    assert {"mixup", "cutmix"} <= _space(n_images=MIXUP_IMAGES).keys()
    assert max(_space(n_images=400)["batch_size"].values) == 64  # type: ignore[union-attr]


def test_the_space_grows_with_the_number_of_the_draw() -> None:
    recipe, space = default_recipe(10**6, False), _space()
    first = {key for values in _draws(space, recipe, 0) for key in values}
    wide = {key for values in _draws(space, recipe, WIDE_AFTER) for key in values}
    full = {key for values in _draws(space, recipe, FULL_AFTER) for key in values}
    assert first == CORE
    assert wide - first == {"policy", "erasing", "warmup", "rand_ops", "rand_magnitude"}
    assert full - wide == {"ema", "batch_size", "l2_sp"}


def test_conditions_hold_in_every_draw() -> None:
    recipe, space = default_recipe(10**6, False), _space()
    for values in _draws(space, recipe):
        assert ("rand_ops" in values) == ("rand_magnitude" in values) == (values["policy"] == "rand")
        assert ("augment" in values) == (values["policy"] == "standard")
    pinned = {key: d for key, d in space.items() if key != "policy"}
    assert all("augment" not in v for v in _draws(pinned, Recipe(policy="trivial")))


def test_an_override_replaces_the_default_is_drawn_at_once_and_may_have_a_condition() -> None:
    around = _space()
    given = {
        "ema": {"low": 0, "high": 0.5},
        "policy": ["standard", "trivial"],
        "erasing": {"values": [0.1, 0.2], "when": {"policy": "trivial"}},
    }
    space = read_space(given, {"dropout": 0.1}, "full", around)
    assert space["ema"] == Range(0, 0.5)
    assert space["erasing"] == Choice((0.1, 0.2), when={"policy": ("trivial",)})
    assert "dropout" not in space
    for values in _draws(space, Recipe(), 0):
        assert ("erasing" in values) == (values["policy"] == "trivial")


def test_a_condition_on_the_strategy_is_settled_arm_by_arm() -> None:
    given = {
        "lora_rank": {"values": [4], "when": {"strategy": ["lora"]}},
        "lr": {"values": [1.0], "when": {}},
    }
    assert read_space(given, {}, "lora", {})["lora_rank"] == Choice((4,))
    assert set(read_space(given, {}, "full", {})) == {"lr"}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "expected a list of values or"),
        ([], "expected a list of values or"),
        ({"low": 1, "high": 1}, "expected low < high"),
        ({"low": 0, "high": 1, "log": True}, "above 0 if log"),
        ({"values": [1], "when": {"polcy": ["x"]}}, "when 'polcy'; expected `strategy` or another"),
        ({"values": [1], "when": {"lr": [1]}}, "when 'lr'; expected `strategy` or another"),
        ({"values": [1], "when": 3}, "when 3; expected such as"),
        ({"values": 1}, "expected a list of values or"),
    ],
)
def test_what_is_no_distribution_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read_distribution("lr", value)
    assert str(caught.value).startswith("search.space.lr: ")


def test_a_range_and_its_inverse() -> None:
    for span in (Range(1e-4, 1e-1, log=True), Range(0, 3)):
        assert span.at(0) == pytest.approx(span.low)
        assert span.at(1) == pytest.approx(span.high)
        assert span.share(span.at(0.3)) == pytest.approx(0.3)
    assert Range(1e-4, 1e-2, log=True).at(0.5) == pytest.approx(1e-3)
    assert Range(1e-4, 1e-2, log=True).share(0) < 0


def test_rates_follow_the_batch_size_as_the_optimiser_needs_it() -> None:
    assert rate_scale(128, Recipe(batch_size=32)) == 2
    assert rate_scale(128, Recipe(batch_size=32, optimizer="sgd")) == 4
    assert rate_scale(32, Recipe(batch_size=32)) == 1


def test_epochs_are_capped_when_there_is_no_time_for_more() -> None:
    assert cap_epochs({"epochs": Choice((5, 10, 30))}, 12) == {"epochs": Choice((5, 10))}
    assert cap_epochs({"epochs": Choice((5, 10))}, 3) == {"epochs": Choice((3,))}
    assert cap_epochs({"epochs": Range(5, 30)}, 12) == {"epochs": Range(5, 12)}
    assert cap_epochs({"epochs": Range(5, 30), "lr": Range(0, 1)}, 5) == {"lr": Range(0, 1)}
