"""The graph of a bundle beside its members in PyTorch, and how long a fresh process takes to its first answer.

    python benchmarks/runtime.py [BUNDLE] [--backbones NAMES] [--folds K] [--size 96] [--repeats 9]

BUNDLE was exported with `--format both`. Without one, five backbones with random weights are exported into a temporary
folder, `--folds` models each: speed does not depend on what they have learned. Prints

- images a second of the graph over those of the members one after another in eager PyTorch (channels_last, as they are
  scored), at batch 1 and at batch 32; expect the median of their ratios at 3 or more, and at 1.2 or more. They take
  turns in two processes, since the threads of the one would wait for work on the cores of the other;
- seconds from the first import to the first answer in a fresh process; expect 1 or less for five small members.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from measure import commit, interleave, ratio, verdict

from ensembler.bundle import Bundle

BACKBONES = (
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "resnet10t",
    "edgenext_xx_small",
    "convnext_atto",
)
BARS = {1: 3.0, 32: 1.2}
BAR_LOAD_S = 1.0
CLASSES = tuple(f"class {i}" for i in range(10))

#: What a fresh process does; prints the seconds since its first import.
FIRST_ANSWER = """
import time
began = time.perf_counter()
import sys
from ensembler.bundle import Bundle
import numpy as np
bundle = Bundle.load(sys.argv[1])
bundle.predict_pixels(np.zeros((1, bundle.image_size, bundle.image_size, 3), np.uint8))
print(time.perf_counter() - began)
"""


def main(argv: list[str] | None = None) -> None:
    """Prints the ratios and the seconds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("bundle", nargs="?", type=Path, help="exported with --format both")
    parser.add_argument("--backbones", default=",".join(BACKBONES))
    parser.add_argument("--folds", type=int, default=1)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--side", choices=("onnx", "torch"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.side:
        return take_turns(Bundle.load(args.bundle, engine=args.side))
    with tempfile.TemporaryDirectory() as folder:
        bundle = args.bundle or write(Path(folder), args.backbones.split(","), args.folds, args.size)
        report(bundle, args.repeats)
    return None


def report(path: Path, repeats: int) -> None:
    """Measures one bundle."""
    graph = Bundle.load(path, engine="onnx")
    models = len(graph.members) * graph.index["graph"]["folds"]
    print(
        f"commit {commit()}; {len(graph.members)} members, {models} networks, {os.cpu_count()} CPUs, {repeats} rounds"
    )
    sides = {name: Side(path, engine) for name, engine in (("graph", "onnx"), ("torch", "torch"))}
    for batch, bar in BARS.items():
        times = interleave({name: partial(side.seconds, batch) for name, side in sides.items()}, repeats)
        faster, low, high = ratio(times, "torch", "graph")
        ours, theirs = (1000 * statistics.median(times[way]) for way in ("graph", "torch"))
        print(
            f"batch {batch}: graph {ours:.1f} ms, PyTorch {theirs:.1f} ms: {faster:.2f} ({low:.2f} to {high:.2f}) "
            f"times as fast, bar {bar}: {verdict(faster, bar, at_least=True)}"
        )
    for side in sides.values():
        side.close()
    loads = [first_answer(path) for _ in range(repeats + 1)][1:]
    middle = statistics.median(loads)
    print(
        f"first answer of a fresh process {middle:.2f} s ({min(loads):.2f} to {max(loads):.2f}), bar {BAR_LOAD_S}: "
        f"{verdict(middle, BAR_LOAD_S, at_least=False)}"
    )


class Side:
    """A process that holds the bundle in one form and waits for its turn."""

    def __init__(self, path: Path, engine: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(path), "--side", engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, batch: int) -> float:
        """Of a batch."""
        assert self._process.stdin
        assert self._process.stdout
        print(batch, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """Lets it go."""
        self._process.communicate()


def take_turns(bundle: Bundle) -> None:
    """Answers each batch size on a line of standard input with the seconds of such a batch."""
    for line in sys.stdin:
        batch = int(line)
        rng = np.random.default_rng(batch)
        pixels = rng.integers(0, 256, (batch, bundle.image_size, bundle.image_size, 3), np.uint8)
        bundle.predict_pixels(pixels)
        calls = max(2, 64 // batch)
        began = time.perf_counter()
        for _ in range(calls):
            bundle.predict_pixels(pixels)
        print((time.perf_counter() - began) / calls, flush=True)


def first_answer(path: Path) -> float:
    """Seconds from the first import of a fresh process to its first answer."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_ANSWER, str(path)], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def write(folder: Path, backbones: list[str], folds: int, size: int) -> Path:
    """A bundle of untrained networks, both as a graph and for PyTorch, averaged."""
    from safetensors.numpy import save_file

    from ensembler.bundle.export import MemberSource, write_bundle
    from ensembler.bundle.graph.check import Sample
    from ensembler.bundle.member import FoldWeights, Member
    from ensembler.bundle.options import ExportOptions
    from ensembler.combiners import make_combiner
    from ensembler.predictions import Predictions
    from ensembler.training.backbone import create, to_arrays

    sources = []
    for name in backbones:
        weights, files = [], []
        for fold in range(folds):
            arrays = to_arrays(create(name, len(CLASSES), image_size=size).state_dict())
            files.append((folder / f"{name}-{fold}.safetensors", 1.0))
            save_file(arrays, files[-1][0])
            weights.append(FoldWeights(arrays, 1.0))
        sources.append(MemberSource(name, name, "random", "", Member(name, CLASSES, size, weights), files))
    rng = np.random.default_rng(0)
    proba = rng.dirichlet(np.ones(len(CLASSES)), (len(backbones), 40)).astype(np.float32)
    rows = Predictions.from_arrays(
        proba, np.arange(40) % 10, members=backbones, classes=CLASSES, fold=np.arange(40) % 2
    )
    pixels = rng.integers(0, 256, (8, size, size, 3), np.uint8)
    row = {"name": "mean", "metric": "log_loss", "cv": 0.0, "cv_low": None, "cv_high": None, "accuracy": 0.0,
           "log_loss": 0.0, "ece": None}  # fmt: skip
    return write_bundle(
        folder / "bundle",
        experiment="benchmark",
        row=row,
        verdict="untrained",
        classes=CLASSES,
        image_size=size,
        members=sources,
        combiner=make_combiner("mean").fit(rows),
        data={"images": 0, "test_images": 0, "fingerprint": "none", "image_size": size, "k": folds},
        versions={},
        sample=lambda: Sample(pixels, np.zeros(8, np.int64), np.zeros(8, np.int64), honest=False),
        options=ExportOptions(format="both"),
    )


if __name__ == "__main__":
    main()
