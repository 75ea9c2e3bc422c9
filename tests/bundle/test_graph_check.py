"""What an export makes of a graph that says something else than PyTorch; the sessions are stood in for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ensembler.bundle.graph import check
from ensembler.bundle.staged import Stages

Proba = NDArray[np.float32]

#: Images of the sample.
N = 20


def averaged(said: Proba) -> Proba:
    """The mean over members and folds."""
    return np.asarray(said.mean(axis=(0, 1)), np.float32)


def decided(said: Proba) -> Proba:
    """All for the first class where its mean is above one half: what jumps where members hardly move."""
    return np.eye(2, dtype=np.float32)[(averaged(said)[:, 0] <= 0.5).astype(int)]


def first_class(*shares: float) -> Proba:
    """(images, 2) of one fold model: the shares given, and 0.9 for the other images."""
    share = np.append(shares, np.full(N - len(shares), 0.9))
    return np.stack([share, 1 - share], axis=1).astype(np.float32)


def sample(*, honest: bool = True) -> check.Sample:
    return check.Sample(
        np.zeros((N, 8, 8, 3), np.uint8), np.zeros(N, np.int64), np.zeros(N, np.int64), honest=honest
    )


@pytest.fixture
def graph_says(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the graph answer: all members of all images, and image by image where it is a cascade."""

    def answer(proba: Proba, said: Proba, staged: Proba | None = None) -> None:
        monkeypatch.setattr(check, "new_session", lambda *_: None)
        monkeypatch.setattr(check, "run_graph", lambda *_: (proba, said))
        monkeypatch.setattr(check, "staged_answer", lambda *_: staged)

    return answer


def test_where_the_combiner_jumps_by_itself_the_graph_is_on_an_edge_and_no_farther(graph_says: Any) -> None:
    by_torch = first_class(0.5000001)[None, None]
    by_graph = first_class(0.4999999)[None, None]
    expected = decided(by_torch), by_torch
    assert np.abs(decided(by_graph) - expected[0]).max() == 1
    graph_says(decided(by_graph), by_graph)
    found = check.compare(b"", sample(), expected, decided, "fp32", 8)
    assert (found.on_edge, found.ties, found.ensemble) == (1, 0, 0.0)
    assert 0 < found.members < 1e-6
    # What a graph decides of a tie otherwise than numpy does, given the same members.
    graph_says(decided(by_graph), by_torch)
    found = check.compare(b"", sample(), expected, decided, "fp32", 8)
    assert (found.on_edge, found.ties, found.ensemble) == (1, 1, 0.0)


def test_a_graph_that_differs_away_from_any_edge_differs(graph_says: Any) -> None:
    said = first_class(0.7)[None, None]
    expected = decided(said), said
    graph_says(decided(first_class(0.3)[None, None]), said)
    found = check.compare(b"", sample(), expected, decided, "fp32", 8)
    assert (found.on_edge, found.ties, found.ensemble) == (0, 0, 1.0)


def test_a_cascade_is_compared_image_by_image_too(graph_says: Any) -> None:
    said = first_class()[None, None]
    expected = averaged(said), said
    stages = Stages((0,), (), (True,))
    graph_says(expected[0], said, staged=first_class(0.6))
    found = check.compare(b"", sample(), expected, averaged, "fp32", 8, stages)
    assert found.ensemble == pytest.approx(0.3, abs=1e-6)
    graph_says(first_class(0.6), said, staged=expected[0])
    found = check.compare(b"", sample(), expected, averaged, "fp32", 8, stages)
    assert found.ensemble == pytest.approx(0.3, abs=1e-6)


def test_scores_change_by_what_the_models_say_that_have_not_seen_the_image(graph_says: Any) -> None:
    """The graph's model of an image's own fold is wrong about it; that of the other fold makes up for it."""
    by_torch = np.stack([first_class(0.9), first_class(0.4)])[None]
    by_graph = np.stack([first_class(0.3), first_class(0.9)])[None]
    graph_says(averaged(by_graph), by_graph)
    expected = averaged(by_torch), by_torch
    honest = check.compare(b"", sample(), expected, averaged, "int8", 8)
    assert honest.accuracy == pytest.approx(-1 / N)
    assert honest.log_loss == pytest.approx(np.log(0.9 / 0.3) / N, abs=1e-5)
    seen = check.compare(b"", sample(honest=False), expected, averaged, "int8", 8)
    assert seen.accuracy == 0
    assert seen.log_loss == pytest.approx(np.log(0.65 / 0.6) / N, abs=1e-5)
