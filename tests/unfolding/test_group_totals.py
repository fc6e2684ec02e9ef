"""Sums of members' weights by bin with grouped fluctuations, against the weights event by event."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from linear_loop import answered

import bayesunfold as bu
from bayesunfold.errors import ConvergenceError
from bayesunfold.unfolding.event_groups import GroupedFluctuations
from bayesunfold.unfolding.group_totals import FEW, sums_by_group

N, MEMBERS = 24_000, 40
FAST = {"network": bu.Network(hidden=(8,)), "inference": "laplace", "progressbar": False}


@pytest.fixture(scope="module")
def result():
    """Misses, fakes, generator weights, systematics of weights and of the detector level, which moves a selection."""
    rng = np.random.default_rng(3)
    gen = rng.normal(0, 1, N)
    reco = gen + rng.normal(0, 0.3, N)
    flags = {"pass_gen": rng.random(N) < 0.9, "pass_reco": reco > -1.5}
    simulation = bu.Simulation(gen, reco, weight=rng.exponential(size=N), **flags)
    shower = bu.Systematic("shower", weight_up=simulation.weight * (1 + 0.2 * np.tanh(gen)))
    scale = bu.Systematic("scale", reco_up=reco + 0.05, pass_reco_up=reco + 0.05 > -1.5)
    unfolder = bu.OmniFold(2, draws=MEMBERS, event_groups=10_000, random_seed=1, **FAST)
    data = rng.normal(0.3, 1, 12_000)
    return unfolder.fit(simulation, bu.Data(data[data > -1.5]), systematics=[shower, scale])


def _scaled(members, size):
    """The ensemble with displacements and nuisance parameters of another size."""
    effects = {name: replace(e, alpha=size * e.alpha) for name, e in members.perturbations.effects.items()}
    step2, fakes = (
        replace(d, by_source={name: size * moved for name, moved in d.by_source.items()})
        for d in (members.step2, members.fakes)
    )
    p = replace(members.perturbations, effects=effects)
    return replace(members, step2=step2, fakes=fakes, perturbations=p, _norms={})


def _by_hand(members, groups, n_groups, source=None, values=None, *, reco=False):
    """Sums of the weights event by event, which are normalised by the ensemble's own totals."""
    passing = members.events.passes.reco if reco else members.events.passes.gen
    blocks = members._passing_blocks(passing, source)
    weights = np.concatenate([w for _, w in blocks]).astype(float)
    if values is not None:
        weights *= values[:, None]
    return np.stack([weights[groups == k].sum(axis=0) for k in range(n_groups)], axis=1)


def test_the_samples_fluctuate_in_groups(result):
    assert isinstance(result.members.perturbations.simulation, GroupedFluctuations)
    assert isinstance(result.members.perturbations.events["data"], GroupedFluctuations)
    assert result.record.settings.event_groups == 10_000


@pytest.mark.parametrize("source", [None, "data", "simulation", "prior", "shower", "scale"])
def test_small_bins_are_summed_event_by_event(result, source):
    m = result.members
    groups = np.random.default_rng(1).integers(-1, 30, N)
    assert np.bincount(groups[groups >= 0]).max() <= FEW
    values = np.random.default_rng(2).normal(size=N)
    for more in ({}, {"values": values}, {"reco": True}):
        found = m.accumulate(groups, 31, source, **more)
        wanted = _by_hand(m, groups, 31, source, **more)
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-3, err_msg=str(more))
    assert not m.accumulate(groups, 31, source)[:, 30].any()


@pytest.mark.parametrize("source", [None, "data", "simulation", "prior", "shower", "scale"])
def test_large_bins_are_right_to_first_order(result, source):
    """With changes a thousandth of their size the second order is a millionth of the contents."""
    small = _scaled(result.members, 1e-3)
    groups = np.digitize(result.simulation.gen[:, 0], [-0.8, 0.0, 0.8])
    assert np.bincount(groups).min() > FEW
    for more in ({}, {"values": np.cos(result.simulation.gen[:, 0])}, {"reco": True}):
        found = small.accumulate(groups, 4, source, **more)
        wanted = _by_hand(small, groups, 4, source, **more)
        width = wanted.std(axis=0)
        assert width.min() > 0
        # single precision of the weights, or a thousandth of the fluctuation
        np.testing.assert_array_less(np.abs(found - wanted).max(axis=0), 0.005 * width + 1e-6 * wanted.mean(axis=0))


def test_large_bins_are_right_beyond_first_order(result):
    """With changes of 10 % and more: a sample of 1024 events knows the rest to a few per cent of itself."""
    m = result.members
    groups = np.digitize(result.simulation.gen[:, 0], [-0.8, 0.0, 0.8])
    for source in ("data", "prior", "shower"):
        wanted = _by_hand(m, groups, 4, source)
        error = m.accumulate(groups, 4, source) - wanted
        assert np.all(np.sqrt((error**2).mean(axis=0)) < 0.05 * wanted.std(axis=0))
    wanted = _by_hand(m, groups, 4)
    error = m.accumulate(groups, 4) - wanted
    # a bin's fluctuation times the spread of the changes in it
    assert np.all(np.sqrt((error**2).mean(axis=0)) < 0.2 * wanted.std(axis=0))


def test_what_the_networks_take_back_leaves_sums_of_large_bins_alone(result):
    """Change of the weights and answer add up to nothing, to all orders, up to three standard deviations."""
    m = answered(result.members)
    groups = np.digitize(result.simulation.gen[:, 0], [-0.8, 0.0, 0.8])
    assert np.bincount(groups).min() > FEW
    nominal = np.bincount(groups, m.nominal())
    np.testing.assert_allclose(m.accumulate(groups, 4, "tune") / nominal, 1.0, rtol=1e-4)  # single precision


def test_totals_at_detector_level_are_the_yield():
    """Without events that move, the weights event by event add up to what the totals were normalised to.

    Totals are of second order in a sample of 8192 of 24 000 events: a ten-thousandth, of a yield known to a hundredth.
    """
    rng = np.random.default_rng(4)
    gen = rng.normal(0, 1, N)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, N), weight=rng.exponential(size=N))
    unfolder = bu.OmniFold(1, draws=20, event_groups=10_000, random_seed=1, **FAST)
    m = unfolder.fit(simulation, bu.Data(rng.normal(0.3, 1, 12_000))).members
    refolded = sum(block.sum(axis=0, dtype=float) for _, block in m.refolded_blocks())
    np.testing.assert_allclose(refolded, m.events.signal_yield * m.signal_factor(), rtol=2e-3)


def test_effective_sizes_are_those_of_the_weights(result):
    m = result.members
    weights = np.concatenate([block for _, block in m.blocks()]).astype(float)
    wanted = weights.sum(axis=0) ** 2 / (weights**2).sum(axis=0)
    # a sample of 16 384 of 24 000 events
    np.testing.assert_allclose(m.effective_sizes(), wanted, rtol=0.1)


def test_moments_are_sums_over_the_same_events(result):
    """A mean from sums of one sample: its error is that of the bin's fluctuation times the spread of changes."""
    weights = result.weights.values.astype(float)
    gen = result.simulation.gen[:, 0]
    passing = result.simulation.pass_gen
    wanted = (weights[:, passing] @ gen[passing]) / weights[:, passing].sum(axis=1)
    found = result.expectation(np.where(passing, gen, 0.0)).values
    assert np.std(found - found.mean() - wanted + wanted.mean()) < 0.15 * wanted.std()


@pytest.fixture(scope="module")
def direct():
    """Misses that keep their weight, a profiled variation and a profiled background."""
    rng = np.random.default_rng(6)
    gen = rng.normal(0, 1, N)
    reco = gen + rng.normal(0, 0.3, N)
    simulation = bu.Simulation(gen, reco, weight=rng.exponential(size=N), pass_reco=reco > -1.5)
    tune = bu.Systematic("tune", weight_up=simulation.weight * np.exp(0.1 * np.tanh(gen)), profile=True)
    top = bu.Background(rng.uniform(-1.5, 3, 3000), np.full(3000, 0.3), "top", relative_uncertainty=0.2, profile=True)
    data = np.concatenate([rng.normal(0.3, 1.05, 12_000), rng.uniform(-1.5, 3, 900)])
    unfolder = bu.UnbinnedFBU(
        draws=MEMBERS, efficiency="prior", rounds=0, event_groups=10_000, random_seed=1, progressbar=False
    )
    return unfolder.fit(simulation, bu.Data(data[data > -1.5]), [top], [tune])


def test_kept_misses_and_profiled_parameters_are_summed_too(direct):
    m = direct.members
    assert isinstance(m.perturbations.simulation, GroupedFluctuations)
    assert not isinstance(m.perturbations.events["top"], GroupedFluctuations)
    assert m.kept().sum() > 1000
    assert m.perturbations.effects["tune"].parts is not None
    gen = direct.simulation.gen[:, 0]
    for source in (None, "data", "tune", "top"):
        small, large = np.digitize(gen, np.linspace(-2, 2, 30)), np.digitize(gen, [-0.8, 0.0, 0.8])
        assert np.bincount(small).max() <= FEW < np.bincount(large).min()
        np.testing.assert_allclose(
            m.accumulate(small, 31, source), _by_hand(m, small, 31, source), rtol=2e-5, atol=1e-3
        )
        wanted = _by_hand(m, large, 4, source)
        error = m.accumulate(large, 4, source) - wanted
        # of all sources: a bin's fluctuation times the spread of the changes in it
        assert np.all(np.sqrt((error**2).mean(axis=0)) < (0.2 if source is None else 0.03) * wanted.std(axis=0))


def test_bands_are_those_of_events_one_by_one(result):
    """Other random numbers, the same distribution.

    40 and 400 members: the logarithm of a ratio of widths is known to sqrt(1 / 80 + 1 / 800) = 0.12; five of them.
    """
    simulation, data = result.simulation, result.data
    single = bu.OmniFold(2, draws=400, event_groups=None, random_seed=2, **FAST)
    shower = bu.Systematic("shower", weight_up=simulation.weight * (1 + 0.2 * np.tanh(simulation.gen[:, 0])))
    scale = bu.Systematic("scale", reco_up=simulation.reco + 0.05, pass_reco_up=simulation.reco[:, 0] + 0.05 > -1.5)
    other = single.fit(simulation, data, systematics=[shower, scale])
    edges = np.linspace(-2, 2, 9)
    ours, theirs = (r.spectrum("gen", edges).draw_matrix.std(axis=0) for r in (result, other))
    assert np.abs(np.log(ours / theirs)).max() < 0.6


def test_full_networks_are_drawn_on_all_events(monkeypatch):
    """``linearize=False`` needs every event: a part has no gradient to restore."""
    from bayesunfold.classifier.sampling import Draws
    from bayesunfold.omnifold import loop

    real, seen = loop.inference_method, []

    def stub(name):
        def sample_full(_layout, _theta, x, posterior, draws, rng):
            seen.append((len(x), len(posterior.label), posterior.correction))
            return Draws(rng.standard_normal((draws, posterior.tangent.shape[1])))

        return replace(real(name), sample_full=sample_full)

    monkeypatch.setattr(loop, "inference_method", stub)
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, 12_000)
    simulation, data = bu.Simulation(gen, gen + rng.normal(0, 0.3, 12_000)), bu.Data(rng.normal(0.2, 1, 3000))
    unfolder = bu.OmniFold(1, draws=10, linearize=False, event_groups=10_000, random_seed=1, progressbar=False)
    unfolder.fit(simulation, data)
    assert seen == [(15_000, 15_000, None)]


def test_pairs_of_one_sigma_are_summed_the_same_way(result):
    pair = result.members.one_sigma("shower")
    groups = np.digitize(result.simulation.gen[:, 0], [-0.8, 0.0, 0.8])
    np.testing.assert_allclose(pair.accumulate(groups, 4, "shower"), _by_hand(pair, groups, 4, "shower"), rtol=5e-4)


def test_a_saved_result_is_the_same(result, tmp_path):
    result.save(tmp_path / "grouped.nc")
    again = bu.load(tmp_path / "grouped.nc")
    assert again.record.settings.event_groups == 10_000
    edges = np.linspace(-2, 2, 9)
    first, second = (r.spectrum("gen", edges).draw_matrix for r in (result, again))
    np.testing.assert_allclose(second, first, rtol=1e-4)


def test_infinite_weights_are_an_error(result):
    far = _scaled(result.members, 1e5)
    with pytest.raises(ConvergenceError, match="infinite or non-positive total weight"):
        far.norm()


def test_sums_by_group_leave_negative_groups_out():
    weights = np.arange(8.0).reshape(4, 2)
    found = sums_by_group(np.array([1, -1, 1, 0]), weights, 3)
    np.testing.assert_array_equal(found, [[6, 7], [4, 6], [0, 0]])
    np.testing.assert_array_equal(sums_by_group(np.array([-1]), weights[:1], 1), [[0, 0]])


def test_widths_from_the_part_are_those_of_all_events(result):
    """A part of 10 000 of 21 500 events: contents to a per cent, widths over the same members to a few."""
    m = result.members
    gen = result.simulation.gen[:, 0]
    groups = np.where(m.events.passes.gen, np.digitize(gen, np.linspace(-1.5, 1.5, 9)), -1)
    (found,) = m.relative_widths([groups], 10)
    raw = np.concatenate([m._raw(*block, None) for block in m.perturbations.simulation.blocks()]).astype(float)
    sums = np.stack([raw[groups == k].sum(axis=0) for k in range(10)])
    np.testing.assert_allclose(found, (sums / sums.sum(axis=0)).std(axis=1), rtol=0.2)
