"""Wall time and memory of the quickstart, each as a share of what is promised.

    python benchmarks/demo.py

Promised: at most 180 s on 2 cores after installation, and at most 6 GB for all its processes together. Memory is the
sum of the proportional set sizes of the whole process tree (a page shared by n processes counts 1/n for each), sampled
twice a second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

LIMIT_S = 180.0
LIMIT_BYTES = 6e9


def tree_bytes(root: psutil.Process) -> int:
    """Proportional set size of a process and all below it, in bytes."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total


def main() -> None:
    """Runs the quickstart in an empty folder with an empty cache, and prints both shares."""
    config = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ensembler", "run", str(config), "-o", f"{folder}/run"]
        began = time.perf_counter()
        process = subprocess.Popen(
            ["env", f"ENSEMBLER_CACHE={folder}/cache", *command],
            stderr=subprocess.DEVNULL,
        )
        watched = psutil.Process(process.pid)
        peak = 0
        while process.poll() is None:
            try:
                peak = max(peak, tree_bytes(watched))
            except psutil.NoSuchProcess:
                break
            time.sleep(0.5)
        seconds = time.perf_counter() - began
        if process.wait() != 0:
            raise SystemExit(f"the quickstart ended with {process.returncode}")
    print(f"wall time  {seconds:6.1f} s   {seconds / LIMIT_S:.2f} of the promised {LIMIT_S:.0f} s")
    print(
        f"memory     {peak / 1e9:6.2f} GB  {peak / LIMIT_BYTES:.2f} of the promised {LIMIT_BYTES / 1e9:.0f} GB"
    )


if __name__ == "__main__":
    main()
