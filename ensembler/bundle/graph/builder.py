"""Nodes of one ONNX graph, written one after another; names are short, and equal constants are stored once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

#: Operators of these versions, which onnxruntime 1.20 and later know.
OPSETS = {"": 20, "ai.onnx.ml": 3}
IR_VERSION = 10

#: Domain of the tree ensembles.
ML = "ai.onnx.ml"


class GraphBuilder:
    """Collects nodes and constants; a value is known by its name.

    Attributes:
        networks: names of the nodes that came from networks: what may be quantised.

    Args:
        within: the graph of which this one is a branch; names differ from all of its own, and its values are seen.
    """

    def __init__(self, within: GraphBuilder | None = None) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._numbers: Iterator[int] = itertools.count(1) if within is None else within._numbers
        self.networks: list[str] = []

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node of one output; returns the output."""
        return self.ops(kind, 1, *inputs, domain=domain, **attributes)[0]

    def ops(self, kind: str, n_outputs: int, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """Adds a node of several outputs."""
        outputs = [self._name("v") for _ in range(n_outputs)]
        self._nodes.append(
            helper.make_node(
                kind, list(inputs), outputs, name=self._name("n"), domain=domain or None, **attributes
            )
        )
        return outputs

    def constant(self, value: Any, dtype: Any = None) -> str:
        """A constant; one of the same type, shape and bytes is stored once."""
        array = np.asarray(value, dtype, order="C")
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = self._name("c")
            self._constants.append(numpy_helper.from_array(array, self._known[key]))
        return self._known[key]

    def cast(self, value: str, dtype: Any) -> str:
        """The value as float32, float64 or int64."""
        return self.op("Cast", value, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def inline(self, network: onnx.ModelProto, inputs: Mapping[str, str]) -> str:
        """Adds all nodes of a network under new names; returns its one output.

        Args:
            network: of one output.
            inputs: its inputs -> values here.
        """
        names = dict(inputs)
        for tensor in network.graph.initializer:
            names[tensor.name] = self.constant(numpy_helper.to_array(tensor))
        for node in network.graph.node:
            copy = onnx.NodeProto()
            copy.op_type, copy.domain = node.op_type, node.domain
            copy.attribute.extend(node.attribute)
            copy.name = self._name("n")
            copy.input.extend(names[name] if name else "" for name in node.input)
            for name in node.output:
                names[name] = self._name("v") if name else ""
            copy.output.extend(names[name] for name in node.output)
            self._nodes.append(copy)
            self.networks.append(copy.name)
        return names[network.graph.output[0].name]

    def inline_if(self, wanted: str, network: onnx.ModelProto, inputs: Mapping[str, str]) -> str:
        """The same in a branch that only runs where `wanted`, one boolean, is true; elsewhere zeros as many.

        Args:
            wanted: the condition.
            network: of one output (rows, numbers), as many rows as its first input.
            inputs: its inputs -> values here.
        """
        then, other = GraphBuilder(self), GraphBuilder(self)
        answer = then.inline(network, inputs)
        width = network.graph.output[0].type.tensor_type.shape.dim[-1].dim_value
        rows = other.op("Shape", next(iter(inputs.values())), start=0, end=1)
        zeros = other.op(
            "ConstantOfShape", other.op("Concat", rows, other.constant([width], np.int64), axis=0)
        )
        return self.op(
            "If", wanted, then_branch=then.branch("run", answer), else_branch=other.branch("leave", zeros)
        )

    def model(
        self,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Mapping[str, tuple[str, Sequence[int | str]]],
        defaults: Mapping[str, NDArray[Any]] | None = None,
    ) -> onnx.ModelProto:
        """The graph as a checked model.

        Args:
            inputs: declared.
            outputs: name outside -> (float32 value here, shape).
            defaults: further inputs, which may be left out -> what they are then.
        """
        optional = [numpy_helper.from_array(array, name) for name, array in (defaults or {}).items()]
        inputs = [
            *inputs, *(helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in optional)
        ]  # fmt: skip
        for name, (value, _) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [value], [name], name=self._name("n")))
        declared = [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
            for name, (_, shape) in outputs.items()
        ]
        constants = [*self._constants, *optional]
        graph = helper.make_graph(self._nodes, "ensemble", inputs, declared, constants)
        model = helper.make_model(
            graph,
            producer_name="ensembler",
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in OPSETS.items()],
        )
        onnx.checker.check_model(model)
        return model

    def branch(self, name: str, value: str) -> onnx.GraphProto:
        """What was written so far as a branch of `within`, which ends in a float32 value."""
        out = helper.make_tensor_value_info(value, onnx.TensorProto.FLOAT, None)
        return helper.make_graph(self._nodes, name, [], [out], self._constants)

    def _name(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"
