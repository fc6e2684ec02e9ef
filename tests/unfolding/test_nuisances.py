"""Profiled nuisance parameters: inputs at their values, and what changes per unit of each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError, ProfilingWarning
from bayesunfold.unfolding.nuisances import Nuisances
from bayesunfold.unfolding.profiled import bend, slope
from bayesunfold.unfolding.standardized import standardize

N = 3000


@pytest.fixture(scope="module")
def inputs():
    """A simulation with misses and fakes, a background, and a systematic of each kind."""
    rng = np.random.default_rng(1)
    gen, noise = rng.normal(0, 1, N), rng.normal(0, 0.5, N)
    reco = gen + noise
    pass_gen = rng.random(N) < 0.95
    simulation = bu.Simulation(gen, reco, pass_gen=pass_gen, pass_reco=reco > -1)
    data = bu.Data(rng.normal(0.2, 1, 2000))
    background = bu.Background(rng.normal(1, 0.2, 500), np.full(500, 0.4), "top", 0.3, profile=True)
    systematics = [
        bu.Systematic("shower", weight_up=np.exp(0.2 * gen), weight_down=np.exp(-0.1 * gen), profile=True),
        bu.Systematic(
            "scale",
            reco_up=reco + 0.1,
            reco_down=reco - 0.1,
            pass_reco_up=reco + 0.1 > -1,
            pass_reco_down=reco - 0.1 > -1,
            profile=True,
        ),
        bu.Systematic("other", weight_up=np.full(N, 1.1)),
    ]
    scales = standardize(simulation, data).scales
    return Nuisances.of(simulation, [background], systematics, scales, 3), data, scales


def test_a_bend_meets_both_sides_and_has_its_slope():
    up, down = np.array([2.0, -1.0]), np.array([-0.5, 0.7])
    np.testing.assert_allclose(bend(up, down, 1.0), up)
    np.testing.assert_allclose(bend(up, down, -1.0), down)
    np.testing.assert_allclose(bend(up, -up, 2.5), 2.5 * up)
    for alpha in (-1.7, -1.0, -0.3, 0.0, 0.8, 1.0, 2.2):
        found = (bend(up, down, alpha + 1e-6) - bend(up, down, alpha - 1e-6)) / 2e-6
        np.testing.assert_allclose(found, slope(up, down, alpha), atol=3e-6)


def test_inputs_at_a_value_are_those_of_the_variation(inputs):
    nuisances, data, scales = inputs
    sim = nuisances.simulation
    assert nuisances.names == ("shower", "scale", "top")
    at = nuisances.moved(np.zeros(3), data, scales)
    np.testing.assert_array_equal(at.simulation.weight, sim.weight)
    np.testing.assert_array_equal(at.simulation.reco[sim.pass_reco], sim.reco[sim.pass_reco])
    np.testing.assert_array_equal(at.simulation.pass_reco, sim.pass_reco)
    up = nuisances.moved(np.ones(3), data, scales)
    np.testing.assert_allclose(up.simulation.weight, np.exp(0.2 * sim.gen[:, 0]))
    passes = sim.reco[:, 0] + 0.1 > -1
    np.testing.assert_array_equal(up.simulation.pass_reco, passes)
    np.testing.assert_allclose(up.simulation.reco[sim.pass_reco], sim.reco[sim.pass_reco] + 0.1)
    np.testing.assert_allclose(up.backgrounds[0].weight, 1.3 * 0.4)
    # what is not profiled is on top: the same factor on other weights
    np.testing.assert_allclose(up.systematics[0].weight_up, 1.1 * up.simulation.weight)


def test_half_of_the_migrating_events_pass_half_way(inputs):
    """Binomial, 5 standard deviations: false alarm 6e-7."""
    nuisances, data, scales = inputs
    sim = nuisances.simulation
    half = nuisances.moved(np.array([0.0, 0.5, 0.0]), data, scales).simulation.pass_reco
    migrating = (sim.reco[:, 0] + 0.1 > -1) & ~sim.pass_reco
    share = np.clip(nuisances._share(np.array([0.0, 0.5, 0.0])), 0, 1)
    assert half[sim.pass_reco & (share == 1)].all()
    n, p = migrating.sum(), share[migrating].mean()
    assert abs(half[migrating].sum() - n * p) < 5 * np.sqrt(n * 0.25)


def test_derivatives_are_those_of_the_refolded_simulation(inputs):
    """(N1) and (N3) against finite differences of the moved inputs; (N2) for features whose selection stays."""
    nuisances, data, scales = inputs
    alpha, step, rows = np.array([0.3, 0.2, -0.4]), np.full(3, 0.1), np.arange(N)
    now = nuisances.moved(alpha, data, scales)
    push = np.exp(0.1 * np.where(np.isfinite(now.simulation.gen[:, 0]), now.simulation.gen[:, 0], 0.0))
    signed = nuisances.derivatives(alpha, step, now, push, lambda *_: push, rows)

    def f(x):
        return np.column_stack([x[:, 0], np.tanh(2 * x[:, 0])])

    def folded(a):
        events = nuisances.moved(a, data, scales).events
        w = np.where(events.passes.reco, events.weight * push, 0.0)
        w *= events.signal_yield / w.sum()
        total = w @ f(events.reco)
        for b in events.backgrounds:
            total = total + b.weight @ f(b.x)
        return total

    for k in (0, 2):
        h = 1e-4 * np.eye(3)[k]
        expected = (folded(alpha + h) - folded(alpha - h)) / 2e-4
        found = sum(weight @ f(x) for x, weight in itertools.chain.from_iterable(signed[k]))
        np.testing.assert_allclose(found, expected, rtol=2e-3)
    # sums of a constant: the signal keeps what backgrounds leave of the data
    sums = [sum(weight.sum() for _, weight in itertools.chain.from_iterable(parts)) for parts in signed]
    np.testing.assert_allclose(sums, 0.0, atol=1e-6 * now.events.signal_yield)


def test_a_shift_without_a_selection_is_its_difference():
    rng = np.random.default_rng(2)
    gen = rng.normal(0, 1, 500)
    reco = gen + rng.normal(0, 0.5, 500)
    simulation, data = bu.Simulation(gen, reco), bu.Data(rng.normal(0, 1, 400))
    shift = bu.Systematic("scale", reco_up=1.2 * reco, profile=True)
    scales = standardize(simulation, data).scales
    nuisances = Nuisances.of(simulation, [], [shift], scales, 3)
    alpha = np.array([0.5])
    now = nuisances.moved(alpha, data, scales)
    np.testing.assert_allclose(now.simulation.reco[:, 0], 1.1 * reco)
    ((high, low),) = nuisances.derivatives(
        alpha, np.array([0.25]), now, np.ones(500), lambda *_: np.ones(500), np.arange(500)
    )[0]
    np.testing.assert_allclose(high[0], scales.reco(1.15 * reco[:, None]), rtol=1e-5)
    np.testing.assert_allclose(low[0], scales.reco(1.05 * reco[:, None]), rtol=1e-5)
    np.testing.assert_allclose(high[1], 400 / 500 / 0.5)
    np.testing.assert_allclose(low[1], -400 / 500 / 0.5)


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.OverlapWarning")  # the data reach below the selection
def test_what_cannot_be_profiled_is_refused(inputs):
    nuisances, data, scales = inputs
    sim = nuisances.simulation

    def read(*systematics):
        return Nuisances.of(sim, [], systematics, scales, 0)

    weight = np.ones(N)
    weight[5] = -1.0
    with pytest.raises(InputError, match="positive factors"):
        read(bu.Systematic("sign", weight_up=weight, profile=True))
    with pytest.raises(InputError, match="one direction"):
        read(bu.Systematic("cut", pass_reco_up=sim.reco[:, 0] > -0.9, profile=True))
    with pytest.raises(InputError, match="no uncertainty to constrain"):
        bu.Background([1.0, 2.0], name="top", profile=True)
    with pytest.raises(InputError, match='method="direct"'):
        bu.OmniFold().check(
            sim, data, [], [bu.Systematic("norm", weight_up=1 + 0.1 * (sim.gen[:, 0] > 0), profile=True)]
        )
    with pytest.warns(ProfilingWarning, match=r"2109\.08159"):
        bu.Systematic("model", alternative=sim, profile=True)


def test_a_background_may_vanish(inputs):
    nuisances, data, scales = inputs
    weight = nuisances.moved(np.array([0.0, 0.0, -4.0]), data, scales).backgrounds[0].weight
    np.testing.assert_allclose(weight, 0.4 / 1.3**4)


def test_what_a_failing_row_holds_does_not_matter():
    """Events that pass only in a variation have its features, not the filler of the nominal file."""
    rng = np.random.default_rng(3)
    gen = rng.normal(0, 1, 800)
    raw = gen + rng.normal(0, 0.3, 800)
    passes = raw > -0.5
    filler = np.where(passes, raw, -999.0)
    simulation, data = bu.Simulation(gen, filler, pass_reco=passes), bu.Data(np.abs(rng.normal(0, 1, 500)))
    shift = bu.Systematic(
        "scale",
        reco_up=raw + 0.2,
        reco_down=raw - 0.2,
        pass_reco_up=raw + 0.2 > -0.5,
        pass_reco_down=raw - 0.2 > -0.5,
        profile=True,
    )
    scales = standardize(simulation, data).scales
    up = Nuisances.of(simulation, [], [shift], scales, 1).moved(np.ones(1), data, scales).simulation
    assert up.pass_reco.sum() > passes.sum()
    np.testing.assert_allclose(up.reco[up.pass_reco, 0], (raw + 0.2)[up.pass_reco])
