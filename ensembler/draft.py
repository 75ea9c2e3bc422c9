"""The first config of an experiment: a survey of the images, the proposal for them, and both as commented YAML."""

from __future__ import annotations

import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .atomic import listed, write_file
from .config import WORDS
from .config_text import read_yaml
from .data import load_table
from .data.places import cache_dir
from .data.source import Request
from .data.survey import Survey, survey
from .errors import ConfigError, printable
from .propose import Choice, Hardware, Proposal, propose

WIDTH = 110

#: Beside a folder of one of the first names, a folder of one of the second is its test split.
TRAINING_FOLDERS = ("train", "training")
TEST_FOLDERS = ("test", "testing", "validation", "valid", "val")


def write_draft(images: str, output: Path | None, show: Callable[[str], object]) -> Path:
    """Surveys images and writes a config for them that runs as it is.

    Args:
        images: class folders, a manifest, or any other source, as seen from the working directory.
        output: the config to write; `<name of the images>.yaml` by default.
        show: is given the survey, before anything is proposed.

    Returns:
        The config.

    Raises:
        ConfigError: the file exists, or its folder does not.
        DataError: see `load_table`, `survey` and `propose`.
    """
    from .reach import hub_out_of_reach

    here = Path.cwd()
    location = Request(images, here, cache_dir()).location
    is_word = not location.exists() and (images in WORDS or images.startswith("torchvision:"))
    name = run_name(Path(images.rpartition(":")[2]) if is_word else location)
    file = (output or Path(f"{name}.yaml")).absolute()
    if file.exists():
        raise ConfigError(f"{file}: exists already; remove it, or name another with -o FILE")
    if not file.parent.is_dir():
        raise ConfigError(f"{file}: there is no folder {file.parent}; make it, or name another with -o FILE")

    test = None if is_word else split_beside(location)
    found = survey(load_table(images, test=str(test) if test else None, base_dir=here, cache_dir=cache_dir()))
    show(found.to_text())
    problem = hub_out_of_reach()
    test_source = written_path(test, file.parent) if test else None
    proposal = propose(found, Hardware.here(), problem, test_source)
    if problem:
        print(f"warning: {proposal.weights.reason}", file=sys.stderr)
    source = images if is_word else written_path(location, file.parent)
    text = draft(name, file.name, source, found, proposal)
    write_file(file, lambda stream: stream.write(text.encode()))
    return file


def split_beside(location: Path) -> Path | None:
    """The test split that lies beside a folder of training images and has no class that it lacks; or None.

    Raises:
        StoreError: a folder beside may be one, and cannot be listed.
    """
    if location.name.lower() not in TRAINING_FOLDERS:
        return None
    for name in TEST_FOLDERS:
        beside = location.parent / name
        classes = _folders(beside)
        if classes and classes <= _folders(location):
            return beside
    return None


def _folders(path: Path) -> set[str]:
    return {entry.name for entry in listed(path) if entry.is_dir() and not entry.name.startswith(".")}


def run_name(source: Path) -> str:
    """A name that a config may have, from the folder or file that holds the images."""
    stem = source.stem if source.suffix.lower() in (".csv", ".parquet") else source.name
    if stem.lower() in (*TRAINING_FOLDERS, "images", "data"):
        stem = f"{source.parent.name}-{stem}"
    return re.sub(r"[^A-Za-z0-9._]+", "-", stem).strip("-._")[:60] or "images"


def written_path(path: Path, folder: Path) -> str:
    """A path as a config in `folder` has to name it: relative where it lies below, and never read as a word."""
    if not path.is_relative_to(folder):
        return str(path)
    relative = path.relative_to(folder).as_posix()
    taken = relative in WORDS or relative.startswith(("torchvision:", "~"))
    return f"./{relative}" if taken else relative


# ---------------------------------------------------------------------- text


def draft(name: str, file_name: str, source: str, found: Survey, proposal: Proposal) -> str:
    """A proposal as YAML, a comment with the reason above each choice.

    Args:
        name: of the experiment.
        file_name: of the config, for the command on its first lines.
        source: of the images, as the config has to name it.
        found: the survey that the proposal rests on.
        proposal: the choices.
    """
    about = f"{found.n_images:,} images in {len(found.counts)} classes, for {proposal.hardware}."
    lines = [
        *_comment(about),
        "#",
        f"#   ensembler run {printable(shlex.quote(file_name))}",
        "#",
        *_comment(
            "Change what you know better, and run again: only what is missing is trained. "
            "Every key is in docs/configuration.md."
        ),
        f"name: {scalar(name)}",
        "data:",
        f"  source: {scalar(source)}",
        *_setting("test", proposal.test, 2),
        *_setting("image_size", proposal.image_size, 2),
        *_setting("unreadable", proposal.unreadable, 2),
        "folds:",
        *_setting("k", proposal.k, 2),
        *_setting("metric", proposal.metric),
        *_comment(f"For {proposal.hardware}, of different families; weights: {proposal.weights.reason}."),
        "backbones:",
    ]
    for backbone in proposal.backbones:
        lines += _comment(backbone.reason, 2)
        lines.append(f"  - {scalar(backbone.value)}: {{weights: {scalar(proposal.weights.value)}}}")
    lines += ["search:", *_setting("trials", proposal.trials, 2), *_setting("epochs", proposal.epochs, 2)]
    lines += _setting("budget", proposal.budget)
    return "\n".join(lines) + "\n"


def _setting(key: str, choice: Choice, indent: int = 0) -> list[str]:
    return [*_comment(choice.reason, indent), f"{' ' * indent}{key}: {scalar(choice.value)}"]


def _comment(text: str, indent: int = 0) -> list[str]:
    start = " " * indent + "# "
    shown = " ".join(printable(text).split())
    return textwrap.wrap(shown, WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False)


def scalar(value: Any) -> str:
    """A value as YAML on one line: plain where that reads back as the same value, else in double quotes."""
    if value is None:
        return "null"
    if not isinstance(value, str):
        return str(value)
    if re.fullmatch(r"[\w./-]+", value, re.ASCII):
        read, _ = read_yaml(f"value: {value}", Path(value))
        if read["value"] == value:
            return value
    quoted: str = yaml.safe_dump(value, default_style='"', allow_unicode=True, width=float("inf"))
    return quoted.strip()
