"""What a source of images is: it says where they lie and what they show, and opens none of them."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from ..errors import DataError


class Row(NamedTuple):
    """One image of a source."""

    id: str
    path: str
    label: str
    group: str | None = None
    split: Literal["oof", "test"] | None = None  # None: the source does not say
    fold: int = -1


@dataclass(frozen=True)
class Request:
    """What the user asked a source for.

    Attributes:
        source: as written in the config.
        base_dir: what relative paths are relative to.
        cache_dir: where a source that makes files may keep them.
        label, path: column names of a manifest.
        group, fold: column names of a manifest; None takes the columns "group" and "fold" where they exist.
    """

    source: str
    base_dir: Path
    cache_dir: Path
    label: str = "label"
    path: str = "path"
    group: str | None = None
    fold: str | None = None

    @property
    def location(self) -> Path:
        """The source as an absolute path.

        Raises:
            DataError: it is no path, or nobody may look there.
        """
        # Not Path's own, which raise for unknown users and for links that go round in circles.
        try:
            path = Path(os.path.realpath(self.base_dir / os.path.expanduser(self.source)))  # noqa: PTH111
            path.exists()
        except (OSError, ValueError) as error:
            cause = getattr(error, "strerror", None) or error
            raise DataError(f"{self.source!r}: {cause}; give the path of a folder or a manifest") from error
        return path


class Source(ABC):
    """A kind of source: it recognises its own by name, then lists the rows, in the same order everywhere."""

    has_columns: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, source: str) -> bool:
        """Whether this text, as written in a config, names a source of this kind."""

    @abstractmethod
    def rows(self, request: Request) -> list[Row]:
        """Every image, with ids that do not depend on where the data lie.

        Raises:
            DataError: naming the file or folder, the value and the way out.
        """

    def official_test(self, request: Request) -> list[Row]:
        """The data set's own test part, where it has one.

        Raises:
            DataError: it has none.
        """
        raise DataError(f"{request.source}: has no official test part; give test as a share or a path")
