"""When the loop stops, and when it warns."""

from __future__ import annotations

import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold.errors import ConvergenceWarning
from bayesunfold.omnifold.convergence import AUTO_CHANGE, look, most_iterations, settled, warn_if_moving
from bayesunfold.omnifold.iteration import train
from bayesunfold.omnifold.loop import iterations, start_perturbations
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.standardized import standardize

AUTO = Settings("auto")


def _history(*changes):
    return [{"change": change} for change in changes]


def test_auto_stops_at_a_small_change_but_never_after_the_first():
    assert not settled(_history(0.0), AUTO)  # the first compares with the generator
    assert not settled(_history(3.0, AUTO_CHANGE), AUTO)
    assert settled(_history(3.0, 0.99 * AUTO_CHANGE), AUTO)
    assert settled(_history(*[1.0] * 12), AUTO)
    assert most_iterations(AUTO) == 12


def test_a_fixed_number_is_taken_whatever_the_changes():
    fixed = Settings(4)
    assert not settled(_history(9.0, 0.0, 0.0), fixed)
    assert settled(_history(9.0, 9.0, 9.0, 9.0), fixed)


@pytest.mark.parametrize(
    ("settings", "change", "words"),
    [
        (AUTO, 0.2, "after 12 iterations the spectrum still moves by 0.20"),
        (Settings(3), 0.6, "the last of 3 iterations still moves the spectrum by 0.60"),
    ],
)
def test_a_moving_spectrum_is_a_warning(settings, change, words):
    with pytest.warns(ConvergenceWarning, match=words):
        warn_if_moving(_history(5.0, change), settings)


@pytest.mark.parametrize(("settings", "change"), [(AUTO, 0.1), (Settings(3), 0.4), (Settings(2), 3.0)])
def test_otherwise_there_is_none(settings, change):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_if_moving(_history(5.0, change), settings)


def test_the_change_is_the_largest_over_reference_bins_in_units_of_the_band():
    """Against the same numbers from the events' weights, bin by bin."""
    toy = bu.datasets.gaussian_toy(400, 500, random_seed=1)
    settings = Settings(2, bu.Network((6,)), "laplace", 100)
    events = standardize(toy.simulation, toy.measurement)
    perturbations = start_perturbations(events, toy.simulation, [], settings, 3)
    states = list(islice(iterations(events, settings, perturbations, 3, lambda k: train(training_stream(3, k))), 2))
    found = look(events, states[1])
    edges = np.quantile(toy.gen[:, 0], np.linspace(0, 1, 11))
    edges[-1] += 1
    weights = np.concatenate([block for _, block in states[1].members(events).blocks()])
    binned = np.array([np.histogram(toy.gen[:, 0], edges, weights=w)[0] for w in weights.T])
    band = (binned / binned.sum(axis=1, keepdims=True)).std(axis=0)
    before, after = (np.histogram(toy.gen[:, 0], edges, weights=s.iteration.push)[0] for s in states)
    change = np.abs(after / after.sum() - before / before.sum()) / band
    assert found["change"] == pytest.approx(change.max(), rel=0.02)  # the quantiles' convention may move one event
    first = look(events, replace(states[0], before=None))
    assert first["change"] > found["change"]
