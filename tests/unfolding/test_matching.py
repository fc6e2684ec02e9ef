"""Variations with events of their own, in another order."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.unfolding.matching import match_rows

N = 200


@pytest.fixture
def simulation():
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, N)
    return bu.Simulation(gen, gen + rng.normal(0, 0.3, N), pass_reco=gen > -1.5)


def test_rows_are_matched_in_any_order_and_by_several_columns():
    rng = np.random.default_rng(2)
    key = np.column_stack([np.repeat([1, 2], 50), np.tile(np.arange(50), 2)])
    order = rng.permutation(100)
    np.testing.assert_array_equal(order[match_rows(key, key[order], "up")], np.arange(100))
    np.testing.assert_array_equal(match_rows(["a", "b"], ["b"], "up"), [-1, 0])


def test_a_shuffled_variation_is_the_one_in_order(simulation):
    rng, key = np.random.default_rng(3), np.arange(N) * 10**12 + 7
    order = rng.permutation(N)
    up = simulation.reco[:, 0] + 0.1
    passes = simulation.gen[:, 0] > -1.4
    s = bu.Systematic.from_events(
        "scale",
        simulation,
        key=key,
        up={"key": key[order], "reco": up[order], "pass_reco": passes[order]},
        down={"key": key, "reco": simulation.reco[:, 0] - 0.1},
        profile=True,
    )
    np.testing.assert_array_equal(s.reco_up[:, 0], up)
    np.testing.assert_array_equal(s.pass_reco_up, passes)
    assert s.profile
    assert s.two_sided
    weights = bu.Systematic.from_events("w", simulation, key=key, up={"key": key[order], "weight": order + 1.0})
    np.testing.assert_array_equal(weights.weight_up, np.arange(N) + 1.0)


def test_a_file_of_passing_events_says_who_fails(simulation):
    key, passes = np.arange(N), simulation.gen[:, 0] > -1.2
    up = {"key": key[passes], "reco": simulation.reco[passes] + 0.1}
    s = bu.Systematic.from_events("scale", simulation, key=key, up=up, absent="fails")
    np.testing.assert_array_equal(s.pass_reco_up, passes)
    with pytest.raises(InputError, match="are not in up of scale"):
        bu.Systematic.from_events("scale", simulation, key=key, up=up)


def test_events_without_a_partner_are_counted(simulation):
    key = np.arange(N)
    up = {"key": np.append(key[:-1], N + 5), "reco": np.append(simulation.reco[:-1, 0] + 0.1, 0.0)}
    with pytest.warns(OverlapWarning, match="1 of 200 events in up of scale are not in the simulation"):
        bu.Systematic.from_events("scale", simulation, key=key, up=up, absent="fails")
    up = {"key": key + 50, "reco": simulation.reco}
    with pytest.raises(InputError, match="50 of 200 events"):
        bu.Systematic.from_events("scale", simulation, key=key, up=up, absent="fails")


@pytest.mark.parametrize(
    ("key", "up", "message"),
    [
        (np.zeros(N), {"key": np.arange(N), "weight": np.ones(N)}, "unique"),
        (np.arange(N), {"key": np.zeros(N), "weight": np.ones(N)}, "unique"),
        (np.arange(N), {"weight": np.ones(N)}, "give key"),
        (np.arange(N), {"key": np.arange(N)}, "one or more of"),
        (np.arange(N), {"key": np.arange(N), "recco": np.ones(N)}, "recco"),
        (np.arange(N), {"key": np.ones((N, 2)), "weight": np.ones(N)}, "columns"),
        (np.full(N, np.nan), {"key": np.arange(N), "weight": np.ones(N)}, "NaN"),
        (np.arange(N), {"key": np.arange(N), "reco": np.ones(3)}, "same events"),
        (np.arange(3), {"key": np.arange(3), "weight": np.ones(3)}, "each needs one"),
    ],
)
def test_mistakes_are_named(simulation, key, up, message):
    with pytest.raises(InputError, match=message):
        bu.Systematic.from_events("x", simulation, key=key, up=up)


def test_columns_are_matched_by_name_and_number():
    pd = pytest.importorskip("pandas")
    gen = np.array([1.0, 2.0, 3.0])
    reco = pd.DataFrame({"a": gen, "b": 10 * gen})
    simulation = bu.Simulation(gen, reco)
    up = pd.DataFrame({"b": 10 * gen + 1, "a": gen + 0.1})
    s = bu.Systematic.from_events("x", simulation, key=[1, 2, 3], up={"key": [1, 2, 3], "reco": up})
    np.testing.assert_allclose(s.reco_up, np.column_stack([gen + 0.1, 10 * gen + 1]))
    for wrong, message in ((gen, "features"), (up.rename(columns={"a": "c"}), "columns")):
        with pytest.raises(InputError, match=message):
            bu.Systematic.from_events("x", simulation, key=[1, 2, 3], up={"key": [1, 2, 3], "reco": wrong})


def test_a_complete_file_without_flags_keeps_the_selection():
    gen = np.array([1.0, 2.0, 3.0, 4.0])
    simulation = bu.Simulation(gen, [1.0, 2.0, 3.0, -999.0], pass_reco=[True, True, True, False])
    s = bu.Systematic.from_events(
        "x", simulation, key=[1, 2, 3, 4], up={"key": [4, 3, 2, 1], "reco": [-999.0, 3.1, 2.1, 1.1]}
    )
    assert s.pass_reco_up is None


def test_long_event_numbers_stay_exact():
    """Beyond 2^53 neighbours are one floating-point number; a tuple keeps the columns' types."""
    run, event = np.array([1, 1], dtype=np.int32), np.array([2**60 + 1, 2**60], dtype=np.uint64)
    np.testing.assert_array_equal(match_rows((run, event), (run, event[::-1]), "up"), [1, 0])


def test_event_numbers_with_and_without_a_sign_are_compared_exactly():
    """One file has a negative number, so its type keeps the sign; that of the other has none."""
    first = np.array([-1, 2**62, 2**62 + 1, 2**62 + 2])
    for kind in (np.int64, np.uint64):
        other = np.array([2**62 + 2, 2**62, 7, 2**62 + 1], dtype=kind)
        assert match_rows(first, other, "up").tolist() == [-1, 1, 3, 0]


@pytest.mark.parametrize(("kind", "digits"), [("float32", 24), ("float64", 53)])
def test_floats_that_cannot_tell_events_apart(kind, digits):
    """The next whole number after 2^digits that the type holds is two more."""
    whole = np.array([2**digits - 1, 2**digits])
    np.testing.assert_array_equal(match_rows(whole.astype(kind), whole[::-1], "up"), [1, 0])
    words = rf"of type {kind}, holds {2**digits + 2} as a float, which above 2\^{digits} cannot"
    for mine, theirs in (((whole + 2).astype(kind), whole), (whole, (whole + 2).astype(kind))):
        with pytest.raises(InputError, match=words):
            match_rows(mine, theirs, "up")


@pytest.mark.parametrize("kind", [">i8", ">u4", ">f8"])
def test_identifiers_of_the_other_byte_order(kind, simulation):
    own, theirs = np.array([7, 8, 9]), np.array([9, 7])
    for a, b in ((own.astype(kind), theirs), (own, theirs.astype(kind)), (own.astype(kind), theirs.astype(kind))):
        np.testing.assert_array_equal(match_rows(a, b, "up"), [1, -1, 0])
        np.testing.assert_array_equal(match_rows((a, a), (b, b), "up"), [1, -1, 0])
    key = np.arange(N).astype(kind)
    s = bu.Systematic.from_events("x", simulation, key=key, up={"key": key[::-1], "weight": np.arange(N) + 1.0})
    np.testing.assert_array_equal(s.weight_up, np.arange(N)[::-1] + 1.0)


def test_weights_of_events_that_are_not_there_are_not_known(simulation):
    key, passes = np.arange(N), simulation.gen[:, 0] > -1.2
    up = {"key": key[passes], "weight": np.full(passes.sum(), 1.05)}
    with pytest.raises(InputError, match=r"which has weights: what the others weigh there"):
        bu.Systematic.from_events("scale", simulation, key=key, up=up, absent="fails")
