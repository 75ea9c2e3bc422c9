"""A soak: one sweep of thousands of tiny Cells, and whether its driver grows.

    python -m tests.faults.soak HOME [--cells 2000] [--humble] [--report reports/reliability.md]

Every Cell is a real one: a trial of the search that trains an epoch, through Ray, and is committed to the store. The
driver's memory and open files are sampled; a line is fitted to the second half, against the number of Cells.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ensembler.atomic import write_json
from ensembler.events import EventReader
from tests.sections import commit, table, write_section

from .harness import Driver, Home, Session, forget, humble

CONFIG = """
name: soak
data: {source: images/train, image_size: 32}
folds: {k: 2, seed: 0, monitor: 0.2}
backbones: [test_resnet: {weights: random}]
recipe: {epochs: 1, batch_size: 8, flip: false, augment: 0.0, ema: 0.0}
search: {trials: %d, algorithm: random, scheduler: none, space: {lr: {low: 1e-4, high: 1e-2, log: true}}}
keep: 1
ensembles: [mean]
numerics: {precision: fp32, channels_last: true}
"""

#: Growth of the resident memory over as many Cells again that still counts as flat: of what it is anyway.
FLAT = 0.01


@dataclass(frozen=True)
class Growth:
    """A line through samples of the second half.

    Attributes:
        first, last: mean of the first and the last tenth of the half.
        slope: per Cell.
        error: standard error of the slope, from the means of twenty blocks, since neighbours resemble each other.
    """

    first: float
    last: float
    slope: float
    error: float

    @classmethod
    def of(cls, cells: Sequence[float], values: Sequence[float]) -> Growth:
        """Of samples against the number of Cells that were finished then."""
        x, y = np.array(cells, float), np.array(values, float)
        half = x >= x[-1] / 2
        x, y = x[half], y[half]
        blocks = np.array_split(np.arange(len(x)), min(20, len(x)))
        bx = np.array([x[b].mean() for b in blocks])
        by = np.array([y[b].mean() for b in blocks])
        centred = bx - bx.mean()
        slope = float((centred * by).sum() / (centred**2).sum())
        rest = by - by.mean() - slope * centred
        error = float(np.sqrt((rest**2).sum() / max(1, len(bx) - 2) / (centred**2).sum()))
        tenth = max(1, len(y) // 10)
        return cls(float(y[:tenth].mean()), float(y[-tenth:].mean()), slope, error)


def soak(home: Path, cells: int, is_humble: bool = False) -> dict[str, Any]:
    """Runs the sweep and samples its driver; the samples, and the number of Cells on disk."""
    forget(home)
    made = Home.make(home / "home", n=24)
    made.config.write_text(CONFIG % cells)
    driver = Driver(made, home / "run", Session(home / "session"), humble=is_humble)
    process = psutil.Process(driver.process.pid)
    log = EventReader(home / "run" / "events.jsonl")
    done, samples, began = 0, [], time.monotonic()
    while driver.alive:
        done += sum(
            e["kind"] == "trial" and e["state"] == "finished" and e["stage"] == "search" for e in log.read()
        )
        driver.look()
        try:
            sample = [time.monotonic() - began, done, process.memory_info().rss, process.num_fds(),
                      process.num_threads()]  # fmt: skip
        except psutil.Error:
            break
        if 0 < done < cells:
            samples.append(sample)
        time.sleep(0.5)
    code = driver.wait()
    driver.close()
    assert code == 0, driver.said
    stored = len(list((home / "run").glob("cells/*/*/result.json")))
    return {"cells": stored, "commit": commit(), "seconds": time.monotonic() - began, "samples": samples}


def growths(told: dict[str, Any]) -> dict[str, Growth]:
    """Of memory in bytes, open files and threads."""
    columns = list(zip(*told["samples"], strict=True))
    return {
        name: Growth.of(columns[1], columns[2 + i]) for i, name in enumerate(("memory", "files", "threads"))
    }


def is_flat(name: str, growth: Growth, cells: int) -> bool:
    """Whether as many Cells again would change nothing that anybody would notice.

    Open files and threads may not grow by one in that; the memory not by more than `FLAT` of itself.
    """
    grown = growth.slope * cells
    return grown < (FLAT * growth.last if name == "memory" else 1.0)


def describe(told: dict[str, Any]) -> str:
    """The section of the report."""
    rows = []
    for name, growth in growths(told).items():
        scale, unit = (2**20, " MiB") if name == "memory" else (1, "")
        small, per = (2**10, " KiB") if name == "memory" else (1, "")
        rows.append(
            [name, f"{growth.first / scale:.1f}{unit}", f"{growth.last / scale:.1f}{unit}",
             f"{growth.slope / small:.4f} ± {2 * growth.error / small:.4f}{per}",
             "flat" if is_flat(name, growth, told["cells"]) else "grows"]
        )  # fmt: skip
    head = ["of the driver", "at half", "at the end", "slope per Cell (± 2 standard errors)", "verdict"]
    return (
        f"`python -m tests.faults.soak HOME` (`make faults`) at {told['commit']}: one sweep of {told['cells']:,} Cells "
        f"in {told['seconds'] / 60:.0f} minutes on two cores that were shared, {len(told['samples']):,} samples. The "
        "slope is of the second half. Flat is what would grow by less than "
        f"{FLAT:.0%} (memory) or by less than one (files, threads) in as many Cells again.\n\n{table(head, rows)}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 1 if something grows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", type=Path)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument(
        "--humble", action="store_true", help="at the lowest priority, with all that Ray starts"
    )
    parser.add_argument("--report", type=Path, help="a Markdown file whose section is replaced")
    options = parser.parse_args(argv)
    if options.humble:
        humble("self")
    options.home.mkdir(parents=True, exist_ok=True)
    told = soak(options.home.resolve() / "soak", options.cells, options.humble)
    write_json(options.home / "soak.json", told)
    print(describe(told))
    if options.report:
        write_section(options.report, "A soak", describe(told))
    return int(not all(is_flat(name, growth, told["cells"]) for name, growth in growths(told).items()))


if __name__ == "__main__":
    sys.exit(main())
