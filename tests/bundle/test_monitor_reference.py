"""What new images are held against where a bundle's networks have been trained on every row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler.bundle.choose import Chosen
from ensembler.bundle.monitor.make import make_reference
from ensembler.bundle.monitor.observe import observe
from ensembler.store import RunStore
from ensembler.training.candidate import Candidate


def test_it_is_what_all_of_them_say_of_the_test_split(
    colour_bundle: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensembler.bundle.monitor.make._CHUNK", 4)
    bundle = colour_bundle()
    store = RunStore(tmp_path / "run")
    store.update_manifest(classes=["ant", "bee", "cow"], k=2)
    labels = ["cow", "ant", "bee", "ant", "cow", "bee"]
    table = {
        "split": ["oof"] * 4 + ["test"] * 6,
        "label": ["ant"] * 4 + labels,
        "fold": [0, 1, 0, 1, *[-1] * 6],
    }
    store.write_table(pd.DataFrame(table))
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.save(tmp_path / "test.npy", pixels)

    made = make_reference(
        store,
        Chosen({"name": "x"}, [("x", Candidate("test_resnet", "random", "full", kind="refit"))], None),
        store.path,
        stored=True,
        oof_pixels=lambda: pytest.fail("images were asked for that the networks have seen"),
        test_pixels=lambda: tmp_path / "test.npy",
    )
    assert made is not None
    assert made.folds == 0
    assert made.labels.tolist() == [2, 0, 1, 0, 2, 1]
    expected, _ = observe(bundle, pixels, 0)
    for name in ("looks", "proba", "disagreement"):
        np.testing.assert_allclose(getattr(made.sample, name), getattr(expected, name), atol=1e-6)
