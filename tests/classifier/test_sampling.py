"""Posterior draws of the linearised network."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import bayesunfold as bu
from bayesunfold.classifier import full_network
from bayesunfold.classifier.sampling import ADVI_STEPS, LinearizedPosterior, sample_advi


@pytest.fixture(scope="module")
def posterior():
    """12 000 events in 5 directions, at the exact maximum of likelihood times prior, whitened."""
    rng = np.random.default_rng(1)
    n, p = 12_000, 5
    phi = rng.normal(size=(n, p)) / np.sqrt(n) * 2.2
    label = rng.integers(0, 2, n)
    theta = np.zeros(p)
    for _ in range(50):
        q = 1 / (1 + np.exp(-phi @ theta))
        hessian = phi.T @ (phi * (q * (1 - q))[:, None]) + np.eye(p)
        theta = theta + np.linalg.solve(hessian, phi.T @ (label - q) - theta)
    values, vectors = np.linalg.eigh(hessian)
    directions = vectors / np.sqrt(values)
    mean = -np.sqrt(values) * (vectors.T @ theta)
    return LinearizedPosterior(phi @ directions, phi @ theta, label, np.ones(n), 0.0, mean, np.sqrt(values))


def _log_likelihood(p, z):
    logit = p.log_ratio + p.tangent @ z + p.offset
    value = p.weight @ (p.label * logit - np.logaddexp(0, logit))
    if p.correction is not None:
        value += p.correction.gradient @ z - 0.5 * z @ p.correction.curvature @ z
    return value


def test_thinned_likelihood_agrees_within_the_posterior(posterior):
    """Exact to second order; third order and Monte Carlo remain: below 0.1 at 2 sigma in all directions."""
    rng = np.random.default_rng(2)
    part = posterior.thinned(2000, rng)
    assert len(part.label) == 2000
    zero = np.zeros(5)
    for _ in range(20):
        z = 2 * rng.choice([-1.0, 1.0], 5)
        full = _log_likelihood(posterior, z) - _log_likelihood(posterior, zero)
        assert _log_likelihood(part, z) - _log_likelihood(part, zero) == pytest.approx(full, abs=0.1)
    assert posterior.thinned(20_000, rng) is posterior


def test_model_has_the_likelihood_it_says(posterior):
    import pytensor

    part = posterior.thinned(500, np.random.default_rng(3)).padded()
    model = part.model()
    with pytensor.config.change_flags(mode="FAST_COMPILE", linker="py"):
        logp = model.compile_logp(vars=[*model.observed_RVs, *model.potentials], sum=True)
    z = np.random.default_rng(4).normal(size=16)
    assert logp({"z": z}) == pytest.approx(_log_likelihood(part, z), rel=1e-9)


def test_advi_of_many_events_is_the_gaussian(posterior):
    """Mean 0 and width 1 in whitened axes; 2000 draws, 5 standard errors plus 0.1 for the fit itself."""
    draws = sample_advi(posterior, 2000, np.random.default_rng(5))
    assert np.all(np.abs(draws.z.mean(axis=0)) < 5 / np.sqrt(2000) + 0.1)
    assert np.all(np.abs(draws.z.std(axis=0) - 1) < 5 / np.sqrt(4000) + 0.1)
    assert len(draws.elbo) == ADVI_STEPS


def test_projection_of_a_linear_change_is_its_displacement(posterior):
    """A draw whose function is in the tangent space comes back as itself."""
    from bayesunfold.classifier.full_network import _project

    z = np.random.default_rng(6).normal(size=(4, 5))
    np.testing.assert_allclose(_project(posterior, z @ posterior.tangent.T), z, atol=1e-4)


@pytest.mark.parametrize("inference", ["advi", pytest.param("nuts", marks=pytest.mark.slow)])
def test_full_network_warns_and_works(inference, monkeypatch):
    """The unreliable draws are there, finite, and say what they are."""
    monkeypatch.setattr(full_network, "ADVI_STEPS", 1000)  # nothing here depends on where the steps lead
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.normal(0, 1, 200), rng.normal(0.5, 1, 200)])[:, None]
    y = np.r_[np.zeros(200), np.ones(200)]
    clf = bu.BayesianClassifier(
        network=bu.Network((4, 3)), inference=inference, linearize=False, draws=40, random_state=1
    )
    with pytest.warns(bu.errors.UnreliableDrawsWarning, match="comparison only"):
        clf.fit(x, y)
    draws = clf.log_ratio_draws(x[:7])
    assert draws.shape == (40, 7)
    assert np.all(np.isfinite(draws))
    assert np.all(draws.std(axis=0) > 0)


def test_divergences_of_the_full_network_are_told(monkeypatch):
    """Three of eight transitions, as the sampler reports them."""
    import nutpie

    diverging = xr.DataArray([[True, False], [False, True], [True, False], [False, False]], dims=("chain", "draw"))
    tree = {"sample_stats": xr.Dataset({"diverging": diverging})}
    monkeypatch.setattr(nutpie, "compile_pymc_model", lambda *_, **__: None)
    monkeypatch.setattr(nutpie, "sample", lambda *_, **__: tree)
    with pytest.warns(bu.errors.ConvergenceWarning, match="3 divergent transitions of 8"):
        stats = full_network._nuts(None, 8, 1)[3]
    np.testing.assert_array_equal(stats["diverging"], diverging)


def test_full_network_has_no_laplace():
    with pytest.raises(bu.errors.InputError, match="advi"):
        bu.OmniFold(inference="laplace", linearize=False)
