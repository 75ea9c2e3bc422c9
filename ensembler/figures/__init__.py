"""Figures in pairs: `*_frame` gives the numbers as a DataFrame, `*_figure` draws such a frame with Plotly.

Names are data, not markup: Plotly reads a few HTML tags in text, so they are escaped before they are drawn
(`style.text`). The app and the report draw the same figures.
"""

from .classes import class_figure, class_frame, confusion_figure, confusion_frame
from .curves import learning_curves_figure, learning_curves_frame
from .differences import difference_figure, difference_frame
from .leaderboard import leaderboard_figure, leaderboard_frame
from .reliability import reliability_figure, reliability_frame
from .style import KIND_COLOURS, KIND_SYMBOLS, PALETTE

__all__ = [
    "KIND_COLOURS",
    "KIND_SYMBOLS",
    "PALETTE",
    "class_figure",
    "class_frame",
    "confusion_figure",
    "confusion_frame",
    "difference_figure",
    "difference_frame",
    "leaderboard_figure",
    "leaderboard_frame",
    "learning_curves_figure",
    "learning_curves_frame",
    "reliability_figure",
    "reliability_frame",
]
