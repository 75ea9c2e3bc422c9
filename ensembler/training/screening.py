"""Which backbones are worth fine-tuning, from their frozen features and from what they do on ImageNet.

Neither alone is safe: features that are easy to separate may leave little to fine-tune, and the ImageNet rank knows
nothing of the images at hand. The two together rarely miss (Renggli et al. 2022, "Which Model to Transfer?"). The
scores read the train and monitor rows of one fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..metrics import PROBA_EPS
from ..probability import softmax
from .heads import fit_heads

#: Numbers of neighbours that are averaged over, so that no single choice decides.
NEIGHBOURS = (5, 10, 20)

#: Similarities held at a time, in rows of the monitor set.
CHUNK_ROWS = 1024


@dataclass(frozen=True)
class FeatureScore:
    """How well the monitor rows are predicted.

    Attributes:
        accuracy: share of rows, in [0, 1].
        log_loss: in nats a row.
    """

    accuracy: float
    log_loss: float


def knn_score(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    monitor: NDArray[np.int64],
    n_classes: int,
) -> FeatureScore:
    """Monitor rows predicted by the train rows nearest in angle, averaged over `NEIGHBOURS`.

    The probability of a class is its share among the k neighbours, with one vote more that all classes share, so that
    a class without a neighbour is not impossible. Features are centred by the mean of the train rows, without which
    those behind a ReLU all point the same way.

    Args:
        features: (samples, width).
        labels: (samples,) int64.
        train: row numbers of the neighbours.
        monitor: row numbers of those predicted.
        n_classes: number of classes.
    """
    mean = features[train].mean(0, dtype=np.float64).astype(np.float32)
    known = torch.nn.functional.normalize(torch.from_numpy(features[train] - mean))
    asked = torch.nn.functional.normalize(torch.from_numpy(features[monitor] - mean))
    most = min(max(NEIGHBOURS), len(train))
    nearest = [(part @ known.T).topk(most).indices for part in torch.split(asked, CHUNK_ROWS)]
    votes = torch.nn.functional.one_hot(torch.from_numpy(labels[train])[torch.cat(nearest)], n_classes)
    total = votes.cumsum(1).double()  # of the nearest 1, 2, ...
    shares = [(total[:, k - 1] + 1 / n_classes) / (k + 1) for k in (min(k, most) for k in NEIGHBOURS)]
    return _score(torch.stack(shares).mean(0).numpy(), labels[monitor])


def linear_score(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    train: NDArray[np.int64],
    monitor: NDArray[np.int64],
    n_classes: int,
) -> FeatureScore:
    """Monitor rows predicted by a ridge head, which costs less than any other that is linear.

    The monitor rows choose one penalty, so the score is flattered a little, and every backbone's alike.

    Args:
        features: (samples, width).
        labels: (samples,) int64.
        train: row numbers that the head is fitted on.
        monitor: row numbers that it is scored on.
        n_classes: number of classes.
    """
    head = fit_heads("ridge", features, labels, [(train, monitor)], n_classes)[0]
    return _score(softmax(head.logits(features[monitor])), labels[monitor])


def rank_backbones(
    knn: Mapping[str, float],
    linear: Mapping[str, float],
    imagenet_top1: Mapping[str, float],
    families: Mapping[str, str],
    n: int,
) -> list[str]:
    """The n backbones to go on with, those of different families first.

    The rank by frozen features, the mean of two, is added to the rank on ImageNet; a backbone whose accuracy there
    nobody knows is in its middle. The best of each family comes first, then the second of each, and so on: members
    that err alike make a poor ensemble.

    Args:
        knn: backbone -> score on frozen features, more is better.
        linear: the same of a linear head; of the same backbones.
        imagenet_top1: backbone -> accuracy; may lack some.
        families: backbone -> family; one that is missing is a family by itself.
        n: how many to keep.

    Raises:
        ValueError: `knn` and `linear` are of different backbones.
    """
    if knn.keys() != linear.keys():
        odd = sorted(knn.keys() ^ linear.keys())
        raise ValueError(f"knn and linear score different backbones: {', '.join(odd)}; score each by both")
    near, line = _places(knn, len(knn)), _places(linear, len(knn))
    general = _places({name: top1 for name, top1 in imagenet_top1.items() if name in knn}, len(knn))
    middle = (len(knn) - 1) / 2
    total = {name: (near[name] + line[name]) / 2 + general.get(name, middle) for name in knn}
    order = sorted(knn, key=lambda name: (total[name], -linear[name], name))
    turn: dict[str, int] = {}
    earlier: Counter[str] = Counter()
    for name in order:
        family = families.get(name, name)
        turn[name] = earlier[family]
        earlier[family] += 1
    return sorted(order, key=lambda name: turn[name])[:n]


def _places(scores: Mapping[str, float], n: int) -> dict[str, float]:
    """Places from 0, the best, to n - 1; equal scores share theirs, and fewer than n are spread over all of them."""
    names = list(scores)
    if not names:
        return {}
    values = np.array([scores[name] for name in names])
    better = (values[None] > values[:, None]).sum(1)
    ties = (values[None] == values[:, None]).sum(1) - 1
    places = (better + ties / 2 + 0.5) * n / len(names) - 0.5
    return dict(zip(names, places.tolist(), strict=True))


def _score(proba: NDArray[np.floating], labels: NDArray[np.int64]) -> FeatureScore:
    taken = proba[np.arange(len(labels)), labels].clip(PROBA_EPS, 1)
    return FeatureScore(float((proba.argmax(1) == labels).mean()), float(-np.log(taken).mean()))
