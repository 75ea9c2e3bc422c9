"""What `ensembler monitor` has found of a bundle so far, batch by batch."""

from __future__ import annotations

import shlex
from pathlib import Path

import streamlit as st

from ..bundle.monitor.history import read_history
from ..errors import EnsemblerError
from ..figures import monitoring_figure, monitoring_frame
from .charts import draw
from .wording import count, lines


def folder_of(target: Path) -> Path:
    """Where the app looks for what was found of a bundle of a run: beside the run's bundles."""
    return target.parent.parent / "monitor" / target.name


def section(target: Path) -> None:
    """Draws the history of a bundle, and the command that adds to it.

    Raises:
        EnsemblerError: the history cannot be read.
    """
    st.subheader("Monitoring", anchor=False)
    folder = folder_of(target)
    try:
        history = read_history(folder)
    except OSError as error:
        raise EnsemblerError(f"{folder}: cannot be read ({error.strerror}); check its permissions") from error
    frame = monitoring_frame(history)
    if frame.empty:
        lines(
            "Whether new images are still like those it was trained on, this tells, and the page then draws:"
        )
    else:
        alarms = int(frame.groupby("batch")["alarm"].any().sum())
        last = frame[frame["batch"] == frame["batch"].max()]
        found = [str(test) for test in last.loc[last["alarm"], "test"]]
        if found:
            st.error(f"The latest batch raised an alarm: {', '.join(found)}.", icon=":material/warning:")
        else:
            st.success("The latest batch is like the training data.", icon=":material/check_circle:")
        st.caption(f"{count(len(history), 'batch', 'batches')} so far, {count(alarms, 'alarm')}.")
        draw(monitoring_figure(frame), "monitoring", "Corrected p-values of each test over the batches")
        lines("The next batch:")
    st.code(
        shlex.join(["ensembler", "monitor", str(target), "-o", str(folder)]) + " IMAGES",
        language="bash",
        wrap_lines=True,
    )
