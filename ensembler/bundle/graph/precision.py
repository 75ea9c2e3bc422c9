"""Smaller graphs: weights as float16, or networks in int8."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ...errors import BundleError
from ..layout import IMAGES
from .members import silent

#: Tensors of fewer numbers stay float32: they are biases and scales, and weigh nothing.
_SMALL = 64

#: Images of a step of calibration.
_STEP = 16

#: What is worth quantising: nearly all of a network's arithmetic.
_HEAVY = ("Conv", "Gemm", "MatMul")


def half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph with its float32 weights stored as float16, half the size.

    It computes in float32 all the same: a CPU has no float16 arithmetic, and onnxruntime widens constants once,
    when the graph is loaded.

    Raises:
        BundleError: a weight is beyond what float16 holds.
    """
    small = onnx.ModelProto()
    small.CopyFrom(model)
    casts = []
    for tensor in small.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or int(np.prod(tensor.dims)) < _SMALL:
            continue
        array = numpy_helper.to_array(tensor)
        largest = float(np.abs(array).max())
        if not largest <= float(np.finfo(np.float16).max):
            raise BundleError(f"a weight of {largest:g} does not fit float16; export with --precision fp32")
        wide, tensor_name = tensor.name, f"{tensor.name}h"
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor_name))
        casts.append(
            helper.make_node("Cast", [tensor_name], [wide], name=f"{wide}w", to=onnx.TensorProto.FLOAT)
        )
    nodes = [*casts, *small.graph.node]
    del small.graph.node[:]
    small.graph.node.extend(nodes)
    onnx.checker.check_model(small)
    return small


def quantised(model: onnx.ModelProto, networks: Sequence[str], pixels: NDArray[np.uint8]) -> onnx.ModelProto:
    """The same graph with its networks in int8, a scale a channel; the combiner stays as it is.

    Args:
        model: of float32 networks.
        networks: names of the nodes that may be quantised.
        pixels: uint8 (images, size, size, 3) train images, from which the ranges of activations are taken.
    """
    from onnxruntime import quantization

    heavy = [node.name for node in model.graph.node if node.op_type in _HEAVY and node.name in set(networks)]
    with tempfile.TemporaryDirectory(prefix="ensembler-") as folder, ExitStack() as quiet:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(model), source)
        quiet.enter_context(silent())
        quantization.quantize_static(
            source,
            target,
            _Images(pixels),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=list(_HEAVY),
            nodes_to_quantize=heavy,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            reduce_range=True,  # 7 bits of weights: products of 8 overflow on processors without VNNI
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        small = onnx.load(target)
    del small.metadata_props[:]
    return small


class _Images:
    """Hands onnxruntime's calibration some images at a time."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._steps = (pixels[start : start + _STEP] for start in range(0, len(pixels), _STEP))

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next images; None when there are no more."""
        step = next(self._steps, None)
        return None if step is None else {IMAGES: np.ascontiguousarray(step)}
