"""Learned prior scales: fits that end in a network of zero weights."""

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold.classifier import evidence, training
from bayesunfold.errors import ConvergenceWarning

CORNERS = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])
CONTRAST = np.array([1, 1, -1, -1]) / 4


@pytest.fixture
def _first_start_is_zero(monkeypatch):
    """A start that any processor ends in: the network of zero weights is stationary."""
    monkeypatch.setattr(training, "initial_weights", lambda layout, _: np.zeros(layout.n_parameters))


def _fit(correlation):
    """Two features with the same distributions in both classes, and a correlation in the second class only."""
    rng = np.random.default_rng(2)
    zero = rng.normal(size=(800, 2))
    one = rng.multivariate_normal([0, 0], [[1, correlation], [correlation, 1]], 800)
    network = bu.Network(hidden=(6,), activation="softplus", prior_scale="evidence")
    classifier = bu.BayesianClassifier(network, "laplace", draws=200, random_state=1)
    return classifier.fit(np.concatenate([zero, one]), np.repeat([0, 1], 800))


@pytest.mark.usefixtures("_first_start_is_zero")
def test_a_start_that_ends_in_nothing_is_left():
    """The log ratio holds ``rho x y / (1 - rho^2)``, 0.94 for 0.6: within five standard deviations (6e-7)."""
    fitted = _fit(0.6)
    found, draws = CONTRAST @ fitted.log_ratio(CORNERS), fitted.log_ratio_draws(CORNERS) @ CONTRAST
    assert abs(found - 0.6 / (1 - 0.6**2)) < 5 * draws.std()
    assert 0.02 < draws.std() < 0.2  # a correlation of 800 events is known to 0.04
    np.testing.assert_array_equal(_fit(0.6).log_ratio(CORNERS), fitted.log_ratio(CORNERS))


@pytest.mark.usefixtures("_first_start_is_zero")
def test_samples_that_are_alike_stay_alike_without_a_word():
    """Warnings are errors here."""
    assert np.abs(_fit(0.0).log_ratio(CORNERS)).max() < 0.3


@pytest.mark.usefixtures("_first_start_is_zero")
def test_nothing_learned_of_classes_that_differ_is_warned_of(monkeypatch):
    monkeypatch.setattr(evidence, "_says_nothing", lambda *_: True)
    with pytest.warns(ConvergenceWarning, match=r"learned nothing from any random start.*Raise restarts="):
        _fit(0.6)
    _fit(0.0)


def test_other_starts_are_for_fits_that_say_nothing(monkeypatch):
    monkeypatch.setattr(evidence, "OTHER_STARTS", 0)
    alone = _fit(0.6).log_ratio(CORNERS)
    monkeypatch.undo()
    np.testing.assert_array_equal(_fit(0.6).log_ratio(CORNERS), alone)


def test_evidence_of_a_step_is_that_of_a_linear_model():
    """``y = F c + noise`` with Normal(0, 1) coefficients and noise: ``y`` is Normal(0, 1 + F F')."""
    rng = np.random.default_rng(3)
    features, y = rng.normal(size=(7, 3)), rng.normal(size=7)
    expected = stats.multivariate_normal(np.zeros(7), np.eye(7) + features @ features.T).logpdf(y)
    expected -= stats.norm.logpdf(y).sum()
    found = evidence._step_evidence(np.eye(3) + features.T @ features, features.T @ y)
    assert found == pytest.approx(expected, rel=1e-10)
