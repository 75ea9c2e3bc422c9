"""What each verb of the command line does: it calls the library, and prints.

Heavy modules are imported by the verb that needs them, so that help comes at once.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .signals import told_to_end

if TYPE_CHECKING:
    from .evaluation.leaderboard import Leaderboard
    from .store import RunStore


def init(args: argparse.Namespace) -> None:
    """Look at images and write a config for them, with the reason of every choice."""
    from .draft import write_draft

    file = write_draft(args.images, args.output, print)
    print(f"\nwrote {_shown(file)}\nnext: ensembler run {shlex.quote(_shown(file))}")


def audit(args: argparse.Namespace) -> int:
    """Look for leaks, copies, odd files, shortcuts in the images of a config; exit 2 on an error."""
    from .experiment import Experiment

    found = Experiment.from_config(args.config).audit()
    print(found.to_json() if args.format == "json" else found.to_text())
    return 0 if found.stands else 2


def run(args: argparse.Namespace) -> None:
    """All the stages of an experiment; run it again to resume."""
    from .experiment import Experiment

    experiment = Experiment.from_config(args.config, args.run)
    if args.fork is not None:
        experiment = experiment.fork(args.fork)
    with told_to_end():
        board = experiment.run()
    _show(board)
    _show_collapse(experiment.store)
    run = _shown(experiment.store.path)
    print("\nNext:")
    print(f"  ensembler app {_shown(experiment.store.path.parent)}")
    print(f"  ensembler export {run}")


def sweep(args: argparse.Namespace) -> None:
    """Train what is missing, and no more."""
    from .experiment import Experiment

    experiment = Experiment.from_config(args.config, args.run)
    if args.fork is not None:
        experiment = experiment.fork(args.fork)
    with told_to_end():
        experiment.sweep()
    print(f"next: ensembler combine {_shown(experiment.store.path)}")


def combine(args: argparse.Namespace) -> None:
    """Fit and cross-fit the combiners of a run, or of predictions from anywhere."""
    from .comparison import combine, compare, start_bare_run
    from .errors import ConfigError
    from .metrics import get_metric
    from .store import RunStore

    if (args.predictions is None) == (args.run_dir is None):
        raise ConfigError("combine: give either a run directory or --predictions FILE")
    if args.predictions is None:
        store = RunStore(args.run_dir).require()
    else:
        metric = get_metric(args.metric or "log_loss")
        store = RunStore(args.run or Path("runs") / args.predictions.stem)
        start_bare_run(store, args.predictions, metric.name)
    with store.lock(), store.stage("combine"):
        board = compare(store, combine(store))
    _show(board)


def compare(args: argparse.Namespace) -> None:
    """Rebuild the leaderboard of a run."""
    from .comparison import compare
    from .store import RunStore

    store = RunStore(args.run_dir).require()
    with store.lock(), store.stage("compare"):
        board = compare(store)
    _show(board)


def leaderboard(args: argparse.Namespace) -> None:
    """Print the leaderboard of a run."""
    from .comparison import read_leaderboard
    from .store import RunStore, understood

    with understood(args.run_dir):
        board = read_leaderboard(RunStore(args.run_dir))
    if args.format == "table":
        _show(board)
    else:
        print(getattr(board, f"to_{args.format}")().rstrip("\n"))


def report(args: argparse.Namespace) -> None:
    """Write the report of a run: Markdown, HTML with figures, tables."""
    from .report import write_report
    from .store import RunStore, understood

    store = RunStore(args.run_dir).require()
    with understood(store.path):
        report = write_report(store, args.output or store.path / "report")
    print(_shown(report))


def export(args: argparse.Namespace) -> None:
    """Write the winner, or a named row, as a bundle."""
    from .bundle.options import ExportOptions
    from .experiment import Experiment

    options = ExportOptions(args.format, args.precision, args.collapse, args.max_latency_ms)
    bundle = Experiment.from_run(args.run_dir).export(args.output, args.ensemble, options)
    print(_shown(bundle))
    print(f"next: ensembler predict {_shown(bundle)} IMAGES", file=sys.stderr)


def predict(args: argparse.Namespace) -> None:
    """Classify images with a bundle."""
    from .bundle.predict import predict_files

    predict_files(args.bundle, args.paths, args.output, tta=args.tta)


def push(args: argparse.Namespace) -> None:
    """Upload a bundle to the Hugging Face Hub; it comes back as hf:USER/NAME."""
    from .bundle.hub import push

    print(push(args.bundle, args.repository, private=args.private))


def monitor(args: argparse.Namespace) -> int:
    """Hold new images against the training data; exit 3 on an alarm."""
    from .bundle.monitor.watch import monitor

    drift = monitor(args.bundle, args.paths, labels=args.labels, threshold=args.threshold, output=args.output)
    return 3 if drift.alarm else 0


def serve(args: argparse.Namespace) -> None:
    """Answer over HTTP with a bundle; it listens on loopback alone."""
    from .bundle.serve import serve
    from .bundle.uploads import Limits

    limits = Limits(
        body_bytes=int(args.max_body_mb * 1e6),
        pixels=args.max_pixels,
        files=args.max_files,
        read_s=args.read_timeout_s,
        waiting=max(512, 2 * args.max_files),
    )
    serve(
        args.bundle,
        address=args.address,
        port=args.port,
        token_file=args.token_file,
        max_batch=args.max_batch,
        max_wait_s=args.max_wait_ms / 1000,
        limits=limits,
    )


def app(args: argparse.Namespace) -> None:
    """Open the app in a browser; it listens on loopback alone."""
    from .app.server import launch

    launch(args.runs, args.address, args.port, args.headless, args.allow_launch)


def list_names(args: argparse.Namespace) -> None:
    """Names that a config may use."""
    import fnmatch

    names: Sequence[str]
    if args.costs:
        _list_costs(args.kind, args.pattern)
        return
    if args.kind == "backbones":
        from .training.backbone import list_backbones

        names = list_backbones(args.pattern)
    else:
        from .combiners import COMBINERS
        from .metrics import METRICS
        from .training.strategies import STRATEGIES

        tables: dict[str, Sequence[str]] = {
            "combiners": list(COMBINERS),
            "strategies": list(STRATEGIES),
            "metrics": list(METRICS),
        }
        names = fnmatch.filter(tables[args.kind], args.pattern)
    print("\n".join(names))
    if args.kind == "metrics" and args.pattern == "*":
        print("or cost:[[0,1],[5,0]], with a row a true class and a column a predicted one", file=sys.stderr)


def _list_costs(kind: str, pattern: str) -> None:
    from .errors import ConfigError

    if kind != "backbones":
        raise ConfigError(f"list {kind} --costs: only backbones have costs; leave --costs out")
    from .training.backbone import list_backbones
    from .training.portfolio import PORTFOLIO, cost_table

    names = [entry.name for entry in PORTFOLIO] if pattern == "*" else list_backbones(pattern)
    if not names:
        raise ConfigError(f"list backbones {pattern!r}: no backbone matches; see them all without a pattern")
    # Line by line, because each takes a moment: so the widths are those of what may come.
    widths = [max(map(len, names)), len("self-supervised"), 8, 12, 11, 5, 7]
    for line in cost_table(names):
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip(), flush=True)


def _show(board: Leaderboard) -> None:
    print(board.to_table(max(100, shutil.get_terminal_size((140, 24)).columns)))
    print(f"\n{board.verdict.sentence}")
    for failure in board.verdict.failed:
        print(f"  {failure}")


def _show_collapse(store: RunStore) -> None:
    """The fold models of what is deployed beside what could take their place, where the config asked for it."""
    from .collapsed import collapse_table

    rows = store.collapse().get("rows")
    if rows:
        print(f"\nOn the test split:\n{collapse_table(rows)}")


def _shown(path: Path) -> str:
    """A path as short as it can be typed from here."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
