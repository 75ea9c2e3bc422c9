"""Networks as nodes: what is traced is filled with weights, and what is finished is kept for the next export."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ensembler.bundle.graph import members

SIZE = 8


def traced(weight: str) -> onnx.ModelProto:
    """A network without its weights, and with a constant that belongs to no tensor of it."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["pixels", weight], ["by"]),
            helper.make_node("Add", ["by", "c"], ["out"]),
        ],
        "net",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3])],
        [
            numpy_helper.from_array(np.zeros((2, 3), np.float32), weight),
            numpy_helper.from_array(np.float32([1, 2, 3]), "c"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize(("n_classes", "name"), [(3, "weight"), (0, "model.weight")])
def test_weights_are_filled_into_a_copy_and_constants_stay(
    n_classes: int, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = traced(name)
    before = blank.SerializeToString()
    monkeypatch.setattr(members, "_traced", lambda *_: blank)
    monkeypatch.setattr(members, "_finished", {})
    pixels = np.float32([[1, 0], [0, 1], [2, -1]])
    for factor in (1.0, 2.0):
        weight = factor * torch.arange(6, dtype=torch.float32).reshape(2, 3)
        made = members.network_graph("net", n_classes, SIZE, (), {"weight": weight, "unused": weight})
        session = ort.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
        np.testing.assert_array_equal(
            session.run(None, {"pixels": pixels})[0], pixels @ weight.numpy() + np.float32([1, 2, 3])
        )
    assert blank.SerializeToString() == before


def test_finished_networks_are_kept_until_they_are_too_large_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def fill(architecture: str, *_: object) -> onnx.ModelProto:
        made.append(architecture)
        return onnx.ModelProto(doc_string=architecture * 100)

    monkeypatch.setattr(members, "_filled", fill)
    monkeypatch.setattr(members, "_finished", {})
    monkeypatch.setattr(members, "_KEPT_BYTES", 250)

    def ask(*names: str) -> list[str]:
        made.clear()
        for name in names:
            assert members.network_graph(name, 3, SIZE, (), {}).doc_string == name * 100
        return list(made)

    assert ask("a", "a", "b", "a", "b") == ["a", "b"]
    assert ask("c", "b", "c") == ["c"]  # in place of a, the oldest
    assert ask("a") == ["a"]
    monkeypatch.setattr(members, "_KEPT_BYTES", 50)
    assert ask("d", "d", "d") == ["d"]  # however large, the last one is kept


def test_other_weights_are_another_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_filled", lambda *_: onnx.ModelProto())
    monkeypatch.setattr(members, "_finished", {})
    one = members.network_graph("net", 3, SIZE, (), {"w": torch.zeros(2)})
    assert members.network_graph("net", 3, SIZE, (), {"w": torch.zeros(2)}) is one
    for architecture, n_classes, hidden, state in (
        ("net", 3, (), {"w": torch.ones(2)}),
        ("net", 3, (), {"v": torch.zeros(2)}),
        ("net", 3, (4,), {"w": torch.zeros(2)}),
        ("net", 0, (), {"w": torch.zeros(2)}),
        ("ten", 3, (), {"w": torch.zeros(2)}),
    ):
        assert members.network_graph(architecture, n_classes, SIZE, hidden, state) is not one
