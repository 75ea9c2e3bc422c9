"""The command line: verbs, and no logic of its own.

Results go to standard output, progress to standard error. Exit 0 done; 2 the user can mend it, one line says how;
1 a bug; 130 interrupted. Heavy modules are imported by the verb that needs them, so that help comes at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import EnsemblerError

if TYPE_CHECKING:
    from .evaluation.leaderboard import Leaderboard
    from .store import RunStore


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    args = parser().parse_args(argv)
    try:
        args.verb(args)
        sys.stdout.flush()
    except EnsemblerError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception:  # a bug of ours, whatever it is
        traceback.print_exc()
        print("error: this is a bug in ensembler; please report the lines above", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Every verb with its options; the documentation is tested against it."""
    top = argparse.ArgumentParser(
        prog="ensembler",
        description="Fine-tune image backbones under cross-validation, ensemble them, and get a verdict you can trust.",
    )
    top.add_argument("--version", action="version", version=f"ensembler {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = top.add_subparsers(metavar="COMMAND", required=True, dest="command")

    def add(name: str, verb: Any, summary: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:], parents=[common]
        )
        sub.set_defaults(verb=verb)
        return sub

    sub = add("init", _init, "look at images and write a config for them, with the reason of every choice")
    sub.add_argument(
        "images", metavar="IMAGES", help="a folder with one folder a class, or a .csv or .parquet manifest"
    )
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: <name of the images>.yaml)")

    for name, verb, summary in (
        ("run", _run, "all the stages of an experiment; run it again to resume"),
        ("sweep", _sweep, "train what is missing, and no more"),
    ):
        sub = add(name, verb, summary)
        sub.add_argument("config", type=Path, help="an experiment in YAML")
        sub.add_argument("-o", "--run", type=Path, metavar="RUN", help="run directory (default: runs/<name>)")

    sub = add(
        "combine", _combine, "fit and cross-fit the combiners of a run, or of predictions from anywhere"
    )
    sub.add_argument("run_dir", type=Path, nargs="?", metavar="RUN", help="a run directory")
    sub.add_argument("--predictions", type=Path, metavar="FILE", help=".npz, .csv or .parquet, out of fold")
    sub.add_argument("-o", "--run", type=Path, metavar="RUN", help="run directory for --predictions")
    sub.add_argument(
        "--metric", default=None, help="of the leaderboard, with --predictions (default: log_loss)"
    )

    sub = add("compare", _compare, "rebuild the leaderboard of a run")
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")

    sub = add("leaderboard", _leaderboard, "print the leaderboard of a run")
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")
    sub.add_argument("--format", choices=("table", "json", "csv", "latex"), default="table")

    sub = add("report", _report, "write the report of a run: Markdown, HTML with figures, tables")
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")
    sub.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="(default: RUN/report)")

    sub = add("export", _export, "write the winner, or a named row, as a bundle")
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")
    sub.add_argument(
        "--ensemble", metavar="NAME", help="a row of the leaderboard (default: the recommended one)"
    )
    sub.add_argument("-o", "--output", type=Path, metavar="BUNDLE", help="(default: bundles/<name>-<row>)")

    sub = add("predict", _predict, "classify images with a bundle")
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help="a folder written by export")
    sub.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="images, or folders of images")
    sub.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="TABLE",
        help=".csv or .parquet (default: standard output, as CSV)",
    )
    sub.add_argument(
        "--tta",
        choices=("none", "mirror"),
        default="none",
        help="average the answers to each image and its mirror image (default: none)",
    )

    sub = add("app", _app, "open the app in a browser; it listens on loopback alone")
    sub.add_argument(
        "runs", type=Path, nargs="?", default=Path("runs"), metavar="RUNS", help="(default: runs)"
    )
    sub.add_argument("--port", type=int, default=8501)
    sub.add_argument("--address", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    sub.add_argument("--headless", action="store_true", help="do not open a browser")
    sub.add_argument(
        "--allow-launch",
        action="store_true",
        help="with --address: let those who reach the app start and stop sweeps too",
    )

    sub = add("list", _list, "names that a config may use")
    sub.add_argument("kind", choices=("combiners", "backbones", "strategies", "metrics"))
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern (default: *)")
    sub.add_argument(
        "--costs",
        action="store_true",
        help="of backbones: family, size, cost and licence; without a pattern those that init proposes",
    )
    return top


# ---------------------------------------------------------------------- verbs


def _init(args: argparse.Namespace) -> None:
    from .draft import write_draft

    file = write_draft(args.images, args.output, print)
    print(f"\nwrote {_shown(file)}\nnext: ensembler run {shlex.quote(_shown(file))}")


def _run(args: argparse.Namespace) -> None:
    from .experiment import Experiment

    experiment = Experiment.from_config(args.config, args.run)
    _show(experiment.run())
    _show_collapse(experiment.store)
    run = _shown(experiment.store.path)
    print("\nNext:")
    print(f"  ensembler app {_shown(experiment.store.path.parent)}")
    print(f"  ensembler export {run}")


def _sweep(args: argparse.Namespace) -> None:
    from .experiment import Experiment

    experiment = Experiment.from_config(args.config, args.run)
    experiment.sweep()
    print(f"next: ensembler combine {_shown(experiment.store.path)}")


def _combine(args: argparse.Namespace) -> None:
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


def _compare(args: argparse.Namespace) -> None:
    from .comparison import compare
    from .store import RunStore

    store = RunStore(args.run_dir).require()
    with store.lock(), store.stage("compare"):
        board = compare(store)
    _show(board)


def _leaderboard(args: argparse.Namespace) -> None:
    from .comparison import read_leaderboard
    from .store import RunStore

    board = read_leaderboard(RunStore(args.run_dir))
    if args.format == "table":
        _show(board)
    else:
        print(getattr(board, f"to_{args.format}")().rstrip("\n"))


def _report(args: argparse.Namespace) -> None:
    from .report import write_report
    from .store import RunStore

    store = RunStore(args.run_dir).require()
    print(_shown(write_report(store, args.output or store.path / "report")))


def _export(args: argparse.Namespace) -> None:
    from .experiment import Experiment

    bundle = Experiment.from_run(args.run_dir).export(args.output, args.ensemble)
    print(_shown(bundle))
    print(f"next: ensembler predict {_shown(bundle)} IMAGES", file=sys.stderr)


def _predict(args: argparse.Namespace) -> None:
    from .bundle.predict import predict_files

    predict_files(args.bundle, args.paths, args.output, tta=args.tta)


def _app(args: argparse.Namespace) -> None:
    from .app.server import launch

    launch(args.runs, args.address, args.port, args.headless, args.allow_launch)


def _list(args: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
