"""Bands of a direct posterior beside real refits: the same moments, new fluctuations of data and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support.streams import training_stream
from bayesunfold.classifier.arithmetic import tangent
from bayesunfold.direct.draws import draw_parameters
from bayesunfold.direct.mode import Problem, find_mode
from bayesunfold.direct.posterior import find_posterior
from bayesunfold.omnifold.iteration import iterate, train
from bayesunfold.unfolding.standardized import standardize

REFITS = 100


def unfolded(problem: Problem, theta, groups, n):
    """Expected data events in groups of the simulated events."""
    return np.bincount(groups, problem.weights(problem.at(theta)), n)


def of_one_feature():
    """A coarse detector, where the prior is a large part of the band."""
    toy = bu.datasets.gaussian_toy(2000, 10_000, smear=0.5, shift=0.0, gen=(0.0, 1.0), truth=(0.3, 0.9), random_seed=4)
    return toy.simulation, toy.measurement


def of_seven_features():
    """A part of the packaged Z+jets events."""
    z = bu.datasets.zjets()
    rows = np.flatnonzero(z.simulation.pass_gen & z.simulation.pass_reco)[:8000]
    simulation = bu.Simulation(z.simulation.gen[rows], z.simulation.reco[rows])
    data = z.data.features if isinstance(z.data, bu.Data) else np.asarray(z.data)
    return simulation, bu.Data(data[:6000])


@pytest.mark.statistical
@pytest.mark.parametrize(
    "events",
    [
        pytest.param(of_one_feature, id="one feature"),
        pytest.param(of_seven_features, id="seven features", marks=pytest.mark.slow),
    ],
)
def test_bands_are_the_spread_of_refits(events):
    """Spread of 100 refits over that of the members from data and simulation, mean over eight bins.

    100 refits know each spread to 7 %, members to 4 %; the mean of eight bins, of which about four are independent, to
    4 %. Members are linear where refits are not: over three seeds the mean was 1.09 to 1.20 for one feature and 1.07 to
    1.15 for seven, so the window's upper end is 4 standard deviations above the largest.
    """
    simulation, data = events()
    unfolder = bu.UnbinnedFBU(random_seed=1, rounds=0, progressbar=False)
    settings = unfolder.settings(simulation)
    intervals = settings.moments.additive, settings.network.additive
    standard = standardize(simulation, data.matched_to(simulation), intervals=intervals)
    first = iterate(standard, settings, None, None, train(training_stream(1, 0)))
    found = find_posterior(standard, settings, first, 1)
    problem, mode = found.problem, found.mode
    rng = np.random.default_rng(2)
    x = problem.gen[:, 0]
    edges = np.quantile(x, np.linspace(0, 1, 9)[1:-1])
    groups = np.searchsorted(edges, x)

    phi = problem.moments.features(standard.data.x).astype(float)
    weights, spectra, changes = problem.weights(problem.at(mode.theta)), [], {"data": [], "simulation": []}
    mean = (weights @ problem.features) / weights.sum()
    for _ in range(REFITS):
        g, h = rng.exponential(size=len(phi)) - 1, rng.exponential(size=len(weights)) - 1
        moved = replace(
            problem,
            moments=replace(problem.moments, data=problem.moments.data + phi.T @ g),
            weight=problem.weight * (1 + h),
        )
        fit = find_mode(moved, mode.theta, mode.tau)
        spectra.append(unfolded(moved, fit.theta, groups, 8))
    n = 400
    fluctuations = rng.exponential(size=(len(weights), n)).astype(np.float32) - 1
    changes["data"] = phi.T @ (rng.exponential(size=(len(phi), n)) - 1)
    changes["simulation"] = -((problem.features - mean) * weights[:, None]).T @ fluctuations
    precisions = np.tile(np.log(mode.tau), (n, 1))
    drawn = draw_parameters(problem, mode, precisions, changes, np.zeros((len(mode.theta), n)))
    j = tangent(problem.layout, mode.theta, problem.gen)
    exponents = (j - (weights @ j) / weights.sum()) @ (drawn["data"] + drawn["simulation"])
    members = weights[:, None] * (1 + fluctuations) * np.exp(exponents)
    members *= weights.sum() / members.sum(axis=0)
    bands = np.std([np.bincount(groups, member, 8) for member in members.T], axis=0)
    ratio = np.std(spectra, axis=0) / bands
    assert 0.8 < ratio.mean() < 1.35, ratio


def test_a_linear_model_is_refitted_exactly():
    """Equation (D7) is the solution of the linear least-squares problem with the moments moved, to 1e-6."""
    toy = bu.datasets.gaussian_toy(400, 500, random_seed=2)
    settings = bu.UnbinnedFBU(rounds=0).settings(toy.simulation)
    standard = standardize(toy.simulation, toy.measurement, intervals=(6, 0))
    found = find_posterior(standard, settings, iterate(standard, settings, None, None, train(training_stream(3, 0))), 3)
    problem, mode = found.problem, found.mode
    rng = np.random.default_rng(1)
    a, precision = mode.derivative, problem.precisions(mode.tau)
    dm, xi = rng.standard_normal(len(a)), rng.standard_normal(len(precision))
    zero = np.zeros((len(a), 1))
    log_tau = np.log(mode.tau)[None, :]
    base = draw_parameters(problem, mode, log_tau, {"data": zero}, np.zeros((len(precision), 1)))
    moved = draw_parameters(problem, mode, log_tau, {"data": dm[:, None]}, xi[:, None])
    change = sum(moved.values()) - sum(base.values())
    # minimise |dm - a d|^2 + |sqrt(tau) d - xi|^2
    rows = np.vstack([a, np.diag(np.sqrt(precision))])
    solution = np.linalg.lstsq(rows, np.concatenate([dm, xi]), rcond=None)[0]
    np.testing.assert_allclose(change[:, 0], solution, atol=1e-6 * np.abs(solution).max())
