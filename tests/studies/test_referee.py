"""Checks that a referee asks for: goodness of fit, bottom line, stress."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError
from bayesunfold.studies.goodness import GoodnessOfFit, pseudo_experiments


@pytest.fixture(scope="module")
def direct():
    toy = bu.datasets.gaussian_toy(500, 1500, smear=0.5, shift=0.0, gen=(0, 1), truth=(0.3, 0.9), random_seed=1)
    unfolder = bu.UnbinnedFBU(draws=100, random_seed=1, progressbar=False)
    return unfolder.fit(toy.simulation, toy.measurement)


def test_goodness_of_fit_counts_pseudo_experiments_that_fit_worse():
    fit = GoodnessOfFit(0.3, 0.2, np.array([0.1, 0.5, 0.9]), np.array([0.4, 0.6, 0.7]))
    assert fit.p_moments == pytest.approx(2 / 4)
    assert fit.p_classifier == pytest.approx(1 / 4)
    assert GoodnessOfFit(0.3, 0.2).p_moments == 0.3
    assert "3 pseudo-experiments" in str(fit)
    untested = GoodnessOfFit(0.3, np.nan, np.array([0.1]), np.array([np.nan]))
    assert np.isnan(untested.p_classifier)
    assert "not tested" in str(untested)


def test_goodness_of_fit_of_a_result(direct):
    closed = direct.goodness_of_fit(0)
    found = direct.history[0]["criticism"]
    assert (closed.moments, closed.classifier) == (found["chi2_p_value"], found["p_value"])
    one = direct.goodness_of_fit(2, progressbar=False)
    np.testing.assert_array_equal(one.null_moments, direct.goodness_of_fit(2, progressbar=False).null_moments)
    assert np.all((one.null_moments > 0) & (one.null_moments < 1))
    make = pseudo_experiments(direct)
    assert make.truth[direct.simulation.pass_reco].sum() == pytest.approx(500)
    shares = make.truth / make.truth.sum()
    np.testing.assert_allclose(shares, direct.nominal / direct.nominal.sum(), rtol=1e-6)


def test_goodness_of_fit_is_that_of_a_direct_posterior():
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    loop = bu.OmniFold(1, inference="laplace", draws=20, random_seed=1, progressbar=False)
    with pytest.raises(InputError, match='method="direct"'):
        loop.fit(toy.simulation, toy.measurement).goodness_of_fit()


def test_the_bottom_line_of_a_blurred_measurement(direct):
    """A detector without smearing and many simulated events: both levels hold ``sum (a - b)^2 / n`` of Poisson data."""
    line = direct.bottom_line(
        lambda t: np.exp(0.1 * t[:, 0]), lambda t: np.exp(-0.1 * t[:, 0]), {"gen": np.linspace(-3, 3, 13)}
    )
    assert set(line.unfolded) == {"gen"}
    rng = np.random.default_rng(4)
    gen = rng.normal(0, 1, 40_000)
    seen = bu.Simulation(gen, gen + rng.normal(0, 0.01, len(gen)))
    result = bu.OmniFold(2, inference="laplace", draws=200, random_seed=4, progressbar=False).fit(
        seen, rng.normal(0, 1, 1000)
    )
    tilt = 0.1
    line = result.bottom_line(
        lambda t: np.exp(tilt * t[:, 0]), lambda t: np.exp(-tilt * t[:, 0]), {"gen": np.linspace(-3, 3, 13)}
    )
    # N (2 tilt)^2 var(t), less what 40 simulated events per data event add; a fifth for the sampled covariance
    assert line.detector == pytest.approx(1000 * (2 * tilt) ** 2 / (1 + 1 / 40), rel=0.2)
    assert "at detector level" in str(line)


def test_the_bottom_line_does_not_depend_on_systematics():
    """A shift of the detector level in the direction of the models' difference, and a background of unknown size.

    Both levels hold what statistics say: N (2 tilt)^2 var(t) / (1 + N / simulated), as above.
    """
    rng = np.random.default_rng(4)
    gen = rng.normal(0, 1, 10_000)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.01, len(gen)))
    shifted = bu.Systematic("shift", reco_up=simulation.reco + 0.3, reco_down=simulation.reco - 0.3)
    top = bu.Background(rng.normal(0, 1, 500), np.full(500, 0.1), "top", 1.0)
    unfolder = bu.OmniFold(
        2, inference="laplace", network=bu.Network(hidden=(4,)), draws=200, random_seed=4, progressbar=False
    )
    result = unfolder.fit(simulation, rng.normal(0, 1, 550), [top], [shifted])
    models = (lambda t: np.exp(0.1 * t[:, 0])), (lambda t: np.exp(-0.1 * t[:, 0]))
    line = result.bottom_line(*models, {"gen": np.linspace(-3, 3, 13)})
    assert line.unfolded["gen"] == pytest.approx(500 * 0.2**2 / (1 + 500 / 10_000), rel=0.35)
    split = result.spectrum("gen", [-3, 0, 3]).by_source()
    assert np.all(split["shift"] > 2 * split["data"])


def test_a_constant_in_a_model_says_nothing():
    """With fakes too, which have the mean factor."""
    rng = np.random.default_rng(6)
    gen = rng.normal(0, 1, 2000)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.5, 2000), pass_gen=rng.random(2000) > 0.2)
    unfolder = bu.OmniFold(
        1, inference="laplace", network=bu.Network(hidden=(4,)), draws=50, random_seed=1, progressbar=False
    )
    result = unfolder.fit(simulation, rng.normal(0, 1, 500))

    def tilt(size):
        return lambda t: size * np.exp(0.1 * t[:, 0])

    bins = {"gen": [-2, 0, 2]}
    with pytest.raises(InputError, match="alike"):
        result.bottom_line(tilt(1.0), tilt(3.0), bins)
    one, three = (result.bottom_line(np.ones(2000), tilt(size), bins) for size in (1.0, 3.0))
    assert three.unfolded["gen"] == pytest.approx(one.unfolded["gen"], rel=1e-6)
    assert three.detector == pytest.approx(one.detector, rel=1e-6)
    own = np.where(simulation.pass_gen, 1.0, np.nan)
    with pytest.raises(InputError, match="alike"):
        result.bottom_line(own, np.ones(2000), bins)


def test_models_that_say_nothing_are_refused(direct):
    ones = np.ones(len(direct))
    with pytest.raises(InputError, match="alike"):
        direct.bottom_line(ones, ones, {"gen": [-1, 0, 1]})
    with pytest.raises(InputError, match="one per event"):
        direct.bottom_line(ones[:3], ones, {"gen": [-1, 0, 1]})
    with pytest.raises(InputError, match="not negative"):
        direct.bottom_line(-ones, ones, {"gen": [-1, 0, 1]})
    with pytest.raises(InputError, match="bins is empty"):
        direct.bottom_line(ones, 1 + (direct.simulation.gen[:, 0] > 0), {})


def test_stress_in_a_hidden_variable_moves_the_truth_and_the_response():
    """The truth of the toys is that of the reweighted simulation: its mean of the hidden variable is exact."""
    rng = np.random.default_rng(5)
    gen, hidden = rng.normal(0, 1, 2000), rng.normal(0, 1, 2000)
    simulation = bu.Simulation(gen, gen + 0.3 * hidden + rng.normal(0, 0.3, 2000))
    quick = {"iterations": 1, "inference": "laplace", "draws": 50}
    study = bu.studies.stress(
        simulation,
        rng.normal(0, 1, 400),
        hidden=hidden,
        bins={"gen": [-3, 0, 3]},
        toys=2,
        settings=quick,
        workers=0,
        progressbar=False,
    )
    weight = np.exp(0.3 * (hidden - hidden.mean()) / hidden.std())
    expected = [400 * weight[(gen >= low) & (gen < low + 3)].sum() / weight.sum() for low in (-3, 0)]
    np.testing.assert_allclose(study.expected, expected)
    for given, message in ((np.ones(2000), "same in every event"), (hidden[:5], "each needs one")):
        with pytest.raises(InputError, match=message):
            bu.studies.stress(simulation, gen, hidden=given, bins={"gen": [-3, 0, 3]})
    with pytest.raises(InputError, match="negative or infinite"):
        bu.studies.stress(simulation, gen, hidden=hidden, bins={"gen": [-3, 0, 3]}, factor=lambda h: h)
