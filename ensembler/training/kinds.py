"""How the Cells of each kind of candidate come to be; see "After cross-validation" in docs/design.md."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch

from .candidate import CellJob, CellResult, Epoch, TrainingData
from .emphasis import fit_boosted
from .refit import fit_refit, fit_student
from .soup import fit_fold_soup, fit_soup
from .strategies import get_strategy

Fit = Callable[[CellJob, TrainingData, torch.device], Generator[Epoch, None, CellResult]]


def _fit_trained(
    job: CellJob, data: TrainingData, device: torch.device
) -> Generator[Epoch, None, CellResult]:
    return (yield from get_strategy(job.candidate.strategy).fit(job, data, device))


#: `Candidate.kind` -> what trains a Cell of it.
KINDS: dict[str, Fit] = {
    "trained": _fit_trained,
    "boosted": fit_boosted,
    "soup": fit_soup,
    "refit": fit_refit,
    "fold-soup": fit_fold_soup,
    "student": fit_student,
}


def fit(job: CellJob, data: TrainingData, device: torch.device) -> Generator[Epoch, None, CellResult]:
    """Trains a Cell of any kind; see `Strategy.fit`."""
    return (yield from KINDS[job.candidate.kind](job, data, device))
