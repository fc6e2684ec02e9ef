"""Closure of a reweighting."""

import numpy as np

from bayesunfold.reweighting.closure import cross_fitted_scores


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
