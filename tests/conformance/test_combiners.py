"""What every combiner promises. A new line in `COMBINERS` is tested here without another one."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from ensembler.combiners import COMBINERS, from_state, make_combiner
from ensembler.combiners.composite import Composite
from ensembler.errors import CombinerError
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.evaluation.significance import bootstrap_scores, bootstrap_weights, interval
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions

every_combiner = pytest.mark.parametrize("key", COMBINERS)

#: Weighted means and products of the members: copies of one member give that member.
AVERAGES = ["mean", "geometric", "rank", "median", "weighted", "convex", "greedy", "bagging", "subset"]
AVERAGES += ["knora_e", "knora_u", "competence", "cascade"]


def library(n_members=4, n_samples=240, n_classes=3, n_folds=3, seed=0):
    """Members of different quality that share some of their errors."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n_samples)
    labels[:n_classes] = np.arange(n_classes)
    shared = rng.normal(size=(n_samples, n_classes))
    own = rng.normal(size=(n_members, n_samples, n_classes)) * np.linspace(0.8, 2, n_members)[:, None, None]
    logits = 2 * np.eye(n_classes)[labels] + shared + own
    return Predictions.from_arrays(softmax(logits), labels, np.arange(n_samples) % n_folds)


def softmax(logits):
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def assert_valid(combined, predictions):
    assert combined.proba.shape == (1, predictions.n_samples, predictions.n_classes)
    assert np.isfinite(combined.proba).all()
    assert combined.proba.min() >= 0
    np.testing.assert_allclose(combined.proba.sum(axis=2, dtype=np.float64), 1, atol=1e-6)


@every_combiner
def test_maps_predictions_to_one_member_over_the_same_samples(key):
    predictions = library()
    combined = make_combiner(key, label="team").fit(predictions).predict(predictions)
    assert_valid(combined, predictions)
    assert combined.members == ("team",)
    assert combined.classes == predictions.classes
    np.testing.assert_array_equal(combined.sample_ids, predictions.sample_ids)
    np.testing.assert_array_equal(combined.fold, predictions.fold)


@every_combiner
def test_is_named_after_its_key_by_default(key):
    predictions = library()
    assert make_combiner(key).fit(predictions).predict(predictions).members == (key,)
    assert COMBINERS[key].name == key


@every_combiner
def test_leaves_its_inputs_as_they_were(key):
    predictions = library()
    before = {name: array.copy() for name, array in predictions.arrays().items()}
    make_combiner(key).fit(predictions).predict(predictions)
    for name, array in predictions.arrays().items():
        np.testing.assert_array_equal(array, before[name])


@every_combiner
def test_same_data_and_seed_give_the_same_bits(key):
    predictions = library()
    combiner = make_combiner(key)
    first = combiner.fit(predictions).predict(predictions).proba
    np.testing.assert_array_equal(combiner.fit(predictions).predict(predictions).proba, first)
    np.testing.assert_array_equal(combiner.clone().fit(predictions).predict(predictions).proba, first)


@every_combiner
def test_survives_the_disk_to_the_same_bits(key, tmp_path):
    predictions, unseen = library(), library(seed=1)
    combiner = make_combiner(key, label="team").fit(predictions)
    state, arrays = combiner.get_state()
    (tmp_path / "state.json").write_text(json.dumps(state))
    save_file(arrays, tmp_path / "arrays.safetensors")
    restored = from_state(
        json.loads((tmp_path / "state.json").read_text()), load_file(tmp_path / "arrays.safetensors")
    )
    assert restored.members_ == combiner.members_
    assert restored.get_params() == combiner.get_params()
    np.testing.assert_array_equal(restored.predict(unseen).proba, combiner.predict(unseen).proba)
    again, arrays_again = restored.get_state()
    assert again == state
    assert all(np.array_equal(arrays_again[name], arrays[name]) for name in arrays)


@every_combiner
def test_matches_members_by_name_when_their_order_differs(key):
    predictions = library()
    combiner = make_combiner(key).fit(predictions)
    shuffled = predictions.select(predictions.members[::-1])
    np.testing.assert_array_equal(combiner.predict(shuffled).proba, combiner.predict(predictions).proba)


@every_combiner
def test_order_of_members_at_fit_does_not_matter(key):
    predictions = library()
    straight = make_combiner(key).fit(predictions).predict(predictions)
    reverse = make_combiner(key).fit(predictions.select(predictions.members[::-1])).predict(predictions)
    if COMBINERS[key].by_name:
        np.testing.assert_array_equal(reverse.proba, straight.proba)
    np.testing.assert_allclose(reverse.proba, straight.proba, atol=2e-3)


@every_combiner
def test_pruned_predicts_the_same_bits_from_the_members_it_uses(key):
    predictions, unseen = library(n_members=6), library(n_members=6, seed=1)
    combiner = make_combiner(key).fit(predictions)
    small = combiner.pruned()
    assert small.members_ == combiner.used_members_ == small.used_members_
    assert (small is combiner) == (combiner.used_members_ == combiner.members_)
    np.testing.assert_array_equal(
        small.predict(unseen.select(small.members_)).proba, combiner.predict(unseen).proba
    )


@every_combiner
def test_members_that_are_not_used_have_no_influence(key):
    predictions = library(n_members=6)
    combiner = make_combiner(key).fit(predictions)
    proba = predictions.proba.copy()
    proba[[m not in combiner.used_members_ for m in predictions.members]] = 1 / 3
    changed = predictions.with_proba(proba, predictions.members)
    np.testing.assert_array_equal(combiner.predict(changed).proba, combiner.predict(predictions).proba)


@every_combiner
def test_weights_where_there_are_any_are_a_distribution_over_members(key):
    combiner = make_combiner(key).fit(library())
    if combiner.weights_ is None:
        assert isinstance(combiner, Composite) or combiner.used_members_ == combiner.members_
        return
    assert combiner.weights_.shape == (4,)
    assert combiner.weights_.min() >= 0
    assert combiner.weights_.sum() == pytest.approx(1)


@every_combiner
@pytest.mark.parametrize(
    "shape", [{"n_members": 1}, {"n_classes": 2}, {"n_members": 1, "n_classes": 2}, {"n_folds": 1}]
)
def test_small_libraries(key, shape):
    predictions = library(n_samples=90, **shape)
    assert_valid(make_combiner(key).fit(predictions).predict(predictions), predictions)


@every_combiner
def test_certainties_right_and_wrong(key):
    predictions = library(n_samples=120)
    certain = np.eye(3)[predictions.proba.argmax(axis=2)]
    predictions = predictions.with_proba(certain, predictions.members)
    combined = make_combiner(key).fit(predictions).predict(predictions)
    assert_valid(combined, predictions)
    assert METRICS["log_loss"](predictions.labels, combined.proba[0]) < 16


@every_combiner
def test_a_class_that_the_fitted_rows_lack(key):
    predictions = library(n_samples=120)
    seen = predictions.rows(predictions.labels != 2)
    assert_valid(make_combiner(key).fit(seen).predict(predictions), predictions)


@every_combiner
def test_a_member_that_says_nothing_and_one_row(key):
    predictions = library(n_samples=60)
    proba = predictions.proba.copy()
    proba[1] = 1 / 3
    predictions = predictions.with_proba(proba, predictions.members)
    assert_valid(make_combiner(key).fit(predictions).predict(predictions), predictions)
    alone = predictions.rows(np.array([0]))
    assert_valid(make_combiner(key).fit(alone).predict(predictions), predictions)


@every_combiner
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    n_members=st.integers(1, 4),
    n_samples=st.integers(6, 40),
    n_classes=st.integers(2, 4),
    sharpness=st.sampled_from([0.0, 1.0, 40.0]),
    seed=st.integers(0, 99),
)
def test_any_valid_predictions_give_valid_rows(key, n_members, n_samples, n_classes, sharpness, seed):
    rng = np.random.default_rng(seed)
    proba = softmax(sharpness * rng.normal(size=(n_members, n_samples, n_classes)))
    labels = rng.integers(n_classes, size=n_samples)
    predictions = Predictions.from_arrays(proba, labels, rng.integers(2, size=n_samples))
    assert_valid(make_combiner(key).fit(predictions).predict(predictions), predictions)


@every_combiner
def test_random_labels_leave_cross_fitted_accuracy_at_chance(key):
    predictions = library(n_members=5, n_samples=600)
    rng = np.random.default_rng(3)
    noise = Predictions.from_arrays(
        predictions.proba, rng.integers(3, size=600), predictions.fold, members=predictions.members
    )
    honest = cross_fit(make_combiner(key), noise, METRICS["log_loss"]).predictions
    weights = bootstrap_weights(600, 1000, seed=0)
    low, high = interval(bootstrap_scores(honest, METRICS["accuracy"], weights)[0])
    assert low <= 1 / 3 <= high


@pytest.mark.parametrize("key", AVERAGES)
def test_identical_members_give_the_member(key):
    one = library(n_members=1)
    copies = one.with_proba(np.repeat(one.proba, 4, axis=0), ["a", "b", "c", "d"])
    combined = make_combiner(key).fit(copies).predict(copies)
    np.testing.assert_allclose(combined.proba, one.proba, atol=1e-6)


@pytest.mark.parametrize("key", ["convex", "greedy", "samme"])
def test_one_perfect_member_is_found_and_used_alone(key):
    predictions = library(n_members=5)
    proba = predictions.proba.copy()
    proba[3] = 0.98 * np.eye(3)[predictions.labels] + 0.02 / 3
    predictions = predictions.with_proba(proba, predictions.members)
    assert make_combiner(key).fit(predictions).used_members_ == ("m3",)


@pytest.mark.parametrize(
    "key", ["bagging", "boosting", "calibrated", *(k for k in COMBINERS if "stack" in k)]
)
def test_one_perfect_member_leads(key):
    predictions = library(n_members=5)
    proba = predictions.proba.copy()
    proba[3] = 0.9 * np.eye(3)[predictions.labels] + 0.1 / 3
    predictions = predictions.with_proba(proba, predictions.members)
    accuracy = METRICS["accuracy"]
    # A network that was fitted to 160 rows may miss two of 240.
    missed = 2 / 240 if key == "stacking_mlp" else 0
    assert cross_fit(make_combiner(key), predictions, accuracy).score >= 1 - missed - 1e-9


@pytest.mark.parametrize("key", [k for k in COMBINERS if k != "samme"])  # votes cannot see who is sure
def test_two_complementary_experts_are_beaten_by_no_single_model(key):
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=400)
    expert_of = labels // 2
    logits = rng.normal(scale=0.3, size=(2, 400, 4))
    for member in range(2):
        logits[member, expert_of == member] += 4 * np.eye(4)[labels[expert_of == member]]
    predictions = Predictions.from_arrays(softmax(logits), labels, np.arange(400) % 4)
    log_loss = METRICS["log_loss"]
    team = cross_fit(make_combiner(key), predictions, log_loss).score
    assert team < min(log_loss(labels, slab) for slab in predictions.proba)


@every_combiner
def test_parameters_are_plain_and_clone_is_not_fitted(key):
    combiner = make_combiner(key).fit(library())
    copy = combiner.clone()
    assert type(copy) is type(combiner)
    assert copy.get_params() == combiner.get_params()
    assert (
        make_combiner(key, **json.loads(json.dumps(combiner.get_params()))).get_params() == copy.get_params()
    )
    with pytest.raises(CombinerError, match=f"{key}: not fitted"):
        copy.predict(library())


@every_combiner
def test_refuses_other_members_other_classes_and_the_test_split(key):
    predictions = library()
    combiner = make_combiner(key).fit(predictions)
    with pytest.raises(CombinerError, match=r"\['m3'\] missing, \['x'\] unknown"):
        combiner.predict(predictions.with_proba(predictions.proba, ["m0", "m1", "m2", "x"]))
    renamed = Predictions.from_arrays(
        predictions.proba, predictions.labels, predictions.fold, classes=["a", "b", "c"]
    )
    with pytest.raises(CombinerError, match=r"fitted on classes \['0', '1', '2'\]; given \['a', 'b', 'c'\]"):
        combiner.predict(renamed)
    test = Predictions.from_arrays(predictions.proba, predictions.labels, split="test")
    with pytest.raises(CombinerError, match="test split"):
        combiner.clone().fit(test)
    assert_valid(combiner.predict(test), test)
