"""Whole or absent, whatever the disk does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ensembler.atomic import (
    SCRATCH,
    below,
    clear_scratch,
    listed,
    make_folder,
    naming,
    reading,
    write_file,
    write_folder,
    write_json,
)
from ensembler.errors import StoreError


def _tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _failing(real: Callable[..., Any], when: Callable[..., bool], code: int) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if when(*args, **kwargs):
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return call


def _always(*_: Any, **__: Any) -> bool:
    return True


FILE_STEPS = {
    "open": (Path, "open"),
    "fsync": (os, "fsync"),
    "rename": (Path, "replace"),
}
FOLDER_STEPS = {
    "mkdir": (Path, "mkdir"),
    "fsync": (os, "fsync"),
    "rename": (Path, "rename"),
}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("step", FILE_STEPS)
def test_a_file_keeps_its_old_content_when_a_step_fails(
    step: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a" / "value.json"
    write_json(target, {"old": 1})
    before = _tree(tmp_path)
    owner, name = FILE_STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, _failing(getattr(owner, name), _always, code))
        with pytest.raises(StoreError) as caught:
            write_json(target, {"new": 2})
    assert str(target) in str(caught.value)
    assert os.strerror(code) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert _tree(tmp_path) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("standing", [False, True])
@pytest.mark.parametrize("step", FOLDER_STEPS)
def test_a_folder_stays_as_it_was_when_a_step_fails(
    step: str, standing: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "cells" / "x"
    if standing:
        write_folder(target, lambda f: (f / "a.txt").write_text("old"), keep_if=lambda _: False)
    target.parent.mkdir(exist_ok=True)
    before = _tree(tmp_path)

    failed: list[Path] = []

    def when(path: Any, *_: Any, **__: Any) -> bool:
        if step == "fsync":
            return True
        fails = Path(path).name.startswith(SCRATCH) and not failed  # putting the old one back succeeds
        failed.extend([path] if fails else [])
        return fails

    owner, name = FOLDER_STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, _failing(getattr(owner, name), when, code))
        with pytest.raises(StoreError, match=os.strerror(code)) as caught:
            write_folder(target, lambda f: (f / "a.txt").write_text("new"), keep_if=lambda _: False)
    assert str(target) in str(caught.value)
    assert _tree(tmp_path) == before
    assert not list(tmp_path.rglob(f"{SCRATCH}*"))


def test_whatever_else_goes_wrong_while_filling_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half.txt").write_text("half")
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        write_folder(tmp_path / "x", fill, keep_if=lambda _: False)
    assert list(tmp_path.iterdir()) == []


def test_safetensors_own_error_is_told_like_any_other(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        save_file({"a": np.zeros(3)}, folder / "missing" / "a.safetensors")

    with pytest.raises(StoreError, match=f"{tmp_path / 'x'}: cannot be written") as caught:
        write_folder(tmp_path / "x", fill, keep_if=lambda _: False)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_standing_folder_is_kept_or_replaced_as_asked(tmp_path: Path) -> None:
    target = tmp_path / "x"
    assert write_folder(target, lambda f: (f / "a").write_text("1"), keep_if=lambda _: True)
    assert not write_folder(target, lambda f: (f / "a").write_text("2"), keep_if=lambda _: True)
    assert (target / "a").read_text() == "1"
    assert write_folder(target, lambda f: (f / "b").write_text("3"), keep_if=lambda _: False)
    assert _tree(tmp_path) == {"x/b": b"3"}


def test_a_faster_writer_of_the_same_content_wins(tmp_path: Path) -> None:
    target = tmp_path / "x"

    def fill(folder: Path) -> None:
        (folder / "a").write_text("slow")
        write_folder(target, lambda f: (f / "a").write_text("fast"), keep_if=lambda _: False)

    assert not write_folder(target, fill, keep_if=lambda _: True)
    assert (target / "a").read_text() == "fast"


def test_a_writer_that_is_faster_by_a_hair_wins_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x"

    def rename(scratch: Path, to: Path) -> Path:
        to.mkdir()
        (to / "a").write_text("fast")
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))

    monkeypatch.setattr(Path, "rename", rename)
    assert not write_folder(target, lambda f: (f / "a").write_text("slow"), keep_if=lambda _: True)
    assert _tree(tmp_path) == {"x/a": b"fast"}


def test_a_stream_is_synced_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    write_file(tmp_path / "f", lambda stream: stream.write(b"x"))
    assert order == ["fsync", "rename", "fsync"]


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "v.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "v.json", {"a": float("nan")})
    assert _tree(tmp_path) == {"v.json": b'{\n "a": 1\n}\n'}


def test_an_error_without_a_code_still_says_its_cause(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="12 requested and 0 written"), naming(tmp_path):
        raise OSError("12 requested and 0 written")


def test_what_is_no_damage_passes_as_it_is(tmp_path: Path) -> None:
    with (
        pytest.raises(StoreError, match=r"a: cannot be read \(odd\); run again"),
        reading(tmp_path / "a", "run again"),
    ):
        raise ValueError("odd")
    with pytest.raises(ZeroDivisionError), reading(tmp_path / "a", "run again"):
        raise ZeroDivisionError


def test_a_folder_that_another_process_makes_at_the_same_moment_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def late(folder: Path, *rest: Any, **options: Any) -> None:
        mkdir(folder)
        mkdir(folder, *rest, **options)

    monkeypatch.setattr(Path, "mkdir", late)
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


# ---------------------------------------------------------------------- folders that are looked through


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "00001.json").touch()
    assert [path.name for path in listed(tmp_path / "search")] == ["00001.json"]
    assert listed(tmp_path / "nowhere") == []
    assert listed(tmp_path / "search" / "00001.json") == []  # a file, and no folder
    monkeypatch.setattr(os, "listdir", _failing(os.listdir, _always, code))
    cause = os.strerror(code)
    for look in (listed, clear_scratch):
        with pytest.raises(
            StoreError, match=rf"search: cannot be listed \({cause}\); see to the disk and the perm"
        ):
            look(tmp_path / "search")
    with pytest.raises(OSError, match=cause):
        list(below(tmp_path / "search"))


def test_a_folder_is_not_put_into_place_before_all_of_it_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)

    def fill(folder: Path) -> None:
        (folder / "a" / "b").mkdir(parents=True)
        (folder / "a" / "b" / "file").touch()
        (folder / "to").symlink_to(folder / "a")

    monkeypatch.setattr(os, "fsync", fsync)
    write_folder(tmp_path / "made", fill, keep_if=lambda _: False)
    assert synced[:3] == ["a", "b", "file"]
    unlisted = _failing(os.listdir, lambda path: Path(path).name == "b", errno.EACCES)
    monkeypatch.setattr(os, "listdir", unlisted)
    with pytest.raises(StoreError, match="other: cannot be written: Permission denied; make it writable"):
        write_folder(tmp_path / "other", fill, keep_if=lambda _: False)
    assert not (tmp_path / "other").exists()


def test_what_is_cleared_is_told_from_what_is_left(tmp_path: Path) -> None:
    for name in ("a", "b", f"{SCRATCH}{'0' * 32}-c"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    assert clear_scratch(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "file"]
