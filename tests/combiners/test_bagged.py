import numpy as np
import pytest

from ensembler.combiners import make_combiner
from ensembler.combiners.bagged import Bagged, draw_rows
from ensembler.combiners.inner import inner_splits
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS


def test_rows_are_drawn_within_their_fold():
    fold = np.repeat([0, 1, 2], [30, 20, 10])
    rows = draw_rows(fold, np.random.default_rng(0))
    np.testing.assert_array_equal(np.bincount(fold[rows]), [30, 20, 10])
    assert 25 < len(np.unique(rows)) < 50  # about 63 % of 60


def test_copies_of_a_row_stay_on_one_side_of_what_the_base_splits(library, monkeypatch):
    predictions = library(n_folds=1, n_samples=60)
    seen = []

    def record(self, part):
        for fitted, held_out in inner_splits(part.labels, part.fold):
            seen.append(set(part.sample_ids[fitted]) & set(part.sample_ids[held_out]))
        return fit(self, part)

    kind = type(make_combiner("mean"))
    fit = kind.fit
    monkeypatch.setattr(kind, "fit", record)
    Bagged(base="mean", bags=2).fit(predictions)
    assert len(seen) == 6
    assert not set.union(*seen)


def test_answers_with_the_mean_of_its_bags(library):
    predictions, unseen = library(), library(seed=1)
    combiner = Bagged(base="greedy", bags=3).fit(predictions)
    rng = np.random.default_rng(0)
    bags = [make_combiner("greedy").fit(predictions.rows(draw_rows(predictions.fold, rng))) for _ in range(3)]
    expected = np.mean([bag.predict(unseen).proba[0] for bag in bags], axis=0)
    np.testing.assert_allclose(combiner.predict(unseen).proba[0], expected, atol=1e-6)


def test_is_steadier_than_an_unsteady_base(library):
    """The best member alone is chosen anew in each bag, so the bags hold several good ones."""
    predictions = library(n_members=10, n_samples=120)
    log_loss, one = METRICS["log_loss"], {"rounds": 1}
    alone = cross_fit(make_combiner("greedy", **one), predictions, log_loss)
    bagged = cross_fit(Bagged(base="greedy", base_params=one, bags=10), predictions, log_loss)
    assert bagged.score < alone.score


def test_the_seed_draws_other_bags(library):
    predictions = library()
    first, second = (
        Bagged(base="greedy", bags=2, seed=seed).fit(predictions).predict(predictions).proba
        for seed in (0, 1)
    )
    assert not np.array_equal(first, second)


def test_no_bags_are_refused():
    with pytest.raises(CombinerError, match="bagged: bags is 0; expected an integer of 1 or more"):
        Bagged(bags=0)
