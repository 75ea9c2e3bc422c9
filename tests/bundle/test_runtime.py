"""A bundle at work without what made it: no torch, no Ray, no pandas; images in every form."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ensembler.bundle
from ensembler.bundle import Bundle
from ensembler.bundle.layout import MODEL
from ensembler.bundle.options import ExportOptions
from ensembler.data.decode import load_pixels
from ensembler.errors import BundleError, UnreadableImageError
from ensembler.experiment import Experiment

#: What `pip install ensembler[runtime]` does not bring.
ABSENT = (
    "torch", "ray", "timm", "torchvision", "pandas", "sklearn", "scipy", "streamlit", "safetensors", "xgboost",
    "pyarrow", "yaml", "pydantic", "rich", "threadpoolctl", "onnx", "onnxscript", "filelock", "matplotlib", "plotly",
)  # fmt: skip

PROGRAM = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Refuse())
"""


@pytest.fixture(scope="module")
def folder(finished_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "b"
    return Experiment.from_run(finished_run.run).export(target, "stacking", ExportOptions())


@pytest.fixture(scope="module")
def files(finished_run: Any) -> list[Path]:
    return sorted((finished_run.images / "test").rglob("*.png"))


def _without_the_rest(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(absent=set(ABSENT)) + code
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=120
    )


def test_a_bundle_predicts_with_onnxruntime_numpy_and_pillow_alone(folder: Path, files: list[Path]) -> None:
    done = _without_the_rest(
        """
from ensembler.bundle import Bundle
from ensembler.bundle import progress
progress.EVERY_S = 0
bundle = Bundle.load(sys.argv[1])
import json
proba = bundle.predict(sys.argv[2:], progress=True)
print(json.dumps([proba.tolist(), sorted({m.split(".")[0] for m in sys.modules})]))
""",
        str(folder),
        *map(str, files[:3]),
    )
    assert done.returncode == 0, done.stderr
    proba, loaded = json.loads(done.stdout)
    np.testing.assert_allclose(proba, Bundle.load(folder).predict(files[:3]), atol=1e-6)
    assert not {*ABSENT} & {*loaded}
    assert "3 of 3 images" in done.stderr


def test_so_does_the_command_line(folder: Path, files: list[Path], tmp_path: Path) -> None:
    code = "from ensembler.cli import main; sys.exit(main(sys.argv[1:]))"
    done = _without_the_rest(code, "predict", str(folder), str(files[0]), "-o", str(tmp_path / "out.csv"))
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_a_verb_whose_libraries_are_missing_says_what_to_install(tmp_path: Path) -> None:
    code = "from ensembler.cli import main; sys.exit(main(sys.argv[1:]))"
    done = _without_the_rest(code, "leaderboard", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.rstrip().endswith("is not installed; pip install 'ensembler[train]'")


def test_a_bundle_for_pytorch_says_what_is_missing(
    finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ExportOptions(format="torch")
    folder = Experiment.from_run(finished_run.run).export(tmp_path / "b", "mean", options)
    done = _without_the_rest("from ensembler.bundle import Bundle; Bundle.load(sys.argv[1])", str(folder))
    assert done.returncode == 1
    assert "needs PyTorch" in done.stderr
    assert "pip install 'ensembler[train]', or export with --format onnx" in done.stderr
    with pytest.raises(BundleError, match="holds no graph; export with --format onnx or both"):
        Bundle.load(folder, engine="onnx")
    assert Bundle.load(folder).predict([]).shape == (0, 3)
    monkeypatch.setitem(sys.modules, "ensembler.bundle.networks", None)
    with pytest.raises(
        BundleError, match=r"bundle\.json: needs PyTorch \(.*\); pip install 'ensembler\[train\]'"
    ):
        Bundle.load(folder)


def test_a_graph_alone_cannot_run_in_pytorch(folder: Path) -> None:
    with pytest.raises(BundleError, match="holds no weights for PyTorch; export with --format torch or both"):
        Bundle.load(folder, engine="torch")


def test_images_come_in_every_form_and_number(
    folder: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.load(folder)
    picture = Image.open(files[0])
    one = bundle.predict([files[0], str(files[0]), files[0].read_bytes(), picture, np.asarray(picture)])
    np.testing.assert_allclose(one, np.repeat(one[:1], 5, 0), atol=1e-6)
    assert bundle.predict([]).shape == (0, 3)
    whole = bundle.predict(iter(files))
    np.testing.assert_allclose(whole.sum(1), 1, atol=1e-5)
    monkeypatch.setattr("ensembler.bundle.runtime.CHUNK", 5)
    bundle._engine._batch = 2  # type: ignore[attr-defined]
    np.testing.assert_allclose(bundle.predict(files), whole, atol=1e-6)
    with pytest.raises(UnreadableImageError, match="nowhere"):
        bundle.predict(["nowhere.png"])


def test_the_combiner_alone_is_loaded_when_first_asked_for_and_then_kept(
    folder: Path, files: list[Path], tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    bundle = Bundle.load(copy)
    pixels = np.stack([load_pixels(file, bundle.image_size) for file in files[:5]])
    said = bundle.fold_probabilities(pixels)
    first = bundle.combine(said)
    np.testing.assert_allclose(first, bundle.predict_pixels(pixels), atol=1e-6)
    (copy / "combiner.onnx").unlink()
    np.testing.assert_array_equal(bundle.combine(said), first)


def test_a_member_alone_needs_no_combiner() -> None:
    index = {"classes": ["x", "y"], "image_size": 8, "members": [{"name": "one"}], "combiner": None}
    nothing: Any = None  # there is no graph of a combiner to ask
    said = np.array([[[[0.1, 0.9]], [[0.3, 0.7]]]], np.float32)
    np.testing.assert_allclose(Bundle(index, nothing).combine(said), [[0.2, 0.8]], atol=1e-7)


def test_the_package_names_the_class_alone() -> None:
    assert ensembler.bundle.Bundle is Bundle
    with pytest.raises(AttributeError, match=r"module 'ensembler\.bundle' has no attribute 'Bundel'"):
        _ = ensembler.bundle.Bundel


def test_a_graph_larger_than_any_is_not_opened(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (folder / MODEL).stat().st_size
    monkeypatch.setattr("ensembler.bundle.session.MAX_MODEL_BYTES", size)
    Bundle.load(folder)
    monkeypatch.setattr("ensembler.bundle.session.MAX_MODEL_BYTES", size - 1)
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(BundleError, match=f"model.onnx: holds {size:,} bytes; at most {size - 1:,} are read"):
        Bundle.load(folder)


def test_pixels_of_another_size_are_refused(folder: Path) -> None:
    bundle = Bundle.load(folder)
    for pixels in (
        np.zeros((1, 8, 8, 3), np.uint8),
        np.zeros((1, 32, 32, 3), np.float32),
        np.zeros((32, 32, 3), np.uint8),
    ):
        with pytest.raises(ValueError, match=r"expected uint8 \(images, 32, 32, 3\)"):
            bundle.predict_pixels(pixels)  # type: ignore[arg-type]
    assert bundle.predict_pixels(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 3)
    assert bundle.fold_probabilities(np.empty((0, 32, 32, 3), np.uint8)).shape == (
        len(bundle.members),
        2,
        0,
        3,
    )


def test_a_table_where_pandas_is_there(folder: Path, files: list[Path]) -> None:
    frame = Bundle.load(folder).predict_frame(files[:4])
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["path", "label", "confidence", "ant", "bee", "cow"]
    assert frame["path"].tolist() == [str(file) for file in files[:4]]


def test_threads_of_one_session_may_run_at_once(folder: Path, files: list[Path]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    bundle = Bundle.load(folder, threads=1)
    expected = bundle.predict(files)
    with ThreadPoolExecutor(4) as pool:
        for proba in pool.map(lambda _: bundle.predict(files), range(8)):
            np.testing.assert_array_equal(proba, expected)
