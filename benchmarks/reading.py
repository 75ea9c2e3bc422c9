"""Wall time of a sweep whose run is read by 20 page loads a second, as a share of one that nobody reads.

    python benchmarks/reading.py

Both train the same Cells of scikit-learn's digits on Ray; beside the first, sessions of the app's server load its pages
over the run that is being written. The bar is 1.03, with no fault on any page. By default one core is left to the
readers, so that what is measured is whether reading holds up the writer; `--cpus 1` trains on all of two cores, which
pages and training then share.
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
from page_loads import Readers, serving

BAR = 1.03

CONFIG = """
name: read
data: {{source: digits, image_size: 32}}
folds: {{k: {folds}}}
backbones:
  - test_resnet: {{weights: random}}
  - test_convnext: {{weights: random}}
strategies: [full]
recipe: {{epochs: {epochs}, patience: {epochs}}}
screen: false
search: null
numerics: {{precision: fp32, channels_last: true}}
resources: {{cpus: {cpus}, gpus: 0}}
"""


def main(argv: list[str] | None = None) -> None:
    """Prints both times, the median of their ratios, and how the pages fared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--folds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpus", type=float, default=1.5, help="that Ray reserves for a trial of one thread")
    parser.add_argument("--rate", type=float, default=20, help="page loads a second")
    parser.add_argument("--pages", nargs="+", default=["overview", "live", "leaderboard", "data"])
    args = parser.parse_args(argv)
    loads: list[float] = []
    waits: list[float] = []
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "config.yaml"
        config.write_text(CONFIG.format(epochs=args.epochs, folds=args.folds, cpus=args.cpus))
        environment = {**os.environ, "ENSEMBLER_CACHE": f"{home}/cache", "OMP_NUM_THREADS": "1"}
        runs = iter(range(10_000))

        def sweep(run: Path) -> float:
            command = [sys.executable, "-m", "ensembler", "sweep", str(config), "-o", str(run)]
            began = time.perf_counter()
            subprocess.run(
                command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            return time.perf_counter() - began

        def alone() -> float:
            return sweep(Path(home) / "alone" / f"run{next(runs)}")

        def read() -> float:
            folder = Path(home) / f"read{next(runs)}"
            folder.mkdir()
            with serving(folder) as address, Readers(address, tuple(args.pages), args.rate) as readers:
                seconds = sweep(folder / "run")
            loads.append(len(readers.seconds) / seconds)
            waits.append(statistics.median(readers.seconds))
            faults.extend(readers.faults)
            return seconds

        times = interleave({"alone": alone, "read": read}, args.repeats)
    share, low, high = ratio(times, "read", "alone")
    print(f"commit {commit()}; {2 * args.folds} Cells of {args.epochs} epochs, {args.repeats} rounds in turn")
    print(f"alone {statistics.median(times['alone']):6.1f} s")
    print(
        f"read  {statistics.median(times['read']):6.1f} s, {statistics.median(loads):.1f} loads a second of ",
        end="",
    )
    print(f"{args.rate:g} asked for, each {statistics.median(waits):.2f} s")
    print(f"faults {len(faults)}" + "".join(f"\n  {fault}" for fault in sorted(set(faults))[:10]))
    print(f"ratio {share:.3f} ({low:.3f} to {high:.3f}), bar {BAR}: {verdict(share, BAR, at_least=False)}")
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
