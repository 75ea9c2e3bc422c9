"""A run of two candidates and two ensembles with everything that a run directory may hold, made without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ensembler.comparison import combine, compare
from ensembler.predictions import Predictions
from ensembler.store import RunStore, machine
from ensembler.training.candidate import Candidate, CellJob, CellResult, Epoch
from ensembler.training.recipe import Recipe

N, K = 24, 2
CLASSES = ("cat", "a|b*c_d", "<script>alert(1)</script>")

CONFIG = {
    "name": "pets", "data": {"source": "digits", "image_size": 32}, "folds": {"k": K}, "metric": "log_loss",
    "backbones": [{"test_resnet": {"weights": "random"}}], "ensembles": ["mean", "greedy"],
}  # fmt: skip


def make(path: Path) -> RunStore:
    """Fills a folder that is not there yet; the run is named by it."""
    store, dice = RunStore(path), np.random.default_rng(0)
    labels, fold = np.arange(N) % 3, np.arange(N) // 3 % K
    proba = dice.dirichlet([1, 1, 1], (2, N)) + np.eye(3)[labels]
    proba = np.asarray(proba / proba.sum(-1, keepdims=True), np.float32)
    ids = [f"i{i}.png" for i in range(N)]
    candidates = [
        Candidate("test_resnet", "random", "full"),
        Candidate("test_vit", "random", "full", Recipe(lr=0.5)),
    ]
    store.path.mkdir(parents=True)
    store.write_config(CONFIG)
    store.claim({"fingerprint": "0123456789abcdef", "seed": 0})
    table = {"id": ids, "path": [f"/nowhere/{i}" for i in ids], "label": np.array(CLASSES)[labels]}
    table |= {"group": None, "split": "oof", "fold": fold}
    store.write_table(pd.DataFrame(table))
    epochs = tuple(Epoch(i, 1e-3, 1.0, 1.0, 0.5, 1.0, 1.0, 100.0) for i in (1, 2))
    for i, candidate in enumerate(candidates):
        for f in range(K):
            weights = {"w": np.zeros(1, np.float32)}
            result = CellResult(
                CellJob(candidate, f), proba[i, fold == f], weights, 1.0, 1.0, 1, epochs, 2.0, 100
            )
            store.commit_cell(result, "0123456789abcdef")
    store.update_manifest(
        name="pets", metric="log_loss", ensembles=[["mean", {}], ["greedy", {}]], classes=list(CLASSES), k=K, images=N,
        test_images=0, unreadable=[["broken.jpg", "cannot be decoded"]], weights_files={}, machine=machine(),
        candidates=[c.to_dict() for c in candidates],
        failed=[{"name": "dead", "stage": "search", "reason": "no memory"}],
        costs={c.name: {"latency_ms": 4.0, "params": 1000, "train_s": 6.0} for c in candidates},
        details={c.name: {"backbone": c.backbone, "strategy": c.strategy, "note": ""} for c in candidates},
        saved_ensembles=[["mine", {"combiner": "mean"}]],
    )  # fmt: skip
    for number, candidate in enumerate(candidates):
        store.write_trial(number, _trial(candidate))
    for event in _events(candidates[0]):
        store.event(event.pop("kind"), **event)
    test = Predictions.from_arrays(
        proba[:, :9], labels[:9], members=[c.name for c in candidates], classes=list(CLASSES),
        sample_ids=ids[:9], split="test",
    )  # fmt: skip
    store.write_test(test, np.stack([proba[:, :9]] * K, axis=1))
    with store.stage("combine"):
        compare(store, combine(store))
    return store


def _trial(candidate: Candidate) -> dict[str, object]:
    return {
        "candidate": candidate.to_dict(), "status": "finished", "score": 1.0, "epochs": 2, "seconds": 3.0, "reason": "",
        "history": [{"epoch": 1, "score": 1.0, "train_loss": 1.0, "monitor_loss": 1.0, "monitor_accuracy": 0.5}],
    }  # fmt: skip


def _events(candidate: Candidate) -> list[dict[str, object]]:
    trial = {"stage": "search", "number": 0, "candidate": candidate.name, "fold": 0}
    epoch = {
        "epoch": 1,
        "score": 1.0,
        "train_loss": 1.0,
        "monitor_loss": 1.0,
        "monitor_accuracy": 0.5,
        "pid": 7,
    }
    return [
        {"kind": "stage", "stage": "sweep", "state": "running"},
        {
            "kind": "trial",
            "state": "started",
            "backbone": candidate.backbone,
            "epochs": 2,
            "total": 2,
            **trial,
        },
        {"kind": "epoch", "seconds": 1.0, "images_per_s": 9.0, **trial, **epoch},
        {"kind": "load", "cpu": 50.0, "workers": [{"pid": 7, "cpu": 99.0, "rss_bytes": 1}]},
        {"kind": "trial", "state": "finished", "score": 1.0, **trial},
        {"kind": "stage", "stage": "sweep", "state": "done", "seconds": 1.0},
    ]
