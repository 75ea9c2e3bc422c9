"""A search around what an earlier one found: inside the old space, centred on the winner, and on again from there."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from ensembler.config import Config
from ensembler.errors import ConfigError
from ensembler.experiment import Experiment
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate
from ensembler.training.recipe import Recipe
from ensembler.training.recipes import default_recipe
from ensembler.training.space import Choice, Range, default_space
from ensembler.tuning.arms import Arm
from ensembler.tuning.refine import Previous, arms_from_dicts, arms_to_dicts, refine

RECIPE = default_recipe(10**6, transformer=False)
SPACE = default_space(RECIPE, "full", large=False, n_images=3000)


def _arm(name: str = "a", **options: Any) -> Arm:
    return Arm(name, "random", "full", dataclasses.replace(RECIPE, epochs=8), SPACE, **options)


def _trial(arm: Arm, score: float, status: str = "finished", **values: Any) -> dict[str, Any]:
    return {"candidate": arm.candidate(values).to_dict(), "status": status, "score": score}


def _previous(trials: list[dict[str, Any]], metric: str = "log_loss", **manifest: Any) -> Previous:
    return Previous.read("runs/x", {"metric": metric, **manifest}, trials)


TRIALS = [
    _trial(_arm(), 0.9),
    _trial(_arm(), 0.4, lr=3e-3, dropout=0.2, weight_decay=1e-2, label_smoothing=0.0),
    _trial(_arm(), 0.5, lr=2.5e-3, dropout=0.2, weight_decay=1e-3, label_smoothing=0.0),
    _trial(_arm(), 0.6, lr=2e-3, dropout=0.0, weight_decay=1e-3, label_smoothing=0.05),
    _trial(_arm(), 0.01, "stopped", lr=1e-3),
    {"candidate": _arm().candidate({"lr": 1.1e-3}).to_dict(), "status": "failed", "score": None},
]


def test_the_best_recipe_is_the_new_default_and_the_space_lies_inside_the_old_one() -> None:
    arm = refine([_arm()], _previous(TRIALS), ["epochs"])[0]
    assert arm.recipe == Candidate.from_dict(TRIALS[1]["candidate"]).recipe
    assert arm.space.keys() == SPACE.keys()
    for key, new in arm.space.items():
        old = SPACE[key]
        if isinstance(new, Range):
            assert isinstance(old, Range)
            assert old.low <= new.low * (1 + 1e-9)
            assert new.high <= old.high * (1 + 1e-9)
        else:
            assert isinstance(old, Choice)
            assert set(new.values) <= set(old.values)
    assert arm.space["dropout"] == Choice((0.0, 0.2))
    assert arm.space["label_smoothing"] == Choice((0.0, 0.05))  # 0.1 was in none of the best three


def test_a_range_is_centred_on_the_winner_and_a_quarter_to_a_half_as_wide() -> None:
    arm = refine([_arm()], _previous(TRIALS), ["epochs"])[0]
    for key in ("lr", "weight_decay", "head_lr"):
        old, new = SPACE[key], arm.space[key]
        assert isinstance(old, Range)
        assert isinstance(new, Range)
        winner = getattr(arm.recipe, key)
        assert math.sqrt(new.low * new.high) == pytest.approx(winner)
        share = math.log(new.high / new.low) / math.log(old.high / old.low)
        assert 0.25 - 1e-9 <= share <= 0.5 + 1e-9
        assert new.share(winner) == pytest.approx(0.5)


def test_a_winner_at_the_edge_keeps_the_space_inside() -> None:
    arm = refine([_arm()], _previous([_trial(_arm(), 0.1, lr=1.2e-2)]), ["epochs"])[0]
    lr, old = arm.space["lr"], SPACE["lr"]
    assert isinstance(lr, Range)
    assert isinstance(old, Range)
    assert lr.high == pytest.approx(old.high)
    assert lr.low > old.low


def test_refining_again_closes_in() -> None:
    once = refine([_arm()], _previous(TRIALS), ["epochs"])[0]
    manifest = json.loads(json.dumps({"space": arms_to_dicts([once])}))
    trials = [_trial(once, 0.3, lr=3.2e-3), _trial(once, 0.35, lr=2.9e-3)]
    twice = refine([_arm()], _previous(trials, **manifest), ["epochs"])[0]
    first, second = once.space["lr"], twice.space["lr"]
    assert isinstance(first, Range)
    assert isinstance(second, Range)
    assert first.low < second.low < 3.2e-3 < second.high < first.high
    assert arms_from_dicts(manifest["space"]) == [once]


def test_what_the_config_pins_stays_and_other_arms_are_as_they_were() -> None:
    other = _arm("b")
    one, two = refine([dataclasses.replace(_arm(), recipe=Recipe(epochs=3, dropout=0.1)), other],
                      _previous(TRIALS), ["epochs", "dropout"])  # fmt: skip
    assert (one.recipe.epochs, one.recipe.dropout, one.recipe.lr) == (3, 0.1, 3e-3)
    assert two == other


def test_the_direction_of_the_metric_decides_who_won() -> None:
    arm = refine([_arm()], _previous(TRIALS, "accuracy"), ["epochs"])[0]
    assert arm.recipe == _arm().recipe


def test_scores_are_comparable_only_for_the_same_images_folds_seed_and_metric() -> None:
    identity = {"fingerprint": "f", "folds": "x", "image_size": 32, "seed": 0}
    previous = _previous(TRIALS, identity=identity)
    assert previous.same_question(identity, "log_loss")
    assert not previous.same_question(identity, "accuracy")
    assert not previous.same_question({**identity, "folds": "y"}, "log_loss")
    assert not _previous(TRIALS).same_question({}, "log_loss")


@pytest.mark.parametrize(
    ("made", "what"), [(False, "no run there"), (True, "a run without a finished search")]
)
def test_what_cannot_be_refined_is_refused_with_the_way_out(made: bool, what: str, tmp_path: Path) -> None:
    text = "name: x\ndata: {source: digits}\nbackbones: [resnet10t]\nrefine: runs/before\n"
    config = Config.parse(text, tmp_path / "c.yaml")
    if made:
        RunStore(tmp_path / "runs" / "before").claim({"fingerprint": "f"})
    with pytest.raises(ConfigError) as caught:
        Experiment(config, RunStore(tmp_path / "run"))._previous()
    assert f"c.yaml refine: 'runs/before': {what}; give the folder of a run that has searched" in str(
        caught.value
    )
