"""One iteration: the normalisation of its weights, warm starts, and stored networks."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.errors import ConvergenceError
from bayesunfold.omnifold.iteration import fit_near, hidden_centre, iterate, recall, train
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.standardized import standardize

SETTINGS = Settings(2, bu.Network((6, 5)), "laplace", 20)


@pytest.fixture(scope="module")
def events(accepted):
    return standardize(*accepted)


@pytest.fixture(scope="module")
def first(events):
    return iterate(events, SETTINGS, None, None, train(training_stream(1, 0)))


def test_pull_weights_have_mean_one_over_events_that_pass_both(events, first):
    both = events.passes.both
    assert np.average(first.pull[both], weights=events.weight[both]) == pytest.approx(1.0, abs=1e-12)
    assert np.isnan(first.pull[~both]).all()


def test_push_weights_are_the_ratio_of_step_2_and_that_of_fakes_for_fakes(events, first):
    gen, fakes = events.passes.gen, events.passes.fakes
    np.testing.assert_allclose(first.push[gen], np.exp(first.step2.log_ratio(events.gen[gen])))
    ratio = np.exp(first.fakes.log_ratio(events.reco))
    factors = first.push[fakes] / ratio[fakes]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-5)
    both, v = events.passes.both, events.weight
    # fakes are on the scale of the events that pass both levels
    mean = np.average(first.push[both], weights=v[both]) / np.average(ratio[both], weights=v[both])
    assert factors[0] == pytest.approx(mean, rel=1e-5)


def test_stored_networks_give_the_same_iteration(events, first):
    again = iterate(events, SETTINGS, None, None, recall(first.networks()))
    np.testing.assert_array_equal(again.push, first.push)
    np.testing.assert_array_equal(again.pull, first.pull)
    assert again.networks().losses == first.networks().losses


def test_networks_near_the_optimum_stay_there(events, first):
    """The objective does not rise, and the weights agree within the fit's tolerance."""
    again = iterate(events, SETTINGS, None, None, fit_near(training_stream(9, 0), first.networks()))
    for name, loss in again.networks().losses.items():
        assert loss <= first.networks().losses[name] + 1e-3 * abs(loss)


def test_the_second_iteration_starts_from_the_first(events, first):
    seen = {}

    def learn(name, layout, classes, start):
        seen[name] = start
        return recall(first.networks())(name, layout, classes, start)

    iterate(events, SETTINGS, first, first.networks(), learn)
    layout, _ = SETTINGS.layouts(events)
    hidden = layout.n_hidden_parameters
    centre = hidden_centre(layout, first.step1.theta)
    np.testing.assert_array_equal(centre[:hidden], first.step1.theta[:hidden])
    assert not centre[hidden:].any()
    np.testing.assert_array_equal(seen["step1"].theta, centre)
    np.testing.assert_array_equal(seen["step1"].centre, centre)
    np.testing.assert_array_equal(seen["step2"].theta, first.step2.theta)
    assert seen["step2"].centre is None


def test_restarts_are_for_the_first_iteration_only(events, first):
    seen = []

    def learn(name, layout, classes, start):
        seen.append(start.restarts)
        return recall(first.networks())(name, layout, classes, start)

    settings = Settings(2, SETTINGS.network, "laplace", 20, restarts=3)
    iterate(events, settings, None, None, learn)
    iterate(events, settings, first, first.networks(), learn)
    assert seen == [3, 3, 3, 1, 1, 1]


def test_an_infinite_ratio_is_an_error_that_names_its_step(events, first):
    def learn(name, layout, classes, start):
        fitted = recall(first.networks())(name, layout, classes, start)
        return Classifier(fitted.name, layout, fitted.theta * 1e6, classes)

    with pytest.raises(ConvergenceError, match="step 1"):
        iterate(events, SETTINGS, None, None, learn)
