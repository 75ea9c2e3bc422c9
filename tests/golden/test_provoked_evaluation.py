"""What evaluation says of rows and members that nothing can be found out from."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ensembler.errors import EnsemblerError
from ensembler.evaluation.bbc import bias_corrected
from ensembler.evaluation.diversity import ambiguity
from ensembler.evaluation.hypothesis_tests import fold_test
from ensembler.evaluation.labels import LabelIssue, label_issues, rows_without
from ensembler.metrics import get_metric
from ensembler.predictions import Predictions

LOSS = get_metric("log_loss")
PROBA = np.tile([[0.7, 0.3], [0.4, 0.6]] * 2, (2, 1, 1))
LABELS = (0, 1, 0, 1)
ROWS = Predictions.from_arrays(PROBA, LABELS, np.arange(4) % 2)
ONE_CLASS = Predictions.from_arrays(PROBA, (1, 1, 1, 1), np.arange(4) % 2)


def issue(sample_id: str) -> LabelIssue:
    return LabelIssue(sample_id, "0", "1", 0.1, 0.1, 1)


#: What is done -> what is said of it.
CASES: list[tuple[str, Callable[[], object], str]] = [
    (
        "a metric that no resample defines",
        lambda: bias_corrected(ONE_CLASS, get_metric("roc_auc"), n_boot=5),
        "roc_auc: undefined on the samples left out of each of 5 resamples of 4; the correction needs more samples",
    ),
    (
        "the ambiguity of a combination that has none",
        lambda: ambiguity(ROWS, "brier", "geometric"),
        "ambiguity: 'brier' of the 'geometric' combination; expected 'brier' of the 'mean', or 'log_loss' of the "
        "'mean' or 'geometric' one",
    ),
    (
        "a t-test over one fold",
        lambda: fold_test(Predictions.from_arrays(PROBA, LABELS, np.zeros(4, np.int64)), LOSS, "m0", "m1"),
        "fold: the t-test needs two folds or more; found [0]",
    ),
    (
        "label issues by nobody",
        lambda: label_issues(ROWS, []),
        "members: none given; expected at least one",
    ),
    (
        "issues of every row",
        lambda: rows_without(ROWS, [issue(name) for name in ROWS.sample_ids]),
        "issues: all 4 rows are suspect, so that nothing is left to compare; give fewer issues",
    ),
]


@pytest.mark.parametrize(("act", "says"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_cannot_be_evaluated_is_told(act: Callable[[], object], says: str) -> None:
    with pytest.raises(EnsemblerError) as caught:
        act()
    assert str(caught.value) == says
