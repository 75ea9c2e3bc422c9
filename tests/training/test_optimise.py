"""Optimisers and penalties: what one step does."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ensembler.training import backbone
from ensembler.training.optimise import OPTIONS, Penalties, make_optimizer
from ensembler.training.recipe import RECIPE_CHOICES, Recipe


def test_the_table_is_what_a_config_may_say() -> None:
    assert set(OPTIONS) == set(RECIPE_CHOICES["optimizer"])


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return backbone.create("test_vit", 3, image_size=32)


def _step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, penalties: Penalties | None = None
) -> None:
    torch.manual_seed(1)
    model(torch.randn(4, 3, 32, 32)).square().sum().backward()
    if penalties:
        penalties.add()
    optimizer.step()


@pytest.mark.parametrize("name", OPTIONS)
def test_every_optimizer_moves_every_parameter_at_its_groups_rate(name: str) -> None:
    model = _model()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = make_optimizer(model, Recipe(optimizer=name, lr=1e-3, head_lr=1e-2, layer_decay=0.5))
    assert max(g["lr"] for g in optimizer.param_groups) == 1e-2
    assert {g["peak_lr"] for g in optimizer.param_groups if g["is_head"]} == {1e-2}
    _step(model, optimizer)
    still = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still == []
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    frozen = {n: p.detach().clone() for n, p in model.named_parameters()}
    _step(model, optimizer)
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters())


def test_sgd_is_plain_gradient_descent_at_first() -> None:
    model = _model()
    optimizer = make_optimizer(model, Recipe(optimizer="sgd", lr=0.1, head_lr=0.1, weight_decay=0.0))
    head = backbone.head(model)
    before = head.weight.detach().clone()  # type: ignore[union-attr]
    _step(model, optimizer)
    # Nesterov's first step is gradient + momentum * gradient.
    expected = before - 0.1 * 1.9 * head.weight.grad  # type: ignore[union-attr, operator]
    torch.testing.assert_close(head.weight, expected)


def _penalised(**recipe: Any) -> tuple[torch.nn.Module, Penalties]:
    model = _model()
    optimizer = make_optimizer(model, Recipe(**recipe))
    penalties = Penalties(optimizer, Recipe(**recipe))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    return model, penalties


def test_l1_adds_its_sign_to_what_decays_and_leaves_norms_and_biases_alone() -> None:
    model, penalties = _penalised(l1=0.01)
    penalties.add()
    for name, p in model.named_parameters():
        assert p.grad is not None
        exempt = p.ndim <= 1 or name in ("pos_embed", "cls_token", "reg_token")
        expected = torch.zeros_like(p) if exempt else 0.01 * p.sign()
        torch.testing.assert_close(p.grad, expected, msg=name)


def test_l2_sp_pulls_the_body_to_its_start_and_the_head_nowhere() -> None:
    model, penalties = _penalised(l2_sp=0.5)
    penalties.add()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    penalties.add()
    heads = set(backbone.head_names(model))
    for name, p in model.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(
            p.grad, torch.full_like(p, 0.0 if name in heads else 0.5), atol=1e-6, rtol=0, msg=name
        )
