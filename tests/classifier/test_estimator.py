"""The classifier as a scikit-learn estimator, and its ratios against known ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

import bayesunfold as bu
from bayesunfold.classifier import estimator
from bayesunfold.errors import ConvergenceError, ConvergenceWarning

TINY = bu.BayesianClassifier(network=bu.Network(hidden=(6,)), inference="laplace", draws=10, random_state=1)


@pytest.mark.filterwarnings("ignore:feature .* separates the classes")  # some checks use classes that are separate
@parametrize_with_checks([TINY], legacy=False)
def test_scikit_learn_api(estimator, check):
    check(estimator)


NOT_OURS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "classes enter at their Kish effective size: an event of weight 2 is not the information of two events"
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:feature .* separates the classes")  # some checks use classes that are separate
@pytest.mark.usefixtures("_numpy_state_restored")
@parametrize_with_checks([TINY], legacy=True, expected_failed_checks=lambda _: NOT_OURS)
def test_scikit_learn_all_checks(estimator, check):
    check(estimator)


def _samples(n, seed):
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1, n), rng.normal(0.4, 1.1, n)


def _exact(x):
    return -0.5 * ((x - 0.4) / 1.1) ** 2 - np.log(1.1) + 0.5 * x**2


def _fit(p0, p1, **settings):
    X = np.concatenate([p0, p1])[:, None]
    y = np.r_[np.zeros(len(p0)), np.ones(len(p1))]
    return bu.BayesianClassifier(**({"inference": "laplace", "random_state": 2, "draws": 200} | settings)).fit(X, y)


def test_ratio_of_two_gaussians():
    p0, p1 = _samples(20_000, 1)
    clf = _fit(p0, p1)
    x = np.linspace(-2, 2.5, 10)
    draws = clf.log_ratio_draws(x[:, None])
    # each point within 4.5 of its own standard deviations: false alarm below 1e-4 for ten points
    assert np.all(np.abs(clf.log_ratio(x[:, None]) - _exact(x)) < 4.5 * draws.std(axis=0))
    assert np.exp(clf.log_ratio(p0[:, None])).mean() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(np.exp(clf.log_ratio_draws(p0[:, None])).mean(axis=1), 1.0, atol=1e-5)


def test_class_sizes_enter_probabilities_and_not_the_ratio():
    p0, p1 = _samples(3000, 2)
    clf = _fit(p0, p1[:1000])
    assert clf.prior_log_odds_ == pytest.approx(np.log(1 / 3))
    x = np.array([[0.2]])
    odds = clf.predict_proba(x)[0, 1] / clf.predict_proba(x)[0, 0]
    assert np.log(odds) == pytest.approx(float(clf.log_ratio(x)[0]) + np.log(1 / 3), rel=1e-9)


def test_swapping_labels_flips_the_ratio():
    p0, p1 = _samples(2000, 3)
    x = np.linspace(-2, 2, 9)[:, None]
    forward, backward = _fit(p0, p1), _fit(p1, p0)
    width = forward.log_ratio_draws(x).std(axis=0)
    assert np.all(np.abs(forward.log_ratio(x) + backward.log_ratio(x)) < 3.0 * width)  # ten samples: one at most


def test_scaling_weights_changes_nothing():
    p0, p1 = _samples(500, 4)
    X = np.concatenate([p0, p1])[:, None]
    y = np.r_[np.zeros(500), np.ones(500)]
    one = clone(TINY).fit(X, y, sample_weight=np.ones(1000))
    ten = clone(TINY).fit(X, y, sample_weight=np.where(y == 1, 8.0, 0.125))  # exact in binary
    np.testing.assert_allclose(one.log_ratio(X), ten.log_ratio(X), atol=1e-5)


@pytest.mark.parametrize(("events", "weight"), [(300, 1.0), (30, 10.0), (600, 0.5)])
def test_few_heavy_events_know_as_little_as_they_are(events, weight):
    """Two places: a log ratio has the variance 1 / n1 + 1 / n0 of the events of a place, whatever they weigh.

    The mean ratio is one: that of the place that holds a sixth of class 1 moves by five sixths of the difference.
    """
    x = np.repeat([0.0, 1.0, 0.0, 1.0], [3000, events, 3000, 600])[:, None]
    y = np.repeat([0, 1], [3000 + events, 3600])
    w = np.ones(len(x))
    w[3000 : 3000 + events] = weight
    found = bu.BayesianClassifier(bu.Network(hidden=(6,)), inference="laplace", draws=2000, random_state=1)
    width = found.fit(x, y, sample_weight=w).log_ratio_draws([[1.0]]).std()
    # 2000 draws know a width to 1.6 %, and the prior takes a little off
    assert width == pytest.approx(5 / 6 * np.sqrt(1 / 600 + 1 / events + 2 / 3000), rel=0.1)


def test_negative_weights_give_a_finite_ratio_near_the_right_one():
    """A fifth of class 0 with weight -1, drawn from the same distribution: the ratio stays."""
    p0, p1 = _samples(8000, 5)
    rng = np.random.default_rng(5)
    X = np.concatenate([p0, p1])[:, None]
    y = np.r_[np.zeros(8000), np.ones(8000)]
    w = np.where((y == 0) & (rng.random(16_000) < 0.2), -1.0, 1.0)
    clf = bu.BayesianClassifier(inference="laplace", random_state=1).fit(X, y, sample_weight=w)
    x = np.linspace(-1.5, 1.5, 7)
    assert np.all(np.abs(clf.log_ratio(x[:, None]) - _exact(x)) < 5 * clf.log_ratio_draws(x[:, None]).std(axis=0))
    with pytest.raises(ValueError, match="both sums must be positive"):
        clf.fit(X, y, sample_weight=-np.ones(16_000))


@lru_cache
def _of_4000_gaussian_draws():
    return _fit(*_samples(1500, 6), draws=4000)


@pytest.mark.parametrize("inference", ["advi", pytest.param("nuts", marks=pytest.mark.slow)])
def test_advi_and_nuts_agree_with_the_gaussian_posterior(inference):
    """Widths of the log ratio within 18 %.

    Both ensembles are drawn: 4000 Gaussian draws know a width to 1.1 %, 2000 of ADVI to 1.6 % and 1600 of NUTS, worth a
    thousand, to 2.2 %. That is 7 sigma, and room for the bias of ADVI.
    """
    p0, p1 = _samples(1500, 6)
    x = np.linspace(-1.5, 1.5, 5)[:, None]
    gaussian = _of_4000_gaussian_draws().log_ratio_draws(x)
    sampled = _fit(p0, p1, inference=inference, draws={"advi": 2000, "nuts": 1600}[inference]).log_ratio_draws(x)
    np.testing.assert_allclose(sampled.std(axis=0) / gaussian.std(axis=0), 1.0, atol=0.18)
    shift = (sampled.mean(axis=0) - gaussian.mean(axis=0)) / gaussian.std(axis=0)
    assert np.all(np.abs(shift) < 5 * np.sqrt(1 / 4000 + 1 / 800) + 0.1)


@pytest.mark.parametrize(("y", "words"), [([0, 0, 0, 0], "one class"), ([0, 1, 2, 0], "binary")])
def test_bad_labels(y, words):
    with pytest.raises(ValueError, match=words):
        clone(TINY).fit(np.arange(4.0)[:, None], y)


def test_random_starts_are_tried_with_learned_scales_too(monkeypatch):
    from bayesunfold.classifier import evidence

    asked = []

    def noted(*args, restarts=1, start=None, **given):
        asked.append(restarts if start is None else None)
        return fit_map(*args, restarts=restarts, start=start, **given)

    fit_map = evidence.fit_map
    monkeypatch.setattr(evidence, "fit_map", noted)
    rng = np.random.default_rng(1)
    network = bu.Network(hidden=(3,), prior_scale="evidence")
    bu.BayesianClassifier(network, "laplace", draws=5, restarts=3).fit(
        rng.normal(size=(200, 1)), np.repeat([0, 1], 100)
    )
    assert asked[0] == 3


def _negative_tail():
    """Two samples of which the first has negative weights where it has few events."""
    rng = np.random.default_rng(0)
    zero, one = rng.normal(0, 1, 300), rng.normal(0.7, 1, 300)
    x, y = np.concatenate([zero, one])[:, None], np.repeat([0, 1], 300)
    return x, y, np.where((y == 0) & (x[:, 0] > 1.6), -1.0, 1.0)


def test_a_mean_ratio_that_is_not_positive_is_an_error(monkeypatch):
    """A log ratio of 3 x over x = -1, 0, 2 with weights 1, 1, -1 has a mean of e^-3 + 1 - e^6, below zero."""
    monkeypatch.setattr(bu.BayesianClassifier, "_evaluate", lambda *_, **__: (ratio[0], ratio.T))
    x = np.array([[-1.0], [0.0], [2.0], [1.0], [0.0]])
    y, weight = [0, 0, 0, 1, 1], [1.0, 1.0, -1.0, 1.0, 1.0]
    ratio = np.array([[-3.0, 0.0, 6.0]])
    with pytest.raises(ConvergenceError, match="point estimate over class 0 is not positive"):
        clone(TINY).fit(x, y, weight)
    ratio = np.array([[0.0, 0.0, 0.0], [-3.0, 0.0, 6.0]]).T
    monkeypatch.setattr(bu.BayesianClassifier, "_evaluate", lambda *_, **__: (ratio[:, 0], ratio))
    with pytest.raises(ConvergenceError, match="1 of 2 posterior draws"):
        clone(TINY).fit(x, y, weight)


def test_a_fit_that_stops_short_is_told(monkeypatch):
    """Negative weights make the objective fall without end; a healthy fit says nothing (warnings are errors here)."""
    x, y, weight = _negative_tail()
    monkeypatch.setattr(estimator, "log_mean_weight", lambda log_weight, *_: np.zeros(log_weight.shape[:-1]))
    with pytest.warns(ConvergenceWarning, match="the training stopped .*Merge events of negative weight"):
        fitted = clone(TINY).fit(x, y, weight)
    assert not fitted.converged_
    assert clone(TINY).fit(x, y).converged_
