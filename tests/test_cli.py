"""The command line: exit codes, one-line errors, results on standard output."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ensembler import __version__, verbs
from ensembler.arguments import parser
from ensembler.cli import main
from ensembler.combiners import COMBINERS
from ensembler.errors import EnsemblerError
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions
from ensembler.store import RunStore
from ensembler.training.strategies import STRATEGIES

KEYS = {
    "name", "kind", "members", "metric", "cv", "cv_low", "cv_high", "fold_scores", "test", "accuracy", "log_loss",
    "ece", "delta_best_single", "delta_low", "delta_high", "p_value", "tied_with_best", "optimism", "latency_ms",
    "params", "train_s",
}  # fmt: skip

VERBS = {
    "init", "run", "sweep", "combine", "compare", "leaderboard", "report", "export", "predict", "app", "list",
}  # fmt: skip


def _predictions(seed: int = 0, n: int = 90) -> tuple[Predictions, Predictions]:
    rng = np.random.default_rng(seed)

    def draw(rows: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(rows) % 3
        proba = np.stack([rng.dirichlet([1, 1, 1], rows) for _ in range(3)])
        proba[:, np.arange(rows), labels] += np.array([0.4, 0.8, 1.2])[:, None]
        return (proba / proba.sum(-1, keepdims=True)).astype(np.float32), labels

    names: dict[str, Any] = {"members": ["a", "b", "c"], "classes": ["ant", "bee", "cow"]}
    proba, labels = draw(n)
    oof = Predictions.from_arrays(proba, labels, np.arange(n) % 3, **names)
    proba, labels = draw(30)
    return oof, Predictions.from_arrays(proba, labels, split="test", **names)


def _frame(predictions: Predictions, split: str) -> pd.DataFrame:
    parts = []
    for m, member in enumerate(predictions.members):
        part = pd.DataFrame(predictions.proba[m], columns=list(predictions.classes))
        labels = [predictions.classes[i] for i in predictions.labels]
        head = {
            "member": member,
            "sample_id": [f"{split}{i}" for i in range(len(part))],
            "fold": predictions.fold,
        }
        parts.append(pd.concat([pd.DataFrame({**head, "label": labels, "split": split}), part], axis=1))
    return pd.concat(parts)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    oof, test = _predictions()
    oof.save(tmp_path / "p.npz", test)
    return tmp_path / "p.npz"


def _fails(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of an error that the user can mend."""
    assert main(argv) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if not line.startswith("warning: ")]
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("error: ")
    assert captured.out == ""
    return lines[0]


# ---------------------------------------------------------------------- the parser


def test_every_verb_has_help_and_the_version_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    actions = {a for act in parser()._actions if act.dest == "command" for a in act.choices or ()}
    assert actions >= VERBS
    for verb in actions:
        with pytest.raises(SystemExit) as done:
            main([verb, "--help"])
        assert done.value.code == 0
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.endswith(f"ensembler {__version__}\n")


@pytest.mark.parametrize(
    "argv", [[], ["frobnicate"], ["run"], ["list", "cats"], ["leaderboard", "x", "--format", "xml"]]
)
def test_a_wrong_command_line_is_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(argv)
    assert done.value.code == 2
    assert "usage: " in capsys.readouterr().err


# ---------------------------------------------------------------------- combine --predictions


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".parquet"])
def test_predictions_from_anywhere_make_a_leaderboard(
    suffix: str, npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = npz
    oof, test = _predictions()
    if suffix != ".npz":
        frame = pd.concat([_frame(oof, "oof"), _frame(test, "test")])
        file = tmp_path / f"p{suffix}"
        frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_parquet(file, index=False)
    run = tmp_path / "run"
    assert main(["combine", "--predictions", str(file), "-o", str(run)]) == 0
    out = capsys.readouterr().out
    assert "stacking" in out
    assert main(["leaderboard", str(run), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 3 + 5
    assert all(set(row) >= KEYS for row in rows)
    assert [row["cv"] for row in rows] == sorted(row["cv"] for row in rows)
    assert all(row["latency_ms"] is None and row["params"] is None and row["train_s"] is None for row in rows)
    assert all(row["test"] is not None for row in rows)
    best = next(row for row in rows if row["name"] == "c")
    from ensembler.metrics import get_metric

    assert best["cv"] == pytest.approx(get_metric("log_loss")(oof.labels, oof.proba[2]), abs=1e-6)
    assert best["test"] == pytest.approx(get_metric("log_loss")(test.labels, test.proba[2]), abs=1e-6)


def test_combining_again_is_allowed_and_other_predictions_are_refused(
    npz: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(tmp_path / "run")
    for metric in ("log_loss", "accuracy"):
        assert main(["combine", "--predictions", str(npz), "-o", run, "--metric", metric]) == 0
        assert RunStore(run).manifest()["metric"] == metric
    assert main(["combine", run]) == 0
    assert main(["compare", run]) == 0
    capsys.readouterr()
    _predictions(seed=1)[0].save(tmp_path / "q.npz")
    message = _fails(["combine", "--predictions", str(tmp_path / "q.npz"), "-o", run], capsys)
    assert "made from something else: predictions was" in message


def test_the_run_of_predictions_is_named_after_their_file(
    npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["combine", "--predictions", "p.npz"]) == 0
    assert RunStore(tmp_path / "runs" / "p").exists()


BAD_FRAMES = {
    "not a probability": (lambda f: f.assign(ant=2.0), "member 'a'"),
    "a row is missing": (lambda f: f.iloc[1:], "lacks 1 of"),
    "a column is missing": (lambda f: f.drop(columns="fold"), "columns ['fold'] missing"),
    "an unknown label": (lambda f: f.assign(label="dog"), "label 'dog' has no probability column"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_predictions_are_one_line_and_nothing_is_written(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, expected = BAD_FRAMES[case]
    change(_frame(_predictions()[0], "oof")).to_csv(tmp_path / "p.csv", index=False)
    message = _fails(
        ["combine", "--predictions", str(tmp_path / "p.csv"), "-o", str(tmp_path / "run")], capsys
    )
    assert message.startswith(f"error: {tmp_path / 'p.csv'}: ")
    assert expected in message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("p.npz", b"no zip", "cannot be read as npz"),
        ("p.npz", b"", "cannot be read as npz"),
        ("p.parquet", b"no parquet", "cannot be read as parquet"),
        ("p.csv", b"", "cannot be read as csv"),
        ("p.txt", b"x", "unknown format '.txt'; give an .npz, .csv or .parquet"),
    ],
)
def test_files_that_are_no_predictions(
    name: str, content: bytes, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert expected in _fails(
        ["combine", "--predictions", str(tmp_path / name), "-o", str(tmp_path / "r")], capsys
    )
    assert not (tmp_path / "r").exists()


def test_a_pickle_in_an_npz_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "p.npz", proba=np.array([object()]), labels=[0], fold=[0])
    assert "allow_pickle=False" in _fails(["combine", "--predictions", str(tmp_path / "p.npz")], capsys)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["combine"], "give either a run directory or --predictions FILE"),
        (["combine", "--predictions", "no.npz", "-o", "r"], "no.npz: no such file"),
        (["combine", "--predictions", "p.npz", "--metric", "acuracy"], "did you mean 'accuracy'?"),
        (["combine", "nowhere"], "no run here (manifest.json is missing)"),
        (["compare", "nowhere"], "no run here"),
        (["leaderboard", "nowhere"], "no run here"),
        (["report", "nowhere"], "no run here"),
        (["export", "nowhere"], "no run here"),
        (["predict", "nowhere", "."], "no image files"),
        (["run", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml: no such file"),
    ],
)
def test_what_is_not_there_is_one_line(
    argv: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert expected in _fails(argv, capsys)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- leaderboard, export, list


@pytest.fixture(scope="module")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("bare")
    oof, test = _predictions()
    oof.save(home / "p.npz", test)
    assert main(["combine", "--predictions", str(home / "p.npz"), "-o", str(home / "run")]) == 0
    return home / "run"


def test_the_leaderboard_in_every_format(bare_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = {}
    for kind in ("table", "json", "csv", "latex"):
        assert main(["leaderboard", str(bare_run), "--format", kind]) == 0
        texts[kind] = capsys.readouterr().out
    rows = json.loads(texts["json"])
    frame = pd.read_csv(io.StringIO(texts["csv"]))
    assert frame["name"].tolist() == [row["name"] for row in rows]
    np.testing.assert_allclose(frame["cv"], [row["cv"] for row in rows])
    assert texts["latex"].count("\\\\") >= len(rows)
    assert texts["latex"].startswith("\\begin{tabular}")
    assert texts["latex"].rstrip().endswith("\\end{tabular}")
    for row in rows:
        assert row["name"] in texts["table"]
    assert texts["table"].rstrip().splitlines()[-1].endswith(".")  # the verdict


def test_a_leaderboard_that_was_deleted_is_rebuilt(
    bare_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["leaderboard", str(bare_run), "--format", "json"]) == 0
    before = capsys.readouterr().out
    (bare_run / "leaderboard.parquet").unlink()
    assert main(["leaderboard", str(bare_run), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(before)


def test_bare_predictions_cannot_be_exported(bare_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "made from bare predictions" in _fails(["export", str(bare_run)], capsys)


def test_a_report_is_written_where_it_is_asked_for(
    bare_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(bare_run), "-o", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "report.md").exists()
    assert "report.md" in capsys.readouterr().out


def test_names_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for kind, names in (("combiners", COMBINERS), ("strategies", STRATEGIES), ("metrics", METRICS)):
        assert main(["list", kind]) == 0
        assert capsys.readouterr().out.split() == list(names)
    assert main(["list", "backbones", "test_vit*"]) == 0
    assert "test_vit3" in capsys.readouterr().out.split()
    assert main(["list", "metrics", "acc*"]) == 0
    assert capsys.readouterr().out.split() == ["accuracy"]


def test_a_real_run_is_reported_exported_and_predicted(
    finished_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", str(finished_run.run), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(set(row) >= KEYS for row in rows)
    assert all(
        row["latency_ms"] > 0 and row["params"] > 0 and row["train_s"] > 0 and row["flops"] > 0
        for row in rows
    )
    assert main(["export", str(finished_run.run), "--ensemble", "mean"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "bundles/small-mean\n"
    assert captured.err == "next: ensembler predict bundles/small-mean IMAGES\n"
    assert main(["predict", "bundles/small-mean", str(finished_run.images / "test"), "-o", "out.csv"]) == 0
    assert len(pd.read_csv("out.csv")) == 18
    assert main(["report", str(finished_run.run), "-o", "report"]) == 0


# ---------------------------------------------------------------------- exit codes


def _raising(error: BaseException) -> Any:
    def verb(_: Any) -> None:
        raise error

    return verb


def test_an_error_of_the_user_s_is_one_line_even_if_its_message_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "list_names", _raising(EnsemblerError("first\nsecond")))
    assert main(["list", "metrics"]) == 2
    assert capsys.readouterr().err == "error: first\\nsecond\n"
    assert main(["list", "metrics", "--debug"]) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("error: first\\nsecond\n")


def test_a_bug_shows_its_traceback_and_exits_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "list_names", _raising(ZeroDivisionError("oops")))
    assert main(["list", "metrics"]) == 1
    err = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in err
    assert err.splitlines()[-1].startswith("error: this is a bug in ensembler")


def test_an_interrupt_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verbs, "list_names", _raising(KeyboardInterrupt()))
    assert main(["list", "metrics"]) == 130
    assert capsys.readouterr().err == "interrupted; run the same command again to go on\n"


def _ensembler(*argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ensembler", *argv],
        capture_output=True, text=True, timeout=400, check=False, **options,
    )  # fmt: skip


def test_in_a_real_process_results_go_out_and_errors_go_to_standard_error(
    bare_run: Path, tmp_path: Path
) -> None:
    done = _ensembler("leaderboard", str(bare_run), "--format", "csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("name,kind,members,")
    done = _ensembler("leaderboard", str(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {tmp_path}: no run here")


def test_a_reader_that_goes_away_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ensembler", "list", "backbones"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.close()
    _, err = process.communicate(timeout=400)
    assert (process.returncode, err) == (0, b"")


def test_a_run_with_a_wrong_backbone_or_folder_is_one_line_and_leaves_nothing(
    tmp_path: Path, write_images: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "images")
    text = (
        "name: x\ndata: {source: %s, image_size: 32}\nfolds: {k: 2}\nbackbones: [{%s: {weights: random}}]\n"
    )
    config = tmp_path / "x.yaml"
    for source, backbone, expected in (
        ("images", "resnt18", "backbone 'resnt18': unknown to timm; did you mean"),
        ("nowhere", "test_resnet", f"{tmp_path / 'nowhere'}: no such folder"),
    ):
        config.write_text(text % (source, backbone))
        assert expected in _fails(["run", str(config), "-o", str(tmp_path / "run")], capsys)
        assert not (tmp_path / "run").exists()
    config.write_text(text.replace("random", "w.safetensors") % ("images", "test_resnet"))
    (tmp_path / "w.safetensors").write_bytes(b"no weights")
    assert "no safetensors file" in _fails(["run", str(config), "-o", str(tmp_path / "run")], capsys)
    (tmp_path / "images" / "ant" / "bad.png").write_bytes(b"no image")
    config.write_text(text % ("images", "test_resnet"))
    assert "bad.png" in _fails(["run", str(config), "-o", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


#: The command, which then prints whom it has tried to connect to.
COUNTED = """
import json, sys
asked = []
sys.addaudithook(lambda event, args: asked.append(args[1]) if event == "socket.connect" else None)
from ensembler.cli import main
code = main(sys.argv[1:])
print(json.dumps(asked))
sys.exit(code)
"""


def test_the_hub_out_of_reach_is_one_line_within_seconds(tmp_path: Path, write_images: Any) -> None:
    """It is asked once, where its own client would come again and again."""
    write_images(tmp_path / "images", n=12)
    (tmp_path / "x.yaml").write_text(
        "name: x\ndata: {source: images, image_size: 32}\nfolds: {k: 2}\nbackbones: [test_resnet]\n"
    )
    clean = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    env = {**clean, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, "run", "x.yaml"],
        capture_output=True, text=True, timeout=400, check=False, cwd=tmp_path, env=env,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "the hub is out of reach (ConnectionRefusedError" in done.stderr
    assert json.loads(done.stdout) == [["127.0.0.1", 9]]
    assert not (tmp_path / "runs" / "x").exists()


def test_weights_that_forbid_commercial_use_have_to_be_accepted(
    tmp_path: Path, write_images: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    write_images(tmp_path / "images", n=12)
    text = (
        "name: x\ndata: {source: images, image_size: 32}\nfolds: {k: 2}\nbackbones: [convnextv2_atto.fcmae]\n"
    )
    config = tmp_path / "x.yaml"
    config.write_text(text)
    error = _fails(["run", str(config), "-o", str(tmp_path / "run")], capsys)
    assert "x.yaml backbones.0: backbone 'convnextv2_atto.fcmae': its weights are under cc-by-nc-4.0" in error
    assert "`accept_licenses: [cc-by-nc-4.0]`" in error
    config.write_text(text + "accept_licenses: [cc-by-nc-4.0]\n")
    assert "the hub is out of reach" in _fails(["run", str(config), "-o", str(tmp_path / "run")], capsys)
    assert not (tmp_path / "run").exists()


def test_costs_are_listed_for_backbones_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "backbones", "test_resnet", "--costs"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert " ".join(header.split()) == "name family M params GFLOP at 224 MB an image top-1 licence"
    assert row.split()[:2] == ["test_resnet", "CNN"]
    assert row.split()[-1] == "apache-2.0"
    assert header.index("licence") == row.index("apache-2.0")
    assert "only backbones have costs" in _fails(["list", "metrics", "--costs"], capsys)
    assert "no backbone matches" in _fails(["list", "backbones", "nothing*", "--costs"], capsys)
