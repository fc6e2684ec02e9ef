"""Network arithmetic against finite differences and against the PyMC model."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunfold.classifier.arithmetic import Layout, forward, loss_and_gradient, tangent
from bayesunfold.classifier.network import Network, full_model
from bayesunfold.classifier.training import fit_map, initial_weights
from bayesunfold.classifier.two_class import Joined


def _layout(activation="tanh"):
    return Layout((2, 5, 4, 1), activation, (2.0, 1.5, 6.0))


def _problem(rng, n=40):
    return rng.normal(size=(n, 2)), rng.random(n), rng.random(n)


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_gradient_equals_finite_differences(activation):
    rng = np.random.default_rng(1)
    layout = _layout(activation)
    theta = rng.standard_normal(layout.n_parameters)
    x, ones, zeros = _problem(rng)
    _, gradient = loss_and_gradient(layout, theta, x, ones, zeros, 0.3)
    step = 1e-6
    numeric = [
        (
            loss_and_gradient(layout, theta + step * e, x, ones, zeros, 0.3)[0]
            - loss_and_gradient(layout, theta - step * e, x, ones, zeros, 0.3)[0]
        )
        / (2 * step)
        for e in np.eye(layout.n_parameters)
    ]
    np.testing.assert_allclose(gradient, numeric, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_tangent_equals_finite_differences(activation):
    rng = np.random.default_rng(2)
    layout = _layout(activation)
    theta = rng.standard_normal(layout.n_parameters)
    x, _, _ = _problem(rng)
    step = 1e-6
    numeric = np.array(
        [
            (forward(layout, theta + step * e, x) - forward(layout, theta - step * e, x)) / (2 * step)
            for e in np.eye(layout.n_parameters)
        ]
    ).T
    jacobian = tangent(layout, theta, x)
    np.testing.assert_allclose(jacobian, numeric, atol=1e-6)
    basis = rng.normal(size=(layout.n_parameters, 3))
    np.testing.assert_allclose(tangent(layout, theta, x, basis), jacobian @ basis, atol=1e-10)


def test_blocks_do_not_matter(monkeypatch):
    rng = np.random.default_rng(3)
    layout = _layout()
    theta = rng.standard_normal(layout.n_parameters)
    x, ones, zeros = _problem(rng, 1000)
    whole = loss_and_gradient(layout, theta, x, ones, zeros, 0.0), forward(layout, theta, x)
    monkeypatch.setattr(
        "bayesunfold.classifier.arithmetic.blocks", lambda n, _size=0: (slice(i, min(i + 7, n)) for i in range(0, n, 7))
    )
    parts = loss_and_gradient(layout, theta, x, ones, zeros, 0.0), forward(layout, theta, x)
    assert parts[0][0] == pytest.approx(whole[0][0], rel=1e-12)
    np.testing.assert_allclose(parts[0][1], whole[0][1], rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-12)


def test_objective_and_gradient_are_those_of_the_pymc_model():
    """The NumPy training and the PyMC model are the same probability model."""
    import pytensor

    rng = np.random.default_rng(4)
    layout = Network(hidden=(4, 3)).layout(2)
    x = rng.normal(size=(30, 2))
    label = rng.integers(0, 2, 30)
    weight = rng.random(30) + 0.5
    model = full_model(layout, x, label, weight, 0.4)
    with pytensor.config.change_flags(mode="FAST_COMPILE", linker="py"):
        value, slope = model.compile_logp(), model.compile_dlogp()

    def point(theta):
        values, pieces = {}, list(layout.pieces())
        for k, (w, b, fan_in, fan_out, w_scale, b_scale) in enumerate(pieces, start=1):
            last = k == len(pieces)
            values[f"weight_{k}"] = w_scale * theta[w].reshape((fan_in,) if last else (fan_in, fan_out))
            values[f"bias_{k}"] = b_scale * (theta[b][0] if last else theta[b])
        return values

    ones, zeros = weight * (label == 1), weight * (label == 0)

    def objective(theta):
        return loss_and_gradient(layout, theta, x, ones, zeros, 0.4)[0] + 0.5 * theta @ theta

    thetas = rng.standard_normal((2, layout.n_parameters))
    # equal up to the Normal priors' constants
    difference = value(point(thetas[0])) - value(point(thetas[1]))
    assert difference == pytest.approx(objective(thetas[1]) - objective(thetas[0]), rel=1e-10)

    theta = thetas[0]
    gradient = loss_and_gradient(layout, theta, x, ones, zeros, 0.4)[1] + theta
    start = 0
    theirs = slope(point(theta))
    for var in model.free_RVs:
        n = int(np.prod(var.shape.eval()))
        k = int(var.name.split("_")[1])
        _, _, _, _, w_scale, b_scale = list(layout.pieces())[k - 1]
        scale = w_scale if var.name.startswith("weight") else b_scale
        np.testing.assert_allclose(
            -scale * theirs[start : start + n], gradient[start : start + n], rtol=1e-8, atol=1e-8
        )
        start += n
    assert start == layout.n_parameters


def test_map_of_a_linear_model_is_the_logistic_regression_of_scikit_learn():
    """Without hidden layers the MAP is ridge-penalised logistic regression with known penalty."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    n = 400
    x = rng.normal(size=(n, 3))
    label = (rng.random(n) < 1 / (1 + np.exp(-x @ [1.0, -0.5, 0.2]))).astype(int)
    weight = rng.random(n) + 0.5
    layout = Layout((3, 1), "tanh", (2.0,))
    fit = fit_map(layout, Joined(x, weight * label, weight * (1 - label), 0.0), rng, start=np.zeros(4), tolerance=1e-6)
    # the bias has the prior N(0, 2^2) too, so it enters scikit-learn as a column of ones; W has sd 2/sqrt(3)
    scale = np.array([2 / np.sqrt(3)] * 3 + [2.0])
    design = np.column_stack([x, np.ones(n)]) * scale
    peer = LogisticRegression(C=1.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        design, label, sample_weight=weight
    )
    assert fit.converged
    np.testing.assert_allclose(fit.theta, peer.coef_[0], atol=2e-4)


@pytest.mark.parametrize("hidden", [(6,), (40, 30)])
def test_map_is_stationary(hidden):
    rng = np.random.default_rng(6)
    n = 600
    x = np.concatenate([rng.normal(0, 1, n), rng.normal(0.7, 1.2, n)])[:, None]
    ones = np.r_[np.zeros(n), np.ones(n)]
    layout = Network(hidden=hidden).layout(1)
    fit = fit_map(layout, Joined(x, ones, 1 - ones, 0.0), rng)
    assert fit.converged
    # other starts find an objective within a fraction of a posterior standard deviation of chi-square
    again = fit_map(layout, Joined(x, ones, 1 - ones, 0.0), np.random.default_rng(7))
    assert again.objective == pytest.approx(fit.objective, abs=2.0)


def test_wide_network_takes_the_dual_solution():
    """More weights than events: the step is solved in the space of the events."""
    from bayesunfold.classifier.training import _Curvature

    rng = np.random.default_rng(8)
    layout = Network(hidden=(30, 30), activation="relu").layout(1)
    theta = initial_weights(layout, rng)
    x = rng.normal(size=(50, 1))
    problem = Joined(x, rng.random(50), rng.random(50), 0.0)
    curvature = _Curvature(layout, theta, problem)
    assert curvature.dual
    jacobian = tangent(layout, theta, x)
    matrix = jacobian.T @ (jacobian * problem.curvature_weights(layout, theta)[:, None])
    gradient = rng.normal(size=layout.n_parameters)
    expected = np.linalg.solve(matrix + 1.7 * np.eye(layout.n_parameters), gradient)
    np.testing.assert_allclose(curvature.solve(gradient, 0.7), expected, rtol=1e-6, atol=1e-9)
