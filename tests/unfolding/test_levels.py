"""Particle level and detector level from tables of their own."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError


def test_a_simulation_cut_into_two_tables_is_itself_again():
    rng = np.random.default_rng(1)
    n = 1000
    gen, reco, number = rng.normal(size=(n, 2)), rng.normal(size=(n, 3)), rng.permutation(n) + 2**60
    in_gen, in_reco = rng.random(n) < 0.8, rng.random(n) < 0.7
    in_gen |= ~in_reco
    order = rng.permutation(np.flatnonzero(in_reco))
    truth = np.flatnonzero(in_gen)
    levels = bu.match_levels(number[truth], number[order])
    assert (levels.matched, levels.only_gen, levels.only_reco) == (
        (in_gen & in_reco).sum(),
        (~in_reco).sum(),
        (~in_gen).sum(),
    )
    assert len(levels) == n
    np.testing.assert_array_equal(levels.gen(gen[truth])[: len(truth)], gen[truth])
    where = np.concatenate([truth, order[~in_gen[order]]])
    expected = np.where(in_reco[where][:, None], reco[where], np.nan)
    np.testing.assert_array_equal(levels.reco(reco[order]), expected)
    np.testing.assert_array_equal(levels.reco(np.ones(len(order), dtype=bool)), in_reco[where])
    weight = rng.random(n)
    np.testing.assert_array_equal(levels.either(weight[truth], weight[order]), weight[where])


def test_whole_numbers_match_those_that_a_float_holds_exactly():
    levels = bu.match_levels(np.array([7, 8], dtype=np.uint64), np.array([8.0, 9.0]))
    assert (levels.matched, levels.only_gen, levels.only_reco) == (1, 1, 1)


def test_frames_dicts_and_precision():
    pd = pytest.importorskip("pandas")
    levels = bu.match_levels((np.array([1, 1]), np.array([5, 6])), (np.array([1, 2]), np.array([6, 5])))
    assert repr(levels) == "Levels(1 in both, 1 at particle level only, 1 at detector level only)"
    np.testing.assert_array_equal(levels.gen(pd.DataFrame({"a": [1.0, 2.0]}))[:, 0], [1, 2, np.nan])
    np.testing.assert_array_equal(levels.gen({"a": [1, 2]})[:, 0], [1, 2, np.nan])
    assert levels.gen(np.ones(2, dtype=np.float32)).dtype == np.float32
    assert levels.gen(np.arange(2)).dtype == np.float64


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bu.match_levels([1, 2], [3, 4]), "none of 2 events of the particle level is among the 2"),
        (lambda: bu.match_levels([1, 1], [1, 4]), "key of the particle level has 1 events .* stands there before"),
        (lambda: bu.match_levels([1, 2], [4, 4]), "key of the detector level has 1 events"),
        (lambda: bu.match_levels([1.0, np.nan], [1, 4]), "key of the particle level has 1 identifiers that are NaN"),
        (lambda: bu.match_levels([[1, 2], [3, 4]], [1, 4]), "key of the detector level has 1 columns"),
        (lambda: bu.match_levels([2**53, 2**53 + 1], [2.0**53, 1.0]), "above 2.53 = .* neighbouring ones"),
        (lambda: bu.match_levels([1, 2], [2.0**60, 1.0]), "as a float, which above 2.53 cannot tell"),
        (lambda: bu.match_levels([1, 2], [2, 4]).gen([2**60, 1]), "neighbouring ones are no longer"),
        (lambda: bu.match_levels([1, 2], [2, 4]).gen(["a", "b"]), "only numbers and flags"),
        (lambda: bu.match_levels([1, 2], [2, 4]).gen([1, 2, 3]), r"shape \(3,\); its key has 2 events"),
        (lambda: bu.match_levels([1, 2], [2, 4]).reco(1.0), r"shape \(\); its key has 2 events"),
    ],
)
def test_tables_that_do_not_fit(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_masked_values_do_not_exist():
    """Numbers behind a mask are NaN, as in a simulation; of flags and identifiers nobody knows what they are."""
    levels = bu.match_levels([1, 2, 3], [2, 3, 9])
    masked = np.ma.array([10.0, -999.0, 30.0], mask=[0, 1, 0])
    np.testing.assert_array_equal(levels.gen(masked), [10.0, np.nan, 30.0, np.nan])
    np.testing.assert_array_equal(levels.reco(masked), [np.nan, 10.0, np.nan, 30.0])
    np.testing.assert_array_equal(levels.reco(np.ma.array([4, -1, 6], mask=[0, 1, 0])), [np.nan, 4.0, np.nan, 6.0])
    np.testing.assert_array_equal(levels.reco(np.ma.array([[1, 2]] * 3, mask=[[0, 1], [0, 0], [0, 0]]))[1], [1, np.nan])
    with pytest.raises(InputError, match="flags of the detector level are masked in 1 events"):
        levels.reco(np.ma.array([True, True, False], mask=[0, 1, 0]))
    key = np.ma.array([1, 2, 3], mask=[0, 1, 0])
    with pytest.raises(InputError, match="1 identifiers that are masked"):
        bu.match_levels(key, [2, 3, 9])
    with pytest.raises(InputError, match="key of the detector level has 1 identifiers that are masked"):
        bu.match_levels(([1, 1, 1], [1, 2, 3]), ([1, 1, 1], key))
    weight = levels.gen(masked)[:3]
    with pytest.raises(InputError, match="NaN"):  # a masked weight is an error where it is used
        bu.Simulation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], weight=weight)
