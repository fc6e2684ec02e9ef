"""The loop as a generator of states, and files of earlier versions."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.two_class import ClassWeights, TwoClass
from bayesunfold.omnifold.iteration import recall, train
from bayesunfold.omnifold.loop import iterations, point_estimates, start_perturbations
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.perturbations import Source

FORMAT1 = Path(__file__).parent / "references" / "format1"
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


def test_classes_are_joined_and_labelled():
    x = np.arange(6.0)[:, None]
    data = ClassWeights.of("data", x[:2], ones=np.array([2.0, 0.0]))
    used = np.array([True, False, True, True])
    simulated = ClassWeights("simulation", x[2:], np.zeros(4), np.array([1.0, 0.0, 3.0, 1.0]), used)
    classes = TwoClass((data, simulated), 0.0)
    features, label, weight = classes.labelled()
    np.testing.assert_array_equal(features[:, 0], [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(label, [1, 1, 0, 0, 0])  # data of weight zero are data
    np.testing.assert_array_equal(weight, [2, 0, 1, 3, 1])
    joined = classes.joined()
    np.testing.assert_array_equal(joined.x, features)
    np.testing.assert_array_equal(joined.ones, [2, 0, 0, 0, 0])
    np.testing.assert_array_equal(joined.zeros, [0, 0, 1, 3, 1])
    both = TwoClass((ClassWeights("simulation", x, np.ones(6), np.ones(6)),), 0.0)
    with pytest.raises(ValueError, match="events of simulation are in both classes"):
        both.labelled()


@pytest.mark.parametrize("name", ["plain", "everything", "prior"])
def test_files_of_format_1_are_read(name):
    """Bands as the version read them that wrote the files; processors round the sums to 1e-6."""
    kept = json.loads((FORMAT1 / "numbers.json").read_text())[name]
    loaded = bu.load(FORMAT1 / f"{name}.nc")
    spectrum = loaded.spectrum(kept["column"], [-2, 0, 2])
    assert spectrum.nominal == pytest.approx(kept["nominal"], rel=1e-4)
    assert spectrum.std() == pytest.approx(kept["std"], rel=1e-3)
    split = spectrum.by_source()
    assert set(split) == set(kept["by_source"])
    for source, std in kept["by_source"].items():
        assert split[source] == pytest.approx(std, rel=1e-3, abs=1e-6)
    refolded = loaded.refolded(loaded.simulation.reco_names[0], [-2, 0, 2])
    assert refolded.std() == pytest.approx(kept["refolded"], rel=1e-3)
    assert loaded.configuration["efficiency"] == kept["configuration"]
    if kept["bias"] is not None:
        assert spectrum.bias == pytest.approx(kept["bias"], rel=1e-3, abs=1e-4)


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
