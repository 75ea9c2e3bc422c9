"""The trees of XGBoost as a tree ensemble of ONNX: our own translation, since both are a few parallel lists."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError
from .builder import ML, GraphBuilder


def tree_scores(graph: GraphBuilder, features: str, booster: NDArray[np.uint8], n_scores: int) -> str:
    """The sum of the leaves that each row falls into.

    Args:
        graph: to add to.
        features: float32 (rows, columns), none missing.
        booster: a model of XGBoost as UBJ.
        n_scores: groups of trees: the classes, or 1.

    Returns:
        float32 (rows, n_scores), without the model's base score.

    Raises:
        BundleError: the model holds something that is no such tree.
    """
    return graph.op(
        "TreeEnsembleRegressor",
        features,
        domain=ML,
        **tree_attributes(booster, n_scores),
        aggregate_function="SUM",
    )


def tree_attributes(booster: NDArray[np.uint8], n_scores: int) -> dict[str, Any]:
    """Attributes of `TreeEnsembleRegressor`; XGBoost goes left where a feature is less than the condition."""
    model = _read(booster)["learner"]["gradient_booster"]
    if model.get("name") != "gbtree":
        raise BundleError(
            f"booster {model.get('name')!r}: only gbtree can be in a graph; export with --format torch"
        )
    trees, groups = model["model"]["trees"], model["model"]["tree_info"]
    names = (
        "nodes_treeids", "nodes_nodeids", "nodes_featureids", "nodes_values", "nodes_modes",
        "nodes_truenodeids", "nodes_falsenodeids", "nodes_missing_value_tracks_true",
        "target_treeids", "target_nodeids", "target_ids", "target_weights",
    )  # fmt: skip
    lists: dict[str, list[Any]] = {name: [] for name in names}
    for number, (tree, group) in enumerate(zip(trees, groups, strict=True)):
        if any(tree["split_type"]):
            raise BundleError("booster: splits by category cannot be in a graph; export with --format torch")
        _add_tree(lists, number, group, tree)
    return {**lists, "n_targets": n_scores}


def _add_tree(lists: dict[str, list[Any]], number: int, group: int, tree: dict[str, Any]) -> None:
    left, right = tree["left_children"], tree["right_children"]
    for node, condition in enumerate(tree["split_conditions"]):
        leaf = left[node] < 0
        row = {
            "nodes_treeids": number,
            "nodes_nodeids": node,
            "nodes_featureids": 0 if leaf else tree["split_indices"][node],
            "nodes_values": 0.0 if leaf else condition,
            "nodes_modes": "LEAF" if leaf else "BRANCH_LT",
            "nodes_truenodeids": 0 if leaf else left[node],
            "nodes_falsenodeids": 0 if leaf else right[node],
            "nodes_missing_value_tracks_true": 0 if leaf else tree["default_left"][node],
        }
        if leaf:
            row |= {
                "target_treeids": number,
                "target_nodeids": node,
                "target_ids": group,
                "target_weights": condition,
            }
        for name, value in row.items():
            lists[name].append(value)


def _read(booster: NDArray[np.uint8]) -> dict[str, Any]:
    import xgboost as xgb

    model = xgb.Booster({"nthread": 1})
    model.load_model(bytearray(booster.tobytes()))
    read: dict[str, Any] = json.loads(bytes(model.save_raw("json")))
    return read
