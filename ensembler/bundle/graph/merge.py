"""All of a bundle in one graph: images in; what every fold model says, and what the ensemble says, out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ...combiners import Combiner
from ...errors import BundleError
from ..layout import IMAGES, PROBABILITIES, SAID, WANTED
from ..member import Member
from .builder import GraphBuilder
from .combiners import combined
from .members import PIXELS, network_graph
from .ops import Said, axes, mean


def ensemble_graph(
    members: Mapping[str, Member], combiner: Combiner | None, n_classes: int, *, staged: bool = False
) -> tuple[onnx.ModelProto, list[str]]:
    """The graph of a bundle.

    Images of one normalisation are normalised once; frozen bodies that are the same to the bit run once.

    Args:
        members: by name, in the order of the combiner's.
        combiner: fitted; None for one member alone.
        n_classes: two or more.
        staged: a further input `wanted`, bool (members, folds), says which networks run; it may be left out, and all
            do. The others' probabilities are without meaning, and so is the ensemble's. See `bundle.staged`.

    Returns:
        The model, from `images` uint8 (n, size, size, 3) to `probabilities` float32 (n, classes) and `members` float32
        (members, folds, n, classes); and the names of the nodes that belong to networks.

    Raises:
        BundleError: an architecture or a combiner that cannot be in a graph.
    """
    size, n_folds = next(iter(members.values())).image_size, folds_of(members)
    graph = GraphBuilder()
    networks = _Networks(graph, n_classes, staged)
    answers = [networks.answers(member, number) for number, member in enumerate(members.values())]
    for i, member in enumerate(members.values()):
        if len(member.temperatures) < n_folds:  # one network beside the fold models of others
            answers[i] = graph.op("Concat", *[answers[i]] * n_folds, axis=1)
    said = graph.op("Concat", *answers, axis=0)
    if combiner is None:
        proba = graph.op("Squeeze", _over_folds(graph, said), axes(graph, 0))
    else:
        proba = _combined(graph, combiner, tuple(members), said, n_classes, n_folds)
    images = helper.make_tensor_value_info(IMAGES, onnx.TensorProto.UINT8, ["n", size, size, 3])
    outputs: dict[str, tuple[str, list[int | str]]] = {
        PROBABILITIES: (proba, ["n", n_classes]),
        SAID: (said, [len(members), n_folds, "n", n_classes]),
    }
    defaults = {WANTED: np.ones((len(members), n_folds), np.bool_)} if staged else {}
    return graph.model([images], outputs, defaults), graph.networks


def combiner_graph(
    combiner: Combiner, members: Sequence[str], n_classes: int, n_folds: int
) -> onnx.ModelProto:
    """The combiner alone: `members` float32 (members, folds, n, classes) to `probabilities` float32 (n, classes)."""
    graph = GraphBuilder()
    proba = _combined(graph, combiner, tuple(members), SAID, n_classes, n_folds)
    shape: list[int | str | None] = [len(members), n_folds, "n", n_classes]
    said = helper.make_tensor_value_info(SAID, onnx.TensorProto.FLOAT, shape)
    return graph.model([said], {PROBABILITIES: (proba, ["n", n_classes])})


def folds_of(members: Mapping[str, Member]) -> int:
    """How many fold models the members have; one network that was trained on every row stands beside them as often.

    Raises:
        BundleError: members of several sizes, or of different numbers of fold models.
    """
    sizes = {member.image_size for member in members.values()}
    folds = {len(member.temperatures) for member in members.values()}
    if len(sizes) > 1 or len(folds - {1}) > 1:
        raise BundleError(
            f"members of {sorted(sizes)} pixels and {sorted(folds)} fold models cannot be in one "
            "ensemble; export one of them"
        )
    return max(folds)


def _combined(
    graph: GraphBuilder, combiner: Combiner, names: tuple[str, ...], said: str, n_classes: int, n_folds: int
) -> str:
    """The combiner over the models of each fold, averaged; see `combiners.fold_models`."""
    as_rows = graph.op("Reshape", said, axes(graph, len(names), -1, n_classes))
    proba = combined(graph, combiner, Said(names, graph.cast(as_rows, np.float64), n_classes))
    by_fold = graph.op("Reshape", proba, axes(graph, n_folds, -1, n_classes))
    return graph.cast(mean(graph, by_fold, 0), np.float32)


def _over_folds(graph: GraphBuilder, said: str) -> str:
    return graph.cast(mean(graph, graph.cast(said, np.float64), 1), np.float32)


class _Networks:
    """The networks of a graph, and what they share."""

    def __init__(self, graph: GraphBuilder, n_classes: int, staged: bool) -> None:
        self._graph, self._n_classes, self._staged = graph, n_classes, staged
        self._planes: str | None = None
        self._normalised: dict[tuple[float, ...], str] = {}
        self._bodies: dict[tuple[str, str, int], str] = {}

    def answers(self, member: Member, number: int) -> str:
        """Probabilities float32 (1, folds, n, classes) of a member, known by its place."""
        graph = self._graph
        pixels = self._pixels(member)
        if member.body is None:
            models = (model.state_dict() for model in member.models)
            logits = [
                self._logits(member, network_graph(*self._key(member), state), pixels, (number, fold))
                for fold, state in enumerate(models)
            ]
        else:
            features = self._features(member, pixels, number)
            logits = [self._head(features, weight, bias) for weight, bias in member.heads]
        proba = [
            graph.op(
                "Softmax",
                graph.op("Div", graph.cast(one, np.float64), graph.constant(t, np.float64)),
                axis=-1,
            )
            for one, t in zip(logits, member.temperatures, strict=True)
        ]
        stacked = graph.op("Concat", *(graph.op("Unsqueeze", p, axes(graph, 0, 1)) for p in proba), axis=1)
        return graph.cast(stacked, np.float32)

    def _key(self, member: Member) -> tuple[str, int, int, tuple[int, ...]]:
        return member.architecture, self._n_classes, member.image_size, member.hidden

    def _logits(self, member: Member, network: onnx.ModelProto, pixels: str, which: tuple[int, int]) -> str:
        out = self._network(network, pixels, which)
        if not member.mirror:
            return out
        halves = self._graph.op("Reshape", out, axes(self._graph, 2, -1, self._n_classes))
        return mean(self._graph, halves, 0)

    def _head(self, features: str, weight: np.ndarray, bias: np.ndarray) -> str:
        graph = self._graph
        return graph.op("Gemm", features, graph.constant(weight), graph.constant(bias), transB=1)

    def _network(self, network: onnx.ModelProto, pixels: str, which: tuple[int, int]) -> str:
        if not self._staged:
            return self._graph.inline(network, {PIXELS: pixels})
        place = [self._graph.constant(i, np.int64) for i in which]
        row = self._graph.op("Gather", WANTED, place[0], axis=0)
        return self._graph.inline_if(
            self._graph.op("Gather", row, place[1], axis=0), network, {PIXELS: pixels}
        )

    def _features(self, member: Member, pixels: str, number: int) -> str:
        assert member.body is not None
        state = member.body.state_dict()
        digest = hashlib.sha256()
        for name in sorted(member.body_arrays() or {}):
            digest.update(state[name].numpy(force=True).tobytes())
        # Members of a cascade are run apart, so that none runs another's body.
        key = (digest.hexdigest(), pixels, number if self._staged else 0)
        if key not in self._bodies:
            network = network_graph(member.architecture, 0, member.image_size, (), state)
            self._bodies[key] = self._network(network, pixels, (number, 0))
        return self._bodies[key]

    def _pixels(self, member: Member) -> str:
        """Normalised images float32 (n, 3, size, size); of a member that mirrors, all of them twice."""
        graph, key = self._graph, (*member.mean, *member.std, float(member.mirror))
        if key in self._normalised:
            return self._normalised[key]
        if member.mirror:
            plain = self._normalise(member)
            ends = [graph.constant([value], np.int64) for value in (-1, np.iinfo(np.int64).min, 3, -1)]
            self._normalised[key] = graph.op("Concat", plain, graph.op("Slice", plain, *ends), axis=0)
        else:
            self._normalised[key] = self._normalise(member)
        return self._normalised[key]

    def _normalise(self, member: Member) -> str:
        graph = self._graph
        if self._planes is None:
            self._planes = graph.cast(graph.op("Transpose", IMAGES, perm=[0, 3, 1, 2]), np.float32)
        mean_, std = (np.array(values, np.float32) for values in (member.mean, member.std))
        scale, shift = np.float32(1) / (np.float32(255) * std), mean_ / std
        by_channel = [np.reshape(array, (3, 1, 1)) for array in (scale, shift)]
        scaled = graph.op("Mul", self._planes, graph.constant(by_channel[0]))
        return graph.op("Sub", scaled, graph.constant(by_channel[1]))
