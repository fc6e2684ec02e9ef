"""Closure of a reweighting."""

import numpy as np
import pytest

from bayesunfold.reweighting.closure import cross_fitted_scores


def test_chi_square_has_the_covariance_of_normalised_shapes():
    """From residuals of single events and without the last bin, whose content is one less the others'."""
    from scipy import stats

    from bayesunfold.reweighting.closure import _chi2

    rng = np.random.default_rng(2)
    a, b = rng.normal(0, 1, 800), rng.normal(1, 1, 900)
    weights = np.exp(a - 0.5), rng.exponential(size=900)
    edges = np.quantile(b, np.linspace(0, 1, 11)[1:-1])
    difference, covariance = np.zeros(9), np.zeros((9, 9))
    for sign, x, w in zip((1, -1), (a, b), weights, strict=True):
        inside = np.eye(10)[np.searchsorted(edges, x, side="right")]
        shape = w @ inside / w.sum()
        residual = (inside - shape)[:, :9] * w[:, None] / w.sum()
        difference, covariance = difference + sign * shape[:9], covariance + residual.T @ residual
    expected = difference @ np.linalg.solve(covariance, difference)
    assert _chi2(a, b, *weights) == pytest.approx((expected, 9, stats.chi2.sf(expected, 9)), rel=1e-8)
    assert _chi2(np.ones(30), np.ones(20), rng.random(30), rng.random(20)) == (0.0, 0, 1.0)  # one bin


def test_chi_square_of_exact_weights_is_one_per_degree_of_freedom():
    """Forty events of weight 25 hold half of the total, so that both halves fluctuate with them.

    The mean of 400 chi-squares of one degree of freedom is known to 0.08: 4.4 of it is once in 1e5.
    The diagonal alone gives 11.
    """
    from bayesunfold.reweighting.closure import _chi2

    rng = np.random.default_rng(1)
    found = []
    for _ in range(400):
        heavy = rng.random(2000) < 0.02
        source = rng.random(2000) * np.where(heavy, 1, -1)
        weight = np.where(heavy, 0.5 / 0.02, 0.5 / 0.98)
        found.append(_chi2(source, rng.uniform(-1, 1, 20_000), weight, np.ones(20_000), bins=2)[0])
    assert abs(np.mean(found) - 1) < 0.35


def test_boosted_trees_take_one_thread():
    """More wait for one another, for minutes where a core is busy; a classifier of the user's keeps its threads."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.naive_bayes import GaussianNB
    from threadpoolctl import threadpool_info

    seen = []

    def threads():
        return {info["num_threads"] for info in threadpool_info() if info["user_api"] == "openmp"}

    class Trees(HistGradientBoostingClassifier):
        def fit(self, x, y, sample_weight=None):
            seen.append(threads())
            return super().fit(x, y, sample_weight)

    class Bayes(GaussianNB):
        def fit(self, x, y, sample_weight=None):
            seen.append(threads())
            return super().fit(x, y, sample_weight)

    rng = np.random.default_rng(1)
    a, b, w = rng.normal(size=(200, 1)), rng.normal(size=(200, 1)), np.ones(200)
    outside = threads()
    cross_fitted_scores(Trees(max_iter=2), a, b, w, w)
    assert all(each == {1} for each in seen)
    seen.clear()
    cross_fitted_scores(Bayes(), a, b, w, w)
    assert all(each == outside for each in seen)
    assert threads() == outside
