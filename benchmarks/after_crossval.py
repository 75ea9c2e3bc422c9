"""What follows cross-validation, and what it costs: soups, boosted candidates, fold collapse, on photographs.

    python benchmarks/after_crossval.py ../shared/data/clothing \\
        --weights ../shared/weights/mobilenetv3_small_050.safetensors

One backbone, `--keep` recipes, 5 folds; a soup of them and a boosted candidate, then every way to collapse the folds of
what is deployed. Prints each row out of fold and on the test split, what the mean ensemble gains by each kind of row,
seconds of each kind of training, and the collapse.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from measure import commit


def run(
    images: Path, weights: Path, run_dir: Path, keep: int, epochs: int, rounds: int, scratch: Path
) -> None:
    """A whole run, progress on standard error."""
    config = scratch / "config.yaml"
    config.write_text(
        "\n".join(
            [
                "name: after",
                f"data: {{source: {images / 'train'}, test: {images / 'validation'}, image_size: 96}}",
                f"backbones: [{{{weights.stem}: {{weights: {weights}}}}}]",
                "screen: false",
                f"search: {{trials: {keep}, epochs: {epochs}, algorithm: random, scheduler: none}}",
                f"keep: {keep}",
                f"boosted: {{rounds: {rounds}}}",
                "soups: true",
                "collapse: [folds, refit, soup, distill]",
                "ensembles: [mean, greedy]",
            ]
        )
    )
    command = [sys.executable, "-m", "ensembler", "run", str(config), "-o", str(run_dir)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ))


def show(run_dir: Path) -> None:
    """Everything that the run found."""
    from ensembler.collapsed import collapse_table
    from ensembler.comparison import read_leaderboard
    from ensembler.metrics import get_metric
    from ensembler.store import RunStore

    store = RunStore(run_dir)
    candidates = {c.name: c for c in store.candidates()}
    print("| row | out of fold | accuracy | test | train s | note |\n|---|---|---|---|---|---|")
    for row in read_leaderboard(store).to_records():
        cells: list[Any] = [f"{row[key]:.4f}" for key in ("cv", "accuracy", "test")]
        print("|", " | ".join([row["name"], *cells, f"{row['train_s']:.0f}", row["note"] or ""]), "|")
    oof, test = store.predictions(), store.test_predictions()
    assert test is not None
    loss = get_metric("log_loss")
    print("\n| mean of | out of fold | test |\n|---|---|---|")
    for title, kinds in (
        ("trained", ("trained",)),
        ("trained, boosted", ("trained", "boosted")),
        ("trained, soup", ("trained", "soup")),
        ("all", ("trained", "boosted", "soup")),
    ):
        names = [name for name, candidate in candidates.items() if candidate.kind in kinds]
        scores = [loss(p.labels, np.mean([p.proba[p.index(name)] for name in names], 0)) for p in (oof, test)]
        print(f"| {title} ({len(names)}) | {scores[0]:.4f} | {scores[1]:.4f} |")
    print(f"\n{collapse_table(store.collapse()['rows'])}")


def main(argv: list[str] | None = None) -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=Path, help="a folder with class folders in train and in validation")
    parser.add_argument("--weights", type=Path, required=True, help="named after its architecture")
    parser.add_argument("--keep", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("-o", "--run", type=Path, help="keeps the run; an unfinished one is gone on with")
    args = parser.parse_args(argv)
    print(f"commit {commit()}; {args.weights.stem}, {args.keep} recipes, {args.epochs} epochs\n")
    with tempfile.TemporaryDirectory() as scratch:
        run_dir = args.run or Path(scratch) / "run"
        images, weights = args.images.resolve(), args.weights.resolve()
        run(images, weights, run_dir, args.keep, args.epochs, args.rounds, Path(scratch))
        show(run_dir)


if __name__ == "__main__":
    main()
