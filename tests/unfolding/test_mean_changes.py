"""Changes of generator weights: the logarithm of their mean at the unfolded features, and what is left."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from linear_loop import (
    ALL,
    answered,
    linear_events,
    linear_step1,
    linear_step2,
    nominal_loop,
    perturbations,
    refitted_loop,
)

import bayesunfold as bu
from bayesunfold.io.groups import from_groups, to_groups
from bayesunfold.unfolding.mean_changes import LARGEST, MeanChanges
from bayesunfold.unfolding.perturbations import Variation
from bayesunfold.unfolding.propagation import Carried, linear_refit
from bayesunfold.unfolding.weight_function import learned_factors

BOTH = np.array([1.0, -1.0])


def means_of(gen, weight, reco=None, fakes=None):
    fakes = np.zeros(len(gen), bool) if fakes is None else fakes
    passes = SimpleNamespace(gen=~fakes, fakes=fakes)
    return MeanChanges(SimpleNamespace(gen=gen, reco=reco, weight=weight, passes=passes))


def test_mean_and_rest_are_the_whole_change():
    """Whatever the change: signs that turn, weights that vanish or grow a millionfold. One-sided is its opposite."""
    rng = np.random.default_rng(1)
    gen, weight = rng.normal(size=(2000, 2)), rng.exponential(size=2000)
    weight[:50] *= -1
    change = 0.3 * gen[:, 0] + rng.normal(size=2000)
    change[:3] = -1.0, 1e6, -4.0
    v = means_of(gen, weight).variation(BOTH, change)
    np.testing.assert_allclose(np.exp(v.up) * (1 + v.rest[0]), 1 + change, rtol=1e-9, atol=1e-9)
    assert np.abs(v.up).max() <= np.log(LARGEST) * (1 + 1e-12)
    np.testing.assert_array_equal(v.down, -v.up)
    np.testing.assert_array_equal(v.rest[1], -v.rest[0])
    two = means_of(gen, weight).variation(BOTH, change, 0.5 * change)
    np.testing.assert_allclose(np.exp(two.down) * (1 + two.rest[1]), 1 + 0.5 * change, rtol=1e-9, atol=1e-9)
    assert two.largest() == pytest.approx(1e6)


def test_the_first_order_is_the_relative_change():
    """``exp(m) (1 + r) = 1 + d``, so ``m + r - d`` is of second order."""
    rng = np.random.default_rng(2)
    gen = rng.normal(size=(1000, 1))
    change = 1e-3 * np.tanh(gen[:, 0] + rng.normal(size=1000))
    log, rest = means_of(gen, np.ones(1000)).split(change)
    assert np.abs(log + rest - change).max() < 2e-6


def test_the_mean_is_that_at_the_features_of_the_level():
    """A polynomial is its own fit, to the information of one event; noise of 0.3 is left to the rest, to 20 sigma.

    Ten coefficients of 20 000 events know the mean to 0.3 sqrt(10 / 20 000) in root mean square.
    """
    rng = np.random.default_rng(3)
    gen, reco, fakes = (
        rng.uniform(-1.5, 1.5, (20_000, 2)),
        rng.uniform(-1.5, 1.5, (20_000, 1)),
        np.arange(20_000) < 4000,
    )
    wanted = np.where(fakes, 0.1 * reco[:, 0], 0.2 * gen[:, 0] - 0.1 * gen[:, 0] * gen[:, 1])
    means = means_of(gen, rng.exponential(size=20_000), reco, fakes)
    log, rest = means.split(wanted)
    np.testing.assert_allclose(log, np.log1p(wanted), atol=1e-3)
    assert np.abs(rest).max() < 1e-3
    log, _ = means.split(wanted + 0.3 * rng.choice([-1.0, 1.0], 20_000))
    assert np.sqrt(np.mean((log - np.log1p(wanted)) ** 2)) < 20 * 0.3 * np.sqrt(10 / 20_000) / 4


def loop_shift(events, variation, log_nu, place):
    """What members with parameters +1 and -1 add to the shares of the bins."""
    gen, reco, data, v, u = events
    none = np.zeros((200, 2)), np.zeros((300, 2))
    p, rows, two = perturbations(*none, effects={"tune": variation}), np.ones(300, bool), None
    for ref in nominal_loop(events, 3):
        step1 = linear_step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"])
        step2 = linear_step2(ref["two"], ALL, gen, ref["ones"], v)
        before = [] if two is None else [two]
        one = linear_refit(step1, [Carried(d, gen, "zeros", rows) for d in before], p, prior=p.prior)
        carried = [Carried(one, reco, "ones", rows), *(Carried(d, gen, "ones", rows) for d in before)]
        two = linear_refit(step2, carried, p)
    log, rest = (variation.change(slice(None), BOTH, relative=relative) for relative in (False, True))
    factor = np.exp(two.log_ratio_change(gen, "tune") + (0 if log is None else log)) * (
        1 + (0 if rest is None else rest)
    )
    nominal = v * np.exp(log_nu)
    return np.stack([shares(nominal * f, place) - shares(nominal, place) for f in factor.T])


def shares(weight, place):
    return np.bincount(place, weight, 5) / weight.sum()


def test_members_are_the_refitted_loop_beyond_first_order():
    """Weights of ``exp(+-0.2 x)`` and linear networks: three iterations leave of it what a refit in NumPy leaves.

    Five bins. Relative changes leave ``1 - (0.2 x)^2 / 2``, more than the whole shift of the refit.
    """
    events = linear_events()
    gen, _, _, v, _ = events
    place = np.digitize(gen[:, 0], [-1, -0.3, 0.3, 1])
    log, none = 0.2 * gen[:, 0], (np.zeros(200), np.zeros(4))
    log_nu, *refits = (refitted_loop(events, none[0], np.expm1(s * log), none[1], 3)[0] for s in (0, 1, -1))
    nominal = shares(v * np.exp(log_nu), place)
    wanted = np.stack(
        [shares(v * np.exp(nu + s * log), place) - nominal for s, nu in zip((1, -1), refits, strict=True)]
    )
    changes = np.expm1(log), np.expm1(-log)
    found = loop_shift(events, means_of(gen, v).variation(BOTH, *changes), log_nu, place)
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    earlier = loop_shift(events, Variation(BOTH, *changes, relative=True), log_nu, place)
    assert np.abs(earlier - wanted).max() > np.abs(wanted).max()


def test_noise_of_the_weights_is_not_taken_for_a_mean():
    """Weights of ``1 +- 0.3`` by a coin, more of it at one end: refits of thirty samples, in root mean square.

    All of the logarithm varied linearly would leave ``0.3^2 / 2`` there, more than relative changes leave of nothing.
    """
    events = linear_events()
    gen, _, _, v, _ = events
    place = np.digitize(gen[:, 0], [-1, -0.3, 0.3, 1])
    log_nu = refitted_loop(events, np.zeros(200), np.zeros(300), np.zeros(4), 3)[0]
    nominal, errors = shares(v * np.exp(log_nu), place), []
    for seed in range(30):
        coin = np.random.default_rng(seed).choice([-1.0, 1.0], 300)
        change = 0.3 * np.minimum(np.exp(gen[:, 0] / 2), 2) * coin
        nu = refitted_loop(events, np.zeros(200), change, np.zeros(4), 3)[0]
        wanted = shares(v * np.exp(nu) * (1 + change), place) - nominal
        logs = Variation(BOTH, np.log1p(change), -np.log1p(change))
        pair = (means_of(gen, v).variation(BOTH, change), logs)
        errors.append([loop_shift(events, variation, log_nu, place)[0] - wanted for variation in pair])
    split, logarithms = np.sqrt(np.mean(np.square(errors), axis=(0, 2)))
    assert split < 0.4 * logarithms


@pytest.fixture(scope="module")
def result():
    """A systematic whose mean is a function of the particle level, with noise, beside one that changes signs."""
    rng = np.random.default_rng(3)
    gen, n = rng.normal(0, 1, 3000), 3000
    flags = {"pass_gen": rng.random(n) < 0.9, "pass_reco": rng.random(n) < 0.8}
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, n), weight=rng.exponential(size=n), **flags)
    weight = simulation.weight * (1 + 0.2 * np.tanh(gen)) * rng.uniform(0.8, 1.2, n)
    shower = bu.Systematic("shower", weight_up=weight, weight_down=0.9 * simulation.weight * np.exp(0.1 * gen))
    flips = bu.Systematic("flips", weight_up=simulation.weight * np.where(rng.random(n) < 0.05, -1.0, 1.1))
    unfolder = bu.OmniFold(2, bu.Network(hidden=(6,)), inference="laplace", draws=30, random_seed=1, progressbar=False)
    return unfolder.fit(simulation, bu.Data(rng.normal(0.3, 1, 1500)), systematics=[shower, flips])


def test_an_answer_of_the_networks_cancels_to_all_orders(result):
    """At three standard deviations too. New events: to the information of one event in each direction of (18)."""
    m = answered(result.members)
    gen = m.events.passes.gen
    weights = np.concatenate([block for _, block in m.blocks("tune")])
    np.testing.assert_allclose(weights[gen] / m.nominal()[gen, None], 1.0, rtol=1e-5)
    new = learned_factors(result.simulation, m, result.simulation.gen[gen])
    factors = new.values / new["nominal"].values
    np.testing.assert_allclose(factors / factors.mean(axis=1, keepdims=True), 1.0, rtol=0.01)


@pytest.mark.parametrize("old", [False, True])
def test_files_give_the_members_back(result, old):
    """Files of versions before hold relative changes alone, and keep their rule: ``v (1 + a d + g) nu exp(n)``."""
    tree = to_groups(result)
    kept = result.members.perturbations.variations
    if old:
        weights = tree["systematics/weights"].to_dataset(inherit=False).drop_vars(["rest", "relative"])
        tree["systematics/weights"] = weights
    read = from_groups(tree).members
    for name, v in read.perturbations.variations.items():
        assert v.relative is old
        np.testing.assert_array_equal(v.up, kept[name].up)
        assert (v.rest is None) == old
    found = np.concatenate([block for _, block in read.blocks("shower")])
    if not old:
        wanted = np.concatenate([block for _, block in result.members.blocks("shower")])
        np.testing.assert_allclose(found, wanted, rtol=1e-4)
        return
    v = read.perturbations.variations["shower"]
    change = np.outer(v.up, np.maximum(v.alpha, 0)) + np.outer(v.down, np.maximum(-v.alpha, 0))
    push = (read.events.weight * read.push)[:, None] * np.exp(read.step2.log_ratio_change(read.events.gen, "shower"))
    gen = read.events.passes.gen
    ratio = found[gen] / (push * (1 + change))[gen]
    np.testing.assert_allclose(ratio / ratio[0], 1.0, rtol=1e-4)
    again = from_groups(to_groups(from_groups(tree))).members.perturbations.variations
    assert again["shower"].relative


def test_what_is_random_leaves_the_mean_of_a_profiled_parameter():
    """A slope of zero mean at every particle level: members keep the sum of weights; ``exp(2 slope)`` has 3.6 times it.

    20 000 events of spread 0.8 know the mean factor at two standard deviations to 0.011; five of it are once in 2e6.
    """
    rng = np.random.default_rng(11)
    gen = rng.normal(size=(20_000, 1))
    slope = 0.8 * rng.normal(size=20_000)
    alpha = np.array([2.0, -2.0])
    v = means_of(gen, np.ones(20_000)).along(alpha, slope, {"data": alpha})
    np.testing.assert_allclose(v.up + v.rest[0], slope, atol=1e-12)
    rows = slice(0, 20_000)
    factor = np.exp(v.change(rows, alpha)) * (1.0 + v.change(rows, alpha, relative=True))
    assert factor.mean(axis=0) == pytest.approx(1.0, abs=0.057)
