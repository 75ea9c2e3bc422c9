"""Every combiner as nodes of a graph says what it says in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from ensembler.bundle.graph.builder import GraphBuilder
from ensembler.bundle.graph.combiners import TRANSLATIONS, combined
from ensembler.bundle.graph.ops import Said
from ensembler.bundle.graph.trees import tree_attributes
from ensembler.combiners import COMBINERS, Combiner, make_combiner
from ensembler.errors import BundleError
from ensembler.predictions import Predictions

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "subset": [{"members": ["m1", "m2"]}],
    "calibrated": [{"method": method} for method in ("temperature", "vector", "isotonic")],
    "stacking": [{}, {"disagreement": True}],
    "stacking_mlp": [{"disagreement": True}],
    "stacking_trees": [{}, {"disagreement": False}],
    "levels": [{}, {"members": False}, {"levels": [["knora_u", "boosting"], ["stacking"]]}],
    "thresholds": [{"base": "bagging", "metric": "macro_f1"}],
    "weighted": [{"weights": {"m0": 1, "m2": 3}}],
}
CASES = [(key, options) for key in COMBINERS for options in OPTIONS.get(key, [{}])]


def _predictions(n: int, seed: int, n_members: int = 4, n_classes: int = 4) -> Predictions:
    """Members of differing skill whose errors have something in common."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    labels[:n_classes] = np.arange(n_classes)
    shared = rng.normal(0, 1.2, (n, n_classes))
    skill = np.linspace(1.0, 2.2, n_members)[:, None, None]
    logits = skill * np.eye(n_classes)[labels] + shared + rng.normal(0, 1, (n_members, n, n_classes))
    logits[0] *= 2.5  # too sure, so that there is something to calibrate
    proba = np.exp(logits) / np.exp(logits).sum(2, keepdims=True)
    return Predictions.from_arrays(
        proba.astype(np.float32),
        labels,
        members=[f"m{i}" for i in range(n_members)],
        classes=[f"class {i}" for i in range(n_classes)],
        fold=np.arange(n) % 3,
    )


def _asked(combiner: Combiner, rows: Predictions) -> np.ndarray:
    graph = GraphBuilder()
    n_classes = rows.n_classes
    members = helper.make_tensor_value_info(
        "members", onnx.TensorProto.FLOAT, [rows.n_members, "rows", n_classes]
    )
    said = Said(rows.members, graph.cast("members", np.float64), n_classes)
    answer = graph.cast(combined(graph, combiner, said), np.float32)
    model = graph.model([members], {"proba": (answer, ["rows", n_classes])})
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["proba"], {"members": rows.proba})[0])


@pytest.mark.parametrize(("key", "options"), CASES, ids=lambda case: str(case))
def test_a_combiner_in_a_graph_says_the_same(key: str, options: dict[str, Any]) -> None:
    combiner = make_combiner(key, **options).fit(_predictions(240, 1))
    rows = _predictions(90, 2)
    expected = combiner.predict(rows).proba[0]
    for fitted in (combiner, combiner.pruned()):
        seen = rows.select(fitted.members_)
        np.testing.assert_allclose(_asked(fitted, seen), expected, atol=2e-6)
    np.testing.assert_allclose(_asked(combiner, rows.rows(np.array([3]))), expected[3:4], atol=2e-6)


def test_every_combiner_has_a_translation() -> None:
    assert set(TRANSLATIONS) == set(COMBINERS)


@pytest.mark.parametrize("key", ["boosting", "stacking_trees", "rank", "median"])
def test_two_classes_and_many_members(key: str) -> None:
    combiner = make_combiner(key).fit(_predictions(300, 1, 21, 2))
    rows = _predictions(60, 2, 21, 2)
    np.testing.assert_allclose(_asked(combiner, rows), combiner.predict(rows).proba[0], atol=2e-6)


def test_what_needs_features_of_the_images_is_refused() -> None:
    rows = _predictions(120, 1)
    rng = np.random.default_rng(0)
    rows = Predictions.from_arrays(
        rows.proba, rows.labels, members=rows.members, classes=rows.classes, fold=rows.fold,
        features=rng.normal(size=(120, 5)).astype(np.float32),
    )  # fmt: skip
    for combiner in (make_combiner("stacking", passthrough=True), make_combiner("knora_u", space="features")):
        with pytest.raises(BundleError, match="needs features of the images"):
            _asked(combiner.fit(rows), rows)


def test_other_boosters_are_refused() -> None:
    import xgboost as xgb

    rng = np.random.default_rng(0)
    data = xgb.DMatrix(rng.normal(size=(50, 3)), label=rng.integers(0, 2, 50))
    booster = xgb.train({"booster": "dart", "nthread": 1}, data, 2)
    raw = np.frombuffer(booster.save_raw("ubj"), np.uint8)
    with pytest.raises(BundleError, match="only gbtree can be in a graph"):
        tree_attributes(raw, 1)


@pytest.mark.parametrize(
    ("key", "options"), [("boosting", {"rounds": 0}), ("stacking_trees", {"rounds": 0}), ("stacking_knn", {})]
)
def test_where_the_mean_was_best_the_graph_is_the_mean(key: str, options: dict[str, Any]) -> None:
    rows = _predictions(90, 2)
    rng = np.random.default_rng(1)
    blind = Predictions.from_arrays(
        rng.dirichlet(np.full(4, 50.0), (3, 240)).astype(np.float32),
        rng.integers(0, 4, 240),
        members=rows.members[:3],
        classes=rows.classes,
        fold=np.arange(240) % 3,
    )  # of which nothing can be learned
    combiner = make_combiner(key, **options).fit(blind)
    seen = rows.select(combiner.members_)
    np.testing.assert_allclose(_asked(combiner, seen), seen.proba.mean(0), atol=2e-6)


def test_a_combiner_without_a_translation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TRANSLATIONS, "mean")
    rows = _predictions(30, 1)
    with pytest.raises(
        BundleError, match="combiner 'mean': has no form in a graph; export with --format torch"
    ):
        _asked(make_combiner("mean").fit(rows), rows)


def test_trees_that_split_by_category_are_refused() -> None:
    import pandas as pd
    import xgboost as xgb

    rng = np.random.default_rng(0)
    kinds = pd.DataFrame({"kind": pd.Categorical(rng.integers(0, 6, 200))})
    data = xgb.DMatrix(kinds, label=kinds["kind"].cat.codes % 2, enable_categorical=True)
    booster = xgb.train({"nthread": 1, "max_cat_to_onehot": 1}, data, 1)
    raw = np.frombuffer(booster.save_raw("ubj"), np.uint8)
    with pytest.raises(BundleError, match="booster: splits by category cannot be in a graph"):
        tree_attributes(raw, 1)
