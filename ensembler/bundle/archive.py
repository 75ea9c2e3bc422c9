"""Where the files of a bundle lie: a folder, or a zip that is read where it is. Nothing is ever unpacked.

A name that leads outside, a symbolic link and a zip that would grow beyond measure are refused before a byte of them is
read. Needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import stat
import zipfile
import zlib
from abc import ABC, abstractmethod
from pathlib import Path, PurePosixPath
from typing import IO

from ..errors import BundleError

#: Bytes of one file: the weights of the largest networks that anybody ensembles are a few of these.
MAX_FILE_BYTES = 16 << 30

#: How much larger than itself a zip may become. Weights hardly shrink; text does, by ten.
MAX_GROWTH = 20

#: A zip that becomes no larger than this is no bomb, however small it is.
HARMLESS_BYTES = 64 << 20

_BLOCK = 1 << 20


class Archive(ABC):
    """The files of a bundle by name.

    Attributes:
        shown: the folder or zip for a person.
    """

    shown: Path

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""

    @abstractmethod
    def _open(self, name: str) -> tuple[IO[bytes], int]:
        """The file and its size."""

    def where(self, name: str) -> str:
        """The file for a person."""
        return str(self.shown / name)

    def read(self, name: str, most: int = MAX_FILE_BYTES) -> bytes:
        """A file, whole.

        Raises:
            BundleError: missing, damaged, or of more bytes than `most`.
        """
        stream, size = self._open(name)
        if size > most:
            stream.close()
            raise BundleError(f"{self.where(name)}: holds {size:,} bytes; at most {most:,} are read")
        with stream, _Damage(self, name):
            content = stream.read(size)
            if len(content) != size or stream.read(1):
                raise BundleError(f"{self.where(name)}: is not as long as it says; export again")
            return content

    def digest(self, name: str) -> str:
        """SHA-256 in hex, a block at a time."""
        stream, _ = self._open(name)
        found = hashlib.sha256()
        with stream, _Damage(self, name):
            while block := stream.read(_BLOCK):
                found.update(block)
        return found.hexdigest()


class Folder(Archive):
    """A bundle's folder."""

    def __init__(self, path: Path) -> None:
        self.shown = path

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.shown / name).is_file()

    def path(self, name: str) -> Path:
        """A file by its name.

        Raises:
            BundleError: a name that leads outside, a symbolic link, or a missing file.
        """
        path = self.shown
        with _Damage(self, name):  # the name may be none that a file can have
            for part in safe_name(self.shown, name).parts:
                path = path / part
                if path.is_symlink():
                    raise BundleError(f"{path}: is a symbolic link; a bundle holds files alone")
            if not path.is_file():
                raise BundleError(f"{path}: missing; export again")
        return path

    def _open(self, name: str) -> tuple[IO[bytes], int]:
        path = self.path(name)
        with _Damage(self, name):
            size = path.stat().st_size
            if size > MAX_FILE_BYTES:
                raise BundleError(f"{path}: holds {size:,} bytes; at most {MAX_FILE_BYTES:,} are read")
            return path.open("rb"), size


class Zip(Archive):
    """A bundle in a zip: its files at the top, or all in one folder.

    Raises:
        BundleError: no zip, a bomb, or an entry that is no plain file inside.
    """

    def __init__(self, path: Path) -> None:
        self.shown = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise BundleError(f"{path}: is no readable zip ({error}); export again") from error
        # Not by `is_dir`, which trips over an empty name.
        entries = [entry for entry in self._zip.infolist() if not entry.filename.endswith("/")]
        for entry in entries:
            _refuse_odd(path, entry)
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise BundleError(f"{path}: holds two files of one name; export again")
        grown = sum(entry.file_size for entry in entries)
        if grown > max(HARMLESS_BYTES, MAX_GROWTH * path.stat().st_size):
            raise BundleError(
                f"{path}: would become {grown:,} bytes, more than {MAX_GROWTH} times its size; a zip bomb perhaps, use "
                "the bundle's folder"
            )
        tops = {name.split("/")[0] for name in self._entries}
        self._top = f"{tops.pop()}/" if len(tops) == 1 and len(entries) > 1 else ""

    def has(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._top + name in self._entries

    def _open(self, name: str) -> tuple[IO[bytes], int]:
        safe_name(self.shown, name)
        if not self.has(name):
            raise BundleError(f"{self.where(name)}: missing; export again")
        entry = self._entries[self._top + name]
        with _Damage(self, name):
            return self._zip.open(entry), entry.file_size


class _Damage:
    """Names the file whose bytes cannot be read."""

    def __init__(self, archive: Archive, name: str) -> None:
        self._archive, self._name = archive, name

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        damage = (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError)
        if isinstance(error, damage):
            raise BundleError(
                f"{self._archive.where(self._name)}: cannot be read ({error}); export again"
            ) from error


def open_archive(path: Path) -> Archive:
    """The folder or the zip at a path.

    Raises:
        BundleError: a zip that is none, or that holds what it must not.
    """
    return Zip(path) if path.is_file() else Folder(path)


def safe_name(where: Path, name: str) -> PurePosixPath:
    """The name of a file inside.

    Raises:
        BundleError: it leads outside.
    """
    given = str(name)
    parts = PurePosixPath(given).parts
    plain = parts and not {"..", "/", "//"} & set(parts) and "\\" not in given and "\0" not in given
    if not plain or ":" in parts[0]:
        raise BundleError(f"{where}: file name {name!r} leads outside the bundle; do not use it")
    return PurePosixPath(*parts)


def _refuse_odd(path: Path, entry: zipfile.ZipInfo) -> None:
    """An entry that is no plain file inside, or packed in a way that nobody needs."""
    safe_name(path, entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise BundleError(f"{path / entry.filename}: is a symbolic link; a bundle holds files alone")
    if kind not in (0, stat.S_IFREG):
        raise BundleError(f"{path / entry.filename}: is no plain file; a bundle holds files alone")
    if entry.flag_bits & 0x1:
        raise BundleError(f"{path / entry.filename}: is encrypted; give the bundle without a password")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{path / entry.filename}: is packed by method {entry.compress_type}; use deflate")
