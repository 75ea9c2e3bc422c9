"""What a backbone costs to run and to train, found without allocating a weight or reading a pixel.

A model is a `blueprint`, which has shapes and no memory. Each answer takes some tenths of a second, so these are asked
where the numbers are shown, never at the start of a run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ..errors import BackboneError
from .backbone import count_parameters
from .blueprint import blueprint

#: Bytes a parameter takes in training: float32 weight, gradient, and the two moments of AdamW.
BYTES_PER_PARAMETER = 16

#: Images of the traced batch: with one, batch normalisation after a feature map of one pixel has nothing to normalise.
_TRACED = 2


@cache
def flops(name: str, image_size: int) -> int:
    """Floating-point operations of one forward pass of one image; a multiply-add counts as two.

    Matrix products, convolutions and attention are counted, as `torch.utils.flop_counter` does; additions, norms and
    activations, a few percent, are not.

    Args:
        name: timm's name.
        image_size: side in pixels.

    Raises:
        BackboneError: see `create`; or it takes no pictures of this size.
    """
    # Without gradients, or the counter's hooks ask for those of inputs that have none.
    model = blueprint(name, image_size).eval().requires_grad_(False)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, _tracing(name, image_size):
        model(torch.empty(1, 3, image_size, image_size))
    return int(counter.get_total_flops())


def training_bytes(name: str, image_size: int, batch_size: int) -> int:
    """Memory that a training step in float32 needs at least, in bytes: an estimate from below.

    Parameters at `BYTES_PER_PARAMETER`, plus every distinct tensor that autograd keeps from the forward pass for the
    backward pass, for each image of the batch. Left out: the workspace of convolutions, the allocator's slack, the
    gradients of activations, and what the driver itself holds; leave a third of a device's memory free for them.

    Raises:
        BackboneError: see `create`; or it takes no pictures of this size.
    """
    params, image = _params_and_saved_bytes(name, image_size)
    return BYTES_PER_PARAMETER * params + batch_size * image


@cache
def _params_and_saved_bytes(name: str, image_size: int) -> tuple[int, int]:
    model = blueprint(name, image_size).train()
    with _tracing(name, image_size):
        return count_parameters(model), _saved_bytes(model, image_size)


@contextmanager
def _tracing(name: str, image_size: int) -> Iterator[None]:
    """Turns what a model says of a picture that it cannot take into an error that names both."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"backbone {name!r}: cannot take {image_size} pixels: {reason}; choose another size"
        ) from error


def _saved_bytes(model: nn.Module, image_size: int) -> int:
    """Bytes that autograd keeps of one image; tensors that share a storage count once."""
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    # The storages themselves are kept, so that no address is given out twice.
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        # The answer is held until the sum is made: with it autograd would let go of what it saved.
        answer = model(torch.empty(_TRACED, 3, image_size, image_size, device="meta"))
        total = sum(storage.nbytes() for storage in saved.values())
    del answer
    return total // _TRACED
