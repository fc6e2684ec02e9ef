"""Sums of tangent features against the features themselves."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.arithmetic import tangent
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.classifier.sums import gradient_sum, group_gradients


@pytest.fixture(params=[("tanh", 0), ("relu", 0), ("softplus", 5)], ids=["tanh", "relu", "softplus+additive"])
def network(request):
    """Layout, weights and 20 000 events in double precision: more than two blocks."""
    activation, additive = request.param
    rng = np.random.default_rng(1)
    x = rng.standard_normal((20_000, 3))
    scale = Standardizer.fit(x, np.ones(len(x)), additive)
    layout = bu.Network((7, 5), activation=activation, additive=additive).layout(3, scale)
    return layout, rng.standard_normal(layout.n_parameters), scale(x).astype(np.float64)


def test_a_sum_of_features_is_one_gradient(network):
    layout, theta, x = network
    weights = np.random.default_rng(2).standard_normal((len(x), 3))
    expected = weights.T @ tangent(layout, theta, x)
    np.testing.assert_allclose(gradient_sum(layout, theta, x, weights, 3), expected, rtol=1e-9, atol=1e-8)
    with block_threads():
        by_block = gradient_sum(layout, theta, x, 2 * weights[:, 0])
    np.testing.assert_allclose(by_block[0], 2 * expected[0], rtol=1e-9, atol=1e-8)


def test_no_events_have_no_sum(network):
    layout, theta, x = network
    np.testing.assert_array_equal(gradient_sum(layout, theta, x[:0], np.zeros((0, 2)), 2), 0.0)


def test_groups_are_consecutive_events(network):
    layout, theta, x = network
    weight = np.random.default_rng(3).standard_normal(60)
    expected = (tangent(layout, theta, x[:60]) * weight[:, None]).reshape(12, 5, -1).sum(axis=1)
    np.testing.assert_allclose(group_gradients(layout, theta, x[:60], weight, 5), expected, rtol=1e-9, atol=1e-9)
