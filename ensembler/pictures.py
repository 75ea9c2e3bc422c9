"""Pictures for a report that is read without a browser's scripts: the frames of `figures`, drawn as SVG."""

from __future__ import annotations

from io import BytesIO

import pandas as pd

from .figures import PALETTE

#: Panels side by side, and the size of each in inches.
COLUMNS, WIDTH, HEIGHT = 3, 3.6, 2.5


def learning_curves_svg(history: pd.DataFrame) -> bytes:
    """One panel a candidate: the monitor loss of every fold, the training loss dashed, a dot at each best epoch.

    Args:
        history: columns candidate, fold, epoch, train_loss, monitor_loss; not empty.

    Returns:
        An SVG on white, the same bytes for the same frame.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(history["candidate"]))
    n_rows = -(-len(names) // COLUMNS)
    n_columns = min(COLUMNS, len(names))
    with mpl.rc_context({"svg.hashsalt": "learning curves", "svg.fonttype": "none", "font.size": 8}):
        figure = Figure(figsize=(WIDTH * n_columns, HEIGHT * n_rows), layout="constrained")
        panels = figure.subplots(n_rows, n_columns, squeeze=False).flatten()
        for panel, name in zip(panels, names, strict=False):
            for i, (fold, part) in enumerate(history[history["candidate"] == name].groupby("fold")):
                colour = PALETTE[i % (len(PALETTE) - 1)]
                best = part.loc[part["monitor_loss"].idxmin()]
                panel.plot(part["epoch"], part["train_loss"], "--", color=colour, lw=0.8, alpha=0.6)
                panel.plot(part["epoch"], part["monitor_loss"], color=colour, lw=1.2, label=f"fold {fold}")
                panel.plot(best["epoch"], best["monitor_loss"], "o", color=colour, ms=4)
            # `$` would start a formula; names are text.
            panel.set_title(str(name).replace("$", r"\$"), fontsize=8)
            panel.set_xlabel("epoch")
            panel.set_ylabel("loss")
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.spines[["top", "right"]].set_visible(False)
        for panel in panels[len(names) :]:
            panel.set_visible(False)
        if history["fold"].nunique() <= len(PALETTE) - 1:
            panels[0].legend(frameon=False, fontsize=7)
        stream = BytesIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()
