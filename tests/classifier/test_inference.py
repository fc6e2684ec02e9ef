"""Inference methods by name: a new one works everywhere from one registration."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.classifier import inference
from bayesunfold.classifier.inference import InferenceMethod, inference_names, register
from bayesunfold.classifier.sampling import Draws
from bayesunfold.errors import InputError


@pytest.fixture
def resampled(monkeypatch):
    """Draws of the Gaussian, resampled by the ratio of posterior and Gaussian: importance resampling."""
    monkeypatch.setattr(inference, "_METHODS", dict(inference._METHODS))

    def sample(posterior, draws, rng):
        z = rng.standard_normal((20 * draws, posterior.tangent.shape[1]))
        logits = posterior.log_ratio + posterior.offset + z @ posterior.tangent.T.astype(float)
        log = (posterior.weight * (posterior.label * logits - np.logaddexp(0, logits))).sum(axis=1)
        log -= 0.5 * (((z - posterior.mean) / posterior.width) ** 2).sum(axis=1) - 0.5 * (z**2).sum(axis=1)
        log = np.maximum(log, np.quantile(log, 0.01))
        share = np.exp(0.1 * (log - log.max()))  # tempered: a test of the plumbing, not of the method
        return Draws(z[rng.choice(len(z), draws, p=share / share.sum())])

    method = InferenceMethod("resampled", sample, note="Importance resampling.", citations=("pymc2023",))
    register(method)
    return method


def test_a_registered_method_works_everywhere(resampled, tmp_path):
    toy = bu.datasets.gaussian_toy(300, 400, random_seed=1)
    unfolder = bu.OmniFold(2, inference="resampled", draws=30, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    assert result.configuration["inference"] == "resampled"
    assert result.members.multiplier is not None  # members were moved onto its draws
    step1 = result.measurement.step1.name
    assert step1 == "step 1"
    loaded = bu.load(result.save(tmp_path / "r.nc"))
    np.testing.assert_array_equal(loaded.weights, result.weights)
    assert "pymc2023" in bu.citations(loaded)
    assert "Importance resampling." in loaded.report(tmp_path / "r.html").read_text()
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(200, 1)), np.repeat([0, 1], 100)
    classifier = bu.BayesianClassifier(inference="resampled", draws=10, random_state=1).fit(X + y[:, None], y)
    assert classifier.posterior_draws_.z.shape[0] == 10


def test_what_it_cannot_do_is_an_error_that_names_who_can(resampled):
    with pytest.raises(InputError, match="'resampled' draws from the linearised network only"):
        bu.OmniFold(inference="resampled", linearize=False)
    with pytest.raises(InputError, match="must be one of 'advi', 'nuts', 'laplace', 'resampled'"):
        bu.OmniFold(inference="mcmc")


def test_names_are_not_taken_twice(resampled):
    register(resampled)  # the same once more is no other
    with pytest.raises(InputError, match="another inference method 'advi'"):
        register(InferenceMethod("advi", resampled.sample))


def test_chains_are_of_equal_length():
    with pytest.raises(InputError, match="draws is 30; NUTS runs 4 chains"):
        bu.OmniFold(inference="nuts", draws=30)
    assert inference_names()[:3] == ("advi", "nuts", "laplace")
