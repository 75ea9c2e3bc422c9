"""A log that is read while it is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ensembler.events import EventReader
from ensembler.store import RunStore


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


def append(log: Path, text: str) -> None:
    with log.open("a", encoding="utf-8") as stream:
        stream.write(text)


def test_each_line_is_read_once(log: Path) -> None:
    reader = EventReader(log)
    assert reader.read() == []
    append(log, '{"n": 1}\n{"n": 2}\n')
    assert [e["n"] for e in reader.read()] == [1, 2]
    assert reader.read() == []
    append(log, '{"n": 3}\n')
    assert [e["n"] for e in reader.read()] == [3]


def test_what_was_read_is_not_read_again_from_disk(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(log, '{"n": 1}\n' * 1000)
    reader = EventReader(log)
    reader.read()
    parsed: list[str] = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda text: (parsed.append(text), loads(text))[1])
    append(log, '{"n": 2}\n')
    reader.read()
    assert [text for text in parsed if text] == ['{"n": 2}']


def test_a_torn_last_line_is_waited_for(log: Path) -> None:
    reader = EventReader(log)
    append(log, '{"n": 1}\n{"n": "h')
    assert [e["n"] for e in reader.read()] == [1]
    assert reader.read() == []
    append(log, 'älf"}\n')
    assert [e["n"] for e in reader.read()] == ["hälf"]


def test_a_line_torn_within_a_letter_is_waited_for(log: Path) -> None:
    reader = EventReader(log)
    line = '{"n": "ä"}\n'.encode()
    log.write_bytes(line[:8])  # half of the letter
    assert reader.read() == []
    log.write_bytes(line)
    assert reader.read() == [{"n": "ä"}]


def test_garbage_is_passed_over(log: Path) -> None:
    log.write_bytes(b'\xff\xfe\n3\n\n[1]\n{"n": 1}\n{"n": \n{"n": 2}\n')
    assert [e["n"] for e in EventReader(log).read()] == [1, 2]


def test_a_log_that_was_made_anew_is_read_from_its_beginning(log: Path) -> None:
    reader = EventReader(log)
    append(log, '{"n": 1}\n{"n": 2}\n')
    reader.read()
    assert not reader.restarted
    log.unlink()
    assert reader.read() == []
    assert reader.restarted
    append(log, '{"n": 3}\n')
    assert [e["n"] for e in reader.read()] == [3]
    log.write_text('{"n":4}\n')  # shorter than before
    assert [e["n"] for e in reader.read()] == [4]
    assert reader.restarted


_WRITER = """
import sys
from pathlib import Path
from ensembler.store import RunStore
store = RunStore(Path(sys.argv[1]))
for n in range(3000):
    store.event("trial", number=n, reason="x" * (n % 700))
"""


def test_a_reader_beside_a_fast_writer_misses_nothing(tmp_path: Path) -> None:
    reader = EventReader(tmp_path / "events.jsonl")
    writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(tmp_path)])
    seen: list[int] = []
    reads = 0
    while writer.poll() is None:
        seen += [e["number"] for e in reader.read()]
        reads += 1
    seen += [e["number"] for e in reader.read()]
    assert writer.returncode == 0
    assert reads > 10
    assert seen == list(range(3000))


def test_the_store_follows_its_own_log(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    following = store.follow()
    store.event("stage", stage="sweep", state="running")
    assert [e["kind"] for e in following.read()] == ["stage"]
    assert following.read() == []
    assert len(store.events()) == 1
