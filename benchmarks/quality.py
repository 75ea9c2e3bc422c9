"""A whole run under a budget against the best that a bare loop makes of the same minutes, on images that neither saw.

    python benchmarks/quality.py ../shared/data/clothing --weights ../shared/weights --minutes 7

The run: `ensembler run` with `budget` set, three backbones, `train` as its images and `validation` as its test split.
The loop: one backbone on all the training images in memory, batches warped by one affine map, a head rate of 2e-2 and
a body rate of 2e-3 on a one-cycle schedule, predictions averaged over mirror images, both cores, as many epochs as
the minutes hold, but no more than `--most-epochs`: beyond 30 it only overfits. `--autogluon PYTHON` adds AutoGluon
MultiModal in the same time, by an interpreter that has it.

Lower log loss on the validation images wins.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from measure import commit
from numpy.typing import NDArray

BACKBONES = ("mobilenetv3_small_050", "resnet10t", "mobilenetv4_conv_small_035")
SIZE, BATCH = 96, 64

AUTOGLUON = """
import json, sys
import pandas as pd
from pathlib import Path
from autogluon.multimodal import MultiModalPredictor
home, seconds, backbone = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def frame(part):
    files = sorted((home / part).glob("*/*"))
    return pd.DataFrame({"image": map(str, files), "label": [f.parent.name for f in files]})
predictor = MultiModalPredictor(label="label", verbosity=0)
predictor.fit(frame("train"), time_limit=seconds, hyperparameters={
    "model.timm_image.checkpoint_name": backbone, "optim.lr": 1e-3, "optim.lr_choice": ""})
print(json.dumps(predictor.evaluate(frame("validation"), metrics=["accuracy", "log_loss"])))
"""


def scores(labels: NDArray[np.int64], proba: NDArray[np.float32]) -> dict[str, float]:
    """Accuracy and log loss."""
    from ensembler.metrics import get_metric

    return {name: get_metric(name)(labels, proba) for name in ("log_loss", "accuracy")}


def our_run(home: Path, weights: Path, minutes: float, scratch: Path) -> dict[str, float]:
    """The row that the verdict recommends, on the test split, and the wall time."""
    lines = [f"  - {name}: {{weights: {weights / name}.safetensors}}" for name in BACKBONES]
    config = scratch / "config.yaml"
    config.write_text(
        "\n".join(
            [
                "name: quality",
                f"data: {{source: {home / 'train'}, test: {home / 'validation'}, image_size: {SIZE}}}",
                "backbones:",
                *lines,
                f"budget: {minutes * 60:.0f}s",
            ]
        )
    )
    run = scratch / "run"
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "ensembler", "run", str(config), "-o", str(run)],
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "ENSEMBLER_CACHE": str(scratch / "cache")},
    )
    seconds = time.perf_counter() - began
    from ensembler.comparison import read_leaderboard
    from ensembler.store import RunStore

    store = RunStore(run)
    board = read_leaderboard(store)
    rows = {row["name"]: row for row in board.to_records()}
    print(json.dumps([{k: r[k] for k in ("name", "cv", "test")} for r in rows.values()]), file=sys.stderr)
    return {"log_loss": rows[board.verdict.winner]["test"], "seconds": seconds}


def load(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, SIZE, SIZE, 3) and labels of class folders."""
    from PIL import Image

    pixels, labels = [], []
    for number, one in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for file in sorted(one.iterdir()):
            with Image.open(file) as image:
                pixels.append(
                    np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
                )
            labels.append(number)
    return np.stack(pixels), np.array(labels)


def bare_loop(home: Path, weights: Path, minutes: float, most_epochs: int) -> dict[str, float]:
    """One backbone, every training image, every second."""
    import timm
    import torch
    from torch.nn import functional as F

    began = time.perf_counter()
    torch.manual_seed(0)
    name = BACKBONES[0]
    (pixels, labels), (test, test_labels) = load(home / "train"), load(home / "validation")
    model: Any = timm.create_model(
        name,
        num_classes=int(labels.max()) + 1,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(weights / f"{name}.safetensors")},
    )
    model = model.to(memory_format=torch.channels_last).train()
    head = {id(p) for p in model.get_classifier().parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in head], "lr": 2e-3},
        {"params": [p for p in model.parameters() if id(p) in head], "lr": 2e-2},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    steps = len(pixels) // BATCH

    def plain(rows: NDArray[Any]) -> torch.Tensor:
        images = (torch.from_numpy(rows).float() / 255 - mean) / std
        return images.permute(0, 3, 1, 2)

    def warped(rows: NDArray[Any]) -> torch.Tensor:
        n = len(rows)
        angle, zoom = (torch.rand(n) - 0.5) * 0.4, 0.75 + 0.3 * torch.rand(n)
        flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
        shift = (torch.rand(n, 2) - 0.5) * 0.2
        rows_x = torch.stack([angle.cos() * zoom * flip, -angle.sin() * zoom, shift[:, 0]], 1)
        rows_y = torch.stack([angle.sin() * zoom * flip, angle.cos() * zoom, shift[:, 1]], 1)
        grid = F.affine_grid(torch.stack([rows_x, rows_y], 1), [n, 3, SIZE, SIZE], align_corners=False)
        return F.grid_sample(plain(rows), grid, padding_mode="border", align_corners=False)

    def epoch(schedule: Any) -> None:
        order = np.random.default_rng().permutation(len(pixels))
        for step in range(steps):
            rows = order[step * BATCH : (step + 1) * BATCH]
            images = warped(pixels[rows]).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(images), torch.from_numpy(labels[rows]), label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule is not None:
                schedule.step()

    state = {key: value.clone() for key, value in model.state_dict().items()}
    trial_began = time.perf_counter()
    epoch(None)  # how long one takes; its weights are thrown away, its time is counted
    epoch_s = time.perf_counter() - trial_began
    model.load_state_dict(state)
    optimizer.state.clear()
    epochs = max(1, min(most_epochs, int((began + 60 * minutes - time.perf_counter() - 5) / epoch_s)))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, [2e-3, 2e-2], total_steps=epochs * steps)
    for _ in range(epochs):
        epoch(schedule)
    model.eval()
    with torch.inference_mode():
        images = [plain(test[i : i + BATCH]) for i in range(0, len(test), BATCH)]
        proba = torch.cat([(model(x).softmax(1) + model(x.flip(3)).softmax(1)) / 2 for x in images])
    return {
        **scores(test_labels, proba.numpy()),
        "epochs": epochs,
        "seconds": time.perf_counter() - began,
    }


def main(argv: list[str] | None = None) -> None:
    """Prints a line each, and the difference."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder with class folders in train and in validation")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--autogluon", metavar="PYTHON")
    parser.add_argument("--most-epochs", type=int, default=30, help="of the loop")
    parser.add_argument("--only", choices=("run", "loop"), help="one of the two")
    args = parser.parse_args(argv)
    home, weights = args.images.resolve(), args.weights.resolve()
    print(f"commit {commit()}; {args.minutes:g} minutes each")
    found: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        if args.only != "loop":
            found["ensembler"] = our_run(home, weights, args.minutes, Path(scratch))
        if args.only != "run":
            found["bare loop"] = bare_loop(home, weights, args.minutes, args.most_epochs)
        if args.autogluon:
            command = [args.autogluon, "-c", AUTOGLUON, str(home), str(int(60 * args.minutes)), BACKBONES[0]]
            answer = subprocess.run(command, check=True, capture_output=True, text=True, cwd=scratch)
            found["AutoGluon"] = json.loads(answer.stdout.splitlines()[-1])
    for name, values in found.items():
        print(f"{name:10}", "  ".join(f"{key} {value:.4g}" for key, value in values.items()), flush=True)
    if {"ensembler", "bare loop"} <= found.keys():
        lower = found["bare loop"]["log_loss"] - found["ensembler"]["log_loss"]
        print(f"the run's log loss is lower by {lower:+.4f}: {'ok' if lower > 0 else 'short of the bar'}")


if __name__ == "__main__":
    main()
