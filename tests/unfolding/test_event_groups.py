"""Events that fluctuate in groups: equations (13)-(15), and refits with them against refits event by event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from linear_loop import ALL, Given, linear_events, linear_step1, linear_step2, nominal_loop
from threadpoolctl import threadpool_limits

from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.linearized import linearize_some, posterior_axes
from bayesunfold.errors import InputError
from bayesunfold.unfolding.conditioning import condition_on
from bayesunfold.unfolding.event_groups import (
    EventGroups,
    GroupedFluctuations,
    check_event_groups,
    in_groups,
)
from bayesunfold.unfolding.group_scores import GroupScores
from bayesunfold.unfolding.perturbations import Fluctuations, Perturbations, Shift, Shifted, Variation
from bayesunfold.unfolding.propagation import Carried, PullNormalization, linear_refit


@pytest.mark.parametrize(("n", "most", "size"), [(10, 10, 1), (11, 10, 2), (1003, 100, 11), (7, 3, 3)])
def test_every_event_is_in_one_group_and_sizes_differ_by_one(n, most, size):
    groups = EventGroups.of(n, most, np.random.default_rng(1))
    assert groups.size == size
    assert len(groups) <= most
    counts = np.bincount(groups.of_event, minlength=len(groups))
    assert counts.sum() == n
    assert counts.max() - counts.min() <= 1
    rows, real = groups.rows(slice(0, len(groups)))
    np.testing.assert_array_equal(np.sort(rows[real]), np.arange(n))
    np.testing.assert_array_equal(groups.of_event[rows[real]], np.repeat(np.arange(len(groups)), size)[real])
    number = np.repeat(np.arange(len(groups)), size)[real]
    np.testing.assert_array_equal(groups.totals(np.arange(n)), np.bincount(number, rows[real], len(groups)))


def test_variances_of_sums_are_those_of_single_events():
    """Of the sum of weights, exactly in expectation; of parts of the events, to the groups' own chance.

    2000 members: a variance is known to sqrt(2 / 2000) (kurtosis of a sum of exponentials is that of a Gaussian), five
    standard deviations are 0.16. Groups change it by sqrt(2 / 4000), 0.11 at five.
    """
    rng = np.random.default_rng(2)
    weight = rng.exponential(size=20_000)
    f = GroupedFluctuations(weight, 2000, seed=3, most=4000)
    e = f.values()[f.groups.of_event].astype(float)
    total = weight @ e
    assert total.var() / (weight @ weight) == pytest.approx(1.0, abs=0.16)
    assert abs(total.mean()) < 5 * total.std() / np.sqrt(2000)
    for share in (0.5, 0.1, 0.02):
        chosen = weight * (rng.random(20_000) < share)
        assert (chosen @ e).var() / (chosen @ chosen) == pytest.approx(1.0, abs=0.27)


def test_shares_of_events_of_other_weights_vary_as_with_single_events():
    """One event in a hundred has weight 99; the half of the weight that they carry, relative to the total.

    2000 members, 10 000 groups of 20: five standard deviations are 0.16 and 0.07.
    """
    rng = np.random.default_rng(3)
    weight = np.where(rng.random(200_000) < 0.01, 99.0, 1.0)
    f = GroupedFluctuations(weight, 2000, seed=4, most=10_000)
    one = 1.0 + f.values().astype(float)  # of groups; events of one group have the same
    heavy = np.where(weight > 1, weight, 0.0)
    share = heavy.sum() / weight.sum()
    by_group = [np.bincount(f.groups.of_event, w, len(one)) for w in (heavy, weight)]
    found = ((by_group[0] @ one) / (by_group[1] @ one)).var()
    assert found / (((heavy - share * weight) ** 2).sum() / weight.sum() ** 2) == pytest.approx(1.0, abs=0.2)


def test_weighted_sums_are_those_of_events():
    rng = np.random.default_rng(6)
    weight = rng.normal(size=9000)
    f = GroupedFluctuations(np.ones(9000), 4, seed=8, most=2000)
    each = f.values()[f.groups.of_event].astype(float)
    np.testing.assert_allclose(f.weighted(weight), weight @ each, rtol=1e-5, atol=1e-4)
    plain = Fluctuations(9000, 4, seed=8)
    each = np.concatenate([plain.block(b.number) for b in plain.blocks()]).astype(float)
    np.testing.assert_allclose(plain.weighted(weight), weight @ each, rtol=1e-5, atol=1e-4)


def test_the_same_seed_gives_the_same_fluctuations_in_any_thread():
    weight = np.ones(30_000)
    first = GroupedFluctuations(weight, 3, seed=4, most=10_000).values()
    with threadpool_limits(2), block_threads():
        second = GroupedFluctuations(weight, 3, seed=4, most=10_000).values()
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, GroupedFluctuations(weight, 3, seed=5, most=10_000).values())


def test_it_answers_as_fluctuations_of_events_do():
    f = GroupedFluctuations(np.ones(9000), 4, seed=8, most=2000)
    blocks = [f.block(b.number) for b in f.blocks()]
    assert [len(b) for b in blocks] == [4096, 4096, 808]
    each = np.concatenate(blocks)
    np.testing.assert_array_equal(f.of_member(2), each[:, 2])
    np.testing.assert_array_equal(each, f.values()[f.groups.of_event])
    rows = np.arange(9000) % 3 == 0
    assert f.negative_share(rows) == pytest.approx((each[rows] < -1).mean())
    assert len(f) == 9000


def test_samples_that_fit_are_left_alone():
    f = Fluctuations(1000, 5, seed=1)
    assert in_groups(f, np.ones(1000), 1000) is f
    assert in_groups(f, np.ones(1000), None) is f
    assert isinstance(in_groups(f, np.ones(1000), 999), GroupedFluctuations)
    assert check_event_groups(None) is None
    with pytest.raises(InputError, match="event_groups is 9; it must be a whole number of at least 10000"):
        check_event_groups(9)


@pytest.fixture(scope="module")
def events():
    return linear_events()


def _pair(events, members=5):
    """Fluctuations of groups of one event, and the same event by event."""
    grouped = {
        "data": GroupedFluctuations(np.ones(200), members, 11, 200),
        "simulation": GroupedFluctuations(np.ones(300), members, 12, 300),
    }
    single = {name: Given(f.values()[f.groups.of_event].astype(float)) for name, f in grouped.items()}
    return grouped, single


def test_refits_with_groups_of_one_event_are_those_with_events(events):
    """All terms at once: carried ratios, weight and detector systematics, backgrounds, the level of pull weights.

    A part of as many events as there are is all of them.
    """
    gen, reco, data, v, u = events
    rng = np.random.default_rng(9)
    both = rng.random(300) < 0.7
    ref = nominal_loop(events, 1)[0]
    top = rng.normal(1.0, 1.0, (80, 3))
    step1 = linear_step1(ref["one"], ALL, data, u, reco, np.where(both, ref["w0"], 0), 0.1, [("top", top, np.ones(80))])
    pull = np.exp(step1.log_ratio(reco))
    pulled, generated = np.where(both, v * pull, 0), np.where(both, v, 0)
    normalization = PullNormalization(pulled / pulled.sum(), generated / generated.sum(), both)
    step2 = linear_step2(ref["two"], ALL, gen, v * np.where(both, pull, 1.0), v)
    xi = rng.standard_normal((4, 5))
    alpha = rng.standard_normal((3, 5))
    effects = {
        "scale": Variation(alpha[0], rng.normal(size=300), rng.normal(size=300)),
        "tune": Variation(alpha[1], rng.normal(size=300), rng.normal(size=300)),
        "jes": Shift(alpha[2], Shifted(reco + 0.1, np.ones(300, bool)), Shifted(reco - 0.2, np.ones(300, bool))),
    }
    found = []
    for fluctuations in _pair(events):
        own = {"top": Given(np.linspace(-1, 1, 400).reshape(80, 5))}
        p = Perturbations((), fluctuations | own, xi, effects, {"top": alpha[0]}, {"top": alpha[1]})
        nominal = step1.classes.sample("simulation")
        varied = {"jes": (replace(nominal, x=reco + 0.1), replace(nominal, x=reco - 0.2))}
        one = linear_refit(step1, [], p, prior=xi, varied=varied)
        two_sim = step2.classes.sample("simulation")
        varied = {"jes": (replace(two_sim, ones=1.1 * two_sim.ones), None)}
        two = linear_refit(step2, [Carried(one, reco, "ones", both)], p, normalization=normalization, varied=varied)
        found.append((one, two))
    for grouped, single in zip(*found, strict=True):
        assert set(grouped.by_source) == set(single.by_source)
        for name, d in single.by_source.items():
            np.testing.assert_allclose(grouped.by_source[name], d, rtol=1e-6, atol=1e-8, err_msg=name)


def test_scores_of_groups_are_sums_of_those_of_events(events):
    _gen, reco, data, _, u = events
    ref = nominal_loop(events, 1)[0]
    step1 = linear_step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"])
    sample = step1.classes.sample("simulation")
    f = GroupedFluctuations(ref["w0"], 3, 5, most=70)
    scores = GroupScores.of(step1, sample, f)
    one, zero, _ = step1.residuals(sample, slice(None))
    each = step1.tangent(reco) * (one - zero)[:, None]
    wanted = np.zeros((len(f.groups), 4))
    np.add.at(wanted, f.groups.of_event, each)
    every = slice(0, len(f.groups))
    np.testing.assert_allclose(scores.of_groups(every), wanted, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(scores.response(), each.T @ f.values()[f.groups.of_event], rtol=1e-6, atol=1e-6)
    # the response to fluctuations before scaling is that of centred scores
    centred = scores.centred(every)
    np.testing.assert_allclose(centred, wanted - np.outer(f.common * f.totals, each.sum(axis=0)), atol=1e-9)
    np.testing.assert_allclose(scores.covariance(), centred.T @ centred, rtol=1e-9)


@pytest.mark.parametrize("backgrounds", [False, True])
def test_conditioned_groups_reproduce_the_draws(events, backgrounds):
    """Groups of two events: after the shift the member of step 1 is the posterior draw, to single precision."""
    _gen, reco, data, _, u = events
    rng = np.random.default_rng(5)
    ref = nominal_loop(events, 1)[0]
    top = [("top", rng.normal(1.0, 1.0, (80, 3)), np.ones(80))] if backgrounds else []
    step1 = linear_step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"], top)
    fluctuations = {
        "data": GroupedFluctuations(u, 6, 1, most=100),
        "simulation": GroupedFluctuations(ref["w0"], 6, 2, most=150),
    } | ({"top": Given(rng.exponential(size=(80, 6)) - 1)} if backgrounds else {})
    before = Perturbations((), fluctuations, rng.normal(size=(4, 6)))
    axes, _ = posterior_axes(step1)
    draws = rng.standard_normal((6, 4))
    after = condition_on(step1, before, axes, draws).apply(before)
    moved = linear_refit(step1, [], after, prior=after.prior)
    np.testing.assert_allclose(axes.T @ moved.total(), draws.T, atol=1e-4)


def test_a_direction_that_few_events_see_keeps_its_curvature(events):
    """Three of 60 000 events carry a feature alone. With groups their direction is as stiff as with events one by one.

    A part of the events, weighted up, would hold none of the three two times in three, and members would then move by
    the prior's width along that direction.
    """
    rng = np.random.default_rng(4)
    n = 60_000
    x = np.zeros((n, 3))
    x[:, 0] = rng.normal(size=n)
    x[:3, 2] = 40.0  # leverage of a thousand events each
    w = np.ones(n)
    data = np.zeros((5000, 3))
    data[:, 0] = rng.normal(size=5000)
    step1 = linear_step1(np.array([0.1, 0.0, 0.0, 0.0]), ALL, data, np.ones(5000), x, w, -2.5)
    axes, precision = posterior_axes(step1)
    grouped = {
        "data": Fluctuations(5000, 40, 1),
        "simulation": GroupedFluctuations(w, 40, 2, most=10_000),
    }
    f = grouped["simulation"]
    single = {"data": grouped["data"], "simulation": Given(f.values()[f.groups.of_event].astype(float))}
    xi = rng.normal(size=(4, 40))
    one, two = (linear_refit(step1, [], Perturbations((), e, xi), prior=xi).total() for e in (grouped, single))
    np.testing.assert_allclose(one, two, rtol=1e-3, atol=1e-4)
    assert one[2].std() < 0.2  # the prior's width is one
    # and so does the posterior that ADVI and NUTS look at: N(0, 1) along all axes, up to third order
    some = linearize_some(step1, axes, precision, np.random.default_rng(1))
    hessian = some._derivatives()[1] + some.correction.curvature + np.diag(1 / some.width**2)
    np.testing.assert_allclose(hessian, np.eye(4), atol=1e-5)
    assert len(some.label) < 2100
    assert np.abs(some.tangent).max() == pytest.approx(np.abs(step1.tangent(x[:1]) @ (axes / precision)).max())


def test_older_settings_have_events_one_by_one_and_lack_nothing_else():
    from bayesunfold.omnifold.settings import Settings

    state = Settings(draws=7, event_groups=20_000).state()
    assert Settings.from_state(state).event_groups == 20_000
    del state["event_groups"]
    assert Settings.from_state(state) == Settings(draws=7)
    del state["draws"]
    with pytest.raises(KeyError, match="draws"):
        Settings.from_state(state)
