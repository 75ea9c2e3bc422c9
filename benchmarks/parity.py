"""Whether a bundle of every combiner says what the leaderboard scored, in PyTorch and in ONNX, on a run's test images.

    python benchmarks/parity.py RUN [--rows NAME ...]

Copies a finished run, gives the copy an ensemble of every combiner there is, and exports each with both engines. Each
number is the largest difference of a probability from the answers that the run had stored of its test images and the
leaderboard scored. The bar is 1e-5.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import yaml
from measure import commit, verdict

from ensembler import comparison
from ensembler.bundle import Bundle
from ensembler.bundle.options import ExportOptions
from ensembler.combiners import COMBINERS
from ensembler.combiners.fold_models import combine_folds
from ensembler.experiment import Experiment
from ensembler.store import RunStore

BAR = 1e-5


def with_every_combiner(run: Path, home: Path) -> RunStore:
    """A copy of a run that has an ensemble of every combiner; nothing is trained."""
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"ensembles": list(COMBINERS)}
    shutil.copytree(run, home / "run")
    (home / "every.yaml").write_text(yaml.safe_dump(config))
    Experiment.from_config(home / "every.yaml", home / "run").run()
    return RunStore(home / "run")


def main() -> None:
    """Prints both differences of each row, the farthest last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rows", nargs="*", default=list(COMBINERS), metavar="NAME")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = with_every_combiner(args.run, Path(folder))
        experiment = Experiment.from_run(store.path)
        images = experiment.images().test
        test, by_fold = store.test_predictions(), store.test_by_fold()
        if images is None or test is None or by_fold is None:
            raise SystemExit(f"{args.run}: has no test split; give a run that has one")
        pixels = np.load(images)
        print(f"commit {commit()}; {len(pixels)} test images, {len(test.members)} candidates")
        farthest, edges = 0.0, []
        for name in args.rows:
            began = time.perf_counter()
            bundle = experiment.export(Path(folder) / "bundle", name, ExportOptions(format="both"))
            combiner = comparison.restored_combiner(store, name)
            rows = by_fold[[test.index(member) for member in combiner.members_]]
            combine = partial(combine_folds, combiner, members=combiner.members_, classes=test.classes)
            scored, found = combine(rows), []
            for engine in ("torch", "onnx"):
                loaded = Bundle.load(bundle, engine=engine)
                answers = loaded.predict_pixels(pixels)
                off = np.abs(answers - scored).max(axis=1)
                beyond = off > BAR
                found.append(f"{off.max():.1e}")
                farthest = max(farthest, float(off.max()))
                if beyond.any():
                    said = loaded.fold_probabilities(pixels[beyond])
                    moved = np.abs(said - rows[:, :, beyond]).max()
                    same = np.abs(combine(said) - answers[beyond]).max()
                    edges.append(
                        f"  {name}, {engine}: {beyond.sum()} answers beyond the bar; their fold models differ by "
                        f"{moved:.1e}, of which numpy's combiner makes what the bundle says to {same:.1e}"
                    )
            print(
                f"  {name:20} PyTorch {found[0]}  ONNX {found[1]}  {len(combiner.members_)} members, "
                f"{time.perf_counter() - began:.0f} s",
                flush=True,
            )
            shutil.rmtree(bundle)
    print(*edges, sep="\n")
    print(f"farthest {farthest:.1e}, bar {BAR:g}: {verdict(farthest, BAR, at_least=False)}")


if __name__ == "__main__":
    main()
