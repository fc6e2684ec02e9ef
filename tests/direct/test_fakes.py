"""Moments whose fakes are weighted by a classifier of the same data: their covariance, and their chi-square's law."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

import bayesunfold as bu
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.direct import criticism
from bayesunfold.direct.criticism import chi2_p_value
from bayesunfold.direct.fakes import derivative_by_fakes, noise_covariance
from bayesunfold.direct.mode import Mode
from bayesunfold.direct.moments import Moments, detector_weights
from bayesunfold.direct.precision import Evidence
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.omnifold.problems import step1_classes
from bayesunfold.unfolding.standardized import standardize


def alike(background: float = 0.0):
    """Data, signal and fakes with the same detector level, event by event: step 1 has nothing to learn.

    Every event is there once as signal and once as fake, so half of the simulation is fakes. A background of the same
    detector level holds a part of the data.
    """
    x = np.random.default_rng(1).normal(0, 1, (2000, 1))
    gen = np.ones(4000, bool)
    gen[2000:] = False
    simulation = bu.Simulation(np.vstack([x, x]), np.vstack([x, x]), pass_gen=gen)
    backgrounds = [bu.Background(x, np.full(2000, background))] if background else []
    events = standardize(simulation, bu.Data(x), backgrounds, intervals=(4, 0))
    layout = bu.Network((6,), additive=4).layout(1, events.scales.reco)
    zero = np.zeros(layout.n_parameters)
    step1 = Classifier("step 1", layout, zero, step1_classes(events, np.ones(4000)))
    first = Iteration(step1, step1, None, np.ones(4000), np.ones(4000))
    return events, first, Moments.of(events, first, (step1,))


@pytest.fixture(scope="module")
def without_background():
    return alike()


def test_the_derivative_is_that_of_reweighted_fakes(without_background):
    """Against finite differences of moments whose fakes keep their total."""
    events, first, moments = without_background
    fakes = events.passes.fakes
    x, w = events.reco[fakes], detector_weights(events, first)[fakes]
    found = derivative_by_fakes(moments, x, w, first.step1)
    rng = np.random.default_rng(2)
    for _ in range(3):
        d = rng.standard_normal(found.shape[1])
        change = first.step1.change(x, d[:, None])[:, 0].astype(float)

        def total(step, change=change):
            moved = w * np.exp(step * change)
            return moments.total(x, moved * (w.sum() / moved.sum()))

        expected = (total(1e-3) - total(-1e-3)) / 2e-3
        np.testing.assert_allclose(found @ d, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("background", "share", "simulated"), [(0.0, 0.5, 4000.0), (0.5, 0.25, 16_000 / 3)])
def test_fakes_that_follow_the_data_leave_the_rest_of_a_moment(background, share, simulated):
    """Closed form of a direction of information L, of which step 1 follows f = L / (1 + L) of a fluctuation.

    A moment with a share s of fakes keeps the variance (1 - s f)^2 + s^2 f (1 - f), the last of step 1's prior. The
    information is that of 2000 data events and of the effective number of those of class 0.
    """
    events, first, moments = alike(background)
    step1, n = first.step1, 2000.0
    j = step1.tangent(events.data.x).astype(float)
    values = np.linalg.eigvalsh(np.cov(j.T, bias=True))[::-1][: len(moments)]
    information = n * simulated / (n + simulated) * values
    f = information / (1 + information)
    expected = (1 - share * f) ** 2 + share**2 * f * (1 - f)
    found = np.linalg.eigvalsh(noise_covariance(events, moments, first))
    np.testing.assert_allclose(found, np.sort(expected), rtol=0.03)


def test_moments_without_fakes_have_unit_covariance(without_background):
    events, first, moments = without_background
    every = bu.Simulation(events.reco, events.reco)
    plain = standardize(every, bu.Data(events.data.x))
    np.testing.assert_array_equal(noise_covariance(plain, moments, first), np.eye(len(moments)))


def test_the_p_value_of_a_fit_knows_that_fakes_follow(monkeypatch):
    """Fakes that follow the data make a small chi-square usual, so the same one has a smaller p-value."""
    rng = np.random.default_rng(4)
    gen, fakes = rng.normal(0, 1, (300, 1)), rng.normal(0, 1.5, (200, 1))
    passes = np.arange(500) < 300
    simulation = bu.Simulation(np.vstack([gen, fakes]), np.vstack([gen + 0.3, fakes]), pass_gen=passes)
    data = rng.normal(0.3, 1.2, (400, 1))
    unfolder = bu.UnbinnedFBU(
        bu.Network((6,)), inference="laplace", draws=2, rounds=0, random_seed=1, progressbar=False
    )
    found = unfolder.fit(simulation, data).history[0]["criticism"]
    monkeypatch.setattr(criticism, "noise_covariance", lambda _, moments, __: np.eye(len(moments)))
    fixed = unfolder.fit(simulation, data).history[0]["criticism"]
    assert found["chi2"] == fixed["chi2"]
    assert found["chi2_p_value"] < fixed["chi2_p_value"]


@pytest.mark.statistical
def test_the_p_value_is_uniform_for_moments_of_another_covariance():
    """500 draws of ``y ~ N(0, C')``, of which the fit knows ``C``: Kolmogorov-Smirnov above 1e-5."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((12, 4)), 0.4 * rng.standard_normal((12, 12))
    noise, tau = 0.2 * np.eye(12) + b @ b.T, np.array([0.5])
    evidence = Evidence(np.zeros(12), (a @ a.T,), 1.0, np.eye(12))
    assumed = np.eye(12) + a @ a.T / tau[0]
    root = np.linalg.cholesky(a @ a.T / tau[0] + noise)
    residuals = np.linalg.solve(assumed, root @ rng.standard_normal((12, 500))).T
    found = [chi2_p_value(evidence, Mode(np.zeros(4), tau, r, a, 0.0), noise) for r in residuals]
    assert kstest(found, "uniform").pvalue > 1e-5
    before = [chi2_p_value(evidence, Mode(np.zeros(4), tau, r, a, 0.0), np.eye(12)) for r in residuals]
    assert kstest(before, "uniform").pvalue < 1e-5
