"""Closure of a reweighting."""

import numpy as np
import pytest

from bayesunfold.reweighting.closure import _pareto_k, cross_fitted_scores, roc_curve, weighted_auc


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


@pytest.mark.parametrize("k", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("n", [1000, 5000, 20_000])
def test_pareto_k_is_the_index_of_the_largest_weights(n, k):
    """Pareto weights of shape k have a generalised Pareto tail of shape k.

    From m events its standard deviation is (1 + k) / sqrt(m); the prior is worth ten events of shape 0.5. Five standard
    deviations for nine samples: false alarm below 1e-5.
    """
    weights = 7.0 * np.random.default_rng(1).uniform(size=n) ** -k
    m = int(3 * np.sqrt(n))
    expected, std = (m * k + 5) / (m + 10), np.sqrt(m) * (1 + k) / (m + 10)
    assert _pareto_k(weights) == pytest.approx(expected, abs=5 * std)


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_weights_of_integers_have_a_pareto_k(factor):
    """Poisson(3) to Poisson(3 factor): a quarter of the largest and of the smallest weights are equal."""
    n = np.random.default_rng(1).poisson(3, 4000)
    assert _pareto_k(factor**n) == 0.0
    assert _pareto_k(np.append(factor**n, -np.ones(9))) == 0.0


def test_the_area_under_a_roc_curve_is_the_auc_with_ties():
    """The trapezoids of equal scores are their half counts; negative weights included."""
    rng = np.random.default_rng(2)
    score, label = rng.integers(0, 6, 500).astype(float), rng.integers(0, 2, 500)
    weight = rng.uniform(0.5, 1.5, 500) * np.where(rng.random(500) < 0.1, -1, 1)
    for w in (np.ones(500), weight):
        x, y = roc_curve(score, label, w)
        assert len(x) == 7  # (0, 0), and the end of each of six scores
        assert np.trapezoid(y, x) == pytest.approx(weighted_auc(score, label, w), rel=1e-12)
    x, y = roc_curve(np.full(500, 0.5), label, weight)
    assert (x.tolist(), y.tolist()) == ([0.0, 1.0], [0.0, 1.0])
