"""Every operation on the files of a small run fails, one after another, with each errno, once and for good.

    python -m tests.faults.filesystem LINES [--sample 100] [--seed 0]       # goes on where it was left
    python -m tests.faults.filesystem LINES --kinds list,rename             # of these alone, counted by themselves
    python -m tests.faults.filesystem LINES --report reports/reliability.md

A run is filled by verbs of the command line, one step after another (`small_run.py`). Each step begins with the run as
the steps before it have left it, and goes through quietly first; then again for every n with the n-th operation
failing. After each of these:

- the command has ended with exit 2 and one line that names path, cause and way out; or with 0 where nothing was lost;
- every file that is there is one that stood there before, or one that the quiet pass wrote, to the byte;
- the store can be read: Cells and ensembles whole or absent, every line of the log but the last;
- the same command, once the cause is gone, leaves what the quiet pass left, to the byte.

Each case is a line of JSON. They come in an order drawn from the seed, so that the first of them are a fair sample.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import errno
import functools
import io
import json
import operator
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests import sections

from . import filesystem_report
from .on_disk import SCRATCH, Seen, Tree, tree, unreadable
from .shim import EVERYTHING, KINDS, Kind, Shim, build, environment
from .small_run import STEPS, Step, stand_in, verb, write_experiment

CODES = (errno.ENOSPC, errno.EIO, errno.EPERM)


@dataclasses.dataclass
class Result:
    """One operation failed: which, what came of it, and what promises were broken."""

    step: str
    at: int
    code: str
    for_good: bool
    kind: str
    path: str
    exit: int
    message: str
    broken: list[str]


class Campaign:
    """The steps over one folder.

    Args:
        home: new and empty.
        kinds: of operations that may fail, where the errno befalls them.
    """

    def __init__(self, home: Path, kinds: Kind = EVERYTHING) -> None:
        self.home = home
        self.kinds = kinds
        self.run = home / "run"
        self.shim = Shim()
        self.counts: dict[tuple[str, Kind], int] = {}
        self.after: dict[str, Tree] = {}
        self.seen: dict[str, Seen] = {}

    def prepare(self) -> None:
        """The quiet pass: what each step leaves, and what it puts into place on its way."""
        write_experiment(self.home)
        stand_in()
        os.environ["ENSEMBLER_CACHE"] = str(self.home / "cache")
        for step in STEPS:
            self._begin(step)
            seen = Seen(self.run)
            if self.run.exists():
                seen.note(self.run)
            with seen.watching():
                code, said = self._call(step)
            assert code == 0, f"{step.name}: {said}"
            self.seen[step.name], self.after[step.name] = seen, tree(self.run)
            shutil.copytree(self.run, self._kept(step.name))
            self._begin(step)
            self._call(step)
            assert tree(self.run) == self.after[step.name], f"{step.name} is not deterministic"

    def count(self, step: Step, code: int) -> int:
        """How many operations of a quiet pass an errno may befall."""
        kinds = KINDS[code] & self.kinds
        if (step.name, kinds) not in self.counts:
            self._begin(step)
            self.shim.arm(self.run, kinds, 0, 0, False)
            self._call(step)
            self.counts[step.name, kinds] = self.shim.seen
            self.shim.disarm()
        return self.counts[step.name, kinds]

    def case(self, step: Step, at: int, code: int, for_good: bool) -> Result:
        """Fails one operation of a step, looks at what is left, and runs the step again."""
        self._begin(step)
        self.shim.arm(self.run, KINDS[code] & self.kinds, at, code, for_good)
        exit_code, said = self._call(step)
        failed, (kind, path) = self.shim.failed, self.shim.first
        self.shim.disarm()
        message = next((x for x in reversed(said.splitlines()) if x.startswith("error: ")), "")
        broken = [] if failed else ["the operation was not met"]
        broken += self._told(exit_code, message, said, path, code, kind, for_good)
        broken += self._whole(step)
        again, said = self._call(step)
        if again == 2 and any(done in said for done in step.done):
            again, said = self._call(dataclasses.replace(step, call=verb("combine", "{run}")))
        if again != 0:
            broken.append(f"does not go on: {said[-300:]}")
        else:
            broken += _differences("after going on", tree(self.run), self.after[step.name])
            left = [p.name for p in self.run.rglob(f"{SCRATCH}*")]
            if left and step.name not in ("leaderboard", "export"):  # which take no lock
                broken.append(f"scratch is left: {left[:3]}")
        place = re.sub(r"[0-9a-f]{32}", "*", os.path.relpath(path, self.run)) if path else ""
        return Result(step.name, at, errno.errorcode[code], for_good, kind, place, exit_code, message, broken)

    def _told(
        self, exit_code: int, message: str, said: str, path: str, code: int, kind: str, for_good: bool
    ) -> list[str]:
        if exit_code == 0:
            return []
        if exit_code != 2 or not message:
            return [f"exit {exit_code}: {said[-1500:]}"]
        broken = []
        named = re.findall(re.escape(str(self.run)) + r"[^\s:;,)']*", message)
        meant = Path(re.sub(re.escape(SCRATCH) + r"(old-)?[0-9a-f]{32}-", "", path))
        # What cannot be cleaned up or tried out is in nobody's way: what is told is what came after it.
        leftover = re.search(re.escape(SCRATCH) + r"|/unfinished/|/\.driver\.json$", path)
        cleaning = leftover and (kind == "remove" or (kind in ("read", "list") and for_good))
        if not cleaning and not any(meant.is_relative_to(n) or Path(n).is_relative_to(meant) for n in named):
            broken.append(f"the message names another path than {meant}: {message}")
        if os.strerror(code) not in message:
            broken.append(f"the message does not tell the cause: {message}")
        if ";" not in message.rsplit(os.strerror(code), maxsplit=1)[-1]:
            broken.append(f"the message tells no way out: {message}")
        return broken

    def _whole(self, step: Step) -> list[str]:
        known = self.seen[step.name].versions
        strange = [name for name, data in tree(self.run).items() if data not in known[name]]
        return [f"{name}: neither old nor new" for name in strange] + unreadable(self.run)

    def _begin(self, step: Step) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        if step.after is not None:
            shutil.copytree(self._kept(step.after), self.run)

    def _kept(self, name: str) -> Path:
        return self.home / "kept" / name

    def _call(self, step: Step) -> tuple[int, str]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            try:
                step.call(self.home)
            except SystemExit as end:
                return int(end.code or 0), said.getvalue()
            except BaseException:
                return 1, said.getvalue() + traceback.format_exc()
        return 0, said.getvalue()


def _differences(when: str, found: Tree, expected: Tree) -> list[str]:
    names = sorted(n for n in found.keys() | expected.keys() if found.get(n) != expected.get(n))
    return [f"{when}, {len(names)} files differ from the quiet pass: {names[:4]}"] if names else []


# ---------------------------------------------------------------------- all of them, or some

#: Step, number of the operation, errno, for good.
Case = tuple[Step, int, int, bool]


def cases(campaign: Campaign, seed: int) -> list[Case]:
    """Every one, in an order drawn from the seed."""
    everything = [
        (step, at, code, for_good)
        for step in STEPS
        for code in CODES
        for at in range(1, campaign.count(step, code) + 1)
        for for_good in (False, True)
    ]
    random.Random(seed).shuffle(everything)
    return everything


def drawn(everything: Sequence[Case], n: int) -> list[Case]:
    """The first of each step, as many of one as of another."""
    by_step: dict[str, list[Case]] = collections.defaultdict(list)
    for one in everything:
        by_step[one[0].name].append(one)
    return [one for group in by_step.values() for one in group[: max(1, n // len(by_step))]]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is still to be run; exit 1 if a promise was broken."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", type=Path, help="a file of JSON, a line a case")
    parser.add_argument(
        "--sample", type=int, help="so many cases rather than all, as many of one step as of another"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--kinds",
        type=lambda given: functools.reduce(operator.or_, (Kind[name.upper()] for name in given.split(","))),
        default=EVERYTHING,
        help="of operations that fail, such as list,rename (default: all); with a file of LINES of their own",
    )
    parser.add_argument("--report", type=Path, help="write the section of the report, and run nothing")
    args = parser.parse_args(argv)
    if args.report is not None:
        filesystem_report.write(args.report, args.lines)
        return 0
    memory = Path("/dev/shm")  # what fails is decided here: syncing a real disk only takes time
    home = Path(tempfile.mkdtemp(prefix="ensembler-faults-", dir=memory if memory.is_dir() else None))
    try:
        if "LD_PRELOAD" not in os.environ:  # the shim has to be there when a process starts
            command = [sys.executable, "-m", "tests.faults.filesystem", *(argv or sys.argv[1:])]
            return subprocess.run(command, env=environment(build(home)), check=False).returncode
        return _run(home, args.lines, args.sample, args.seed, args.kinds)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(home: Path, lines: Path, sample: int | None, seed: int, kinds: Kind) -> int:
    campaign = Campaign(home, kinds)
    campaign.prepare()
    chosen = cases(campaign, seed)
    total = len(chosen)
    if sample is not None:
        chosen = drawn(chosen, sample)
    known = [json.loads(line) for line in lines.read_text().splitlines()] if lines.exists() else []
    done = {(r["step"], r["at"], r["code"], r["for_good"]) for r in known}
    broken = any(r["broken"] for r in known)
    commit = sections.commit()
    lines.parent.mkdir(parents=True, exist_ok=True)
    with lines.open("a") as out:
        for step, at, code, for_good in chosen:
            if (step.name, at, errno.errorcode[code], for_good) not in done:
                result = campaign.case(step, at, code, for_good)
                broken = broken or bool(result.broken)
                about = {**dataclasses.asdict(result), "commit": commit, "of": total, "seed": seed}
                print(json.dumps(about), file=out, flush=True)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
