"""Figures in pairs: `*_frame` gives the numbers as a DataFrame, `*_figure` draws such a frame with Plotly.

Names are data, not markup: Plotly reads a few HTML tags in text, so they are escaped before they are drawn
(`style.text`). The app and the report draw the same figures.
"""

from .classes import (
    class_figure,
    class_frame,
    confused_classes,
    confusion_change_figure,
    confusion_change_frame,
    confusion_figure,
    confusion_frame,
)
from .curves import learning_curves_figure, learning_curves_frame
from .differences import difference_figure, difference_frame
from .errors import (
    OUTCOMES,
    changes_figure,
    changes_frame,
    mistakes_frame,
    outcome_frame,
    votes_figure,
    votes_frame,
)
from .leaderboard import leaderboard_figure, leaderboard_frame
from .live import live_curves_figure, live_curves_frame, load_figure
from .ranking import precision_recall_figure, precision_recall_frame, roc_figure, roc_frame
from .reliability import reliability_figure, reliability_frame
from .style import KIND_COLOURS, KIND_SYMBOLS, PALETTE

__all__ = [
    "KIND_COLOURS",
    "KIND_SYMBOLS",
    "OUTCOMES",
    "PALETTE",
    "changes_figure",
    "changes_frame",
    "class_figure",
    "class_frame",
    "confused_classes",
    "confusion_change_figure",
    "confusion_change_frame",
    "confusion_figure",
    "confusion_frame",
    "difference_figure",
    "difference_frame",
    "leaderboard_figure",
    "leaderboard_frame",
    "learning_curves_figure",
    "learning_curves_frame",
    "live_curves_figure",
    "live_curves_frame",
    "load_figure",
    "mistakes_frame",
    "outcome_frame",
    "precision_recall_figure",
    "precision_recall_frame",
    "reliability_figure",
    "reliability_frame",
    "roc_figure",
    "roc_frame",
    "votes_figure",
    "votes_frame",
]
