"""What is said of a source that is no path, and of a file that is no image."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensembler.data.decode import header
from ensembler.data.source import Request
from ensembler.errors import DataError, UnreadableImageError


def test_a_source_whose_name_no_system_takes(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="'images\\\\x00': embedded null byte; give the path of a folder or a manifest"
    ):
        _ = Request("images\0", tmp_path, tmp_path).location


def test_the_header_of_what_is_no_image() -> None:
    with pytest.raises(UnreadableImageError, match=r"a\.png: is no image of a known format \(JPEG, "):
        header(b"no image", name="a.png")
