"""Figures in pairs: `*_frame` gives the numbers as a DataFrame, `*_figure` draws such a frame with Plotly.

Names are data, not markup: Plotly reads a few HTML tags in text, so they are escaped before they are drawn
(`style.text`). The app and the report draw the same figures.
"""

from .answers import answer_figure, answer_frame, member_answers_frame
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
from .data import (
    class_counts_figure,
    class_counts_frame,
    folds_figure,
    folds_frame,
    sets_frame,
    sizes_figure,
    sizes_frame,
)
from .differences import difference_figure, difference_frame
from .ensembles import (
    MEASURES,
    contribution_figure,
    contribution_frame,
    diversity_figure,
    diversity_frame,
    weights_figure,
    weights_frame,
)
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
from .monitoring import monitoring_figure, monitoring_frame
from .ranking import precision_recall_figure, precision_recall_frame, roc_figure, roc_frame
from .reliability import reliability_figure, reliability_frame
from .search import (
    importance_figure,
    importance_frame,
    parallel_figure,
    parallel_frame,
    pruning_figure,
    pruning_frame,
    repeated_epochs,
    scored_trials,
    search_cost_figure,
    search_cost_frame,
    searched_parameters,
    trials_frame,
)
from .style import KIND_COLOURS, KIND_SYMBOLS, PALETTE

__all__ = [
    "KIND_COLOURS",
    "KIND_SYMBOLS",
    "MEASURES",
    "OUTCOMES",
    "PALETTE",
    "answer_figure",
    "answer_frame",
    "changes_figure",
    "changes_frame",
    "class_counts_figure",
    "class_counts_frame",
    "class_figure",
    "class_frame",
    "confused_classes",
    "confusion_change_figure",
    "confusion_change_frame",
    "confusion_figure",
    "confusion_frame",
    "contribution_figure",
    "contribution_frame",
    "difference_figure",
    "difference_frame",
    "diversity_figure",
    "diversity_frame",
    "folds_figure",
    "folds_frame",
    "importance_figure",
    "importance_frame",
    "leaderboard_figure",
    "leaderboard_frame",
    "learning_curves_figure",
    "learning_curves_frame",
    "live_curves_figure",
    "live_curves_frame",
    "load_figure",
    "member_answers_frame",
    "mistakes_frame",
    "monitoring_figure",
    "monitoring_frame",
    "outcome_frame",
    "parallel_figure",
    "parallel_frame",
    "precision_recall_figure",
    "precision_recall_frame",
    "pruning_figure",
    "pruning_frame",
    "reliability_figure",
    "reliability_frame",
    "repeated_epochs",
    "roc_figure",
    "roc_frame",
    "scored_trials",
    "search_cost_figure",
    "search_cost_frame",
    "searched_parameters",
    "sets_frame",
    "sizes_figure",
    "sizes_frame",
    "trials_frame",
    "votes_figure",
    "votes_frame",
    "weights_figure",
    "weights_frame",
]
