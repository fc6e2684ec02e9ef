"""Two weighted classes, and the directions that events inform."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunfold.classifier.two_class import ClassWeights, TwoClass, leading_directions


@pytest.mark.parametrize("rows", [30, 500])
def test_leading_directions_span_the_informed_space(rows):
    """Both solutions (events or weights the smaller number) keep the directions with curvature."""
    rng = np.random.default_rng(7)
    hidden = rng.normal(size=(rows, 5)) * 10
    mix = np.linalg.qr(rng.normal(size=(60, 60)))[0][:, :5]
    jacobian = hidden @ mix.T
    basis = leading_directions(jacobian, np.ones(rows))
    assert basis.shape == (60, 5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(basis @ (basis.T @ mix), mix, atol=1e-8)


def test_classes_are_joined_and_labelled():
    x = np.arange(6.0)[:, None]
    data = ClassWeights.of("data", x[:2], ones=np.array([2.0, 0.0]))
    used = np.array([True, False, True, True])
    simulated = ClassWeights("simulation", x[2:], np.zeros(4), np.array([1.0, 0.0, 3.0, 1.0]), used)
    classes = TwoClass((data, simulated), 0.0)
    features, label, weight = classes.labelled()
    np.testing.assert_array_equal(features[:, 0], [0, 1, 2, 4, 5])
    np.testing.assert_array_equal(label, [1, 1, 0, 0, 0])  # data of weight zero are data
    np.testing.assert_array_equal(weight, [2, 0, 1, 3, 1])
    joined = classes.joined()
    np.testing.assert_array_equal(joined.x, features)
    np.testing.assert_array_equal(joined.ones, [2, 0, 0, 0, 0])
    np.testing.assert_array_equal(joined.zeros, [0, 0, 1, 3, 1])
    both = TwoClass((ClassWeights("simulation", x, np.ones(6), np.ones(6)),), 0.0)
    with pytest.raises(ValueError, match="events of simulation are in both classes"):
        both.labelled()
