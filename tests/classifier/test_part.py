"""A random part of the events estimates sums over all of them."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunfold.classifier.part import Part


def test_equal_weights_and_as_many_as_events_are_all_of_them_once():
    part = Part.choose(np.full(500, 3.0), 500, np.random.default_rng(1))
    np.testing.assert_array_equal(part.rows, np.arange(500))
    np.testing.assert_allclose(part.factor, 1.0, rtol=1e-12)


def test_the_estimate_has_no_bias():
    """500 parts of 200 from 2000 events with exponential weights; a bias of five standard errors has 6e-7."""
    rng = np.random.default_rng(2)
    weight, values = rng.exponential(size=2000), rng.normal(1.0, 1.0, 2000)
    total = weight @ values
    found = []
    for _ in range(500):
        part = Part.choose(weight, 200, rng)
        found.append(part.factor @ (weight * values)[part.rows])
        assert part.factor @ weight[part.rows] == pytest.approx(weight.sum())
    assert abs(np.mean(found) - total) < 5 * np.std(found) / np.sqrt(500) + 1e-3 * total  # a ratio: bias of order 1/200
    assert np.std(found) < 0.1 * total


def test_negative_weights_are_chosen_by_size_and_zeros_never():
    rng = np.random.default_rng(3)
    weight = np.where(rng.random(3000) < 0.3, -1.0, 1.0)
    weight[::3] = 0.0
    part = Part.choose(weight, 400, rng)
    assert np.all(weight[part.rows] != 0)
    assert np.all(np.diff(part.rows) > 0)
    assert part.factor @ np.abs(weight)[part.rows] == pytest.approx(np.abs(weight).sum())
    assert abs(len(part.rows) - 400) <= 1
