"""The command line: verbs, and no logic of its own.

Results go to standard output, progress to standard error. Exit 0 done; 2 the user can mend it, one line says how,
or for `audit` its findings; 3 an alarm of `monitor`; 1 a bug; 130 interrupted, 143 terminated. Heavy modules are
imported by the verb that needs them, so that help comes at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import EnsemblerError

if TYPE_CHECKING:
    from .evaluation.leaderboard import Leaderboard
    from .store import RunStore

#: Verb -> what has to be installed for it, where that is not all that trains.
_EXTRAS = {"predict": "runtime", "serve": "serve", "app": "app", "monitor": "serve", "push": "serve"}

#: Exit code of a process that SIGTERM has ended.
_TERMINATED = 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb and returns the exit code."""
    args = parser().parse_args(argv)
    try:
        code: int | None = args.verb(args)
        sys.stdout.flush()
    except EnsemblerError as error:
        if args.debug:
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as end:
        return _ended_by_hand(end)
    except BrokenPipeError:  # the reader of our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ModuleNotFoundError as error:
        return _not_installed(error, args.command)
    except Exception:  # a bug of ours, whatever it is
        return _bug()
    else:
        return code or 0
    return 0


def _ended_by_hand(end: KeyboardInterrupt | SystemExit) -> int:
    if isinstance(end, SystemExit) and end.code != _TERMINATED:
        raise end
    word, code = ("terminated", _TERMINATED) if isinstance(end, SystemExit) else ("interrupted", 130)
    print(f"{word}; run the same command again to go on", file=sys.stderr)
    return code


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Has SIGTERM end what is under way as Ctrl-C does: stages noted, workers ended, temporary files removed."""

    def end(number: int, frame: object) -> None:
        del number, frame
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _not_installed(error: ModuleNotFoundError, verb: str) -> int:
    library = str(error.name).split(".")[0]
    if library == "ensembler":
        return _bug()
    extra = _EXTRAS.get(verb, "train")
    print(f"error: {library} is not installed; pip install 'ensembler[{extra}]'", file=sys.stderr)
    return 2


def _bug() -> int:
    traceback.print_exc()
    print("error: this is a bug in ensembler; please report the lines above", file=sys.stderr)
    return 1


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

    sub = add(
        "audit",
        _audit,
        "look for leaks, copies, odd files, shortcuts in the images of a config; exit 2 on an error",
    )
    sub.add_argument("config", type=Path, help="an experiment in YAML")
    sub.add_argument("--format", choices=("text", "json"), default="text")

    for name, verb, summary in (
        ("run", _run, "all the stages of an experiment; run it again to resume"),
        ("sweep", _sweep, "train what is missing, and no more"),
    ):
        sub = add(name, verb, summary)
        sub.add_argument("config", type=Path, help="an experiment in YAML")
        sub.add_argument("-o", "--run", type=Path, metavar="RUN", help="run directory (default: runs/<name>)")
        sub.add_argument(
            "--fork", type=Path, metavar="NEWRUN",
            help="go on in a new run, which takes over what is still valid of RUN",
        )  # fmt: skip

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

    _add_bundle_verbs(add)

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


def _add_bundle_verbs(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """The verbs of those who deploy."""
    sub = add("export", _export, "write the winner, or a named row, as a bundle")
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")
    sub.add_argument(
        "--ensemble", metavar="NAME", help="a row of the leaderboard (default: the recommended one)"
    )
    sub.add_argument(
        "-o", "--output", type=Path, metavar="BUNDLE",
        help="a folder, or one file if it ends in .zip (default: bundles/<name>-<row>)",
    )  # fmt: skip
    sub.add_argument(
        "--format", choices=("onnx", "torch", "both"),
        help="one graph for onnxruntime, safetensors for PyTorch (default: onnx where torch can export it)",
    )  # fmt: skip
    sub.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="of the graph")
    sub.add_argument(
        "--collapse", choices=("folds", "refit", "soup", "distill"), default="folds",
        help="what runs in place of the fold models; the run must have trained it (default: folds)",
    )  # fmt: skip
    sub.add_argument(
        "--max-latency-ms", type=float, metavar="N",
        help="of one image on this machine; without --ensemble the best row that keeps to it",
    )  # fmt: skip

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

    sub = add("serve", _serve, "answer over HTTP with a bundle; it listens on loopback alone")
    sub.add_argument("bundle", metavar="BUNDLE", help="a bundle")
    sub.add_argument("--address", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    sub.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    sub.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="refuse requests that do not show the token in this file",
    )
    sub.add_argument("--max-batch", type=int, default=32, help="images a call of the model (default: 32)")
    sub.add_argument(
        "--max-wait-ms",
        type=float,
        default=5.0,
        help="the longest that an image waits for others that are being decoded (default: 5)",
    )
    sub.add_argument("--max-body-mb", type=float, default=32.0, help="of a request (default: 32)")
    sub.add_argument("--max-pixels", type=int, default=50_000_000, help="of an image (default: 50000000)")
    sub.add_argument("--max-files", type=int, default=64, help="images of a request (default: 64)")
    sub.add_argument("--read-timeout-s", type=float, default=30.0, help="for a body to arrive (default: 30)")

    sub = add("push", _push, "upload a bundle to the Hugging Face Hub; it comes back as hf:USER/NAME")
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle")
    sub.add_argument("repository", metavar="USER/NAME", help="made where there is none")
    sub.add_argument("--private", action="store_true", help="of a repository that is made")

    sub = add("monitor", _monitor, "hold new images against the training data; exit 3 on an alarm")
    sub.add_argument("bundle", metavar="BUNDLE", help="a bundle")
    sub.add_argument("paths", type=Path, nargs="+", metavar="IMAGES", help="images, or folders of images")
    sub.add_argument(
        "--labels",
        metavar="CSV",
        help="columns path and label; or the word folders: each is named after its class",
    )
    sub.add_argument(
        "--threshold", type=float, default=0.01, help="rate of false alarms of a batch (default: 0.01)"
    )
    sub.add_argument("-o", "--output", type=Path, metavar="DIR", help="(default: monitor/<bundle>)")


# ---------------------------------------------------------------------- verbs


def _init(args: argparse.Namespace) -> None:
    from .draft import write_draft

    file = write_draft(args.images, args.output, print)
    print(f"\nwrote {_shown(file)}\nnext: ensembler run {shlex.quote(_shown(file))}")


def _audit(args: argparse.Namespace) -> int:
    from .experiment import Experiment

    found = Experiment.from_config(args.config).audit()
    print(found.to_json() if args.format == "json" else found.to_text())
    return 0 if found.stands else 2


def _run(args: argparse.Namespace) -> None:
    from .experiment import Experiment

    experiment = Experiment.from_config(args.config, args.run)
    if args.fork is not None:
        experiment = experiment.fork(args.fork)
    with _told_to_end():
        board = experiment.run()
    _show(board)
    _show_collapse(experiment.store)
    run = _shown(experiment.store.path)
    print("\nNext:")
    print(f"  ensembler app {_shown(experiment.store.path.parent)}")
    print(f"  ensembler export {run}")


def _sweep(args: argparse.Namespace) -> None:
    from .experiment import Experiment

    experiment = Experiment.from_config(args.config, args.run)
    if args.fork is not None:
        experiment = experiment.fork(args.fork)
    with _told_to_end():
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
    from .store import RunStore, understood

    with understood(args.run_dir):
        board = read_leaderboard(RunStore(args.run_dir))
    if args.format == "table":
        _show(board)
    else:
        print(getattr(board, f"to_{args.format}")().rstrip("\n"))


def _report(args: argparse.Namespace) -> None:
    from .report import write_report
    from .store import RunStore, understood

    store = RunStore(args.run_dir).require()
    with understood(store.path):
        report = write_report(store, args.output or store.path / "report")
    print(_shown(report))


def _export(args: argparse.Namespace) -> None:
    from .bundle.options import ExportOptions
    from .experiment import Experiment

    options = ExportOptions(args.format, args.precision, args.collapse, args.max_latency_ms)
    bundle = Experiment.from_run(args.run_dir).export(args.output, args.ensemble, options)
    print(_shown(bundle))
    print(f"next: ensembler predict {_shown(bundle)} IMAGES", file=sys.stderr)


def _predict(args: argparse.Namespace) -> None:
    from .bundle.predict import predict_files

    predict_files(args.bundle, args.paths, args.output, tta=args.tta)


def _push(args: argparse.Namespace) -> None:
    from .bundle.hub import push

    print(push(args.bundle, args.repository, private=args.private))


def _monitor(args: argparse.Namespace) -> int:
    from .bundle.monitor.watch import monitor

    drift = monitor(args.bundle, args.paths, labels=args.labels, threshold=args.threshold, output=args.output)
    return 3 if drift.alarm else 0


def _serve(args: argparse.Namespace) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
