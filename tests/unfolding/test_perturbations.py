"""What fluctuates: streams, moments, interpolation, and the list of sources."""

from __future__ import annotations

import numpy as np
import pytest

from bayesunfold.unfolding.perturbations import (
    Acceptance,
    Fluctuations,
    Perturbations,
    Variation,
    event_fluctuations,
    interpolate,
    list_sources,
)


def test_fluctuations_do_not_depend_on_the_order_of_asking():
    first, second = Fluctuations(10_000, 5, seed=3), Fluctuations(10_000, 5, seed=3)
    np.testing.assert_array_equal(first.block(2), second.block(2))
    second.block(0)
    np.testing.assert_array_equal(first.block(0), second.block(0))
    assert first.block(2).shape == (10_000 - 2 * 4096, 5)
    assert not np.array_equal(first.block(0), Fluctuations(10_000, 5, seed=4).block(0))


def test_fluctuations_have_mean_zero_and_variance_one():
    """Exp(1) - 1; 1e6 numbers, so 5 sigma is 0.005 on the mean (false alarm 6e-7) and 0.014 on the variance."""
    g = np.concatenate([Fluctuations(10_000, 100, seed=1).block(i) for i in range(3)]).astype(float)
    assert abs(g.mean()) < 5 / np.sqrt(g.size)
    # the variance of (Exp(1) - 1)^2 is 9 - 1 = 8
    assert abs(g.var() - 1) < 5 * np.sqrt(8 / g.size)


def test_moved_fluctuations_are_the_old_ones_and_the_move():
    old = Fluctuations(5000, 3, seed=2)
    new = old.moved(lambda number: np.full((min(4096, 5000 - 4096 * number), 3), number + 1.0, dtype=np.float32))
    old.block(0)
    assert not old.moved(lambda _: np.float32(0))._cache
    assert not old._cache  # both in memory would be twice the largest array of an unfolding
    for block in old.blocks():
        np.testing.assert_array_equal(new.block(block.number), old.block(block.number) + np.float32(block.number + 1))
    assert [b.rows for b in old.blocks()] == [slice(0, 4096), slice(4096, 5000)]


def test_negative_share_counts_what_is_below_minus_one():
    """A constant move of -1.5 puts Exp(1) - 2.5 below -1 with probability 1 - exp(-1.5)."""
    moved = Fluctuations(20_000, 10, seed=5).moved(lambda _: np.full(1, -1.5, dtype=np.float32))
    share = 1 - np.exp(-1.5)
    assert abs(moved.negative_share() - share) < 5 * np.sqrt(share * (1 - share) / 200_000)  # false alarm 6e-7
    assert Fluctuations(1000, 10, seed=5).negative_share() == 0


def test_one_member_is_a_column_of_all_blocks():
    g = Fluctuations(9000, 4, seed=8)
    np.testing.assert_array_equal(g.of_member(2), np.concatenate([g.block(k)[:, 2] for k in range(3)]))


def test_samples_have_streams_of_their_own():
    events = event_fluctuations({"data": 100, "simulation": 100, "top": 100, "qcd": 100}, 5, seed=1)
    blocks = [f.block(0) for f in events.values()]
    for k, one in enumerate(blocks):
        for other in blocks[k + 1 :]:
            assert not np.any(one == other)


@pytest.mark.parametrize(("alpha", "expected"), [(2.0, 2 * 0.1), (-2.0, 2 * -0.3), (0.0, 0.0)])
def test_variations_are_linear_on_either_side(alpha, expected):
    change = interpolate(np.array([0.1]), np.array([-0.3]), np.array([alpha]))
    assert change[0, 0] == pytest.approx(expected)


def test_sources_stand_in_the_order_of_all_tables():
    alpha, ones = np.zeros(2), np.ones(3)
    effects = {"scale": Acceptance(alpha), "shower": Variation(alpha, ones, -ones)}
    sources = list_sources(["top"], effects, generator=True)
    assert [s.name for s in sources] == ["data", "simulation", "prior", "top", "shower", "scale", "generator"]
    assert [s.name for s in sources if s.is_systematic] == ["shower", "scale"]
    p = Perturbations(sources, event_fluctuations({"data": 1, "simulation": 1}, 2, 0), np.zeros((1, 2)), effects)
    assert p.named("background", "generator") == ("top", "generator")
    assert list(p.variations) == ["shower"]
    assert list(p.acceptances) == ["scale"]
    assert p.shifts == {}
    assert p.n_members == 2
