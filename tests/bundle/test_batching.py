"""Requests become batches: nothing is lost, mixed up or made to wait without need."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from ensembler.bundle.batching import Batcher, BusyError, ClosedError


def _images(*values: int) -> NDArray[np.uint8]:
    return np.array(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def _echo(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return pixels[:, 0, 0, :1].astype(np.float32)


def _ask(batcher: Batcher, *values: int) -> list[float]:
    batcher.reserve(len(values))
    return [float(x) for x in batcher.submit(_images(*values)).result(10)[:, 0]]


def test_everybody_gets_his_own_answers() -> None:
    sizes: list[int] = []
    batcher = Batcher(_echo, max_batch=16, on_batch=lambda images, _: sizes.append(images))
    rng = np.random.default_rng(0)
    asked = [tuple(map(int, rng.integers(0, 256, rng.integers(1, 9)))) for _ in range(500)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda values: _ask(batcher, *values), asked))
    batcher.close()
    assert answers == [list(map(float, values)) for values in asked]
    assert sum(sizes) == sum(map(len, asked))
    assert max(sizes) <= 16
    assert batcher.waiting == 0


def test_what_comes_while_the_model_works_is_one_batch() -> None:
    sizes: list[int] = []
    go, began = threading.Event(), threading.Event()

    def predict(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(pixels))
        began.set()
        go.wait(10)
        return _echo(pixels)

    batcher = Batcher(predict, max_batch=8)
    batcher.reserve(10)
    answers = [batcher.submit(_images(0))]
    began.wait(10)
    answers += [batcher.submit(_images(i)) for i in range(1, 10)]
    go.set()
    assert [float(a.result(10)[0, 0]) for a in answers] == list(range(10))
    batcher.close()
    assert sizes == [1, 8, 1]


def test_a_lone_request_does_not_wait_and_announced_ones_are_waited_for() -> None:
    batcher = Batcher(_echo, max_wait_s=600)  # whoever is answered before has not waited
    _ask(batcher, 1)
    batcher.reserve(2)
    first = batcher.submit(_images(1))
    time.sleep(0.1)
    assert not first.done()  # the other one is being decoded
    second = batcher.submit(_images(2))
    assert first.result(60) == 1
    assert second.result(60) == 2
    batcher.reserve(2)
    late = batcher.submit(_images(1))
    batcher.give_back(1)  # it could not be decoded
    late.result(60)
    batcher.close()


def test_a_full_queue_refuses_and_a_larger_request_is_a_batch_of_its_own() -> None:
    batcher = Batcher(_echo, max_batch=2, max_waiting=5)
    assert _ask(batcher, 1, 2, 3, 4) == [1, 2, 3, 4]
    batcher.reserve(3)
    with pytest.raises(BusyError):
        batcher.reserve(3)
    batcher.give_back(3)
    batcher.reserve(5)
    batcher.close()
    with pytest.raises(ClosedError):
        batcher.submit(_images(1))


def test_an_error_reaches_those_who_wait_and_nobody_else() -> None:
    def fail(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        if pixels.max() == 13:
            raise RuntimeError("broken")
        return _echo(pixels)

    batcher = Batcher(fail)
    with pytest.raises(RuntimeError, match="broken"):
        _ask(batcher, 13)
    assert _ask(batcher, 12) == [12]
    batcher.close()


class Held:
    """Answers what it is asked when it is let go, and notes the size of each batch."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go, self.began = threading.Event(), threading.Event()

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(pixels))
        self.began.set()
        self.go.wait(10)
        return _echo(pixels)


def test_what_is_cancelled_is_not_computed_and_what_waits_at_the_end_is_answered() -> None:
    held = Held()
    batcher = Batcher(held)
    batcher.reserve(3)
    answers = [batcher.submit(_images(0))]
    held.began.wait(10)
    answers += [batcher.submit(_images(i)) for i in (1, 2)]
    assert answers[1].cancel()
    closer = threading.Thread(target=batcher.close)
    closer.start()
    held.go.set()
    closer.join(10)
    assert held.sizes == [1, 1]
    assert answers[2].result(0) == 2


def test_a_batch_that_nobody_waits_for_is_no_work() -> None:
    held = Held()
    batcher = Batcher(held)
    batcher.reserve(3)
    first = batcher.submit(_images(7))
    held.began.wait(10)
    assert all(batcher.submit(_images(i)).cancel() for i in (1, 2))
    held.go.set()
    assert first.result(10) == 7
    assert _ask(batcher, 8) == [8]
    batcher.close()
    assert held.sizes == [1, 1]
    assert batcher.waiting == 0
