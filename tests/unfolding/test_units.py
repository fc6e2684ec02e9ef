"""Samples whose features are in another unit, in another order or of another selection are warned of by name."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import OverlapWarning

METHODS = [bu.OmniFold, bu.UnbinnedFBU]


@pytest.fixture(scope="module")
def samples():
    """Momentum in GeV and mass; the simulation starts at 40, data and a sideband background at 30."""
    rng = np.random.default_rng(4)

    def make(n, low, slope):
        gen = np.column_stack([low + rng.exponential(slope, n), rng.normal(10.0, 3.0, n)])
        return gen, gen * (1 + 0.1 * rng.normal(size=gen.shape))

    gen, reco = make(3000, 40.0, 30.0)
    _, data = make(2000, 40.0, 33.0)
    side = np.column_stack([rng.uniform(20.0, 30.0, 60), rng.normal(10.0, 3.0, 60)])
    simulation = bu.Simulation(gen, reco, names=["pt", "m"])
    return simulation, bu.Data(np.concatenate([data, side])), side


def texts(simulation, data, backgrounds=(), systematics=(), method=bu.OmniFold) -> list[str]:
    """What is warned of before any training."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        method(random_seed=1, progressbar=False).check(simulation, data, list(backgrounds), list(systematics))
    assert all(issubclass(w.category, OverlapWarning) for w in caught)
    return list(dict.fromkeys(str(w.message) for w in caught))


@pytest.mark.parametrize("method", METHODS)
def test_a_background_where_only_data_are_is_silent(samples, method):
    simulation, data, side = samples
    assert texts(simulation, data, [bu.Background(np.tile(side, (4, 1)), np.full(240, 0.25), "side")], method=method) == []


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("expected", [4.0, 60.0])
def test_a_background_in_another_unit(samples, method, expected):
    """All of it is beyond the range, however few events it expects; the other feature is right."""
    simulation, data, side = samples
    mev = bu.Background(side * [1000.0, 1.0], np.full(60, expected / 60), "top")
    (text,) = texts(simulation, data, [mev], method=method)
    high = max(data.features[:, 0].max(), simulation.reco[:, 0].max())
    assert re.match(rf"100 % of the background 'top' \({expected:g} expected events\) lie beyond all .* in pt ", text)
    assert f", {high:.4g}]" in text
    assert "unit" in text


def test_few_events_beyond_the_range_are_the_tail_of_a_background(samples):
    """Nine of 90 expected events lie beyond it, which data lack in one of 8000 cases; eleven warn."""
    simulation, data, side = samples
    weight = np.full(60, 1.0)
    for far, said in ((9, 0), (11, 1)):
        features = side.copy()
        features[:far, 1] = 60.0 + np.arange(far)
        assert len(texts(simulation, data, [bu.Background(features, weight, "side")])) == said


def test_placeholders_hide_no_unit(samples):
    """Both samples have a mass of 1e30 in some events, which would make a range that holds anything."""
    simulation, data, side = samples
    reco, measured = simulation.reco.copy(), data.features.copy()
    reco[:3, 1] = measured[:2, 1] = 1e30
    simulation, data = bu.Simulation(simulation.gen, reco, names=["pt", "m"]), bu.Data(measured)
    features = np.tile(side, (4, 1))
    features[:20, 1] = 1e30  # one in twelve, 20 expected events: placeholders as in the other samples
    for unit, said in ((1.0, []), (1000.0, ["m"])):
        background = bu.Background(features * [1.0, unit], np.ones(240), "side")
        found = [text for text in texts(simulation, data, [background]) if "beyond all data" in text]
        assert [re.search(r"events in (\w+) \(", text)[1] for text in found] == said


def test_a_background_of_a_systematic_in_another_unit(samples):
    simulation, data, side = samples
    nominal = bu.Background(side, np.ones(60), "side")

    def varied(unit):
        up, down = (bu.Background(side * [unit * s, 1.0], np.ones(60), "side") for s in (1.02, 0.98))
        return bu.Systematic("scale", backgrounds={"side": (up, down)})

    assert texts(simulation, data, [nominal], [varied(1.0)]) == []
    (text,) = texts(simulation, data, [nominal], [varied(1000.0)])
    assert text.startswith("100 % of the background 'side' in 'scale' (60 expected events)")
    assert "in pt (" in text
