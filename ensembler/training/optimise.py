"""The optimiser of a recipe, by timm's factory, and the penalties that no optimiser knows."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from . import backbone
from .recipe import Recipe

#: What timm's factory is told beside the groups. `fused` is one kernel for all parameters.
OPTIONS: dict[str, dict[str, Any]] = {
    "adamw": {"fused": True},
    "adam": {"fused": True},
    "sgd": {"momentum": 0.9, "fused": True},
    "lion": {},
    "muon": {},
}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimiser over the parameters that are trained now.

    Each group carries `peak_lr`, which the schedule scales, and `is_head`. Norms and biases do not decay.
    Muon moves the matrices of the body; the head and all vectors get its AdamW.
    """
    groups = backbone.parameter_groups(model, recipe.weight_decay, recipe.layer_decay)
    for group in groups:
        group["peak_lr"] = (recipe.head_lr if group["is_head"] else recipe.lr) * group["lr_scale"]
        group["lr"] = group["peak_lr"]
        if recipe.optimizer == "muon" and group["is_head"]:
            group["use_fallback"] = True
    factory = backbone.timm_module().optim.create_optimizer_v2
    optimizer = factory(groups, recipe.optimizer, lr=recipe.lr, **OPTIONS[recipe.optimizer])
    return cast(torch.optim.Optimizer, optimizer)


class Penalties:
    """L1 and L2-SP, added to the gradients: cheaper than through the graph, and the same.

    Args:
        optimizer: made by `make_optimizer`, before its first step: L2-SP pulls the body back to here.
        recipe: its `l1` and `l2_sp`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, recipe: Recipe) -> None:
        self.l1, self.l2_sp = recipe.l1, recipe.l2_sp
        groups = optimizer.param_groups
        decaying = [p for g in groups if g["decays"] for p in g["params"]]
        self._weights: list[Tensor] = decaying if self.l1 else []
        self._body: list[Tensor] = (
            [p for g in groups if not g["is_head"] for p in g["params"]] if self.l2_sp else []
        )
        self._start = [p.detach().clone() for p in self._body]

    @torch.no_grad()
    def add(self) -> None:
        """Adds the penalties' gradients to those that `backward` has left."""
        for p in self._weights:
            if p.grad is not None:
                p.grad.add_(p.sign(), alpha=self.l1)
        for p, start in zip(self._body, self._start, strict=True):
            if p.grad is not None:
                p.grad.add_(p - start, alpha=self.l2_sp)
