"""The ensemble against its defining formula, ``v exp(m) (1 + r + g) nu exp(n)`` normalised to a yield."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import ConvergenceError, InputError


@pytest.fixture(scope="module")
def result():
    """Misses, fakes, generator weights, a weight systematic."""
    rng = np.random.default_rng(3)
    gen = rng.normal(0, 1, 500)
    flags = {"pass_gen": rng.random(500) < 0.9, "pass_reco": rng.random(500) < 0.8}
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, 500), weight=rng.exponential(size=500), **flags)
    shower = bu.Systematic("shower", weight_up=simulation.weight * (1 + 0.2 * np.tanh(gen)))
    unfolder = bu.OmniFold(2, inference="laplace", draws=30, random_seed=1, progressbar=False)
    return unfolder.fit(simulation, bu.Data(rng.normal(0.8, 1, 600)), systematics=[shower])


def _by_hand(m, source=None):
    """Weights of all events before the selection of a level, shape (n, members)."""
    events, p = m.events, m.perturbations
    change = m.step2.log_ratio_change(events.gen, source).astype(float)
    fakes = events.passes.fakes
    change[fakes] = m.fakes.log_ratio_change(events.reco, source)[fakes]
    relative, shower = np.zeros_like(change), p.variations["shower"]
    if source in (None, "simulation"):
        relative += p.simulation.block(0)
    if source in (None, "shower"):
        up, down = np.maximum(shower.alpha, 0), np.maximum(-shower.alpha, 0)
        change += np.outer(shower.up, up) + np.outer(shower.down, down)
        relative += np.outer(shower.rest[0], up) + np.outer(shower.rest[1], down)
    raw = (events.weight * m.push)[:, None] * (1 + relative) * np.exp(change)
    total = raw[events.passes.reco].sum(axis=0)
    return raw * (events.signal_yield * m.signal_factor(source) / total)


@pytest.mark.parametrize("source", [None, "data", "simulation", "prior", "shower"])
def test_weights_are_the_formula(result, source):
    m = result.members
    weights = np.concatenate([block for _, block in m.blocks(source)])
    gen = m.events.passes.gen
    np.testing.assert_allclose(weights[gen], _by_hand(m, source)[gen], rtol=2e-4, atol=1e-6)  # single precision
    assert not weights[~gen].any()


def test_every_member_has_its_yield_at_detector_level(result):
    m = result.members
    refolded = np.concatenate([block for _, block in m.refolded_blocks()]).sum(axis=0)
    np.testing.assert_allclose(refolded, m.events.signal_yield * m.signal_factor(), rtol=1e-5)
    assert m.nominal("reco").sum() == pytest.approx(m.events.signal_yield)
    both = m.events.passes.both
    np.testing.assert_array_equal(m.nominal("gen")[both], m.nominal("reco")[both])


def test_sums_by_group_are_sums_of_weights(result):
    m = result.members
    rng = np.random.default_rng(1)
    groups, values = rng.integers(-1, 4, 500), rng.normal(size=500)
    weights = np.concatenate([block for _, block in m.blocks()]).astype(float)
    found = m.accumulate(groups, 5, values=values)
    wanted = [[(weights[groups == k, s] * values[groups == k]).sum() for k in range(5)] for s in range(30)]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_one_sigma_is_the_member_with_a_unit_nuisance_parameter(result):
    """Displacements are linear in it: up and down are those of alpha = 1 and -1."""
    m = result.members
    alpha = m.perturbations.effects["shower"].alpha
    up = m.one_sigma("shower")
    s = int(np.argmax(alpha))
    np.testing.assert_allclose(
        up.step2.by_source["shower"][:, 0], m.step2.by_source["shower"][:, s] / alpha[s], rtol=1e-12
    )
    assert up.n_members == 2
    assert up.systematics == ("shower",)


def test_members_that_vary_in_one_direction_only_are_named(result):
    effects = {"shower": replace(result.members.perturbations.effects["shower"], alpha=np.full(30, 0.5))}
    one_sided = replace(result.members, perturbations=replace(result.members.perturbations, effects=effects))
    with pytest.raises(InputError, match="all 30 members vary 'shower' in one direction"):
        one_sided.one_sigma("shower")


def test_an_infinite_weight_is_an_error_and_not_a_band(result):
    far = {name: 1e4 * d for name, d in result.members.step2.by_source.items()}
    members = replace(result.members, step2=replace(result.members.step2, by_source=far), _norms={})
    with pytest.raises(ConvergenceError, match="infinite or non-positive total weight"):
        members.norm()
