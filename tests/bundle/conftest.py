"""A bundle that answers at once, for tests of what is built around bundles."""

from __future__ import annotations

import logging
import queue
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ensembler.bundle import Bundle

CLASSES = ("red", "green", "blue")


class ColourBundle:
    """Two members of two fold models each that tell the strongest colour; has what `Bundle` has.

    Args:
        seconds: what a call of the model takes.
    """

    def __init__(self, classes: tuple[str, ...] = CLASSES, seconds: float = 0.0, size: int = 8) -> None:
        self.classes = classes
        self.image_size = size
        self.name = "colours"
        self.members = {"one": None, "two": None}
        self.index: dict[str, Any] = {"name": self.name, "classes": list(classes), "files": {}}
        self.seconds = seconds
        self.batches: list[int] = []

    def fold_probabilities(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        colour = pixels.reshape(len(pixels), -1, 3).mean(1)
        left = pixels[:, :, : self.image_size // 2].reshape(len(pixels), -1, 3).mean(1)
        logits = np.stack([np.stack([colour, colour + 8]), np.stack([left, left - 8 * np.arange(3)])]) / 32
        power = np.exp(logits - logits.max(-1, keepdims=True))
        proba: NDArray[np.float32] = (power / power.sum(-1, keepdims=True)).astype(np.float32)
        return proba

    def votes(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        return proba.mean(1)

    def combine(self, proba: NDArray[np.float32]) -> NDArray[np.float32]:
        return proba.mean((0, 1))

    def predict_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(pixels))
        time.sleep(self.seconds)
        return self.combine(self.fold_probabilities(pixels))


@pytest.fixture(scope="session")
def mean_bundle(finished_run: Any, once: Callable[..., Path]) -> Path:
    """The mean of the finished run as it is exported; tests that change it work on a copy."""
    from ensembler.experiment import Experiment

    run = Experiment.from_run(finished_run.run)
    return once("mean", lambda home: run.export(home / "bundle", "mean")) / "bundle"


@pytest.fixture
def colour_bundle(monkeypatch: pytest.MonkeyPatch) -> Callable[..., ColourBundle]:
    """Makes one, and lets `Bundle.load` find it under any path."""

    def make(**settings: Any) -> ColourBundle:
        bundle = ColourBundle(**settings)
        monkeypatch.setattr(Bundle, "load", classmethod(lambda cls, path: bundle))
        return bundle

    return make


@pytest.fixture
def colour_images(tmp_path: Path) -> Callable[..., Path]:
    """Writes a folder of small PNG files, every tenth of them in a folder below."""
    from PIL import Image

    def write(n: int = 30, name: str = "images", seed: int = 0) -> Path:
        folder = tmp_path / name
        (folder / "below").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (n, 8, 8, 3), np.uint8)
        for i, one in enumerate(pixels):
            file = folder / ("below" if i % 10 == 0 else "") / f"{i:04d}.png"
            Image.fromarray(one).save(file)
        return folder

    return write


# ---------------------------------------------------------------------- a server in this process


@pytest.fixture
def announced(monkeypatch: pytest.MonkeyPatch) -> Iterator[queue.SimpleQueue[str]]:
    """What `serve` prints on standard output; afterwards signals and loggers are what they were."""
    from ensembler.bundle import serve

    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hear(text: str, file: IO[str] | None = None, **_: Any) -> None:
        said.put(text) if file is None else print(text, file=file)

    monkeypatch.setattr(serve, "print", hear, raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell's foreground
    yield said
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.setLevel(logging.NOTSET)
        logger.propagate = True


@pytest.fixture
def served_bundle(
    colour_bundle: Callable[..., ColourBundle], monkeypatch: pytest.MonkeyPatch
) -> ColourBundle:
    """What `serve` finds under any path."""
    monkeypatch.setattr("ensembler.bundle.pages.read_card", lambda path: f"# Card of {path}\n")
    return colour_bundle()


@pytest.fixture
def serve_here(served_bundle: ColourBundle, announced: queue.SimpleQueue[str]) -> Callable[..., Any]:
    """serve_here(client, **options): what `client(port)` returned, after the server that it asked has ended.

    `serve` has the main thread, as it must to hear signals, and the client another; when the client has ended, it sends
    the signal that ends the server.
    """
    from ensembler.bundle.serve import serve

    def run(client: Callable[[int], Any], number: int = signal.SIGTERM, **options: Any) -> Any:
        def work() -> Any:
            found = re.fullmatch(r"serving on http://127\.0\.0\.1:(\d+)/ \(Ctrl-C ends it\)", announced.get())
            assert found, "it ended before it listened"
            try:
                return client(int(found[1]))
            finally:
                signal.pthread_kill(threading.main_thread().ident or 0, number)

        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(work)
            try:
                serve("a-bundle", port=0, **options)
            finally:
                announced.put("")  # nobody waits for ever
            return result.result(20)

    return run
