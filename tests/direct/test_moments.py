"""The moments differ from the truth's by as much as their covariance says."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold.direct.moments import Moments, moment_network
from bayesunfold.direct.posterior import find_posterior
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.errors import BayesUnfoldWarning, ConvergenceError
from bayesunfold.omnifold.iteration import iterate, train
from bayesunfold.unfolding.standardized import standardize

SHIFT = 0.3


@pytest.fixture(scope="module")
def six_features():
    """Standardised events of six Gaussian features, the first iteration, and the exact weights."""
    rng = np.random.default_rng(1)
    gen, truth = rng.normal(size=(2000, 6)), rng.normal(SHIFT, 1, (1500, 6))
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.5, gen.shape))
    network = bu.Network((16,), additive=4)
    events = standardize(simulation, bu.Data(truth + rng.normal(0, 0.5, truth.shape)), intervals=(4, 4))
    first = iterate(events, DirectSettings(network, network), None, None, train(training_stream(1, 0)))
    weight = np.exp(SHIFT * gen.sum(axis=1) - 3 * SHIFT**2)
    return events, first, weight * (1500 / weight.sum())


def p_value_of_truth(six_features, classifier):
    """Of the chi-square of data against the simulation with the exact weights."""
    events, first, weight = six_features
    moments = Moments.of(events, first, (classifier,))
    residual = moments.total(events.data.x, events.data.weight) - moments.total(events.reco, weight)
    return stats.chi2.sf(residual @ residual, len(moments))


def test_the_truth_is_as_far_as_the_covariance_says(six_features):
    first = six_features[1]
    assert p_value_of_truth(six_features, moment_network(first.step1, 1)) > 5e-5  # the false-alarm rate
    # features that are trained on the data follow their fluctuations: what the test is for
    assert p_value_of_truth(six_features, first.step1) < 0.01


def test_only_many_features_have_a_network_that_is_drawn(six_features):
    step1 = six_features[1].step1
    one, other = (moment_network(step1, seed) for seed in (1, 2))
    np.testing.assert_array_equal(one.theta, moment_network(step1, 1).theta)
    assert not np.allclose(one.theta, other.theta)
    toy = bu.datasets.gaussian_toy(100, 200, random_seed=2)
    network = bu.Network((4,))
    events = standardize(toy.simulation, toy.measurement, intervals=(0, 0))
    single = iterate(events, DirectSettings(network, network), None, None, train(training_stream(1, 0)))
    assert moment_network(single.step1, 1) is single.step1


def test_the_posterior_is_fitted_to_moments_of_the_drawn_network(six_features):
    events, first, _ = six_features
    network = bu.Network((16,), additive=4)
    found = find_posterior(events, DirectSettings(network, network, rounds=0), first, 5)
    (used,) = found.problem.moments.bounded.classifiers
    np.testing.assert_array_equal(used.theta, moment_network(first.step1, 5).theta)


def test_too_few_data_are_called_that():
    """Two data events have no moment of variance one; negative weights are not to blame."""
    toy = bu.datasets.gaussian_toy(100, 200, random_seed=2)
    unfolder = bu.UnbinnedFBU(bu.Network((4,)), draws=20, rounds=0, random_seed=1, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesUnfoldWarning)
        with pytest.raises(ConvergenceError, match=r"of 2 data events .*say nothing of the shape\. Take more data"):
            unfolder.fit(toy.simulation, toy.data[:2])
