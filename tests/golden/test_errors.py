"""The golden file of error messages holds what `ensembler/` says, all of it and nothing else."""

from __future__ import annotations

from collections import defaultdict

from tests.golden.recorder import GOLDEN, entries, written
from tests.golden.sites import sites, unmatched

#: Places whose message is not in the golden file yet, though tests provoke most of them: file and function a line. It
#: only grows shorter: `scripts/golden_errors TEST` writes down what a test provokes.
WAITING = {
    tuple(line.split()) for line in GOLDEN.with_name("waiting.txt").read_text(encoding="utf-8").splitlines()
}

TEXT = GOLDEN.read_text(encoding="utf-8")


def by_function() -> dict[tuple[str, str], list[str]]:
    texts = defaultdict(list)
    for entry in entries(TEXT):
        texts[entry.module, entry.function].append(entry.text)
    return texts


def test_every_place_that_raises_has_a_message_of_its_own() -> None:
    lacking = unmatched(sites(), by_function())
    forgotten = [site.where for site in lacking if (site.module, site.function) not in WAITING]
    assert not forgotten, "write a test that provokes it, and name it to scripts/golden_errors"


def test_nothing_waits_that_is_there() -> None:
    lacking = {(site.module, site.function) for site in unmatched(sites(), by_function())}
    assert WAITING.issubset(lacking), "take these out of tests/golden/waiting.txt"


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
