"""A cascade beside all of its members, on real photographs: how much faster, and at what loss of accuracy?

    python benchmarks/cascade.py RUN IMAGES [--members WORD ...] [--max-loss 0.001] [--take 256] [--repeats 5]

RUN is a finished run, of which a copy gets the cascade; IMAGES a folder of photographs that it has not trained on.
`--members` takes the candidates whose names hold one of the words. Prints the accuracy out of fold of the mean of all
members and of the cross-fitted cascade, and from one exported bundle images a second of the cascade over those of all
members, in turn, at batch 1 and batch 32; expect 2 or more at no more than 0.1 point of accuracy lost.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from measure import commit, interleave, ratio, verdict

from ensembler import comparison
from ensembler.bundle import Bundle
from ensembler.bundle.images import find_images
from ensembler.data.decode import load_pixels
from ensembler.experiment import Experiment
from ensembler.saving import save_ensemble
from ensembler.store import RunStore

BAR, BAR_LOST = 2.0, 0.001
NAME = "few-members"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("run", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--members", nargs="+", default=[""], metavar="WORD")
    parser.add_argument("--max-loss", type=float, default=0.001)
    parser.add_argument("--take", type=int, default=256, metavar="N", help="photographs")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        shutil.copytree(args.run, run)
        store = RunStore(run)
        members = [m for m in store.predictions().members if any(word in m for word in args.members)]
        costs = {name: store.manifest()["costs"][name]["latency_ms"] for name in members}
        base = {"max_loss": args.max_loss, "costs": costs}
        saved = {"combiner": "subset", "members": members, "base": "cascade", "base_params": base}
        save_ensemble(store, NAME, saved)
        rows = {row["name"]: row for row in comparison.read_leaderboard(store).to_records()}
        chosen = store.predictions().select(members)
        everything = float((chosen.proba.mean(axis=0).argmax(axis=1) == chosen.labels).mean())
        lost = everything - rows[NAME]["accuracy"]
        print(f"commit {commit()}; {len(members)} members, {len(chosen.labels)} rows out of fold")
        print(
            f"accuracy {everything:.4f} of all, {rows[NAME]['accuracy']:.4f} of the cascade: {100 * lost:.2f} points "
            f"lost, bar {100 * BAR_LOST:g}: {verdict(lost, BAR_LOST, at_least=False)}"
        )
        bundle = Bundle.load(Experiment.from_run(run).export(Path(folder) / "bundle", NAME))
        every = sorted(find_images([args.images]))
        shown = [every[i] for i in np.random.default_rng(0).permutation(len(every))[: args.take]]
        pixels = np.stack([load_pixels(file, bundle.image_size) for file in shown])
        for batch in (1, 32):
            report(bundle, pixels[: args.take if batch > 1 else max(1, args.take // 4)], batch, args.repeats)


def report(bundle: Bundle, pixels: np.ndarray, batch: int, repeats: int) -> None:
    """Prints the ratio at one batch size."""

    def timed(answer: Callable[[np.ndarray], object]) -> float:
        began = time.perf_counter()
        for start in range(0, len(pixels), batch):
            answer(pixels[start : start + batch])
        return (time.perf_counter() - began) / len(pixels)

    times = interleave(
        {"cascade": lambda: timed(bundle.predict_pixels), "all": lambda: timed(bundle.answer)}, repeats
    )
    faster, low, high = ratio(times, "all", "cascade")
    print(
        f"batch {batch}: {1000 * min(times['cascade']):.2f} ms an image, all {1000 * min(times['all']):.2f} ms: "
        f"{faster:.2f} ({low:.2f} to {high:.2f}) times as fast, bar {BAR:g}: {verdict(faster, BAR, at_least=True)}"
    )


if __name__ == "__main__":
    main()
