"""Which networks run in the name of a row, and what is said where a run has not trained them."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ensembler.bundle.choose import choices, chosen
from ensembler.bundle.options import ExportOptions
from ensembler.errors import BundleError
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate

ONE, TWO = (Candidate(net, "random", "full") for net in ("test_resnet", "test_efficientnet"))
PROBE = Candidate("test_resnet", "w#1", "probe")
REFIT, STUDENT = (Candidate("test_resnet", "random", "full", kind=kind) for kind in ("refit", "student"))


def _row(candidate: Candidate, kind: str = "single") -> dict[str, Any]:
    return {"name": candidate.name, "kind": kind}


def _board(*rows: dict[str, Any]) -> Any:
    verdict = SimpleNamespace(winner=rows[0]["name"])
    return SimpleNamespace(to_records=lambda: list(rows), verdict=verdict)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    """Of the first candidate there is a refit and a student, of the second neither; the probe needs none."""
    store = RunStore(tmp_path / "run")
    trained = [
        {"candidate": ONE.name, "way": "refit", "deployed": REFIT.name, "note": ""},
        {"candidate": ONE.name, "way": "distill", "deployed": STUDENT.name, "note": ""},
        {"candidate": TWO.name, "way": "refit", "deployed": None, "note": "there was no time"},
    ]
    store.update_manifest(candidates=[c.to_dict() for c in (ONE, TWO, PROBE)], collapse={"rows": trained})
    for candidate in (REFIT, STUDENT):
        cell = store.path / "cells" / candidate.id / "all"
        cell.mkdir(parents=True)
        (cell / "result.json").write_text(json.dumps({"candidate": candidate.to_dict()}))
    damaged = store.path / "cells" / "0damaged" / "all"
    damaged.mkdir(parents=True)
    (damaged / "result.json").write_text("{")
    return store


def test_with_a_limit_every_row_is_tried_and_those_without_a_network_are_passed_over(
    store: RunStore, capsys: pytest.CaptureFixture[str]
) -> None:
    board = _board(_row(ONE), _row(TWO), _row(PROBE), {"name": "baseline", "kind": "reference"})
    options = ExportOptions(collapse="refit", max_latency_ms=5)
    found = list(choices(store, board, None, options))
    assert [one.row["name"] for one in found] == [ONE.name, PROBE.name]
    assert [one.members for one in found] == [[(ONE.name, REFIT)], [(PROBE.name, PROBE)]]
    said = capsys.readouterr().err
    assert said.startswith(
        f"warning: {TWO.name}: passed over: {TWO.name}: has no network made by refit: there was no"
    )
    for ensemble, given in ((ONE.name, options), (None, ExportOptions(collapse="refit"))):
        assert len(list(choices(store, board, ensemble, given))) == 1


def test_what_was_not_trained_is_told_with_its_reason(store: RunStore) -> None:
    with pytest.raises(BundleError, match=r"made by refit: there was no time; use --collapse folds"):
        chosen(store, _row(TWO), "refit")
    with pytest.raises(BundleError, match=r"has no network made by soup; add `collapse: \[folds, soup\]`"):
        chosen(store, _row(ONE), "soup")


def test_a_student_answers_alone_for_any_of_the_members(
    store: RunStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    combiner = SimpleNamespace(members_=(TWO.name, ONE.name))
    monkeypatch.setattr("ensembler.comparison.exportable_combiner", lambda *_: combiner)
    row = {"name": "mean", "kind": "ensemble"}
    student = chosen(store, row, "distill")
    assert (student.members, student.combiner) == ([(STUDENT.name, STUDENT)], None)
    folds = chosen(store, row, "folds")
    assert (folds.members, folds.combiner) == ([(TWO.name, TWO), (ONE.name, ONE)], combiner)


def test_a_network_whose_cell_is_gone_is_told(store: RunStore) -> None:
    (store.path / "cells" / REFIT.id / "all" / "result.json").unlink()
    with pytest.raises(BundleError, match="its Cell is missing; run the experiment again"):
        chosen(store, _row(ONE), "refit")
