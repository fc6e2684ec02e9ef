"""Moments without bins."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
import bayesunfold.generative.event_posterior as event_posterior
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.generative.training import TrainingPlan
from bayesunfold.unfolding.functions import Functions
from bayesunfold.unfolding.moments import central_moments


def gaussian(seed, data=4000, simulated=20_000):
    """Truth N(0, 1), simulation N(-0.5, 1), smearing 0.5."""
    rng = np.random.default_rng(seed)
    gen, truth = rng.normal(-0.5, 1, simulated), rng.normal(0, 1, data)
    return bu.Simulation(gen, gen + rng.normal(0, 0.5, simulated)), truth + rng.normal(0, 0.5, data)


SIZES = 2000, 8000
"""Of the data and the simulation; bounds are relative to the best errors for these sizes."""


@pytest.fixture(scope="module")
def unfolded():
    return bu.MomentUnfolding(2, random_seed=1, progressbar=False).fit(*gaussian(1, *SIZES))


def test_errors_are_the_best_possible(unfolded):
    """``sqrt(1.25 (1 / data + 1 / simulated))`` and ``1.25 sqrt(2 (...))``, to 20 %: 500 draws know them to 3 %.

    Pulls below five: 6e-7 each.
    """
    moments = unfolded.moments("gen")
    share = sum(1 / n for n in SIZES)
    best = np.sqrt(1.25 * share), 1.25 * np.sqrt(2 * share)
    width = moments.std("draw").values
    np.testing.assert_allclose(width, best, rtol=0.2)
    assert np.all(np.abs(moments.nominal.values - [0, 1]) < 5 * width)


def test_the_log_weight_is_in_the_family(unfolded):
    """A parabola in t: third differences on a grid vanish."""
    grid = np.linspace(-2, 2, 9)
    log_weight = np.log(unfolded.weights_for(grid).nominal.values)
    assert np.abs(np.diff(log_weight, 3)).max() < 1e-4
    assert np.abs(np.diff(log_weight, 1)).max() > 0.1


def test_result_is_one_of_the_direct_posterior(unfolded, tmp_path):
    assert unfolded.spectrum("gen", [-2, 0, 2]).method == "MomentUnfolding"
    assert "2407.11284" in bu.citations(unfolded)
    loaded = bu.load(unfolded.save(tmp_path / "moments.nc"))
    np.testing.assert_allclose(loaded.moments("gen").values, unfolded.moments("gen").values, rtol=1e-4)
    assert len(unfolded.model.free_RVs) > 0
    assert unfolded.goodness_of_fit(0).moments > 1e-6  # closed form, a right answer


def test_functions_of_the_user(monkeypatch):
    """``E[t]`` of a simulation that differs by ``exp(beta t)`` only."""
    simulation, data = gaussian(2, 1000, 4000)  # the simulation's own mean is twelve bands away
    unfolder = bu.MomentUnfolding({"gen": lambda gen: gen[:, 0]}, draws=100, random_seed=1, progressbar=False)
    result = unfolder.fit(simulation, data)
    mean = result.moments("gen", 1)
    assert result.simulation is simulation
    assert abs(float(mean.nominal[0])) < 5 * float(mean.std())
    monkeypatch.setattr(event_posterior, "TrainingPlan", lambda: TrainingPlan(steps=(60, 60)))  # only names are asked
    assert result.event_posterior([0.0], draws=5).feature.values.tolist() == ["gen"]


@pytest.fixture(scope="module")
def with_functions():
    unfolder = bu.MomentUnfolding(
        {"tanh": lambda gen: np.tanh(gen[:, 0])}, draws=20, random_seed=1, progressbar=False, rounds=0
    )
    return unfolder.fit(*gaussian(5, 300, 1000))


@pytest.fixture(scope="module")
def without_functions(with_functions, tmp_path_factory):
    """The same as a file gives it back."""
    return bu.load(with_functions.save(tmp_path_factory.mktemp("moments") / "functions.nc"))


def test_functions_of_the_user_are_not_in_a_file_but_their_weights_are(with_functions, without_functions):
    np.testing.assert_allclose(without_functions.nominal, with_functions.nominal, rtol=1e-6)
    with pytest.raises(InputError, match="does not keep the functions 'tanh'"):
        without_functions.weights_for([0.5])
    assert with_functions.weights_for([0.5]).shape == (20, 1)
    assert "log_weight" in with_functions.to_datatree()["posterior"]


def test_a_result_without_its_functions_has_all_else(without_functions, tmp_path):
    assert "log_weight" not in without_functions.to_datatree()["posterior"]
    again = bu.load(without_functions.save(tmp_path / "again.nc"))
    np.testing.assert_allclose(again.nominal, without_functions.nominal, rtol=1e-6)


def test_an_event_posterior_without_its_functions_is_refused_before_training(without_functions, monkeypatch):

    def trained(*_):
        pytest.fail("the map was trained")

    monkeypatch.setattr(bu.EventPosterior, "fit", trained)
    with pytest.raises(InputError, match="does not keep the functions 'tanh'"):
        without_functions.event_posterior([0.5])
    with pytest.raises(InputError, match="does not keep the functions 'tanh'"):
        bu.studies.event_closure(without_functions)


def test_undefined_features_and_names_of_the_detector_level():
    """Powers of a feature that one event in five lacks; unnamed detector features keep the names they share."""
    rng = np.random.default_rng(6)
    gen = rng.normal(0, 1, (3000, 2))
    gen[rng.random(3000) < 0.2, 1] = np.nan
    reco = gen + rng.normal(0, 0.3, gen.shape)
    simulation = bu.Simulation(gen, reco, undefined="indicator", names=["a", "b"])
    data = bu.Data(reco[:1000], undefined="indicator")
    result = bu.MomentUnfolding(2, draws=50, random_seed=1, progressbar=False, rounds=0).fit(simulation, data)
    assert result.refolded("b", [-3, 0, 3]).undefined.mean() == pytest.approx(np.isnan(reco[:1000, 1]).sum(), rel=0.2)
    assert np.isfinite(result.weights_for(gen[:10]).values).all()
    assert np.isfinite(result.moments("b")).all()


def test_moments_that_depend_on_another_observable():
    """Mean of t is 0.5 x in data and 0 in the simulation, x uniform: in each third within five widths."""
    rng = np.random.default_rng(3)
    n = 20_000
    x, other = rng.uniform(0, 1, (2, n))
    gen, truth = rng.normal(0, 1, n), rng.normal(0, 1, n) + 0.5 * other

    def smeared(t, x):
        return np.c_[t + rng.normal(0, 0.5, n), x + rng.normal(0, 0.05, n)]

    simulation = bu.Simulation(np.c_[gen, x], smeared(gen, x), names=["t", "x"])
    unfolder = bu.MomentUnfolding(1, by="x", draws=200, random_seed=1, progressbar=False, rounds=0)
    result = unfolder.fit(simulation, smeared(truth, other))
    found = result.moments("t", 1, by="x", bins=[0, 1 / 3, 2 / 3, 1]).sel(moment="mean")
    expected = np.array([1, 3, 5]) / 12
    assert np.all(np.abs(found.nominal.values - expected) < 5 * found.std("draw").values)
    assert np.all(found.std("draw").values < 0.05)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_products_are_measured_whatever_the_classifier_saw(seed):
    """Nothing differs between data and simulation, so no classifier sees products; bands stay those of the data.

    The variance of t in a third of 6000 events is known to 1.25 sqrt(2 (3 / 6000 + 3 / 8000)) = 0.052 at best.
    """
    rng = np.random.default_rng(seed)

    def events(n):
        t, x = rng.normal(0, 1, n), rng.uniform(0, 1, n)
        return np.c_[t, x], np.c_[t + rng.normal(0, 0.5, n), x + rng.normal(0, 0.05, n)]

    simulation = bu.Simulation(*events(8000), names=["t", "x"])
    unfolder = bu.MomentUnfolding(2, by="x", draws=200, random_seed=1, progressbar=False, rounds=0)
    result = unfolder.fit(simulation, events(6000)[1])
    std = result.moments("t", 2, by="x", bins=[0, 1 / 3, 2 / 3, 1]).sel(moment="variance").std("draw").values
    assert np.all(std < 0.2)
    assert np.all(std > 0.03)


# moments of any result


def test_moments_are_those_of_the_weights(unfolded):
    found = unfolded.moments("gen", 4)
    x, w = unfolded.simulation.gen_column("gen"), unfolded.nominal
    mean = np.average(x, weights=w)
    central = [np.average((x - mean) ** k, weights=w) for k in (2, 3, 4)]
    expected = [mean, central[0], central[1] / central[0] ** 1.5, central[2] / central[0] ** 2]
    np.testing.assert_allclose(found.nominal, expected, rtol=1e-8)
    weights = unfolded.weights.values.astype(float)
    raw = weights @ x / weights.sum(axis=1)
    np.testing.assert_allclose(found[:, 0] - found[:, 0].mean(), raw - raw.mean(), atol=1e-6)
    np.testing.assert_allclose(found.mean("draw"), expected, rtol=1e-8)


def test_moments_by_bin_keep_their_digits_far_from_zero(unfolded):
    """An observable of a million plus t has the variance of t, and bins without events are NaN."""
    shifted = unfolded.simulation.gen_column("gen") + 1e6
    plain = unfolded.moments("gen", 2, by="gen", bins=[-1, 0, 1, 50, 60])
    far = unfolded.moments(shifted, 2, by="gen", bins=[-1, 0, 1, 50, 60])
    assert far.dims == ("draw", "moment", "bin")
    np.testing.assert_allclose(far[:, 1, :3], plain[:, 1, :3], rtol=1e-6)
    np.testing.assert_allclose(far[:, 0, :3] - 1e6, plain[:, 0, :3], atol=1e-6)
    assert np.isnan(far[:, :, 3]).all()


def test_no_weight_no_moment(unfolded):
    values = unfolded.simulation.gen_column("gen")
    groups = np.full(len(values), -1)
    assert np.isnan(central_moments(unfolded.members, unfolded.nominal, values, groups, 1, 2)).all()


SIMULATION = gaussian(4, 300, 300)[0]
TWO = bu.Simulation(np.c_[SIMULATION.gen, np.ones(300)], SIMULATION.reco, names=["t", "one"])


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: bu.MomentUnfolding(0), InputError, "moments is 0"),
        (lambda: bu.MomentUnfolding(7), InputError, "moments is 7"),
        (lambda: bu.MomentUnfolding({}), InputError, "moments is empty"),
        (lambda: bu.MomentUnfolding({"a": 3}), InputTypeError, "moment 'a' has type int"),
        (lambda: bu.MomentUnfolding(by=3), InputTypeError, "by has type int"),
        (lambda: bu.MomentUnfolding().fit([1.0], [2.0]), InputTypeError, "simulation has type list"),
        (lambda: Functions.of(SIMULATION, {"a": lambda t: t[:3, 0]}, None), InputError, r"gives shape \(3,\)"),
        (lambda: Functions.of(SIMULATION, {"a": lambda t: t[:, 0] * np.inf}, None), InputError, "NaN or infinite"),
        (lambda: Functions.of(SIMULATION, {"a": lambda t: np.ones(len(t))}, None), InputError, "is 1 in every event"),
        (lambda: Functions.of(SIMULATION, 2, "pt"), InputError, "'pt' is not a particle-level feature"),
        (lambda: Functions.of(TWO, 2, "one"), InputError, "'one' is 1 in every event"),
        (lambda: Functions.of(TWO, {"t": lambda t: t[:, 0] ** 2}, "t"), InputError, "the name of the feature 't'"),
    ],
)
def test_bad_inputs(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_bad_arguments_of_moments(unfolded):
    for arguments, words in [
        ({"order": 5}, "order is 5"),
        ({"by": "gen"}, "by and bins go together"),
        ({"bins": [0, 1]}, "by and bins go together"),
    ]:
        with pytest.raises(InputError, match=words):
            unfolded.moments("gen", **arguments)


def test_by_the_only_feature_is_refused():
    with pytest.raises(InputError, match="there is no moment to unfold beside 'gen'"):
        bu.MomentUnfolding(2, by="gen", progressbar=False).fit(SIMULATION, SIMULATION.reco[:, 0])
