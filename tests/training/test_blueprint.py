"""A backbone as shapes is the backbone, without its values."""

from __future__ import annotations

import pytest
import torch

from ensembler.training.backbone import create
from ensembler.training.blueprint import blueprint, describe


def test_a_known_tag_is_accepted() -> None:
    assert describe("test_resnet.r160_in1k").params == describe("test_resnet").params


def test_a_description_knows_size_kind_and_licence_without_allocating() -> None:
    small, large = describe("test_vit"), describe("vit_large_patch16_224")
    assert small.transformer
    assert not describe("test_resnet").transformer
    assert large.params > 300_000_000
    assert small.licence == "apache-2.0"
    model = create("test_resnet", 0)
    assert describe("test_resnet").params == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
def test_a_blueprint_has_the_shapes_of_the_model_and_no_memory(name: str) -> None:
    drawn, real = blueprint(name, 96), create(name, 0, image_size=96)
    assert {k: v.shape for k, v in drawn.state_dict().items()} == {
        k: v.shape for k, v in real.state_dict().items()
    }
    assert all(tensor.is_meta for tensor in (*drawn.parameters(), *drawn.buffers()))


def test_what_is_filled_elsewhere_is_filled_within_a_blueprint_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only tensors without memory are left as they are."""
    from ensembler.training import blueprint as module

    seen = []
    monkeypatch.setattr(module, "create", lambda *_, **__: seen.append(torch.ones(2, device="cpu").mul_(3)))
    blueprint("any")
    assert seen[0].tolist() == [3.0, 3.0]
