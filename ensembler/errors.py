"""Every error a user can mend.

    EnsemblerError                 exit 2: what is wrong, where, the value, the way out
    ├── ConfigError                a config file: file, line, field
    ├── DataError                  images, manifests, folds
    │   └── UnreadableImageError   one file that does not decode
    ├── PredictionsError           arrays that are no valid Predictions
    ├── BackboneError              an unknown backbone, or one that cannot be built
    │   └── WeightsError           weights that are missing, do not fit, or are out of reach
    ├── TrainingError              a Cell that cannot be trained to its end
    │   └── NonFiniteLossError     names the epoch and the step
    ├── StoreError                 the run directory
    │   ├── RunLockedError         another driver holds the run
    │   └── RunMismatchError       the run was made from other data, folds or seed
    ├── CombinerError              an unknown combiner, or one that cannot be fitted
    └── BundleError                an exported folder that is damaged or not ours

Anything else that reaches the command line is a bug of ours: exit 1, with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

#: Names that are compared with a misspelt one, and characters of it: more would take seconds.
COMPARED = 5000

#: Characters of a message: where and what stand at its beginning, the way out at its end.
MOST = 2000


class EnsemblerError(Exception):
    """Root of every error that the user can mend; its message is one line, whatever names and values it quotes."""

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= MOST else f"{text[: MOST // 2]} ... {text[-MOST // 2 :]}"


class ConfigError(EnsemblerError):
    """A setting is unknown, missing or out of range."""


class DataError(EnsemblerError):
    """Images, labels, groups or folds cannot be used as they are."""


class UnreadableImageError(DataError):
    """One image file does not decode."""


class PredictionsError(EnsemblerError):
    """Arrays do not form valid predictions."""


class BackboneError(EnsemblerError):
    """A backbone is unknown or cannot be built."""


class WeightsError(BackboneError):
    """Weights are missing, do not fit, or their hub is out of reach."""


class TrainingError(EnsemblerError):
    """A Cell cannot be trained to its end."""


class NonFiniteLossError(TrainingError):
    """The loss became NaN or infinite."""


class StoreError(EnsemblerError):
    """The run directory cannot be read or written."""


class RunLockedError(StoreError):
    """Another driver is working on this run."""


class RunMismatchError(StoreError):
    """The run directory was filled from other data, folds or seed."""


class CombinerError(EnsemblerError):
    """A combiner is unknown or cannot be fitted."""


class BundleError(EnsemblerError):
    """An exported bundle is damaged, incomplete or not one of ours."""


def did_you_mean(value: str, valid: Iterable[str], n: int = 1) -> str:
    """The way out of a misspelt name: the nearest valid ones, or all of them when none is near.

    >>> did_you_mean("stackng", ["mean", "stacking"])
    "did you mean 'stacking'?"
    """
    names = sorted(valid)
    near = (
        difflib.get_close_matches(value[:COMPARED], names, n=n, cutoff=0.5) if len(names) <= COMPARED else []
    )
    if near:
        return "did you mean " + " or ".join(repr(name) for name in near) + "?"
    if len(names) > 30:
        return f"there are {len(names)} valid names"
    return "valid: " + ", ".join(names)


def printable(text: str) -> str:
    """A name as one line that no terminal and no comment could read as more than text.

    >>> print(printable("a\\nb\\x1b[31m"))
    a\\nb\\x1b[31m
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
