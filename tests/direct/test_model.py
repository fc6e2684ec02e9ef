"""The direct posterior's PyMC models beside its own arithmetic, and the samplers beside importance sampling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import pytest
from scipy.stats import multivariate_normal, norm, truncnorm

import bayesunfold as bu
from bayesunfold.direct import estimator
from bayesunfold.direct.model import (
    PrecisionDraws,
    layer_names,
    network_model,
    precision_model,
    reserved_names,
    sample_precisions,
)
from bayesunfold.direct.precision import Evidence, precision_posterior
from bayesunfold.errors import InputError, InputTypeError


@pytest.fixture(scope="module")
def result():
    toy = bu.datasets.gaussian_toy(400, 500, random_seed=2)
    network = bu.Network((5,), prior_scale=(1.0, 4.0), additive=4)
    unfolder = bu.UnbinnedFBU(network, draws=60, rounds=0, random_seed=1, progressbar=False)
    return unfolder.fit(toy.simulation, toy.measurement)


@pytest.fixture(scope="module")
def evidence():
    """A small problem with one strong and one weak group of parameters."""
    rng = np.random.default_rng(3)
    a, b = 2.0 * rng.standard_normal((8, 6)), 0.3 * rng.standard_normal((8, 4))
    y = a @ rng.standard_normal(6) * 0.5 + b @ rng.standard_normal(4) + rng.standard_normal(8)
    return Evidence(y, (a @ a.T, b @ b.T), 1.0, np.eye(8))


def log_density(model, point):
    """Of a model at the values of its free variables, in their own units."""
    bounded = model["log_precision"]
    transform = model.rvs_to_transforms[bounded]
    values = {model.rvs_to_values[v].name: point[v.name] for v in model.free_RVs}
    inner = transform.forward(point["log_precision"], *bounded.owner.inputs).eval()
    values[model.rvs_to_values[bounded].name] = inner
    return float(model.compile_logp(jacobian=False)(values))


def test_the_model_shows_every_layer(result):
    """Log probability of a point by hand: priors of each layer's weights, hyperprior, and the moments."""
    model, moments = result.model, result.measurement.moments
    layout = result.members.step2.classifier.layout
    assert layer_names(layout, ["gen"]) == ("layer_1", "layer_2", "additive_gen")
    assert list(model.coords["layer"]) == ["layer_1", "layer_2", "additive_gen"]
    assert [v.name for v in model.free_RVs] == [
        "log_precision",
        "weight_1",
        "bias_1",
        "weight_2",
        "bias_2",
        "additive_gen",
    ]
    rng = np.random.default_rng(1)
    log_precision, shift = np.array([0.3, -0.5, 1.0]), 0.5 * rng.standard_normal(layout.n_parameters)
    (w1, b1, _, _, sw1, sb1), (w2, b2, _, _, sw2, sb2) = layout.pieces()
    values = moments.centre + shift
    point = {
        "log_precision": log_precision,
        "weight_1": sw1 * values[w1].reshape(1, 5),
        "bias_1": sb1 * values[b1],
        "weight_2": sw2 * values[w2],
        "bias_2": (sb2 * values[b2]).reshape(()),
        "additive_gen": layout.additive.scale * values[layout.n_network :],
    }
    sigma = np.exp(-0.5 * log_precision)
    expected = truncnorm(-2, np.inf).logpdf(log_precision).sum()
    for part, scale, k in ((w1, sw1, 0), (b1, sb1, 0), (w2, sw2, 1), (b2, sb2, 1)):
        expected += norm(0, scale * sigma[k]).logpdf(scale * shift[part]).sum()
    s = layout.additive.scale * sigma[2]
    expected += norm(0, s).logpdf(layout.additive.scale * shift[layout.n_network :]).sum()
    expected += norm.logpdf(moments.observed, moments.derivative @ shift).sum()
    assert log_density(model, point) == pytest.approx(expected, rel=1e-6)


def test_precisions_with_the_weights_integrated_out(evidence):
    """Differences of the model's log density are those of the evidence, and of SciPy's multivariate Normal."""
    model = precision_model(evidence, ["a", "b"])
    points = [np.array([0.0, 0.0]), np.array([0.7, -1.2]), np.array([2.0, 1.0])]
    own = np.array([evidence.log_density(p) for p in points])
    by_scipy = []
    for p in points:
        c = np.eye(8) + np.exp(-p[0]) * evidence.grams[0] + np.exp(-p[1]) * evidence.grams[1]
        by_scipy.append(multivariate_normal(np.zeros(8), c).logpdf(evidence.y) + norm.logpdf(p).sum())
    np.testing.assert_allclose(own - own[0], np.array(by_scipy) - by_scipy[0], rtol=1e-9)
    found = np.array([log_density(model, {"log_precision": p}) for p in points])
    np.testing.assert_allclose(found - found[0], own - own[0], rtol=1e-6)


@pytest.mark.parametrize("method", ["advi", pytest.param("nuts", marks=pytest.mark.slow)])
def test_samplers_agree_with_importance_sampling(evidence, method):
    """Means to 0.35 and widths to a third: 6 standard errors of 400 draws, and ADVI's Gaussian."""
    mode = evidence.mode(np.zeros(2))
    posterior = precision_posterior(evidence, mode, np.random.default_rng(1))
    mean = posterior.mean()
    width = np.sqrt(posterior.probability @ (posterior.log_tau - mean) ** 2)
    draws, again = (
        sample_precisions(method, evidence, mode, ["a", "b"], 400, np.random.default_rng(2)).log_tau for _ in range(2)
    )
    assert draws.shape == (400, 2)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 0.35)
    assert np.all(np.abs(np.log(draws.std(axis=0) / width)) < np.log(1.5))
    np.testing.assert_array_equal(again, draws)


def test_a_users_hyperprior(tmp_path):
    """Almost fixed precisions come out of the fit as they were put in; what is no log precision is refused."""
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)

    def fixed(names):
        assert names == ("layer_1", "layer_2", "layer_3")
        return pm.Normal("log_precision", 1.5, 0.01, dims="layer")

    unfolder = bu.UnbinnedFBU(inference="advi", model=fixed, draws=20, rounds=0, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    np.testing.assert_allclose(result.measurement.moments.log_precision, 1.5, atol=0.2)
    assert "prior" not in result.to_datatree().children  # the Normal one was not used
    assert str(result.model["log_precision"].owner.op).startswith("normal")
    assert "Kucukelbir" in bu.citations(result)
    with pytest.raises(InputError, match="fixed', which a file does not keep"):
        _ = bu.load(result.save(tmp_path / "r.nc")).model
    with pytest.raises(InputTypeError, match="PyTensor variable"):
        bu.UnbinnedFBU(inference="advi", model=lambda _: 1.0, random_seed=1, progressbar=False).fit(
            toy.simulation, toy.measurement
        )
    with pytest.raises(InputError, match="dimensions"):
        bu.UnbinnedFBU(inference="advi", model=lambda _: pm.Normal("x"), random_seed=1, progressbar=False).fit(
            toy.simulation, toy.measurement
        )
    with pytest.raises(InputError, match="returned 2 log precisions; the network has 3 layers"):
        bu.UnbinnedFBU(inference="advi", model=lambda _: pm.Normal("x", shape=2), random_seed=1, progressbar=False).fit(
            toy.simulation, toy.measurement
        )
    with pytest.raises(InputError, match="needs a sampler"):
        bu.UnbinnedFBU(model=fixed)
    with pytest.raises(InputTypeError, match="function of the layers"):
        bu.UnbinnedFBU(inference="nuts", model=3)
    with pytest.raises(InputError, match="multiple of 4"):
        bu.UnbinnedFBU(inference="nuts", draws=50)


def named(name):
    """A hyperprior with a common mean of some name."""
    return lambda _: pm.Normal("log_precision", pm.Normal(name, 0.0, 2.0), 0.5, dims="layer")


def returned_something_else(_):
    return 2.0 * pm.Normal("log_precision", 0.0, 1.0, dims="layer")


@pytest.mark.parametrize(
    ("model", "match"),
    [
        *((named(name), f"defines '{name}'.* moments, .*another name") for name in ("moments", "base", "grams")),
        *((named(name), f"defines '{name}'.* another name") for name in ("derivative", "alpha", "weight_1", "bias_3")),
        (returned_something_else, "log_precision and returns something else"),
        (lambda layers: pt.zeros(len(layers)), "no free variable.* narrow one"),
        (lambda _: pm.Bernoulli("on", 0.5, shape=3) * 1.0, "discrete variables, 'on'"),
    ],
)
def test_a_hyperprior_that_cannot_be_sampled_is_refused_before_training(model, match):
    """By ``check`` as by ``fit``, which gets no further."""
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    unfolder = bu.UnbinnedFBU(inference="advi", model=model, draws=20, random_seed=1, progressbar=False)
    for method in (unfolder.check, unfolder.fit):
        with pytest.raises(InputError, match=match):
            method(toy.simulation, toy.measurement)


def test_check_refuses_a_wrong_number_of_precisions():
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    unfolder = bu.UnbinnedFBU(inference="nuts", model=lambda _: pm.Normal("x", shape=2), draws=20, progressbar=False)
    with pytest.raises(InputError, match="returned 2 log precisions; the network has 3 layers"):
        unfolder.check(toy.simulation, toy.measurement)


def test_reserved_names_are_those_of_the_models(result, evidence):
    """Of variables and of dimensions, with profiled nuisance parameters and without, but for the precisions'."""
    moments = result.measurement.moments
    k, columns = 2, np.zeros((len(moments.observed), 2))
    free = np.zeros((moments.derivative.shape[1], k))
    profiled = replace(moments, systematics=("a", "b"), columns=columns, free=free, correlation=np.eye(k))
    names = tuple(result.model.coords["layer"])
    layout = bu.Network((5,), prior_scale=(1.0, 4.0), additive=4).layout(1, result.members.events.scales.gen)
    found = set()
    for model in (network_model(layout, profiled, names), precision_model(evidence, ["a", "b"])):
        found |= {*model.named_vars, *model.coords}
    assert found - {"log_precision"} == set(reserved_names(names))


def fixed_precisions(monkeypatch, value):
    """A hyperprior that allows one value, drawn without compiling a model; the modes that draws start from."""
    starts = []

    def sample(method, evidence, mode, names, draws, rng, custom):
        starts.append(mode)
        return PrecisionDraws(value + 0.01 * rng.standard_normal((draws, len(names))))

    monkeypatch.setattr(estimator, "sample_precisions", sample)
    monkeypatch.setattr(estimator, "check_hyperprior", lambda *_: None)
    return starts


def test_the_answer_is_that_of_a_users_hyperprior(monkeypatch):
    """Precisions of exp(14) leave the network no room: the answer is the simulation at the yield of the data."""
    toy = bu.datasets.gaussian_toy(300, 400, random_seed=1)
    starts = fixed_precisions(monkeypatch, 14.0)

    def fit(**settings):
        unfolder = bu.UnbinnedFBU(bu.Network((4,)), draws=20, rounds=0, random_seed=1, progressbar=False, **settings)
        return unfolder.fit(toy.simulation, toy.data)

    result = fit(inference="advi", model=lambda _: None)
    assert len(starts) == 2
    np.testing.assert_allclose(starts[1], 14.0, atol=0.02)
    edges = np.linspace(-4, 4, 5)
    spectrum = result.spectrum("gen", edges)
    expected = np.histogram(toy.gen, edges)[0] * (len(toy.data) / len(toy.gen))
    np.testing.assert_allclose(spectrum.nominal, expected, rtol=0.01)
    members = result.spectrum("gen", edges, centre="draws").nominal
    assert np.all(np.abs(members - spectrum.nominal) < spectrum.std())
    chi2 = [r.history[0]["criticism"]["chi2"] for r in (result, fit(inference="laplace"))]
    assert chi2[0] > chi2[1] + 10  # tested is this answer, which follows the data less


def test_a_users_hyperprior_beside_profiled_parameters(monkeypatch):
    """A shift of 1 that one of two readings has is found at the user's precisions too, and members lie about it."""
    rng = np.random.default_rng(1)
    gen, truth = rng.normal(0, 1, 600), rng.normal(0.3, 0.9, 600)
    noise, more = 0.4 * rng.normal(size=(2, 600, 2))
    reco = gen[:, None] + noise
    step = np.array([0.0, 0.3])
    shift = bu.Systematic("shift", reco_up=reco + step, reco_down=reco - step, profile=True)
    starts = fixed_precisions(monkeypatch, 3.0)
    unfolder = bu.UnbinnedFBU(
        bu.Network((4,)), inference="advi", model=lambda _: None, draws=20, random_seed=1, progressbar=False
    )
    result = unfolder.fit(bu.Simulation(gen, reco), truth[:, None] + step + more, systematics=[shift])
    np.testing.assert_allclose(starts[1], 3.0, atol=0.02)
    table = result.nuisances.loc["shift"]
    assert abs(table["mean"] - 1.0) < 5 * table["std"] < 1.0
    edges = np.linspace(-3, 3, 5)
    spectrum = result.spectrum("gen", edges)
    members = result.spectrum("gen", edges, centre="draws").nominal
    assert np.all(np.abs(members - spectrum.nominal) < spectrum.std())
    # the networks of step 1 stand where the simulation was moved to
    np.testing.assert_array_equal(result.measurement.step1.classes.sample("simulation").x, result.members.events.reco)


def test_groups_of_prior_and_predictions(result, tmp_path):
    """Predicted moments: the prior's are N(0, C); the posterior's lie about the observed ones."""
    loaded = bu.load(result.save(tmp_path / "r.nc"))
    for r in (result, loaded):
        tree = r.to_datatree()
        assert tree["posterior"]["log_precision"].dims == ("chain", "draw", "layer")
        assert list(tree["prior"]["layer"].values) == ["layer_1", "layer_2", "additive_gen"]
        observed = tree["observed_data"]["moments"].values
        predicted = tree["posterior_predictive"]["moments"].values[0]
        assert predicted.shape == (60, len(observed))
        # one unit of noise about a posterior mean that is within its own noise of the observed value
        assert np.abs(predicted.mean(axis=0) - observed).max() < 5.0
        wide, narrow = tree["prior_predictive"]["moments"].values[0].std(axis=0), predicted.std(axis=0)
        assert wide.max() > 2 * narrow.max()
    np.testing.assert_array_equal(loaded.measurement.moments.derivative, result.measurement.moments.derivative)
    assert loaded.model.free_RVs[1].name == "weight_1"
