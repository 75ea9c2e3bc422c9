"""What every test shares: a cache of its own, small synthetic images, and one finished run."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray
from PIL import Image

# The same examples each time, however long they take on this machine, and none kept in a folder that processes share.
settings.register_profile(
    "suite", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")

pytest_plugins = ("tests.golden.recorder",)

#: Folders and files whose tests take longest: they begin first, so that no process has one of them left at the end.
DEAR = ("faults", "tuning", "app/test_browser.py", "bundle", "test_experiment.py", "fuzz", "app")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which they begin, and each by itself, whoever named single tests in another order:
    what a file shares is made once."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> tuple[int, str]:
        name = item.path.relative_to(here).as_posix()
        return next((i for i, dear in enumerate(DEAR) if name.startswith(dear)), len(DEAR)), name

    items.sort(key=place)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the cache of whoever runs them."""
    os.environ["ENSEMBLER_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    # Ray ends workers when the machine is short of memory, whoever took it; tests count the deaths of workers.
    os.environ.setdefault("RAY_memory_monitor_refresh_ms", "0")


def _draw_images(
    n: int, n_classes: int = 3, size: int = 32, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Noise around a colour that tells the class: uint8 (n, size, size, 3), int64 (n,)."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % n_classes
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200], [180, 180, 60], [60, 180, 180]])
    noise = rng.normal(0, 60, (n, size, size, 3))
    return np.clip(colours[labels][:, None, None] + noise, 0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def draw_images() -> Callable[..., tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    return _draw_images


def _write_folder(
    root: Path, n: int = 60, names: tuple[str, ...] = ("ant", "bee", "cow"), seed: int = 0
) -> Path:
    images, labels = _draw_images(n, len(names), 24, seed)
    for i, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
    return root


@pytest.fixture(scope="session")
def write_images() -> Callable[..., Path]:
    """Writes class folders of small PNG files."""
    return _write_folder


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Callable[..., Path]:
    """Makes something dear in a folder, once for all the processes that run tests; the others wait for it.

    `ENSEMBLER_TESTS_ONCE` names a folder that outlives them, for who runs tests a thousand times (scripts/mutation.py).
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "once"
    if given := os.environ.get("ENSEMBLER_TESTS_ONCE"):
        shared = Path(given)

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        shared.mkdir(parents=True, exist_ok=True)
        home, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(home, ignore_errors=True)  # of a process that failed at it
                home.mkdir()
                fill(home)
                done.touch()
        return home

    return make


# ---------------------------------------------------------------------- a finished run

#: Two backbones, one with weights (so that there is a probe), a grid whose third and fourth trial cannot be trained.
CONFIG = """
name: small
data: {source: images/train, test: images/test, image_size: 32}
folds: {k: 2, seed: 0, monitor: 0.2}
backbones:
  - test_resnet: {weights: weights.safetensors}
  - test_efficientnet: {weights: random}
recipe:
  {batch_size: 8, flip: false, weight_decay: 0.01, layer_decay: 1.0, label_smoothing: 0.1, dropout: 0.0, augment: 0.5}
search: {trials: 4, epochs: 2, algorithm: grid, scheduler: none, space: {lr: [1e30], head_lr: [1e30]}}
keep: 3
ensembles: [mean, greedy, boosting, stacking]
numerics: {precision: fp32, channels_last: true}
"""


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """A run that went its whole way; tests that change it work on a copy."""

    home: Path
    config: Path
    run: Path
    images: Path


@pytest.fixture(scope="session")
def write_experiment() -> Callable[[Path], Path]:
    """Writes images, weights and a config into a folder; returns the config."""

    def write(home: Path, text: str = CONFIG, n: int = 60) -> Path:
        import torch
        from safetensors.numpy import save_file

        from ensembler.training.backbone import create, to_arrays

        _write_folder(home / "images" / "train", n)
        _write_folder(home / "images" / "test", 18, seed=1)
        torch.manual_seed(0)
        save_file(to_arrays(create("test_resnet", 5).state_dict()), home / "weights.safetensors")
        (home / "small.yaml").write_text(text)
        return home / "small.yaml"

    return write


@pytest.fixture(scope="session")
def finished_run(once: Callable[..., Path], write_experiment: Callable[[Path], Path]) -> FinishedRun:
    from ensembler.experiment import Experiment

    home = once("small", lambda home: Experiment.from_config(write_experiment(home), home / "run").run())
    return FinishedRun(home, home / "small.yaml", home / "run", home / "images")
