"""The config that is being written on the page Launch: from a file that is there, uploaded, or typed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from ..atomic import listed
from ..config_text import MAX_CONFIG_BYTES
from ..errors import ConfigError
from ..store import find_runs
from .wording import lines, plain

#: Where a project keeps its configs, seen from where the app was started.
CONFIGS = "configs"

#: The choice that starts from nothing.
BLANK = "a short config to fill in"

#: What stands in the text then: the least that trains something, on images that need no download.
TEMPLATE = """\
name: my-run
data:
  source: digits        # or a folder with one folder a class, or a .csv or .parquet manifest
  test: 0.2
  image_size: 32
folds: {k: 3}
backbones:
  - test_resnet: {weights: random}
  - test_convnext: {weights: random}
recipe: {flip: false}   # digits are no longer digits when mirrored
search: {trials: 4, epochs: 4}
keep: 2
ensembles: [mean, greedy, stacking]
"""

#: Monospaced and unbroken, as YAML has to be read.
_MONOSPACED = (
    "<style>.st-key-draft textarea {font-family: monospace; font-size: .875rem; white-space: pre; overflow-x: auto}"
    "</style>"
)


@dataclass(frozen=True)
class Draft:
    """A config as it stands in the text.

    Attributes:
        text: YAML, perhaps invalid.
        path: that anchors relative paths and names the text in errors.
        file: of which the text is, unchanged; None where it was changed, uploaded or typed.
    """

    text: str
    path: Path
    file: Path | None


def choose(folder: Path) -> Draft:
    """Draws the choice and the text, and returns what stands there.

    Args:
        folder: of runs.
    """
    known = sources(folder, Path.cwd())
    state = st.session_state
    chosen = st.selectbox("Begin with", list(known), key="config", persist_state="session")
    with st.expander("or upload one"):
        upload = st.file_uploader("Config", ["yaml", "yml"], key="config-upload", max_upload_size=1)
    origin = upload.file_id if upload is not None else chosen
    if state.get("draft-of") != origin:  # another choice: its text takes the place of what was there
        try:
            file = None if upload is not None else known[chosen]
            state["draft"] = decoded(upload.getvalue()) if upload is not None else read(file)
        except ConfigError as error:
            st.error(plain(error), icon=":material/error:")
            state["draft"], file = "", None
        state["draft-of"], state["draft-file"], state["draft-text"] = origin, file, state["draft"]
    st.html(_MONOSPACED)
    text = st.text_area(
        "Config",
        key="draft",
        height=360,
        persist_state="session",
        help="Checked when you leave the field, or with Ctrl+Enter. Every key is in docs/configuration.md.",
    )
    file = state["draft-file"]
    path = file or Path.cwd() / "config.yaml"
    lines(f"Relative paths in it are relative to {path.parent}.")
    text = text or ""
    return Draft(text, path, file if text == state["draft-text"] else None)


def sources(folder: Path, here: Path) -> dict[str, Path | None]:
    """Configs to begin with, by what the reader sees: the project's, those among the runs, and those of the runs."""
    found: dict[str, Path | None] = {}
    for file in [*_yaml_below(here / CONFIGS), *_yaml_below(folder)]:
        found[f"{file.parent.name}/{file.name}"] = file
    for store in find_runs(folder):
        if (store.path / "config.yaml").is_file():
            found[f"as in the run {store.name}"] = store.path / "config.yaml"
    return found | {BLANK: None}


def read(file: Path | None) -> str:
    """The text of a config; the template where there is no file.

    Raises:
        ConfigError: it cannot be read, or is no text.
    """
    if file is None:
        return TEMPLATE
    try:
        with file.open("rb") as stream:
            return decoded(stream.read(MAX_CONFIG_BYTES + 1))
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror or error}; choose another") from error


def decoded(data: bytes) -> str:
    """Text of a config.

    Raises:
        ConfigError: too long, or not UTF-8.
    """
    if len(data) > MAX_CONFIG_BYTES:
        raise ConfigError(
            f"the config: larger than {MAX_CONFIG_BYTES} bytes; this is no config, choose another"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError("the config: is no text in UTF-8; save it as such") from error


def _yaml_below(folder: Path) -> list[Path]:
    return [f for f in listed(folder) if f.suffix in (".yaml", ".yml") and f.is_file() and f.name[0] != "."]
