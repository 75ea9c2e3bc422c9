"""Low-rank updates of frozen weight matrices (Hu et al. 2021), folded into them when training is over.

A parametrisation of the weight itself, so it fits linear layers, fused `qkv` projections and convolutions alike
(a kernel is a matrix of its outputs by everything else), and what is stored is a plain timm model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .. import backbone
from ..adaptation import Adaptation
from ..recipe import Recipe
from .lp_ft import LpFt


class LowRank(nn.Module):
    """weight + up @ down, of rank at most `rank`; zero at the start.

    Args:
        weight: (outputs, ...) of any shape of at least two axes.
        rank: of the update.
    """

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        flat = weight.detach().flatten(1)
        rank = min(rank, *flat.shape)
        self.up = nn.Parameter(weight.new_zeros(flat.shape[0], rank))
        self.down = nn.Parameter(torch.empty(rank, flat.shape[1], dtype=weight.dtype))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer uses."""
        return weight + (self.up @ self.down).view_as(weight)


class LoraUpdates(Adaptation):
    """The body is frozen, norms and biases too; each of its weight matrices gets an update; the head moves."""

    def begin(self, model: nn.Module, recipe: Recipe) -> None:
        """See `Adaptation.begin`."""
        heads = set(backbone.head_names(model))
        targets = list(_matrices(model, heads))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in heads)
        for module in targets:
            update = LowRank(module.weight, recipe.lora_rank)
            parametrize.register_parametrization(module, "weight", update)

    def arrays(self, model: nn.Module) -> Mapping[str, NDArray[Any]]:
        """See `Adaptation.arrays`: every update folded into its weight."""
        state = {k: v for k, v in model.state_dict().items() if ".parametrizations." not in f".{k}"}
        with torch.no_grad():
            for name, module in model.named_modules():
                if parametrize.is_parametrized(module, "weight"):
                    state[f"{name}.weight"] = module.weight
        return backbone.to_arrays(state)

    def finish(self, model: nn.Module) -> None:
        """See `Adaptation.finish`."""
        for module in list(model.modules()):
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")


def _matrices(model: nn.Module, heads: set[str]) -> Iterator[Any]:
    for name, module in model.named_modules():
        is_matrix = isinstance(module, nn.Linear | nn.Conv2d) and f"{name}.weight" not in heads
        # A depthwise kernel is a vector for each channel: an update of low rank is no smaller than itself.
        if is_matrix and not (isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1):
            yield module


class Lora(LpFt):
    """Linear probe, then low-rank updates of the body together with the head."""

    name = "lora"
    adaptation = LoraUpdates
