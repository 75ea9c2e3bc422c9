"""A cross-validated sweep against the loop that a user would write, both cold: how many times faster?

    python benchmarks/plain_loop.py ../shared/data/clothing/train --weights ../shared/weights

The loop: one Cell after another; `ImageFolder`, torchvision's transforms, a `DataLoader` with two workers, the same
timm model, batch and epochs, AdamW, the fold's images scored after each epoch. The sweep: the same backbones, folds
and epochs with an empty cache. Both start their own process and pay for every import. The bar is 3.

`--take N` takes the first N / classes images of each class, which makes start-up weigh more than it would.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import commit, verdict

BACKBONES = ("mobilenetv3_small_050", "resnet10t", "mobilenetv4_conv_small_035")
BAR = 3.0
SIZE, BATCH, FOLDS = 96, 64, 5


def plain(folder: Path, backbones: list[str], weights: Path | None, epochs: int) -> None:
    """The loop, as it is usually written."""
    import timm
    import torch
    from sklearn.model_selection import StratifiedKFold
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    tail = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    train_set = ImageFolder(
        folder,
        transforms.Compose(
            [transforms.RandomResizedCrop(SIZE, (0.5, 1)), transforms.RandomHorizontalFlip(), *tail]
        ),
    )
    test_set = ImageFolder(folder, transforms.Compose([transforms.Resize((SIZE, SIZE)), *tail]))
    folds = list(
        StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(train_set.targets, train_set.targets)
    )
    for name in backbones:
        for train, holdout in folds:
            options: dict[str, Any] = {"num_classes": len(train_set.classes)}
            if weights is not None:
                overlay = {"file": str(weights / f"{name}.safetensors")}
                options |= {"pretrained": True, "pretrained_cfg_overlay": overlay}
            model = timm.create_model(name, **options)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
            batches = DataLoader(
                Subset(train_set, train.tolist()), BATCH, shuffle=True, drop_last=True, num_workers=2
            )
            tests = DataLoader(Subset(test_set, holdout.tolist()), BATCH, num_workers=2)
            for _ in range(epochs):
                model.train()
                for images, labels in batches:
                    optimizer.zero_grad()
                    loss = torch.nn.functional.cross_entropy(model(images), labels)
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                model.eval()
                with torch.no_grad():
                    torch.cat([model(images).softmax(1) for images, _ in tests])


def sweep(folder: Path, backbones: list[str], weights: Path | None, epochs: int, scratch: Path) -> list[str]:
    """The command of the same Cells as a sweep."""
    where = {name: str(weights / f"{name}.safetensors") if weights else "random" for name in backbones}
    lines = [f"  - {name}: {{weights: {file}}}" for name, file in where.items()]
    config = scratch / "config.yaml"
    config.write_text(
        "\n".join(
            [
                "name: plain",
                f"data: {{source: {folder}, image_size: {SIZE}}}",
                f"folds: {{k: {FOLDS}}}",
                "backbones:",
                *lines,
                "strategies: [full]",
                "screen: false",
                "search: null",
                f"recipe: {{epochs: {epochs}, batch_size: {BATCH}}}",
            ]
        )
    )
    return [sys.executable, "-m", "ensembler", "sweep", str(config), "-o", str(scratch / "run")]


def subset(folder: Path, n: int, target: Path) -> Path:
    """The first images of each class, copied."""
    classes = sorted(p for p in folder.iterdir() if p.is_dir())
    for one in classes:
        (target / one.name).mkdir(parents=True)
        for file in sorted(one.iterdir())[: n // len(classes)]:
            shutil.copy(file, target / one.name)
    return target


def seconds(command: list[str], scratch: Path) -> float:
    """Wall time of a command with an empty cache."""
    began = time.perf_counter()
    environment = {**os.environ, "ENSEMBLER_CACHE": str(scratch / "cache")}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    """Prints each pair as it is measured, then the median of the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="class folders")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--take", type=int, metavar="N", help="images, of all classes together")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    weights = args.weights.resolve() if args.weights else None
    if args.plain:
        return plain(args.images, args.backbones, weights, args.epochs)
    ratios = []
    with tempfile.TemporaryDirectory() as home:
        folder = subset(args.images, args.take, Path(home) / "images") if args.take else args.images.resolve()
        print(f"commit {commit()}; {len(args.backbones)} backbones x {FOLDS} folds x {args.epochs} epochs")
        for number in range(args.repeats):
            scratch = Path(home) / str(number)
            scratch.mkdir()
            loop = [sys.executable, __file__, str(folder), "--plain", "--epochs", str(args.epochs)]
            loop += ["--backbones", *args.backbones, *(["--weights", str(weights)] if weights else [])]
            slow = seconds(loop, scratch)
            fast = seconds(sweep(folder, args.backbones, weights, args.epochs, scratch), scratch)
            ratios.append(slow / fast)
            print(f"loop {slow:6.1f} s  sweep {fast:6.1f} s  {slow / fast:.2f} x", flush=True)
    middle = statistics.median(ratios)
    print(f"median {middle:.2f} x, bar {BAR:.0f}: {verdict(middle, BAR, at_least=True)}")
    return None


if __name__ == "__main__":
    main()
