"""How long `ensembler --help` takes, in seconds and as a share of importing torch.

    python benchmarks/startup.py

The bars are 0.3 s and 0.5. Two processes in turn; medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import commit, interleave, ratio, verdict

BAR_S, BAR_SHARE = 0.3, 0.5


def seconds(*command: str) -> float:
    """Wall time of a process."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main(argv: list[str] | None = None) -> None:
    """Prints both shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args(argv)
    program = str(Path(sys.executable).with_name("ensembler"))
    times = interleave(
        {
            "help": lambda: seconds(program, "--help"),
            "torch": lambda: seconds(sys.executable, "-c", "import torch"),
        },
        args.repeats,
    )
    share, low, high = ratio(times, "help", "torch")
    middle = statistics.median(times["help"])
    print(f"commit {commit()}; {args.repeats} processes each, in turn")
    print(f"--help {middle:.2f} s, bar {BAR_S}: {verdict(middle, BAR_S, at_least=False)}")
    print(
        f"over `import torch` {share:.2f} ({low:.2f} to {high:.2f}), bar {BAR_SHARE}: "
        f"{verdict(share, BAR_SHARE, at_least=False)}"
    )


if __name__ == "__main__":
    main()
