"""What the app says of runs and files that it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ensembler.app import drafts, reading, sweeps, watching
from ensembler.errors import EnsemblerError
from ensembler.store import RunStore


def refused(code: int, why: str) -> Callable[..., object]:
    """Stands for a function that the operating system refuses something."""

    def fail(*_: object) -> object:
        raise OSError(code, why)

    return fail


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run that has no leaderboard, and nothing that could be listed or read beside it."""
    RunStore(tmp_path / "run").update_manifest(name="run")
    monkeypatch.setattr(reading, "find_runs", refused(13, "Permission denied"))
    monkeypatch.setattr(watching, "read_history", refused(5, "Input/output error"))
    return tmp_path


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda _: drafts.decoded(b"\xff\xfe"), "the config: is no text in UTF-8; save it as such"),
        (reading.runs, "{home}: cannot be read: Permission denied; choose another folder"),
        (
            lambda home: reading.view(RunStore(home / "run")),
            "{home}/run: no leaderboard yet; it comes when cross-validation is over",
        ),
        (
            lambda home: sweeps.resume(RunStore(home / "run")),
            "{home}/run: has no config.yaml; start it anew under another name",
        ),
        (
            lambda home: watching.section(home / "run" / "bundles" / "mean"),
            "{home}/run/monitor/mean: cannot be read (Input/output error); check its permissions",
        ),
    ],
    ids=["no text", "no listing", "no leaderboard", "no config", "history"],
)
def test_what_the_app_cannot_use_is_told(act: Callable[[Path], object], says: str, home: Path) -> None:
    with pytest.raises(EnsemblerError) as caught:
        act(home)
    assert str(caught.value) == says.format(home=home)
