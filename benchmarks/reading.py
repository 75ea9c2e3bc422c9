"""Does reading a run hold up the sweep that writes it?

    python benchmarks/reading.py

The same Cells of scikit-learn's digits are trained on Ray in three ways, in turn: alone; while sessions of the app's
server load pages over a finished copy of such a run, 20 loads a second; and while they load those of the very run that
is being written. The second and the third ask for the same processor time, so their ratio is what reading does to the
writer; the bar is 1.03, with no fault on any page. The third over the first is what the machine's owner pays, where
pages and training share its cores. By default one core is left to the readers; `--cpus 1` trains on both of two.
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
    """Prints the times, the medians of their ratios, and how the pages fared."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--folds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cpus", type=float, default=1.5, help="that Ray reserves for a trial of one thread")
    parser.add_argument("--rate", type=float, default=20, help="page loads a second")
    parser.add_argument("--pages", nargs="+", default=["overview", "live", "leaderboard", "data"])
    args = parser.parse_args(argv)
    loads: dict[str, list[float]] = {"other": [], "read": []}
    waits: dict[str, list[float]] = {"other": [], "read": []}
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

        def beside(folder: Path, run: Path, way: str) -> float:
            with serving(folder) as address, Readers(address, tuple(args.pages), args.rate) as readers:
                seconds = sweep(run)
            loads[way].append(len(readers.seconds) / seconds)
            waits[way].append(statistics.median(readers.seconds))
            faults.extend(readers.faults)
            return seconds

        def read() -> float:
            folder = Path(home) / f"read{next(runs)}"
            folder.mkdir()
            return beside(folder, folder / "run", "read")

        def other() -> float:
            return beside(finished, Path(home) / "other" / f"run{next(runs)}", "other")

        finished = Path(home) / "finished"
        sweep(finished / "run")
        times = interleave({"alone": alone, "other": other, "read": read}, args.repeats)
    print(f"commit {commit()}; {2 * args.folds} Cells of {args.epochs} epochs, {args.repeats} rounds in turn")
    print(f"alone {statistics.median(times['alone']):6.1f} s")
    for way, name in (("other", "while another run is read"), ("read", "while this one is")):
        print(
            f"{name} {statistics.median(times[way]):6.1f} s, {statistics.median(loads[way]):.1f} loads a second of "
            f"{args.rate:g} asked for, each {statistics.median(waits[way]):.2f} s"
        )
    print(f"faults {len(faults)}" + "".join(f"\n  {fault}" for fault in sorted(set(faults))[:10]))
    share, low, high = ratio(times, "read", "other")
    print(
        f"this over another {share:.3f} ({low:.3f} to {high:.3f}), bar {BAR}: {verdict(share, BAR, at_least=False)}"
    )
    share, low, high = ratio(times, "read", "alone")
    print(f"this over none {share:.3f} ({low:.3f} to {high:.3f}), on {os.cpu_count()} cores for both")
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
