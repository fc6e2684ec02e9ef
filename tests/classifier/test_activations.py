"""Every form of an activation is the same function, and its derivative the derivative."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt
import pytest

from bayesunfold.classifier.activations import ACTIVATIONS

Z = np.array([-30.0, -2.0, -0.3, 0.4, 3.0, 30.0])
EXACT = {"tanh": np.tanh(Z), "relu": np.where(Z > 0, Z, 0), "softplus": np.logaddexp(0, Z)}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_numpy_and_pytensor_agree_with_the_formula(name):
    activation = ACTIVATIONS[name]
    np.testing.assert_allclose(activation.value(Z), EXACT[name], rtol=1e-14)
    np.testing.assert_allclose(activation.symbolic(pt.constant(Z)).eval(), EXACT[name], rtol=1e-12)
    step = 1e-6
    slope = (activation.value(Z + step) - activation.value(Z - step)) / (2 * step)
    np.testing.assert_allclose(activation.derivative(activation.value(Z)), slope, atol=1e-8)
    value = pt.constant(EXACT[name])
    np.testing.assert_allclose(activation.symbolic_derivative(value).eval(), slope, atol=1e-8)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_single_precision_stays_single(name):
    value = ACTIVATIONS[name].value(Z.astype(np.float32))
    assert value.dtype == np.float32
    assert ACTIVATIONS[name].derivative(value).dtype == np.float32
