"""The verbs of the command line and their options; what a verb does is said by its docstring."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import __version__, verbs


def parser() -> argparse.ArgumentParser:
    """Every verb with its options; the documentation is tested against it."""
    top = argparse.ArgumentParser(
        prog="ensembler",
        description="Fine-tune image backbones under cross-validation, ensemble them, and get a verdict you can trust.",
    )
    top.add_argument("--version", action="version", version=f"ensembler {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = top.add_subparsers(metavar="COMMAND", required=True, dest="command")

    def add(name: str, verb: Any) -> argparse.ArgumentParser:
        summary = (verb.__doc__ or "").rstrip(".")
        sub = commands.add_parser(
            name, help=summary[:1].lower() + summary[1:], description=summary, parents=[common]
        )
        sub.set_defaults(verb=verb)
        return sub

    sub = add("init", verbs.init)
    sub.add_argument(
        "images", metavar="IMAGES", help="a folder with one folder a class, or a .csv or .parquet manifest"
    )
    sub.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: <name of the images>.yaml)")

    sub = add("audit", verbs.audit)
    sub.add_argument("config", type=Path, help="an experiment in YAML")
    sub.add_argument("--format", choices=("text", "json"), default="text")

    for name, verb in (("run", verbs.run), ("sweep", verbs.sweep)):
        sub = add(name, verb)
        sub.add_argument("config", type=Path, help="an experiment in YAML")
        sub.add_argument("-o", "--run", type=Path, metavar="RUN", help="run directory (default: runs/<name>)")
        sub.add_argument(
            "--fork", type=Path, metavar="NEWRUN",
            help="go on in a new run, which takes over what is still valid of RUN",
        )  # fmt: skip

    sub = add("combine", verbs.combine)
    sub.add_argument("run_dir", type=Path, nargs="?", metavar="RUN", help="a run directory")
    sub.add_argument("--predictions", type=Path, metavar="FILE", help=".npz, .csv or .parquet, out of fold")
    sub.add_argument("-o", "--run", type=Path, metavar="RUN", help="run directory for --predictions")
    sub.add_argument(
        "--metric", default=None, help="of the leaderboard, with --predictions (default: log_loss)"
    )

    sub = add("compare", verbs.compare)
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")

    sub = add("leaderboard", verbs.leaderboard)
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")
    sub.add_argument("--format", choices=("table", "json", "csv", "latex"), default="table")

    sub = add("report", verbs.report)
    sub.add_argument("run_dir", type=Path, metavar="RUN", help="a run directory")
    sub.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="(default: RUN/report)")

    _add_bundle_verbs(add)

    sub = add("app", verbs.app)
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

    sub = add("list", verbs.list_names)
    sub.add_argument("kind", choices=("combiners", "backbones", "strategies", "metrics"))
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern (default: *)")
    sub.add_argument(
        "--costs",
        action="store_true",
        help="of backbones: family, size, cost and licence; without a pattern those that init proposes",
    )
    return top


def _add_bundle_verbs(add: Callable[[str, Any], argparse.ArgumentParser]) -> None:
    """The verbs of those who deploy."""
    sub = add("export", verbs.export)
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

    sub = add("predict", verbs.predict)
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

    sub = add("serve", verbs.serve)
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

    sub = add("push", verbs.push)
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help="a bundle")
    sub.add_argument("repository", metavar="USER/NAME", help="made where there is none")
    sub.add_argument("--private", action="store_true", help="of a repository that is made")

    sub = add("monitor", verbs.monitor)
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
