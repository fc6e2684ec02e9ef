"""The share of values where another sample has nothing."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunfold._support.checks import uncovered_share

OTHER = np.concatenate([np.linspace(-3, -1, 200), np.linspace(1, 3, 200)])


@pytest.mark.parametrize(
    ("values", "share"),
    [
        ([2.0], 0.0),
        ([3.5], 1.0),
        ([2.0, 2.0001], 0.0),  # closer than two events of the other sample
        ([-4.0, *np.linspace(1, 3, 8), 5.0], 0.2),
        ([np.nan, 2.0], 0.0),
        ([np.nan, -9.0], 0.5),
    ],
)
def test_of_few_values_those_out_of_range_count(values, share):
    assert uncovered_share(np.array(values), OTHER) == pytest.approx(share, abs=1e-12)


def test_events_of_weight_zero_do_not_widen_the_range():
    weight = np.where(OTHER > 2, 0.0, 1.0)
    assert uncovered_share(np.array([1.5, 2.5]), OTHER, weight) == 0.5


def test_thirty_values_in_a_gap_are_no_fluctuation():
    assert uncovered_share(np.linspace(-0.5, 0.5, 30), OTHER) == 1.0
