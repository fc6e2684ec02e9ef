"""What members must keep: totals, shares of fakes and misses, and what a systematic may not touch."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import BiasWarning, InputError

EVERYTHING = [-50.0, 50.0]
FAST = {"draws": 60, "random_seed": 1, "progressbar": False, "network": bu.Network(hidden=(6,))}
LOOP = {"inference": "laplace"} | FAST


@pytest.fixture(scope="module")
def sample():
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, 4000)
    data = rng.normal(0.1, 1, 2000)
    return gen, gen + rng.normal(0, 0.4, 4000), data + rng.normal(0, 0.4, 2000)


@pytest.mark.parametrize("side", ["up", pytest.param("down", marks=pytest.mark.slow)])
def test_flags_that_change_on_one_side_only(sample, tmp_path, side):
    """The nominal flags on the other side, as an array that differs from them in an event of weight zero."""
    gen, reco, data = sample
    passes, weight = reco > -0.5, np.ones(4000)
    weight[0] = 0.0
    moved, same = reco + 0.15 > -0.5, passes.copy()
    same[0] = ~same[0]
    simulation = bu.Simulation(gen, reco, weight, pass_reco=passes)
    results = []
    for nominal in (passes, same):
        flags = {f"pass_reco_{side}": moved, f"pass_reco_{'down' if side == 'up' else 'up'}": nominal}
        jes = bu.Systematic("jes", reco_up=reco + 0.15, reco_down=reco - 0.15, **flags)
        results.append(bu.OmniFold(1, **LOOP).fit(simulation, bu.Data(data[data > -0.5]), systematics=[jes]))
    results[0].save(tmp_path / "r.nc")
    one, other, loaded = (r.spectrum("gen", EVERYTHING) for r in (*results, bu.load(tmp_path / "r.nc")))
    np.testing.assert_allclose(one.draw_matrix, other.draw_matrix, rtol=1e-4)
    np.testing.assert_array_equal(one.draw_matrix, loaded.draw_matrix)


def test_a_background_slows_the_loop_and_the_bias_says_so():
    """Three quarters background: a step closes a quarter of what it should. Without it in the closure nothing is left.

    The truth is 0.4 standard deviations from the simulation, so the first step leaves most of that.
    """
    rng = np.random.default_rng(2)
    gen = rng.normal(0, 1, 4000)
    signal = rng.normal(0.4, 1, 1500) + rng.normal(0, 0.5, 1500)
    data = np.concatenate([signal, rng.normal(0, 1.5, 4500)])
    background = bu.Background(rng.normal(0, 1.5, 4500), np.ones(4500), "b")
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.5, 4000))
    result = bu.OmniFold(1, **LOOP).fit(simulation, bu.Data(data), [background])
    with pytest.warns(BiasWarning):
        closed = result.estimate_bias()
    spectrum = closed.spectrum("gen", [-4.0, 0.0, 4.0])
    truth = 1500 * 0.3446  # of N(0.4, 1) below zero
    left = spectrum.nominal[0] - truth
    assert left > 3 * spectrum.std()[0]
    assert spectrum.bias[0] > 0.25 * left


def test_misses_that_keep_their_weights_do_not_fluctuate_with_the_prior(sample):
    gen, reco, data = sample
    simulation = bu.Simulation(gen, reco, pass_reco=reco > 0.3)
    unfolder = bu.UnbinnedFBU(efficiency="prior", rounds=0, **FAST)
    result = unfolder.fit(simulation, bu.Data(data[data > 0.3]))
    missed = (~simulation.pass_reco).astype(np.int64) - 1  # group 0, all others nowhere
    total = {name: result.members.accumulate(missed, 1, name).ravel() for name in ("prior", "data", None)}
    both = simulation.pass_reco.astype(np.int64) - 1
    seen = result.members.accumulate(both, 1, "prior").ravel()
    assert (total["prior"] / seen).std() < 0.01 * (total["prior"] / seen).mean()
    # the yield of a thousand data events, and the simulation's share of misses
    assert total[None].std() < 0.08 * total[None].mean()
    assert total[None].mean() == pytest.approx(result.nominal[~simulation.pass_reco].sum(), rel=0.05)


def test_fakes_keep_their_share(sample):
    """Weights that are all larger by the same factor change nothing."""
    gen, reco, data = sample
    passes = np.random.default_rng(3).random(4000) > 0.25
    simulation = bu.Simulation(gen, reco, pass_gen=passes)
    flat = bu.Systematic("flat", weight_up=np.full(4000, 1.2))
    for unfolder in (bu.UnbinnedFBU(rounds=0, **FAST), bu.OmniFold(1, **LOOP)):
        result = unfolder.fit(simulation, bu.Data(data), systematics=[flat])
        spectrum = result.spectrum("gen", EVERYTHING)
        assert spectrum.by_source()["flat"][0] < 1e-4 * spectrum.nominal[0]


@pytest.mark.parametrize("method", ["loop", "direct", "profiled"])
def test_weights_for_other_events_move_with_systematics_as_the_result_does(sample, method):
    """A change of generator weights, of which half is a function of the particle level, and the answer to it."""
    gen, reco, data = sample
    up = np.exp(0.3 * np.tanh(gen) + 0.3 * np.sin(50.0 * reco))
    tilt = bu.Systematic("fsr", weight_up=up, weight_down=1 / up, profile=method == "profiled")
    unfolder = bu.OmniFold(2, **LOOP) if method == "loop" else bu.UnbinnedFBU(rounds=0, **FAST)
    result = unfolder.fit(bu.Simulation(gen, reco), bu.Data(data), systematics=[tilt])
    factors, mine = result.weights_for(gen), result.weights.values.astype(float)
    alpha = result.members.perturbations.effects["fsr"].alpha
    for k in range(3):
        rows = (gen > -1.5 + k) & (gen < -0.5 + k)
        total = (factors.values * result.simulation.weight)[:, rows].sum(axis=1)
        own = mine[:, rows].sum(axis=1)
        mine_now = (factors.nominal.values * result.simulation.weight)[rows].sum()
        assert mine_now == pytest.approx(result.nominal[rows].sum(), rel=1e-4)
        slope, wanted = (np.polyfit(alpha, x / x.mean(), 1)[0] for x in (total, own))
        # the networks' answer alone would move them by 0.1 to 0.3
        assert slope == pytest.approx(wanted, abs=0.02)
        assert total.std() / total.mean() == pytest.approx(own.std() / own.mean(), rel=0.3)


def test_a_wrong_systematic_is_known_before_a_two_point_uncertainty_trains(sample, monkeypatch):
    from bayesunfold.unfolding import systematics

    gen, reco, data = sample
    trained = []
    monkeypatch.setattr(systematics, "two_point_change", lambda *given: trained.append(given))
    several = [
        bu.Systematic("model", alternative=bu.Simulation(gen + 0.1, reco + 0.1)),
        bu.Systematic("w", weight_up=np.ones(3999)),
    ]
    with pytest.raises(InputError, match="3999"):
        bu.OmniFold(1, **LOOP).fit(bu.Simulation(gen, reco), bu.Data(data), systematics=several)
    assert not trained


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_varied_features_are_finite_where_a_feature_exists(sample, value):
    gen, reco, _data = sample
    second = np.where(gen > 1.0, np.nan, 1.0 * gen)  # does not exist in some events
    features = np.stack([reco, second], axis=1)
    simulation = bu.Simulation(gen, features, undefined="indicator", pass_reco=reco > -1.0)
    varied = features.copy()
    row = int(np.flatnonzero(reco < -1.0)[0])
    varied[row, 0] = value
    entering = reco > -1.0
    entering[row] = True
    jes = bu.Systematic("jes", reco_up=varied, pass_reco_up=entering)
    with pytest.raises(InputError, match="give finite features"):
        bu.OmniFold(1, **LOOP).check(
            simulation, bu.Data(features[reco > -1.0], undefined="indicator"), systematics=[jes]
        )


def test_reference_bins_are_those_of_the_feature():
    from bayesunfold.unfolding.reference_bins import quantile_groups

    values = np.array([np.nan, *np.arange(100.0)])
    groups = quantile_groups(values, np.arange(101) != 50)
    assert groups[0] == groups[50] == -1
    assert np.bincount(groups[groups >= 0]).tolist() == [10] * 4 + [9] + [10] * 5


def test_misses_keep_their_weights_in_groups_as_event_by_event():
    """A profiled tilt of 20 % changes both sums of the unit; groups sample what is not linear."""
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, 24_000)
    reco = gen + rng.normal(0, 0.4, 24_000)
    data = rng.normal(0.1, 1, 2000)
    data = data + rng.normal(0, 0.4, 2000)
    simulation = bu.Simulation(gen, reco, pass_reco=reco > 0.3)
    tune = bu.Systematic("tune", weight_up=np.exp(0.2 * np.tanh(gen)), profile=True)
    changes = []
    for groups in (None, 10_000):
        unfolder = bu.UnbinnedFBU(efficiency="prior", rounds=0, event_groups=groups, **FAST)
        result = unfolder.fit(simulation, bu.Data(data[data > 0.3]), systematics=[tune])
        changes.append(result.members.change_of_kept("tune"))
    assert changes[0].std() > 0.05
    np.testing.assert_allclose(changes[1], changes[0], atol=0.005)
