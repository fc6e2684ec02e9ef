"""Tests at detector level of a direct posterior: their null distributions, and what they find."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2, kstest

import bayesunfold as bu
from bayesunfold.direct import posterior
from bayesunfold.direct.criticism import chi2_tail


@pytest.mark.parametrize("dof", [1, 3, 30, 300])
def test_tail_of_equal_scales_is_that_of_the_chi_square(dof):
    """The saddlepoint method's own error is a few per cent of the tail for one degree of freedom, and falls."""
    for p in (0.99, 0.9, 0.5, 0.1, 1e-3, 1e-6):
        value = chi2(dof).isf(p)
        found = chi2_tail(2.5 * value, np.full(dof, 2.5))
        np.testing.assert_allclose(found, p, rtol=0.1 if dof == 1 else 0.03)
    assert chi2_tail(0.0, np.ones(dof)) == 1.0
    assert chi2_tail(float(dof), np.ones(dof)) == pytest.approx(chi2(dof).sf(dof), rel=0.05)


@pytest.mark.statistical
def test_tail_of_unequal_scales_beside_a_simulation():
    """A million draws: 5 standard errors (1e-6), and 2 % of the saddlepoint method."""
    scale = np.array([3.0, 1.0, 0.5, 0.1, 0.1])
    draws = np.random.default_rng(1).standard_normal((1_000_000, 5)) ** 2 @ scale
    for value in (1.0, 4.0, 10.0, 25.0):
        share = (draws > value).mean()
        assert abs(chi2_tail(value, scale) - share) < 5 * np.sqrt(share * (1 - share) / 1e6) + 0.02 * share


def unfold(reco_shift: float, seed: int):
    """A detector whose data are shifted by something that no particle level can make."""
    rng = np.random.default_rng([seed, 99])
    gen, truth = rng.normal(0, 1, 8000), rng.normal(0.1, 1, 4000)
    # a second reading that is the first again in simulation, and off in data
    simulation = bu.Simulation(gen, np.column_stack([gen + rng.normal(0, 0.3, 8000), rng.normal(0, 1, 8000)]))
    second = rng.normal(reco_shift, 1, 4000)
    data = bu.Data(np.column_stack([truth + rng.normal(0, 0.3, 4000), second]))
    return bu.UnbinnedFBU(draws=20, random_seed=seed, progressbar=False).fit(simulation, data)


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BayesUnfoldWarning")
def test_a_response_that_is_wrong_is_found():
    """No reweighting of particle level moves a reading that does not depend on it: 0.3 of its width is 15 sigma."""
    found = unfold(0.3, 1).history[0]["criticism"]
    assert found["chi2_p_value"] < 1e-6
    right = unfold(0.0, 1).history[0]["criticism"]
    assert right["chi2_p_value"] > 1e-4
    assert right["p_value"] > 1e-4
    toy = bu.datasets.gaussian_toy(300, 400, random_seed=1)
    without = bu.UnbinnedFBU(draws=20, rounds=0, random_seed=1, progressbar=False).fit(toy.simulation, toy.measurement)
    assert np.isnan(without.history[0]["criticism"]["p_value"])


def test_features_of_second_classifiers_join_the_moments(monkeypatch):
    """With a threshold of zero no round adds any, of one every round; the answer stays within its band."""
    toy = bu.datasets.gaussian_toy(500, 600, random_seed=2)
    unfolder = bu.UnbinnedFBU(draws=100, rounds=2, random_seed=1, progressbar=False)
    monkeypatch.setattr(posterior, "DIFFERENCE", 0.0)
    plain = unfolder.fit(toy.simulation, toy.measurement)
    monkeypatch.setattr(posterior, "DIFFERENCE", 1.1)
    more = unfolder.fit(toy.simulation, toy.measurement)
    assert plain.history[0]["criticism"]["rounds"] == 0
    assert more.history[0]["criticism"]["rounds"] == 2
    assert more.history[0]["criticism"]["moments"] >= plain.history[0]["criticism"]["moments"]
    one, two = (r.spectrum("gen", [-3.0, -1.0, 1.0, 3.0, 5.0]) for r in (plain, more))
    assert np.all(np.abs(one.nominal - two.nominal) < 2 * np.hypot(one.std(), two.std()))


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BayesUnfoldWarning")
def test_one_data_event_has_no_second_classifier():
    """It has no second half to test on: the answer is that without rounds."""
    toy = bu.datasets.gaussian_toy(1, 400, random_seed=1)
    found = [
        bu.MomentUnfolding(draws=20, rounds=rounds, random_seed=1, progressbar=False).fit(toy.simulation, [[1.0]])
        for rounds in (0, 1)
    ]
    assert all(np.isnan(r.history[0]["criticism"]["p_value"]) for r in found)
    np.testing.assert_array_equal(found[0].nominal, found[1].nominal)


@pytest.mark.slow
@pytest.mark.statistical
def test_p_values_are_uniform():
    """200 pseudo-experiments with the right response: Kolmogorov-Smirnov above 1e-4 for both tests."""
    found = []
    for seed in range(200):
        toy = bu.datasets.gaussian_toy(
            1000, 5000, smear=0.5, shift=0.0, gen=(0.0, 1.0), truth=(0.3, 0.9), poisson=True, random_seed=seed
        )
        fit = bu.UnbinnedFBU(draws=2, random_seed=seed, progressbar=False).fit(toy.simulation, toy.measurement)
        found.append([fit.history[0]["criticism"][name] for name in ("chi2_p_value", "p_value")])
    for values in np.array(found).T:
        assert kstest(values, "uniform").pvalue > 1e-4
