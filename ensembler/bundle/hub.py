"""Bundles on the Hugging Face Hub: `ensembler push BUNDLE USER/NAME`, and back by name, `hf:USER/NAME`.

What is pushed is the bundle's own files, those in its index, each compared with its digest, and nothing that happens
to lie beside them. What comes back is kept below the cache by the commit it came from, and compared again.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..atomic import write_folder
from ..data.places import cache_dir
from ..errors import BundleError
from ..reach import hub_out_of_reach, why_refused
from .archive import safe_name
from .layout import INDEX, open_bundle, read_index

#: What a bundle on the Hub begins with wherever a bundle may be named.
PREFIX = "hf:"

#: USER/NAME, and after an @ a branch, tag or commit.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w][\w./-]{0,199})?")

#: What the index of a bundle may hold at most, in bytes.
_INDEX_BYTES = 16 << 20

T = TypeVar("T")


def push(bundle: str | Path, repository: str, *, private: bool = False) -> str:
    """Uploads a bundle as one commit, to a repository that is made where there is none.

    Args:
        bundle: a folder or a .zip.
        repository: USER/NAME.
        private: of a repository that is made.

    Returns:
        Address of the commit.

    Raises:
        BundleError: a damaged bundle, a name that is none, a hub out of reach, or one that refuses.
    """
    name, revision = _parse(repository)
    if revision is not None:
        raise BundleError(f"{repository}: give USER/NAME alone; a push goes to its main branch")
    path = Path(bundle)
    files = open_bundle(path)
    files.verify()
    _require_hub(f"push {name}", "try again with a connection, or from a machine that has one")
    from huggingface_hub import CommitOperationAdd, HfApi, constants

    def content(file: str) -> Any:
        return str(path / file) if path.is_dir() else files.read(file)

    index = (path / INDEX) if path.is_dir() else json.dumps(files.index, indent=1, allow_nan=False).encode()
    operations = [CommitOperationAdd(file, content(file)) for file in sorted(files.index["files"])]
    operations.append(CommitOperationAdd(INDEX, index))  # last, so that it never names what is not there
    api = HfApi(endpoint=constants.ENDPOINT)

    def upload() -> str:
        api.create_repo(name, private=private, exist_ok=True)
        return str(api.create_commit(name, operations, commit_message=f"{files.index['name']}").commit_url)

    return _asked(f"push {name}", upload)


def fetch(name: str) -> Path:
    """The folder of a bundle on the Hub, downloaded once a commit.

    Where the Hub is out of reach, the commit that was downloaded last is used, and told on standard error.

    Args:
        name: `hf:USER/NAME`, or `hf:USER/NAME@REVISION`.

    Raises:
        BundleError: no such repository, no bundle in it, altered files, or a hub out of reach and nothing kept.
    """
    repository, revision = _parse(name.removeprefix(PREFIX))
    _import_hub()
    home = cache_dir() / "bundles" / repository.replace("/", "--")
    kept = _kept(home, revision)
    problem = hub_out_of_reach()
    if problem is not None:
        if kept is None:
            raise BundleError(
                f"{name}: the hub is out of reach ({problem}), and no copy is kept here; try again with a connection, "
                "or give the folder of a bundle"
            )
        print(
            f"warning: {name}: the hub is out of reach ({problem}); takes {kept.name[:12]}", file=sys.stderr
        )
        return kept
    from huggingface_hub import HfApi, constants

    api = HfApi(endpoint=constants.ENDPOINT)
    commit = str(_asked(name, lambda: api.model_info(repository, revision=revision).sha))
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise BundleError(f"{name}: the hub names no commit ({commit[:60]!r}); give the folder of a bundle")
    target = home / commit
    if not (target / INDEX).is_file():
        write_folder(target, lambda folder: _download(name, repository, commit, folder), keep_if=_is_bundle)
    if revision is None:
        _remember(home, commit)
    return target


def _download(name: str, repository: str, commit: str, folder: Path) -> None:
    """Fills a folder with the index and with the files that it names, and compares each with its digest."""
    from huggingface_hub import constants, hf_hub_download

    def get(file: str) -> Path:
        return Path(
            _asked(
                f"{name}: {file}",
                lambda: hf_hub_download(
                    repository, file, revision=commit, local_dir=folder, endpoint=constants.ENDPOINT
                ),
            )
        )

    index = get(INDEX)
    if index.stat().st_size > _INDEX_BYTES:
        raise BundleError(
            f"{name}: its {INDEX} has {index.stat().st_size} bytes; it is no bundle, give another name"
        )
    for file in open_bundle(folder).index["files"]:
        safe_name(folder, file)
        get(file)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # what the hub's client notes
    read_index(folder)


def _parse(name: str) -> tuple[str, str | None]:
    if not _NAME.fullmatch(name) or ".." in name:
        raise BundleError(f"{name!r}: no name on the Hub; give USER/NAME, as in ada/clothing")
    repository, _, revision = name.partition("@")
    return repository, revision or None


def _is_bundle(folder: Path) -> bool:
    return (folder / INDEX).is_file()


def _kept(home: Path, revision: str | None) -> Path | None:
    """The folder of a commit that is here: the one named, or the one that was fetched last."""
    last = home / "main"
    commit = revision or (last.read_text(encoding="ascii").strip() if last.is_file() else "")
    folder = home / commit
    return folder if re.fullmatch(r"[0-9a-f]{40}", commit) and _is_bundle(folder) else None


def _remember(home: Path, commit: str) -> None:
    from ..atomic import write_file

    write_file(home / "main", lambda stream: stream.write(commit.encode()))


def _require_hub(what: str, way_out: str) -> None:
    _import_hub()
    problem = hub_out_of_reach()
    if problem is not None:
        raise BundleError(f"{what}: the hub is out of reach ({problem}); {way_out}")


def _import_hub() -> None:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise BundleError("the Hub needs huggingface-hub: pip install huggingface-hub") from error


def _asked(what: str, ask: Callable[[], T]) -> T:
    """What the hub answers; whatever its client raises becomes one line with the way out."""
    try:
        return ask()
    except Exception as error:  # its client raises its own errors, its HTTP library's and the system's
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = why_refused(error)
        ways = {
            401: "log in with `hf auth login`, or set HF_TOKEN",
            403: "your token may not do this; take one that may write",
            404: "check the name; a private repository needs `hf auth login`",
        }
        raise BundleError(
            f"{what}: the hub refused ({reason}); {ways.get(status or 0, 'try again later')}"
        ) from error
