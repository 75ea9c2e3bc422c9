"""One member of an ensemble as it is deployed: the k fold models of a candidate.

The leaderboard's test column and the exported bundle both predict through `Member`: what is scored is what is deployed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..combiners.fold_models import average_folds
from ..errors import BackboneError
from ..probability import softmax
from ..training import backbone
from ..training.costs import flops

#: Images a forward pass.
BATCH = 64


@dataclass(frozen=True, eq=False)
class FoldWeights:
    """One fold's model.

    Attributes:
        arrays: tensors under timm's names; of a probe those of the head alone.
        temperature: divides the logits.
    """

    arrays: Mapping[str, NDArray[Any]]
    temperature: float


class Member:
    """Predicts with every fold model of one candidate; by itself it is their average.

    Args:
        architecture: timm's name.
        classes: in column order.
        image_size: side of the square images.
        folds: one model each.
        body: arrays of the backbone that all folds share, where it was frozen; None where each fold has its own.
        body_file: the same from a safetensors file of any head, as training read it.
        mean, std: normalisation of pixels in [0, 1].
        hidden: widths of the head's hidden layers.
        mirror: average the logits of each image and of its mirror image.

    Raises:
        WeightsError: arrays that do not fit the architecture.
    """

    def __init__(
        self,
        architecture: str,
        classes: Sequence[str],
        image_size: int,
        folds: Sequence[FoldWeights],
        *,
        body: Mapping[str, NDArray[Any]] | None = None,
        body_file: Path | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        hidden: Sequence[int] = (),
        mirror: bool = False,
    ) -> None:
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        default_mean, default_std = backbone.normalisation(architecture)
        self.mean, self.std = tuple(mean or default_mean), tuple(std or default_std)
        self.architecture = architecture
        self.image_size = image_size
        self.hidden, self.mirror = tuple(hidden), mirror
        self._folds = folds
        self._models: list[nn.Module] = []
        self._body: nn.Module | None = None
        self._heads: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        if body is None and body_file is None:
            self._models = [self._build(architecture, len(classes), fold.arrays) for fold in folds]
        else:
            self._body = self._build(architecture, len(classes), body or {}, body_file)
            self._heads = [_linear(fold.arrays) for fold in folds]

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities float32 (images, classes) of uint8 images (images, size, size, 3), averaged over the folds."""
        proba: NDArray[np.float32] = average_folds(self.predict_folds(pixels)[None])[0]
        return proba

    def predict_folds(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What each fold model says: float32 (folds, images, classes)."""
        parts = [self._predict_batch(pixels[rows]) for rows in backbone.batches(len(pixels), BATCH)]
        return np.concatenate(parts, axis=1)

    def latency_ms(self, batch: int = 1, repeats: int = 10) -> float:
        """Milliseconds of one image of a batch through all fold models, on this machine, warmed up.

        The fastest of several: what else the machine does only ever adds.
        """
        images = np.zeros((batch, self.image_size, self.image_size, 3), np.uint8)
        for _ in range(2):
            self.predict(images)
        times = []
        for _ in range(repeats):
            began = time.perf_counter()
            self.predict(images)
            times.append(time.perf_counter() - began)
        return 1000 * min(times) / batch

    @property
    def frozen(self) -> bool:
        """Whether all folds share one body and differ in their heads alone."""
        return self._body is not None

    @property
    def models(self) -> Sequence[nn.Module]:
        """The network of each fold; none where the folds share a frozen body."""
        return self._models

    @property
    def body(self) -> nn.Module | None:
        """The network that all folds share, where it was frozen."""
        return self._body

    @property
    def heads(self) -> Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weight (classes, features) and bias (classes,) of each fold, over a frozen body."""
        return self._heads

    @property
    def temperatures(self) -> tuple[float, ...]:
        """What divides the logits of each fold."""
        return tuple(fold.temperature for fold in self._folds)

    @property
    def params(self) -> int:
        """Parameters of everything that runs: all fold models, or the shared body and the heads."""
        if self._body is None:
            return sum(backbone.count_parameters(model) for model in self._models)
        heads = sum(weight.size + bias.size for weight, bias in self._heads)
        own = sum(p.numel() for p in backbone.head(self._body).parameters())
        return backbone.count_parameters(self._body) - own + heads

    @property
    def weights_bytes(self) -> int:
        """Bytes of everything that runs, likewise."""
        if self._body is None:
            return sum(t.nbytes for model in self._models for t in model.state_dict().values())
        heads = sum(weight.nbytes + bias.nbytes for weight, bias in self._heads)
        return heads + sum(a.nbytes for a in (self.body_arrays() or {}).values())

    @property
    def flops(self) -> int | None:
        """Floating-point operations of one image; None where the architecture cannot be traced at this size."""
        try:
            once = flops(self.architecture, self.image_size)
        except BackboneError:
            return None
        return once * (1 if self.frozen else len(self._folds)) * (2 if self.mirror else 1)

    def body_arrays(self) -> dict[str, NDArray[Any]] | None:
        """Tensors of the shared frozen backbone without its head; None where each fold has its own."""
        if self._body is None:
            return None
        skip = set(backbone.head_names(self._body))
        state = {k: v for k, v in self._body.state_dict().items() if k not in skip}
        return backbone.to_arrays(state)

    def _build(
        self, architecture: str, n_classes: int, arrays: Mapping[str, NDArray[Any]], file: Path | None = None
    ) -> nn.Module:
        model = backbone.create(architecture, n_classes, file, hidden=self.hidden, image_size=self.image_size)
        backbone.load_arrays(model, arrays)
        return model.to(self._device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]

    @torch.inference_mode()
    def _predict_batch(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = self._normalise(pixels)
        if self._body is not None:
            features = backbone.features(self._body, images).float().cpu().numpy()
            logits = [features @ weight.T + bias for weight, bias in self._heads]
        else:
            logits = [self._logits(model, images) for model in self._models]
        return np.stack(
            [softmax(one / fold.temperature) for one, fold in zip(logits, self._folds, strict=True)]
        ).astype(np.float32)

    def _logits(self, model: nn.Module, images: Tensor) -> NDArray[np.float32]:
        logits = (model(images) + model(images.flip(3))) / 2 if self.mirror else model(images)
        array: NDArray[np.float32] = logits.float().cpu().numpy()
        return array

    def _normalise(self, pixels: NDArray[np.uint8]) -> Tensor:
        scale = 1 / (255 * torch.tensor(self.std))
        images = torch.from_numpy(np.array(pixels)).to(self._device).to(torch.float32)
        images = images * scale.to(self._device) - (torch.tensor(self.mean) / torch.tensor(self.std)).to(
            self._device
        )
        return images.permute(0, 3, 1, 2)


def _linear(arrays: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight = next(v for k, v in arrays.items() if k.endswith("weight"))
    bias = next(v for k, v in arrays.items() if k.endswith("bias"))
    return weight, bias
