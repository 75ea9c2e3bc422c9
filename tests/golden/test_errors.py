"""The golden file of error messages holds what `ensembler/` says, all of it and nothing else."""

from __future__ import annotations

from collections import defaultdict

from tests.golden.recorder import GOLDEN, entries, written
from tests.golden.sites import sites, unmatched

TEXT = GOLDEN.read_text(encoding="utf-8")


def by_function() -> dict[tuple[str, str], list[str]]:
    texts = defaultdict(list)
    for entry in entries(TEXT):
        texts[entry.module, entry.function].append(entry.text)
    return texts


def test_every_place_that_raises_has_a_message_of_its_own() -> None:
    lacking = [site.where for site in unmatched(sites(), by_function())]
    assert not lacking, "write a test that provokes it, and name it to scripts/golden_errors"


def test_every_message_comes_from_a_place_that_raises() -> None:
    said = defaultdict(list)
    for site in sites():
        said[site.module, site.function].append(site.said)
    stale = [
        entry.text
        for entry in entries(TEXT)
        if not any(pattern.match(entry.text) for pattern in said[entry.module, entry.function])
    ]
    assert not stale, "nothing raises these any more; take them out"


def test_what_is_written_is_read() -> None:
    assert written(entries(TEXT)) == TEXT
