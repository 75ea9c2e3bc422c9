"""The long run: every target driven by atheris, which looks for inputs that reach lines that no other has reached.

    python -m tests.fuzz.long [TARGET ...] [--cases 100000] [--report FILE]
    python -m tests.fuzz.long TARGET --input FILE        one case again, with its traceback

A target runs in processes of its own; a violation is kept with its input and does not end the run. What a target has
brought is kept beside them, so that a report tells of targets that were run one by one. Without atheris cases come from
a seeded generator of random bytes, and the report says so.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from tests.sections import commit

from .guard import Violation
from .target import LENGTHS

#: Target by name, and the module that holds it.
TARGETS = {
    "configs": "test_configs",
    "manifests": "test_manifests",
    "images": "test_images",
    "runs": "test_runs",
    "bundles": "test_bundles",
    "urls": "test_urls",
}

#: Inputs that the fuzzer begins with, of random bytes.
SEEDS = 200

#: Cases of a process: its memory grows, which without the fuzzer's runtime it does not.
MOST = 25_000

#: Cases between two notes of how far it is; what ends the process loses no more than these.
PROGRESS = 2000

#: Address space that a case may take beside what the process has when it starts.
HEADROOM_BYTES = 2 << 30


def main() -> int:
    """Runs some targets, or one of them in this process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("targets", nargs="*", default=list(TARGETS), metavar="TARGET")
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="random bytes, without atheris")
    parser.add_argument(
        "--report", type=Path, help="a Markdown file whose section 'Hostile input' is replaced"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="where inputs of violations are kept"
    )
    parser.add_argument("--input", type=Path, help="run this one input")
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--corpus", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.input:
        return _again(args.targets[0], args.input)
    if args.here:
        return _fuzz(args.targets[0], args)
    args.keep.mkdir(parents=True, exist_ok=True)
    results = []
    for name in args.targets:
        result = _in_processes(name, args)
        print(json.dumps({k: v for k, v in result.items() if k != "outcomes"}), flush=True)
        (args.keep / f"{name}.json").write_text(json.dumps(result))
        results.append(result)
    if args.report:
        from .report import write

        kept = [args.keep / f"{name}.json" for name in TARGETS]
        write(args.report, [json.loads(file.read_text()) for file in kept if file.exists()], args.seed)
    return int(
        any(result["violations"] or result["died"] or result["cases"] < args.cases for result in results)
    )


def _in_processes(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Fuzzes a target in one process after another, each of which begins with what the one before it has found."""
    parts: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as corpus:
        while (left := args.cases - sum(part["cases"] for part in parts)) > 0:
            parts.append(_in_a_process(name, args, args.seed + len(parts), min(left, MOST), Path(corpus)))
            if parts[-1]["died"]:
                break
    outcomes: Counter[str] = Counter()
    violations: dict[str, dict[str, Any]] = {}
    for part in parts:
        outcomes.update(part["outcomes"])
        for words, one in part["violations"].items():
            kept = violations.setdefault(words, {**one, "times": 0})
            kept["times"] += one["times"]
    return {
        **parts[-1],
        "cases": sum(part["cases"] for part in parts),
        "outcomes": dict(outcomes.most_common()),
        "violations": violations,
        "seconds": round(sum(part["seconds"] for part in parts), 1),
        "peak_mib": max(part["peak_mib"] for part in parts),
    }


def _in_a_process(name: str, args: argparse.Namespace, seed: int, cases: int, corpus: Path) -> dict[str, Any]:
    """Fuzzes a target; whatever ends the process is told with the input that did."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        home = Path(folder)
        command = [
            sys.executable,
            "-m",
            "tests.fuzz.long",
            name,
            "--here",
            str(home),
            "--corpus",
            str(corpus),
            "--seed",
            str(seed),
        ]
        command += ["--cases", str(cases), "--keep", str(args.keep.resolve()), *["--plain"] * args.plain]
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "ENSEMBLER_CACHE": str(home / "cache"),
            "HOME": str(home),
        }
        with (home / "log").open("wb") as log:
            code = subprocess.run(command, stdout=log, stderr=log, check=False, env=environment).returncode
        try:
            result: dict[str, Any] = json.loads((home / "result.json").read_text())
        except (OSError, ValueError):
            result = {
                "target": name,
                "cases": 0,
                "violations": {},
                "outcomes": {},
                "seconds": 0,
                "peak_mib": 0,
            }
        result["died"] = code
        result["commit"] = commit()
        if code:
            last = args.keep / f"{name}-last"
            last.write_bytes((home / "last").read_bytes() if (home / "last").exists() else b"")
            print(f"{name}: ended with {code}; its last input is {last}; its last words:", file=sys.stderr)
            print((home / "log").read_text(errors="replace")[-3000:], file=sys.stderr)
        for words, one in result["violations"].items():
            print(f"{name}: {one['times']} x {words}\n{one['traceback']}", file=sys.stderr)
        return result


def _load(name: str, coverage: bool) -> Any:
    """The target, its modules watched by atheris where that is wanted."""
    if not coverage:
        return _target(name)
    import atheris

    # Imported before they are watched: what says no more of an input than that a check was passed, and costs much.
    import numpy  # noqa: F401
    import pandas  # noqa: F401

    # Not YAML, which is read in Python: watched, it takes most of the time, and what it makes of a text we tell apart.
    with atheris.instrument_imports(include=["ensembler", "PIL", "zipfile"]):
        return _target(name)


def _target(name: str) -> Any:
    module = importlib.import_module(f"tests.fuzz.{TARGETS[name]}")
    return getattr(module, name.upper())


class _Run:
    """Counts what became of the cases."""

    def __init__(self, name: str, args: argparse.Namespace, coverage: bool) -> None:
        target = _load(name, coverage)
        from .choices import Read

        (args.here / "cases").mkdir()
        self._make, self._run = target.ready(args.here / "cases")
        self._read, self._args, self._name = Read, args, name
        self._last = (args.here / "last").open("wb", buffering=0)
        self._outcomes: Counter[str] = Counter()
        self._violations: dict[str, dict[str, Any]] = {}
        self._cases, self._began = 0, time.monotonic()
        self._coverage = coverage
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + HEADROOM_BYTES, resource.RLIM_INFINITY))

    def one(self, data: bytes) -> None:
        """A case of these bytes; the last one ends the process."""
        self._last.seek(0)
        self._last.truncate()
        self._last.write(data)
        try:
            self._outcomes[self._run(self._make(self._read(data)))] += 1
        except Exception as error:  # whatever gets out is a finding
            self._keep(data, error)
        self._cases += 1
        if self._cases % PROGRESS == 0 or self._cases == self._args.cases:
            self._note()
        if self._cases == self._args.cases:
            os._exit(0)  # libFuzzer would go on

    def _keep(self, data: bytes, error: Exception) -> None:
        place = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(place) if "/ensembler/" in f.filename), place[-1])
        where = "" if isinstance(error, Violation) else f" at {Path(ours.filename).name}:{ours.lineno}"
        key = f"{type(error).__name__}{where}: {str(error).split(':')[0][:80]}"
        one = self._violations.setdefault(key, {"times": 0, "traceback": traceback.format_exc()[-4000:]})
        one["times"] += 1
        if one["times"] == 1:
            self._args.keep.mkdir(parents=True, exist_ok=True)
            (self._args.keep / f"{self._name}-{len(self._violations)}").write_bytes(data)

    def _note(self) -> None:
        result = {
            "target": self._name,
            "cases": self._cases,
            "outcomes": dict(self._outcomes.most_common()),
            "violations": self._violations,
            "seconds": round(time.monotonic() - self._began, 1),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "coverage": self._coverage,
        }
        (self._args.here / "result.json").write_text(json.dumps(result))
        print(f"{self._name}: {self._cases:,} cases, {result['seconds']:.0f} s", flush=True)


def _fuzz(name: str, args: argparse.Namespace) -> int:
    sys.dont_write_bytecode = True
    coverage = not args.plain and importlib.util.find_spec("atheris") is not None
    run = _Run(name, args, coverage)
    dice = random.Random(args.seed)
    if not coverage:
        while True:
            run.one(dice.randbytes(dice.choice(LENGTHS)))
    import atheris

    corpus: Path = args.corpus
    for i in range(SEEDS):
        (corpus / f"{args.seed}-{i}").write_bytes(dice.randbytes(dice.choice(LENGTHS)))
    flags = [
        f"-seed={args.seed}",
        f"-max_len={max(LENGTHS)}",
        "-len_control=0",
        "-timeout=60",
        "-rss_limit_mb=0",
    ]
    atheris.Setup([name, str(corpus), *flags, f"-artifact_prefix={args.here}/"], run.one)
    atheris.Fuzz()
    return 1


def _again(name: str, file: Path) -> int:
    from .choices import Read

    with tempfile.TemporaryDirectory(prefix=f"fuzz-{name}-") as folder:
        make, run = _target(name).ready(Path(folder))
        case = make(Read(file.read_bytes()))
        print(f"{case!r:.2000}")
        print(run(case))
    return 0


if __name__ == "__main__":
    sys.exit(main())
