"""Batch normalisation goes into the convolution before it, rounded once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ensembler.bundle.graph.normalisation import fold_normalisation

CHANNELS = 4


def model(
    *, bias: bool = True, output_of_convolution: bool = False, epsilon: float | None = 1e-3
) -> onnx.ModelProto:
    """A convolution, a normalisation over steep statistics, and perhaps another reader of the convolution."""
    dice = np.random.default_rng(0)
    numbers = {
        "w": dice.normal(size=(CHANNELS, 3, 1, 1)), "b": dice.normal(size=CHANNELS),
        "gamma": dice.uniform(0.5, 2, CHANNELS), "beta": dice.normal(size=CHANNELS),
        "mean": dice.normal(size=CHANNELS), "variance": dice.uniform(1e-5, 1, CHANNELS),
    }  # fmt: skip
    options = {} if epsilon is None else {"epsilon": epsilon}
    nodes = [
        helper.make_node("Conv", ["x", "w", *["b"] * bias], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "variance"], ["y"], **options),
    ]
    image = [None, CHANNELS, None, None]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, image)]
    if output_of_convolution:
        nodes.append(helper.make_node("Relu", ["c"], ["z"]))
        outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, image))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, None, None])],
        outputs,
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in numbers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def answers(made: onnx.ModelProto) -> list[NDArray[np.float32]]:
    images = np.random.default_rng(1).normal(size=(2, 3, 5, 5)).astype(np.float32)
    return ort.InferenceSession(made.SerializeToString()).run(None, {"x": images})


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("epsilon", [1e-3, None])
def test_it_goes_into_the_convolution_and_each_number_is_rounded_once(
    bias: bool, epsilon: float | None
) -> None:
    made = model(bias=bias, epsilon=epsilon)
    wide = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in made.graph.initializer}
    before = answers(made)
    fold_normalisation(made.graph)
    onnx.checker.check_model(made)
    assert [node.op_type for node in made.graph.node] == ["Conv"]
    np.testing.assert_allclose(answers(made)[0], before[0], rtol=1e-4, atol=1e-4)
    scale = wide["gamma"] / np.sqrt(wide["variance"] + np.float64(np.float32(epsilon or 1e-5)))
    found = {t.name: numpy_helper.to_array(t) for t in made.graph.initializer}
    weight, offset = (found[name] for name in made.graph.node[0].input[1:])
    np.testing.assert_array_equal(weight, (wide["w"] * scale[:, None, None, None]).astype(np.float32))
    offset_before = wide["b"] if bias else 0.0
    expected = wide["beta"] + (offset_before - wide["mean"]) * scale
    np.testing.assert_array_equal(offset, expected.astype(np.float32))


def test_a_convolution_that_somebody_else_reads_stays_as_it_is() -> None:
    made = model(output_of_convolution=True)
    before = answers(made)
    fold_normalisation(made.graph)
    assert [node.op_type for node in made.graph.node] == ["Conv", "BatchNormalization", "Relu"]
    for one, other in zip(answers(made), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_normalisation_of_the_images_themselves_stays() -> None:
    made = model()
    del made.graph.node[0]
    made.graph.node[0].input[0] = "x"
    fold_normalisation(made.graph)
    assert [node.op_type for node in made.graph.node] == ["BatchNormalization"]
