"""Small runs with everything the app reads, made without training."""

import html
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from ensembler.comparison import combine, compare, start_bare_run
from ensembler.config import Config
from ensembler.predictions import Predictions
from ensembler.store import RunStore, machine
from ensembler.training.candidate import Candidate, CellJob, CellResult, Epoch
from ensembler.training.recipe import Recipe

CLASSES = ("cat", "a|b*c_d", "<script>alert(1)</script>")
HOSTILE = ("<script>alert(1)</script>", "a|b*c_d", ":smile: $x$ [l](http://h)")
BACKBONES = ("test_resnet", "test_convnext")
K = 3
FINGERPRINT = "0123456789abcdef"

CONFIG = """
name: pets
data: {source: digits, image_size: 32}
folds: {k: 3}
metric: log_loss
backbones:
  - test_resnet: {weights: random}
  - test_convnext: {weights: random}
ensembles: [mean, greedy, stacking]
"""


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path_factory):
    """No run of another test in the cache, and no argument of pytest's taken for a folder of runs."""
    st.cache_data.clear()
    st.cache_resource.clear()
    monkeypatch.setattr(sys, "argv", ["app.py"])
    monkeypatch.setenv("ENSEMBLER_RUNS", str(tmp_path_factory.mktemp("nothing")))


def make_proba(n_members, n_samples=240, n_classes=3, signal=2.0, seed=0):
    """Labels, and members of falling quality that err apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_samples)
    strength = signal * np.linspace(1, 0.6, n_members)[:, None, None]
    logits = strength * np.eye(n_classes)[labels] + rng.normal(size=(n_members, n_samples, n_classes))
    return labels, np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture(scope="session")
def make_bare_run(tmp_path_factory):
    def make(path, members=HOSTILE, classes=CLASSES, seed=0):
        labels, proba = make_proba(len(members), n_classes=len(classes), seed=seed)
        source = tmp_path_factory.mktemp("source") / "oof.npz"
        fold = np.arange(len(labels)) % K
        Predictions.from_arrays(proba, labels, fold, members=members, classes=classes).save(source)
        store = RunStore(path)
        start_bare_run(store, source, "log_loss", [("mean", {}), ("greedy", {}), ("stacking", {})])
        with store.stage("combine"):
            compare(store, combine(store))
        return store

    return make


@pytest.fixture(scope="session")
def make_trained_run():
    def make(path, weights=lambda backbone: {"w": np.zeros(1, np.float32)}):
        store = RunStore(path)
        labels, proba = make_proba(3)
        fold = np.arange(len(labels)) % K
        table = {
            "id": [f"i{i}" for i in range(len(labels))],
            "path": "x.png",
            "label": np.array(CLASSES)[labels],
        }
        table |= {"group": None, "split": "oof", "fold": fold}
        candidates = [
            Candidate(BACKBONES[0], "random", "full"),
            Candidate(BACKBONES[1], "random", "full"),
            Candidate(BACKBONES[0], "random", "full", Recipe(lr=0.5)),
        ]
        config = store.path / "given.yaml"
        store.path.mkdir(parents=True)
        config.write_text(CONFIG)
        store.write_config(Config.load(config).resolved())
        config.unlink()
        store.claim({"fingerprint": FINGERPRINT, "seed": 0})
        store.write_table(pd.DataFrame(table))
        epoch = Epoch(1, 1e-3, 1.0, 1.0, 0.5, 1.0, 1.0, 100.0)
        for i, candidate in enumerate(candidates):
            for f in range(K):
                part = np.asarray(proba[i, fold == f], np.float32)
                arrays = weights(candidate.backbone)
                job = CellJob(candidate, f)
                store.commit_cell(CellResult(job, part, arrays, 1.0, 1.0, 1, (epoch,), 2.0, 100), FINGERPRINT)
        store.update_manifest(
            name="pets",
            metric="log_loss",
            ensembles=[["mean", {}], ["greedy", {}], ["stacking", {}]],
            classes=list(CLASSES),
            k=K,
            images=len(labels),
            test_images=0,
            unreadable=[["broken.jpg", "cannot be decoded"]],
            weights_files={},
            machine=machine(),
            candidates=[c.to_dict() for c in candidates],
            failed=[{"name": "test_vit-full-dead", "reason": "out of memory"}],
            costs={
                c.name: {"latency_ms": 4.0 * (i + 1), "params": 1000 * (i + 1), "train_s": 6.0}
                for i, c in enumerate(candidates)
            },
            details={
                c.name: {"backbone": c.backbone, "strategy": c.strategy, "weights": c.weights, "note": note}
                for c, note in zip(
                    candidates, ("", "", "random weights: the hub is out of reach"), strict=True
                )
            },
        )
        with store.stage("combine"):
            compare(store, combine(store))
        return store

    return make


@pytest.fixture(scope="session")
def templates(make_trained_run, make_bare_run, tmp_path_factory):
    """Made once and copied: a test may do with its copy what it likes."""
    folder = tmp_path_factory.mktemp("templates")
    make_bare_run(folder / "bare")
    make_trained_run(folder / "pets")
    return folder


@pytest.fixture
def trained(templates, tmp_path):
    return RunStore(shutil.copytree(templates / "pets", tmp_path / "runs" / "pets"))


@pytest.fixture
def bare(templates, tmp_path):
    return RunStore(shutil.copytree(templates / "bare", tmp_path / "runs" / "bare"))


def _draw(module, path):
    import importlib

    from ensembler.app.reading import view
    from ensembler.store import RunStore

    importlib.import_module(f"ensembler.app.{module}").page(view(RunStore(path)))


@pytest.fixture
def open_page():
    """One page of one run."""

    def open_(module, store, **query):
        app = AppTest.from_function(_draw, args=(module, str(store.path)), default_timeout=120)
        for key, value in query.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception
        return app

    return open_


@pytest.fixture
def open_app(monkeypatch):
    """The whole app on a folder of runs."""

    def open_(folder, **query):
        monkeypatch.setenv("ENSEMBLER_RUNS", str(folder))
        app = AppTest.from_file("../../app.py", default_timeout=120)
        for key, value in query.items():
            app.query_params[key] = value
        app.run()
        assert not app.exception
        return app

    return open_


@pytest.fixture
def said():
    """All that a page says, as it reaches the reader; HTML and Markdown are not interpreted."""

    def said_(app):
        protos = [e.proto for e in app._tree if getattr(e, "proto", None) is not None]
        strings = (v for p in protos for _, v in p.ListFields() if isinstance(v, str))
        return html.unescape("\n".join(strings))

    return said_
