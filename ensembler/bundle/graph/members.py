"""A network as nodes: torch exports each architecture once, and the weights of every fold go into copies of that.

Tracing an architecture takes seconds; filling in weights and folding what is constant, such as the statistics of
batch normalisation, a fraction of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from ...errors import BundleError
from ...training import backbone
from .normalisation import fold_normalisation

#: What the input of a network is called in its own graph.
PIXELS = "pixels"

#: Networks whose trace is kept: an export of many rows meets the same few again.
_KEPT = 16

#: Bytes of finished networks that are kept, for the same reason.
_KEPT_BYTES = 256 << 20

_finished: dict[str, onnx.ModelProto] = {}


class Body(nn.Module):
    """What a head sees, as a module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Features (batch, features) of normalised images."""
        return backbone.features(self.model, images)


def network_graph(
    architecture: str, n_classes: int, image_size: int, hidden: tuple[int, ...], state: Mapping[str, Tensor]
) -> onnx.ModelProto:
    """Normalised images (batch, 3, size, size) to logits (batch, classes), with these weights.

    Args:
        architecture: timm's name.
        n_classes: outputs of the head; 0: the graph ends at what the head sees.
        image_size: side of the images.
        hidden: widths of the head's hidden layers.
        state: tensors under timm's names.

    Raises:
        BundleError: torch cannot export this architecture.
    """
    key = _digest((architecture, n_classes, image_size, hidden), state)
    if key not in _finished:
        _finished[key] = _filled(architecture, n_classes, image_size, hidden, state)
        while len(_finished) > 1 and sum(one.ByteSize() for one in _finished.values()) > _KEPT_BYTES:
            del _finished[next(iter(_finished))]  # the oldest
    return _finished[key]


def _filled(
    architecture: str, n_classes: int, image_size: int, hidden: tuple[int, ...], state: Mapping[str, Tensor]
) -> onnx.ModelProto:
    from onnxscript import optimizer

    network = onnx.ModelProto()
    network.CopyFrom(_traced(architecture, n_classes, image_size, hidden))
    for tensor in network.graph.initializer:
        name = tensor.name.removeprefix("model.") if not n_classes else tensor.name
        if name in state:
            tensor.CopyFrom(numpy_helper.from_array(_array(state[name]), tensor.name))
    with silent():
        optimizer.fold_constants(network)
        fold_normalisation(network.graph)
        optimised: onnx.ModelProto = optimizer.optimize(network)
    return optimised


@lru_cache(maxsize=_KEPT)
def _traced(architecture: str, n_classes: int, image_size: int, hidden: tuple[int, ...]) -> onnx.ModelProto:
    model = backbone.create(architecture, max(1, n_classes), hidden=hidden, image_size=image_size)
    module = (model if n_classes else Body(model)).eval()
    images = torch.zeros(2, 3, image_size, image_size)
    try:
        with silent():
            program = torch.onnx.export(
                module,
                (images,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=[PIXELS],
                output_names=["out"],
                optimize=False,
                verbose=False,
            )
    # No narrower class: torch's exporter raises whatever stopped it, in classes that move between versions.
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise BundleError(
            f"{architecture}: torch cannot export it as ONNX ({reason}); use --format torch"
        ) from error
    assert program is not None
    return program.model_proto


def _digest(what: tuple[object, ...], state: Mapping[str, Tensor]) -> str:
    found = hashlib.sha256(repr(what).encode())
    for name in sorted(state):
        found.update(name.encode())
        found.update(np.ascontiguousarray(_array(state[name])).tobytes())
    return found.hexdigest()


def _array(tensor: Tensor) -> NDArray[np.generic]:
    array: NDArray[Any] = tensor.detach().cpu().numpy()
    return array


@contextlib.contextmanager
def silent() -> Any:
    """Keeps what exporters say of their own progress, and of their own code, from the user."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
