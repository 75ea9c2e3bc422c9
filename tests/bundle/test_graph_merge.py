"""One graph of several members: what they share runs once, and each says in it what it says by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from ensembler.bundle.graph.merge import ensemble_graph
from ensembler.bundle.layout import IMAGES, SAID, WANTED
from ensembler.bundle.member import FoldWeights, Member
from ensembler.bundle.networks import Networks
from ensembler.bundle.session import new_session, run_graph
from ensembler.combiners import Combiner, make_combiner
from ensembler.predictions import Predictions
from ensembler.training.backbone import create, head_names, to_arrays

ARCHITECTURE, SIZE, CLASSES = "test_resnet", 32, ("a", "b", "c")


def network(seed: int) -> dict[str, NDArray[Any]]:
    torch.manual_seed(seed)
    return to_arrays(create(ARCHITECTURE, len(CLASSES)).state_dict())


def fine_tuned(*seeds: int, mirror: bool = False) -> Member:
    """A member of one network a fold."""
    folds = [FoldWeights(network(seed), 0.5 + i) for i, seed in enumerate(seeds)]
    return Member(ARCHITECTURE, CLASSES, SIZE, folds, mirror=mirror)


def probe(body: int, *heads: int) -> Member:
    """A member of one head a fold over a frozen body."""
    of_head = head_names(create(ARCHITECTURE, len(CLASSES)))
    folds = [FoldWeights({name: network(seed)[name] * 20 for name in of_head}, 1.0) for seed in heads]
    frozen = {name: array for name, array in network(body).items() if name not in of_head}
    return Member(ARCHITECTURE, CLASSES, SIZE, folds, body=frozen)


def averaged(*names: str) -> Combiner:
    proba = np.random.default_rng(0).dirichlet(np.ones(3), (len(names), 12)).astype(np.float32)
    rows = Predictions.from_arrays(
        proba, np.arange(12) % 3, members=names, classes=CLASSES, fold=np.arange(12) % 2
    )
    return make_combiner("mean").fit(rows)


def merged(members: Mapping[str, Member], *, staged: bool = False) -> onnx.ModelProto:
    combiner = averaged(*members) if len(members) > 1 else None
    return ensemble_graph(members, combiner, len(CLASSES), staged=staged)[0]


def count(model: onnx.ModelProto, kind: str) -> int:
    return [node.op_type for node in model.graph.node].count(kind)


def require_the_same(
    members: Mapping[str, Member], model: onnx.ModelProto, pixels: NDArray[np.uint8]
) -> None:
    """Each member says in the graph what PyTorch says."""
    said = run_graph(new_session(model.SerializeToString(), "graph"), pixels)[1]
    for there, member in zip(said, members.values(), strict=True):
        np.testing.assert_allclose(there, member.predict_folds(pixels), atol=1e-5)


@pytest.fixture(scope="module")
def pixels(draw_images: Callable[..., Any]) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = draw_images(5, size=SIZE)[0]
    return images


def test_frozen_bodies_that_are_the_same_run_once(pixels: NDArray[np.uint8]) -> None:
    same = {"one": probe(0, 1, 2), "two": probe(0, 3, 4)}
    other = {"one": probe(0, 1, 2), "two": probe(5, 3, 4)}
    shared, apart = merged(same), merged(other)
    assert count(apart, "Conv") == 2 * count(shared, "Conv") > 0
    require_the_same(same, shared, pixels)
    require_the_same(other, apart, pixels)
    one, two = (member.predict_folds(pixels) for member in same.values())
    assert np.abs(one - two).max() > 0.01, "the heads say the same, and nothing is shown"


def test_in_a_cascade_each_member_has_its_body_in_a_branch_of_its_own(pixels: NDArray[np.uint8]) -> None:
    members = {"one": probe(0, 1, 2), "two": probe(0, 3, 4)}
    model = merged(members, staged=True)
    assert (count(model, "Conv"), count(model, "If")) == (0, 2)
    require_the_same(members, model, pixels)  # where nobody says which, all run
    session = new_session(model.SerializeToString(), "graph")
    for asked, member in enumerate(members.values()):
        wanted = np.arange(2)[:, None] == np.full(2, asked)
        said = session.run([SAID], {IMAGES: pixels, WANTED: wanted})[0]
        np.testing.assert_allclose(said[asked], member.predict_folds(pixels), atol=1e-5)
        assert not np.allclose(said[1 - asked], list(members.values())[1 - asked].predict_folds(pixels))


def test_one_network_stands_beside_fold_models_as_often_as_there_are_folds(pixels: NDArray[np.uint8]) -> None:
    members = {"folds": fine_tuned(0, 1), "refit": fine_tuned(2)}
    model = merged(members)
    proba, said = run_graph(new_session(model.SerializeToString(), "graph"), pixels)
    assert said.shape == (2, 2, len(pixels), len(CLASSES))
    np.testing.assert_array_equal(said[1, 0], said[1, 1])
    expected, by_torch = Networks(members, averaged(*members), CLASSES).answer(pixels)
    np.testing.assert_allclose(said, by_torch, atol=1e-5)
    np.testing.assert_allclose(proba, expected, atol=1e-5)


def test_members_that_mirror_stand_beside_members_that_do_not(pixels: NDArray[np.uint8]) -> None:
    members = {"plain": fine_tuned(0), "mirrored": fine_tuned(0, mirror=True), "again": fine_tuned(1)}
    model = merged(members)
    assert count(model, "Slice") == 1
    require_the_same(members, model, pixels)
    plain, mirrored = (members[name].predict_folds(pixels) for name in ("plain", "mirrored"))
    assert np.abs(plain - mirrored).max() > 1e-4, "the mirror images look the same, and nothing is shown"
