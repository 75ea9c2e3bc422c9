"""Wall time of a 16-Cell sweep on Ray, as a share of the same Cells in two bare processes.

    python benchmarks/sweep.py

Two backbones on eight folds of scikit-learn's digits, decoded before. Both sides start from nothing and write the same
files: the sweep is `ensembler sweep` with two workers; the bare processes prepare the run by the same code, each by
itself, and train every second Cell each. What is compared is Ray: its start, its own processes, and the wait for the
last Cell. The first seconds do not depend on how long a Cell is, so the ratio falls with `--epochs`: the default makes
Cells of some forty seconds, as long as eight epochs of two thousand photographs take. The bar is 1.08.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from measure import commit, interleave, ratio, verdict

BAR = 1.08
CONFIG = """
name: sweep
data: {{source: digits, image_size: 64}}
folds: {{k: 8}}
backbones: [{{mobilenetv3_small_050: {{weights: random}}}}, {{mobilenetv4_conv_small_035: {{weights: random}}}}]
strategies: [full]
recipe: {{epochs: {epochs}, patience: {epochs}}}
screen: false
search: null
numerics: {{precision: fp32, channels_last: true}}
"""


def train_share(config: Path, run: Path, number: int, of: int) -> None:
    """One bare process: every `of`-th Cell of the config's, from `number` on, without Ray."""
    from ensembler.experiment import Experiment
    from ensembler.training.candidate import CellJob, TrainingData
    from ensembler.training.loop import train_cell
    from ensembler.tuning.arms import make_arms

    experiment = Experiment.from_config(config, run / str(number))
    backbones, store = experiment.preparation.backbones(), experiment.store
    images, folds = experiment.preparation.prepare(backbones)
    data = TrainingData(
        pixels=images.oof,
        labels=images.table.oof.labels,
        classes=images.table.classes,
        folds=tuple((f.train, f.monitor, f.holdout) for f in folds),
        fingerprint=images.table.fingerprint,
        weights_files={},
        features=store.features,
        cells=store,
        unfinished=store.unfinished,
    )
    arms = make_arms(experiment.config, backbones, len(folds[0].train))
    jobs = [CellJob(arm.default, fold) for arm in arms for fold in range(len(folds))]
    for job in jobs[number::of]:
        store.commit_cell(train_cell(job, data), data.fingerprint)


def main(argv: list[str] | None = None) -> None:
    """Prints both times of each round, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=18)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--bare", nargs=4, metavar=("CONFIG", "RUN", "NUMBER", "OF"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.bare:
        config, run, number, of = args.bare
        return train_share(Path(config), Path(run), int(number), int(of))
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "config.yaml"
        config.write_text(CONFIG.format(epochs=args.epochs))
        environment = {**os.environ, "ENSEMBLER_CACHE": f"{home}/cache", "OMP_NUM_THREADS": "1"}
        runs = (Path(home) / f"run{i}" for i in range(10_000))

        def start(*command: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

        def finish(*processes: subprocess.Popen[bytes]) -> None:
            codes = [process.wait() for process in processes]  # of all, also where one has failed
            if any(codes):
                raise SystemExit("a process ended with an error; run its command by hand")

        def sweep() -> float:
            began = time.perf_counter()
            finish(start("-m", "ensembler", "sweep", str(config), "-o", str(next(runs))))
            return time.perf_counter() - began

        def bare() -> float:
            began, run = time.perf_counter(), str(next(runs))
            finish(*(start(__file__, "--bare", str(config), run, str(n), "2") for n in range(2)))
            return time.perf_counter() - began

        times = interleave({"bare": bare, "sweep": sweep}, args.repeats)
    share, low, high = ratio(times, "sweep", "bare")
    print(f"commit {commit()}; 16 Cells of {args.epochs} epochs, {args.repeats} rounds in turn")
    print(f"bare  {statistics.median(times['bare']):6.1f} s")
    print(f"sweep {statistics.median(times['sweep']):6.1f} s")
    print(f"ratio {share:.3f} ({low:.3f} to {high:.3f}), bar {BAR}: {verdict(share, BAR, at_least=False)}")
    return None


if __name__ == "__main__":
    main()
