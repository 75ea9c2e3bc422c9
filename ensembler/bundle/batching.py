"""Requests gathered into batches: one thread runs the model, whoever asks waits for his part of the answer.

A model answers thirty-two images in far less than thirty-two times the time of one. While it works on a batch, the
next one gathers by itself. It waits for more only where more is known to come: images that have been announced
(`reserve`) and are still being decoded. A request that is alone is answered at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Proba = NDArray[np.float32]


class BusyError(Exception):
    """As many images wait already as may."""


class ClosedError(Exception):
    """The batcher has been closed."""


@dataclass(frozen=True, eq=False)
class _Item:
    pixels: Pixels
    answer: Future[Proba]
    arrived: float


class Batcher:
    """Runs a model on what several threads ask of it.

    >>> batcher = Batcher(bundle.predict_pixels)       # doctest: +SKIP
    >>> batcher.reserve(2)                             # doctest: +SKIP
    >>> batcher.submit(pixels).result()                # doctest: +SKIP

    Args:
        predict: uint8 (images, size, size, 3) to float32 (images, classes); called from one thread alone.
        max_batch: images a call; a request of more is a batch of its own.
        max_wait_s: the longest that an image waits for others which are being decoded.
        max_waiting: images that are announced or wait; more are refused.
        on_batch: told the images and the seconds of each call.
    """

    def __init__(
        self,
        predict: Callable[[Pixels], Proba],
        *,
        max_batch: int = 32,
        max_wait_s: float = 0.005,
        max_waiting: int = 512,
        on_batch: Callable[[int, float], None] | None = None,
    ) -> None:
        self._predict, self._on_batch = predict, on_batch
        self._max_batch, self._max_wait_s, self._max_waiting = max_batch, max_wait_s, max_waiting
        self._items: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._announced = self._waiting = 0
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that are announced or wait for the model."""
        return self._announced + self._waiting

    def reserve(self, n: int) -> None:
        """Announces `n` images; each must then be submitted or given back.

        Raises:
            BusyError: too many wait already.
        """
        with self._changed:
            if self._announced + self._waiting + n > self._max_waiting:
                raise BusyError
            self._announced += n

    def give_back(self, n: int) -> None:
        """Takes an announcement back."""
        with self._changed:
            self._announced -= n
            self._changed.notify()

    def submit(self, pixels: Pixels) -> Future[Proba]:
        """Hands in images that were announced.

        Args:
            pixels: uint8 (images, size, size, 3), at least one.

        Returns:
            What the model says of them; whoever cancels it before their batch begins spares the model the work.

        Raises:
            ClosedError: the batcher is closed.
        """
        answer: Future[Proba] = Future()
        with self._changed:
            self._announced -= len(pixels)
            if self._closed:
                raise ClosedError
            self._waiting += len(pixels)
            self._items.append(_Item(pixels, answer, time.monotonic()))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Answers what waits, then ends."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while batch := self._next_batch():
            wanted = [item for item in batch if item.answer.set_running_or_notify_cancel()]
            if wanted:
                self._answer(wanted)

    def _next_batch(self) -> list[_Item]:
        """The items of the next batch; none when the batcher is closed and everything is answered."""
        with self._changed:
            while not self._items:
                if self._closed:
                    return []
                self._changed.wait()
            until = self._items[0].arrived + self._max_wait_s
            while self._announced and self._waiting < self._max_batch and not self._closed:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            batch = [self._items.popleft()]
            size = len(batch[0].pixels)
            while self._items and size + len(self._items[0].pixels) <= self._max_batch:
                batch.append(self._items.popleft())
                size += len(batch[-1].pixels)
            self._waiting -= size
            return batch

    def _answer(self, batch: list[_Item]) -> None:
        began = time.perf_counter()
        try:
            pixels = batch[0].pixels if len(batch) == 1 else np.concatenate([item.pixels for item in batch])
            proba = self._predict(pixels)
        except Exception as error:  # whatever it is, those who wait have to hear of it
            for item in batch:
                item.answer.set_exception(error)
            return
        if self._on_batch is not None:
            self._on_batch(len(pixels), time.perf_counter() - began)
        start = 0
        for item in batch:
            item.answer.set_result(proba[start : start + len(item.pixels)])
            start += len(item.pixels)
