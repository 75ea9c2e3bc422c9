"""Candidates and Cells: the same content is the same name on every machine."""

from __future__ import annotations

import dataclasses
import json

from ensembler.training.candidate import Candidate, CellJob, Numerics, digest
from ensembler.training.recipe import RECIPE_CHOICES, RECIPE_LIMITS, Recipe
from ensembler.training.recipes import apply, default_recipe


def test_an_id_is_the_hash_of_the_content() -> None:
    one = Candidate("test_resnet", "random", "full", Recipe(lr=1e-3))
    assert one.id == Candidate("test_resnet", "random", "full", Recipe(lr=0.001)).id
    others = [
        dataclasses.replace(one, backbone="test_vit"),
        dataclasses.replace(one, weights="w#1"),
        dataclasses.replace(one, strategy="lp-ft"),
        dataclasses.replace(one, recipe=Recipe(lr=2e-3)),
    ]
    assert len({one.id, *(o.id for o in others)}) == 5
    assert one.name == f"test_resnet-full-{one.id[: len(one.name) - len('test_resnet-full-')]}"


def test_a_digest_does_not_depend_on_the_order_of_keys_nor_on_the_session() -> None:
    assert digest({"b": 1, "a": [1, 2]}) == digest({"a": [1, 2], "b": 1})
    assert digest({"a": 1}) == "015abd7f5cc57a2d"


def test_jobs_and_candidates_survive_json() -> None:
    job = CellJob(Candidate("a", "w", "full", Recipe(lr=0.1)), 3, 7, Numerics("bf16", False), 2)
    again = CellJob.from_dict(json.loads(json.dumps(job.to_dict())))
    assert again == job
    assert again.key("f") == job.key("f")
    assert Candidate.from_dict(job.candidate.to_dict()) == job.candidate


def test_every_number_of_a_recipe_has_limits_and_the_defaults_keep_them() -> None:
    numbers = {f.name for f in dataclasses.fields(Recipe) if not isinstance(f.default, bool | str)}
    words = {f.name for f in dataclasses.fields(Recipe) if isinstance(f.default, str)}
    assert (set(RECIPE_LIMITS), set(RECIPE_CHOICES)) == (numbers, words)
    for recipe in (Recipe(), default_recipe(10**6, False), default_recipe(10**8, True)):
        for name, (low, high) in RECIPE_LIMITS.items():
            assert low <= getattr(recipe, name) <= high


def test_a_later_hyperparameter_at_its_default_changes_no_candidate() -> None:
    """The names of candidates in the runs and reports of the first version stay what they were."""
    plain = Candidate("resnet10t", "random", "full", Recipe(lr=0.1))
    assert set(plain.identity()["recipe"]) == set(list(Recipe.__dataclass_fields__)[:14])
    assert plain.id == "53930f720a"
    assert plain.id != dataclasses.replace(plain, recipe=Recipe(lr=0.1, mixup=0.2)).id


def test_applied_values_keep_their_types() -> None:
    recipe = apply(Recipe(), {"batch_size": 31.7, "lr": 0.123456789, "flip": False})
    assert (recipe.batch_size, recipe.lr, recipe.flip) == (32, 0.123457, False)
    assert isinstance(recipe.batch_size, int)
