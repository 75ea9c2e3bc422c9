"""Does the graph say what PyTorch says? Asked with real images before an export is called done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import BundleError
from ...metrics import get_metric
from ..session import new_session, run_graph, staged_answer
from ..staged import Stages

Precision = Literal["fp32", "fp16", "int8"]

#: Largest difference of a probability that an export may have.
LARGEST: dict[Precision, float] = {"fp32": 1e-5, "fp16": 0.02, "int8": 1.0}

#: The same of one fold model by itself: float32 sums of a deep network, taken in another order (three backbones on
#: photographs: up to 1.5e-5, and 2e-6 in what is made of them).
LARGEST_ALONE: dict[Precision, float] = {"fp32": 1e-4, "fp16": 0.02, "int8": 1.0}

#: Accuracy that a smaller graph may lose on out-of-fold rows, and log loss that it may add.
ACCURACY_LOST: dict[Precision, float] = {"fp32": np.inf, "fp16": 0.01, "int8": 0.02}
LOG_LOSS_ADDED: dict[Precision, float] = {"fp32": np.inf, "fp16": 0.02, "int8": 0.1}

#: Share of images at which graph and numpy may decide a tie differently.
MOST_TIES = 0.05

Combine = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class Sample:
    """Out-of-fold images of the run.

    Attributes:
        pixels: uint8 (images, size, size, 3).
        labels: int64 (images,).
        fold: int (images,), whose models have not seen the image; 0 everywhere where there is one model a member.
        honest: whether there are such models.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    fold: NDArray[np.int64]
    honest: bool


@dataclass(frozen=True)
class Difference:
    """How far a graph is from PyTorch.

    Attributes:
        images: compared.
        members: largest absolute difference of a probability of a fold model.
        ensemble: the same of the ensemble, without the images on an edge.
        on_edge: images at which the combiner itself makes more of the members' difference, though that is below what
            is allowed: a tie of votes, a neighbourhood, a tree whose thresholds are values of these very rows. numpy's
            combiner, given what the graph's members say, says what the graph does, or decides a tie otherwise.
        ties: images of the latter kind.
        accuracy, log_loss: of the graph on the sample less PyTorch's; the sample's out-of-fold rows are each predicted
            by models that have not seen it.
    """

    images: int
    members: float
    ensemble: float
    on_edge: int
    ties: int
    accuracy: float
    log_loss: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def refuse(self, precision: Precision) -> None:
        """Raises BundleError, with the numbers, where the difference is larger than the precision allows."""
        limit, alone = LARGEST[precision], LARGEST_ALONE[precision]
        if not (self.ensemble <= limit and self.members <= alone):
            raise BundleError(
                f"the {precision} graph differs from PyTorch by {self.ensemble:.2g} on {self.images} images, and its "
                f"fold models by {self.members:.2g}; at most {limit:g} and {alone:g} are allowed; "
                f"{_way_out(precision)}"
            )
        if self.ties > MOST_TIES * self.images:
            raise BundleError(
                f"the combiner is undecided at {self.ties} of {self.images} images, so that no graph can be held "
                "against PyTorch; use --format torch, or another combiner"
            )
        if self.accuracy < -ACCURACY_LOST[precision] - 1e-12:
            raise BundleError(
                f"the {precision} graph loses {-100 * self.accuracy:.2f} points of accuracy on {self.images} images; "
                f"at most {100 * ACCURACY_LOST[precision]:g} are allowed; {_way_out(precision)}"
            )
        if self.log_loss > LOG_LOSS_ADDED[precision]:
            raise BundleError(
                f"the {precision} graph adds {self.log_loss:.3f} to the log loss of {self.images} images; at most "
                f"{LOG_LOSS_ADDED[precision]:g} is allowed; {_way_out(precision)}"
            )


def compare(
    model: bytes,
    sample: Sample,
    expected: tuple[NDArray[np.float32], NDArray[np.float32]],
    combine: Combine,
    precision: Precision,
    batch: int,
    stages: Stages | None = None,
) -> Difference:
    """Runs a graph on real images and holds it against what PyTorch said.

    Args:
        model: the graph, serialised.
        sample: images.
        expected: of PyTorch: the ensemble (images, classes), its fold models (members, folds, images, classes).
        combine: the combiner in numpy, from the latter to the former.
        precision: decides what counts as the same.
        batch: images a run.
        stages: of a cascade, whose answer image by image is compared as well.
    """
    session = new_session(model, "the graph")
    proba, said = run_graph(session, sample.pixels, batch)
    answers = [proba]
    if stages is not None:
        answers.append(staged_answer(session, stages, sample.pixels, (said.shape[1], said.shape[3]), batch))
    if any(np.isnan(one).any() for one in (*answers, said)):
        raise BundleError("the graph answers NaN; use --format torch")
    off = _farthest(answers, expected[0])
    edge = ties = np.zeros(len(off), np.bool_)
    if (off > LARGEST[precision]).any():
        same = _farthest(answers, combine(said)) <= LARGEST[precision]
        ties = (off > LARGEST[precision]) & ~same & undecided(expected[1], combine, LARGEST[precision])
        edge = (off > LARGEST[precision]) & (same | ties)
    theirs, ours = (_own_fold(one, sample, combine) for one in (expected[1], said))
    return Difference(
        images=len(off),
        members=float(np.abs(said - expected[1]).max()),
        ensemble=float(off[~edge].max(initial=0.0)),
        on_edge=int(edge.sum()),
        ties=int(ties.sum()),
        **{
            name: round(get_metric(name)(sample.labels, ours) - get_metric(name)(sample.labels, theirs), 6)
            for name in ("accuracy", "log_loss")
        },
    )


def undecided(said: NDArray[np.float32], combine: Combine, limit: float) -> NDArray[np.bool_]:
    """Images (images,) at which numpy's combiner jumps when members move by no more than `limit` of themselves."""
    before = combine(said)
    moved = np.zeros(len(before), np.bool_)
    rng = np.random.default_rng(0)
    for _ in range(4):
        shaken = said * (1 + rng.uniform(-limit, limit, said.shape)).astype(np.float32)
        shaken /= shaken.sum(axis=-1, keepdims=True)
        moved |= np.abs(combine(shaken) - before).max(axis=1) > 10 * limit
    return moved


def _farthest(answers: Sequence[NDArray[np.float32]], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of each image, the largest difference (images,) that any of the answers has from what is expected."""
    found: NDArray[np.float32] = np.max([np.abs(one - expected).max(axis=1) for one in answers], axis=0)
    return found


def _own_fold(said: NDArray[np.float32], sample: Sample, combine: Combine) -> NDArray[np.float32]:
    """The ensemble's probabilities (images, classes) by the models that have not seen each image."""
    if not sample.honest:
        return combine(said)
    own = said[:, sample.fold, np.arange(len(sample.fold))]
    # Every fold says what the image's own fold says, so their average does.
    return combine(np.repeat(own[:, None], said.shape[1], axis=1))


def _way_out(precision: Precision) -> str:
    return "use --format torch" if precision == "fp32" else "use --precision fp32"
