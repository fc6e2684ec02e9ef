"""Closure of a reweighting."""

import numpy as np
import pytest

from bayesunfold.reweighting.closure import _pareto_k, cross_fitted_scores, roc_curve, weighted_auc


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
