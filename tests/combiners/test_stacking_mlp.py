import numpy as np

from ensembler.combiners.mean import Mean
from ensembler.combiners.stacking_mlp import StackingMlp, _forward, _gradients
from ensembler.evaluation.cross_fit import cross_fit
from ensembler.metrics import METRICS
from ensembler.predictions import Predictions
from ensembler.probability import log_softmax


def test_gradients_are_those_of_the_log_loss():
    rng = np.random.default_rng(0)
    layers = [rng.normal(size=(4, 3)), rng.normal(size=(4, 2))]
    inputs, offset = rng.normal(size=(9, 4)), rng.normal(size=(9, 2))
    labels = rng.integers(2, size=9)

    def loss(layers):
        return -log_softmax(offset + _forward(layers, inputs)[1])[np.arange(9), labels].mean()

    gradients = _gradients(layers, inputs, offset, np.eye(2)[labels])
    for layer, gradient in zip(layers, gradients, strict=True):
        for at in np.ndindex(layer.shape):
            kept = layer[at]
            layer[at] = kept + 1e-4
            above = loss(layers)
            layer[at] = kept - 1e-4
            np.testing.assert_allclose(gradient[at], (above - loss(layers)) / 2e-4, atol=2e-3)
            layer[at] = kept


def test_learns_what_no_linear_model_can():
    """Which member is right depends on both: the label is the exclusive or of two members' first choices."""
    rng = np.random.default_rng(1)
    choices = rng.integers(2, size=(2, 600))
    labels = choices[0] ^ choices[1]
    proba = 0.8 * np.eye(2)[choices] + 0.1
    predictions = Predictions.from_arrays(proba, labels, np.arange(600) % 3)
    combiner = StackingMlp(learning_rate=0.03, patience=20)
    assert cross_fit(combiner, predictions, METRICS["accuracy"]).score > 0.95


def test_what_cannot_be_learned_is_left_to_the_mean():
    rng = np.random.default_rng(1)
    noise = Predictions.from_arrays(
        rng.dirichlet(np.ones(4), (3, 600)), rng.integers(4, size=600), np.arange(600) % 3
    )
    mean, combiner = Mean().fit(noise).predict(noise), StackingMlp().fit(noise)
    log_loss = METRICS["log_loss"]
    assert combiner.epochs_[0] < combiner.epochs
    honest = cross_fit(StackingMlp(), noise, log_loss).score
    assert honest < log_loss(noise.labels, mean.proba[0]) + 0.02


def test_no_epochs_allowed_is_the_mean(library):
    predictions = library()
    np.testing.assert_allclose(
        StackingMlp(epochs=0).fit(predictions).predict(predictions).proba,
        Mean().fit(predictions).predict(predictions).proba,
        atol=1e-6,
    )


def test_the_seed_starts_elsewhere(library):
    predictions = library()
    first, second = (StackingMlp(seed=seed).fit(predictions).layers_in_ for seed in (0, 1))
    assert not np.array_equal(first, second)
