"""The loop as a generator of states."""

from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold._support.threads import block_threads
from bayesunfold.omnifold.iteration import recall, train
from bayesunfold.omnifold.loop import iterations, point_estimates, start_perturbations
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.perturbations import Source

QUICK = {"inference": "laplace", "draws": 30, "network": bu.Network((6,))}


@pytest.fixture(scope="module")
def result():
    toy = bu.datasets.gaussian_toy(300, 400, random_seed=1)
    return bu.OmniFold(2, random_seed=7, progressbar=False, **QUICK).fit(toy.simulation, toy.measurement)


def _states(result, learners, n):
    events, settings, seed = result.members.events, result.record.settings, result.record.seed
    with block_threads():
        p = start_perturbations(events, result.simulation, [], settings, seed)
        return list(islice(iterations(events, settings, p, seed, learners), n))


def test_the_generator_goes_on_for_as_long_as_someone_asks(result):
    """Its second state is the result of two iterations; a third one needs no other call."""
    states = _states(result, lambda k: train(training_stream(7, k)), 3)
    weights = np.concatenate([block for _, block in states[1].members(result.members.events).blocks()])
    np.testing.assert_array_equal(weights.T, result.weights.values)
    assert [len(state.networks) for state in states] == [1, 2, 3]
    assert states[2].before is states[1].iteration


def test_recalled_networks_give_the_same_state(result):
    states = _states(result, lambda k: recall(result.iterations[k]), 2)
    np.testing.assert_array_equal(states[1].iteration.push, result.members.push)
    np.testing.assert_array_equal(states[1].iteration.pull, result.pull_weights)
    for name, d in states[1].answers.step2.by_source.items():
        np.testing.assert_array_equal(d, result.members.step2.by_source[name])


def test_point_estimates_are_those_of_the_members(result):
    with block_threads():
        loop = point_estimates(result.members.events, result.record.settings, result.record.seed)
        found = next(islice(loop, 1, None))
    np.testing.assert_array_equal(found.push, result.members.push)


def test_settings_survive_their_state():
    settings = Settings(3, bu.Network((5, 4)), "nuts", 400, "prior", 0.1, False, 2)
    assert Settings.from_state(json.loads(json.dumps(settings.state()))) == settings


def test_sources_are_listed_once_with_their_kind(result):
    assert result.members.perturbations.sources == (
        Source("data", "data"),
        Source("simulation", "simulation"),
        Source("prior", "prior"),
    )


def test_training_is_kept_when_the_propagation_is_interrupted(tmp_path, monkeypatch):
    import bayesunfold.omnifold.loop as module

    toy = bu.datasets.gaussian_toy(300, 400, random_seed=1)
    unfolder = bu.OmniFold(2, random_seed=7, progressbar=False, **QUICK)
    path = tmp_path / "run.npz"

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "propagate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            unfolder.fit(toy.simulation, toy.measurement, checkpoint=path)
    with np.load(path) as kept:
        assert len(kept["step1"]) == 1
