import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ensembler.combiners.mean import Mean
from ensembler.combiners.stacking_knn import StackingKnn
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions


def test_counts_are_scikit_learns_neighbours_on_top_of_the_mean(library):
    predictions, unseen = library(), library(seed=1)
    combiner = StackingKnn(ks=(9,)).fit(predictions)
    assert np.isfinite(combiner.prior_[0])

    def roots(p):
        return np.sqrt(p.proba.transpose(1, 0, 2).reshape(p.n_samples, -1).astype(np.float64))

    model = KNeighborsClassifier(9).fit(roots(predictions), predictions.labels)
    prior = combiner.prior_[0]
    expected = (9 * model.predict_proba(roots(unseen)) + prior * unseen.proba.mean(axis=0)) / (9 + prior)
    np.testing.assert_allclose(combiner.predict(unseen).proba[0], expected, atol=1e-5)


def test_undoes_a_confusion_out_of_fold(library):
    predictions = library(n_samples=600)
    swapped = predictions.with_proba(predictions.proba[:, :, [1, 0, 2, 3]], predictions.members)
    fit = cross_fit(StackingKnn(), swapped, METRICS["accuracy"])
    assert fit.score > METRICS["accuracy"](swapped.labels, swapped.proba.mean(axis=0)) + 0.3


def test_the_label_of_a_row_does_not_choose_for_it():
    """With random labels near neighbours say nothing: the prior chosen is that of the mean alone."""
    rng = np.random.default_rng(0)
    noise = Predictions.from_arrays(np.full((2, 400, 2), 0.5), rng.integers(2, size=400), np.arange(400) % 4)
    combiner = StackingKnn().fit(noise)
    proba = combiner.predict(noise).proba
    np.testing.assert_allclose(proba, Mean().fit(noise).predict(noise).proba, atol=0.1)


def test_no_more_rows_are_kept_than_allowed(library):
    predictions = library()
    combiner = StackingKnn(max_rows=50).fit(predictions)
    assert combiner.points_.shape == (50, 20)
    assert len(combiner.labels_) == 50
    again = StackingKnn(max_rows=50).fit(predictions)
    np.testing.assert_array_equal(again.points_, combiner.points_)


def test_numbers_of_neighbours_are_checked():
    with pytest.raises(
        CombinerError, match=r"stacking_knn: ks is \(0,\); expected whole numbers of 1 or more"
    ):
        StackingKnn(ks=[0])
