"""The additive part of a network: equations (A1) and (A2)."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.classifier.additive import Additive, choose_intervals
from bayesunfold.classifier.arithmetic import forward, loss_and_gradient, tangent
from bayesunfold.classifier.network import full_model
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import Joined
from bayesunfold.errors import InputError

NETWORK = bu.Network((4, 3), additive=5, additive_scale=0.7)


@pytest.fixture(scope="module")
def features():
    """Correlated features: a steep one, a Gaussian that is missing in a fifth of the events, one with a floor."""
    rng = np.random.default_rng(1)
    steep, normal = rng.exponential(size=800), rng.normal(size=800)
    floor = np.maximum(0.0, steep + rng.normal(size=800) - 0.5)
    return np.column_stack([steep, np.where(rng.random(800) < 0.2, np.nan, normal + steep), floor])


@pytest.fixture(scope="module")
def standardizer(features):
    return Standardizer.fit(features, np.ones(len(features)), NETWORK.additive)


@pytest.fixture(scope="module")
def layout(features, standardizer):
    return NETWORK.layout(standardizer.n_outputs, standardizer)


def _by_hand(features, standardizer, scale):
    """Equation (A1) from the features, without decorrelating and back."""
    z = standardizer.each(features) - standardizer.mean
    columns = []
    for j, low, high in standardizer.intervals:
        rho = np.clip((z[:, int(j)] - low) / (high - low), 0, 1) - 0.5
        columns.append(np.where(np.isnan(rho), 0.0, scale * rho))
    return np.column_stack(columns)


def test_functions_of_decorrelated_features_are_those_of_the_features(features, standardizer, layout):
    found = layout.additive.basis(standardizer(features).astype(np.float64))
    # inputs are single precision; a step is 1e-3 wide, so 1e-6 is a thousandth of it
    np.testing.assert_allclose(found, _by_hand(features, standardizer, 0.7), atol=0.01)
    assert np.mean(np.abs(found - _by_hand(features, standardizer, 0.7))) < 1e-5
    missing = np.isnan(features[:, 1])
    own = np.array(layout.additive.feature) == 1
    assert not found[np.ix_(missing, own)].any()
    assert found[np.ix_(~missing, own)].any()


def test_gradients_and_tangents_are_derivatives(features, standardizer, layout):
    x = standardizer(features)[:50].astype(np.float64)
    rng = np.random.default_rng(2)
    theta, ones, zeros = rng.normal(size=layout.n_parameters), rng.random(50), rng.random(50)
    phi = tangent(layout, theta, x)
    _, gradient = loss_and_gradient(layout, theta, x, ones, zeros, 0.3)
    step = 1e-6
    for k in [0, 5, layout.n_network - 1, layout.n_network, layout.n_parameters - 1]:
        moved = np.zeros(layout.n_parameters)
        moved[k] = step
        up, down = theta + moved, theta - moved
        np.testing.assert_allclose(
            phi[:, k], (forward(layout, up, x) - forward(layout, down, x)) / (2 * step), atol=1e-7
        )
        losses = [loss_and_gradient(layout, t, x, ones, zeros, 0.3)[0] for t in (up, down)]
        assert gradient[k] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=1e-6)
    basis = rng.normal(size=(layout.n_parameters, 3))
    np.testing.assert_allclose(tangent(layout, theta, x, basis), phi @ basis, atol=1e-10)


def test_at_the_optimum_the_classes_agree_in_every_function_up_to_the_prior(features, standardizer, layout):
    """Stationarity: the sum of residuals times ``s rho_k`` is the coefficient itself."""
    rng = np.random.default_rng(3)
    x = standardizer(features)
    ones = rng.random(len(x)) * np.exp(0.4 * np.nan_to_num(features[:, 0]))
    classes = Joined(x, ones * len(x) / ones.sum(), np.ones(len(x)), 0.0)
    fit = fit_map(layout, classes, rng, tolerance=0.01)
    q = 1 / (1 + np.exp(-forward(layout, fit.theta, x)))
    residual = classes.ones * (1 - q) - classes.zeros * q
    score = layout.additive.basis(x.astype(np.float64)).T @ residual
    np.testing.assert_allclose(score, fit.theta[layout.n_network :], atol=0.02)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        # a floor that holds a third of the events has a step, the rest intervals of equal content
        (np.r_[np.zeros(100), np.linspace(0.5, 2.5, 200)], [(0.0, 0.001)]),
        # integers: one interval from each value to the next, and none where no event can be
        (np.repeat([0.0, 1.0, 2.0, 3.0], 50), [(0.0, 1.0), (1.0, 2.0), (2.0, 3.0)]),
        (np.repeat([0.0, 1.0], 50), [(0.0, 1.0)]),
        (np.full(20, 3.0), []),
    ],
)
def test_values_that_many_events_share_have_steps_of_their_own(values, expected):
    found = choose_intervals(values[:, None], np.ones(len(values)), np.ones((len(values), 1), bool), 4)
    np.testing.assert_allclose(found[: len(expected), 1:], np.array(expected).reshape(-1, 2))
    if len(expected) != 1 or values.max() == 1:
        assert len(found) == len(expected)
    assert np.all(found[1:, 1] == found[:-1, 2])  # no gap between intervals


def test_intervals_hold_equal_weight():
    rng = np.random.default_rng(4)
    values, weight = rng.normal(size=5000), rng.exponential(size=5000)
    found = choose_intervals(values[:, None], weight, np.ones((5000, 1), bool), 10)
    inside = np.histogram(values, [*found[:, 1], found[-1, 2]], weights=weight)[0]
    expected = [0.025, 0.075, *[0.1] * 8, 0.075, 0.025]  # the outer ones are split
    np.testing.assert_allclose(inside / weight.sum(), expected, atol=2 * weight.max() / weight.sum())
    assert len(choose_intervals(values[:, None], weight, np.ones((5000, 1), bool), 0)) == 0


def test_the_pymc_model_is_the_network(features, standardizer, layout):
    x = standardizer(features)[:40]
    rng = np.random.default_rng(5)
    model = full_model(layout, x, rng.integers(0, 2, 40), np.ones(40), 0.0)
    theta = rng.normal(size=layout.n_parameters)
    from bayesunfold.classifier.full_network import _named

    assert {"additive_1", "additive_2", "additive_3"} <= set(model.named_vars)
    assert model.named_vars_to_dims["additive_1"] == ("interval_1",)
    found = model.compile_fn(model["log_ratio"], inputs=model.free_RVs, point_fn=True)(_named(layout, theta))
    np.testing.assert_allclose(found, forward(layout, theta, x.astype(np.float64)), rtol=1e-6, atol=1e-6)


def test_expression_is_the_basis(features, standardizer, layout):
    x = standardizer(features).astype(np.float64)
    np.testing.assert_allclose(layout.additive.expression(x).eval(), layout.additive.basis(x), atol=1e-12)


def test_weights_of_an_additive_network_survive_onnx(features, tmp_path):
    runtime, _ = require("onnxruntime"), require("onnx")
    rng = np.random.default_rng(6)
    target = np.column_stack([rng.exponential(1.2, 700), rng.normal(0.3, 1, 700), np.maximum(0, rng.normal(size=700))])
    source = np.nan_to_num(features)
    classifier = bu.BayesianClassifier(bu.Network((5,), additive=4), inference="laplace", draws=6, random_state=1)
    reweighter = bu.Reweighter(classifier=classifier, folds=1, draws=6, random_state=1).fit(source, target)
    session = runtime.InferenceSession(reweighter.to_onnx(tmp_path / "w.onnx", draws=3))
    best, drawn = session.run(["weight", "weight_draws"], {"x": source})
    np.testing.assert_allclose(best, reweighter.weights(source), rtol=1e-4)
    np.testing.assert_allclose(drawn, reweighter.weight_draws(source)[:3], rtol=1e-4)


def test_an_unfolding_with_additive_networks_survives_a_file(tmp_path):
    toy = bu.datasets.gaussian_toy(500, 600, random_seed=1)
    network = bu.Network((8,), additive=6)
    result = bu.OmniFold(2, network, "laplace", draws=30, random_seed=1, progressbar=False).fit(
        toy.simulation, toy.measurement
    )
    assert result.measurement.step1.layout.n_parameters == 8 * 2 + 9 + 8
    loaded = bu.load(result.save(tmp_path / "r.nc"))
    np.testing.assert_array_equal(loaded.weights, result.weights)
    assert loaded.record.settings == result.record.settings


def test_bad_arguments_are_named():
    for arguments, words in (
        ({"additive": -1}, "additive"),
        ({"additive": 2.5}, "additive"),
        ({"additive_scale": 0}, "additive_scale"),
    ):
        with pytest.raises(InputError, match=words):
            bu.Network(**arguments)
    with pytest.raises(InputError, match="standardiser"):
        bu.Network(additive=3).layout(2)
    assert Additive.of(Standardizer.fit(np.zeros((5, 1)), np.ones(5), 4), 1.0) is None
