"""Equations (7)-(10): fluctuations moved onto posterior draws."""

from __future__ import annotations

import numpy as np
import pytest
from linear_loop import ALL, Given, linear_events, linear_step1, nominal_loop, perturbations

from bayesunfold.classifier.linearized import posterior_axes
from bayesunfold.unfolding.conditioning import condition_on
from bayesunfold.unfolding.propagation import linear_refit


@pytest.fixture(scope="module")
def events():
    return linear_events()


@pytest.mark.parametrize("backgrounds", [False, True])
def test_conditioning_reproduces_the_draws(events, backgrounds):
    """Equations (7)-(10): after the shift, the member of the first step 1 *is* the posterior draw."""
    _gen, reco, data, _, u = events
    rng = np.random.default_rng(5)
    g_data, g_sim, xi = rng.exponential(size=(200, 6)) - 1, rng.exponential(size=(300, 6)) - 1, rng.normal(size=(4, 6))
    ref = nominal_loop(events, 1)[0]
    top = [("top", rng.normal(1.0, 1.0, (80, 3)), np.ones(80))] if backgrounds else []
    step1 = linear_step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"], top)
    own = {"top": Given(rng.exponential(size=(80, 6)) - 1)} if backgrounds else {}
    before = perturbations(g_data, g_sim, xi, backgrounds=own)
    axes, precision = posterior_axes(step1)
    draws = rng.standard_normal((6, 4))
    after = condition_on(step1, before, axes, draws).apply(before)
    moved = linear_refit(step1, [], after, prior=after.prior)
    # C1' d = z, with A1 = C1 C1'
    np.testing.assert_allclose(axes.T @ moved.total(), draws.T, atol=1e-9)
    curvature = axes @ axes.T
    np.testing.assert_allclose(np.linalg.eigvalsh(curvature), np.sort(precision), rtol=1e-10)


def test_conditioning_on_own_draws_moves_nothing(events):
    _gen, reco, data, _, u = events
    rng = np.random.default_rng(6)
    g_data, g_sim, xi = rng.normal(size=(200, 2)), rng.normal(size=(300, 2)), rng.normal(size=(4, 2))
    ref = nominal_loop(events, 1)[0]
    step1 = linear_step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"])
    p = perturbations(g_data, g_sim, xi)
    axes, _ = posterior_axes(step1)
    own = linear_refit(step1, [], p, prior=xi).total()
    conditioning = condition_on(step1, p, axes, (axes.T @ own).T)
    np.testing.assert_allclose(conditioning.multiplier, 0.0, atol=1e-9)


def test_the_fluctuations_move_as_little_as_possible(events):
    """Equation (9) is the minimum-norm solution: any other set of fluctuations with the same draws is longer."""
    _gen, reco, data, _, u = events
    rng = np.random.default_rng(7)
    g_data, g_sim, xi = rng.normal(size=(200, 1)), rng.normal(size=(300, 1)), rng.normal(size=(4, 1))
    ref = nominal_loop(events, 1)[0]
    step1 = linear_step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"])
    before = perturbations(g_data, g_sim, xi)
    axes, _ = posterior_axes(step1)
    after = condition_on(step1, before, axes, rng.standard_normal((1, 4))).apply(before)
    parts = [(after.events[n].block(0), before.events[n].block(0)) for n in ("data", "simulation")]
    moved = np.concatenate([a - b for a, b in [*parts, (after.prior, before.prior)]])[:, 0]

    # how the score depends on the fluctuations, and a direction that does not change it
    def score(g):
        d, m, x = g[:200, None], g[200:500, None], g[500:, None]
        return linear_refit(step1, [], perturbations(d, m, x), prior=x).total()[:, 0]

    other = rng.normal(size=504)
    basis = np.array([score(row) for row in np.eye(504)])
    other -= basis @ np.linalg.lstsq(basis, other, rcond=None)[0]
    np.testing.assert_allclose(score(other), 0, atol=1e-10)
    assert abs(moved @ other) < 1e-8 * np.linalg.norm(moved) * np.linalg.norm(other)
