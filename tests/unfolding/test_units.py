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
    assert (
        texts(simulation, data, [bu.Background(np.tile(side, (4, 1)), np.full(240, 0.25), "side")], method=method) == []
    )


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


def scale_of(simulation, change) -> bu.Systematic:
    """A variation of the features, without a selection that could move."""
    up, down = (change(simulation.reco.copy(), sign) for sign in (1.0, -1.0))
    everything = simulation.pass_reco
    return bu.Systematic("jes", reco_up=up, reco_down=down, pass_reco_up=everything, pass_reco_down=everything)


REALISTIC = {
    "energy scale of 10 %": lambda x, sign: x * (1 + 0.1 * sign),
    "of one feature": lambda x, sign: x * [1 + 0.05 * sign, 1.0],
    "resolution": lambda x, sign: x * (1 + (0.2 + 0.05 * sign) * np.random.default_rng(6).normal(size=x.shape)),
    "offset": lambda x, sign: x + 2.0 * sign,
}


@pytest.mark.parametrize("change", REALISTIC.values(), ids=REALISTIC)
def test_realistic_variations_are_silent(samples, change):
    simulation, data, _ = samples
    assert texts(simulation, data, systematics=[scale_of(simulation, change)]) == []


def test_a_narrow_peak_may_shift_by_many_widths():
    """A mass of 91 +- 2: a scale of 10 % is 4.5 widths. A raw and a calibrated mass differ by as much as it."""
    rng = np.random.default_rng(8)
    mass = rng.normal(91.0, 2.0, 2000)
    simulation = bu.Simulation(mass, np.column_stack([mass, 0.9 * mass]), reco_names=["m", "raw m"])
    data = bu.Data(simulation.reco[:1000])
    scale = scale_of(simulation, lambda x, sign: x * (1 + 0.1 * sign))
    assert texts(simulation, data, systematics=[scale]) == []


OTHER = {
    "MeV": (lambda x, sign: x * [1000.0 * (1 + 0.05 * sign), 1.0], ["pt"]),
    "TeV": (lambda x, sign: x * [0.001 * (1 + 0.05 * sign), 1.0], ["pt"]),
    "both in MeV": (lambda x, sign: x * 1000.0 * (1 + 0.05 * sign), ["pt", "m"]),
    "the change alone": (lambda x, sign: x * [0.05 * sign, 1.0], ["pt"]),
    "a change in MeV": (lambda x, sign: x + np.array([1500.0 * sign, 0.0]), ["pt"]),
}


@pytest.mark.parametrize(("change", "names"), OTHER.values(), ids=OTHER)
@pytest.mark.parametrize("profile", [False, True])
def test_variations_in_another_unit(samples, change, names, profile):
    """Medians are those of the arrays; each side is named."""
    simulation, data, _ = samples
    systematic = scale_of(simulation, change).changed(profile=profile)
    found = texts(simulation, data, systematics=[systematic], method=bu.UnbinnedFBU)
    assert len(found) == 2 * len(names)
    for side, values in (("up", systematic.reco_up), ("down", systematic.reco_down)):
        for name in names:
            j = simulation.reco_names.index(name)
            a, b = np.median(values[:, j]), np.median(simulation.reco[:, j])
            assert any(
                text.startswith(f"reco_{side} of jes has {name} with a median of {a:.4g}, and {b:.4g} nominally")
                for text in found
            )


def test_variations_in_centred_features_and_other_units():
    """A pseudorapidity in thousandths: its median does not move, its spread does."""
    rng = np.random.default_rng(9)
    eta = rng.normal(0.0, 1.0, 1000)
    simulation, data = bu.Simulation(eta, eta, names=["eta"]), bu.Data(eta[:500])
    found = texts(simulation, data, systematics=[scale_of(simulation, lambda x, sign: x * (0.001 + 1e-4 * sign))])
    assert [text.split(" with ")[0] for text in found] == ["reco_up of jes has eta", "reco_down of jes has eta"]


def test_variations_in_another_order_of_features():
    """Two leptons that are alike, exchanged; their medians would tell nothing."""
    rng = np.random.default_rng(10)
    pt = np.sort(30.0 + rng.exponential(20.0, (2000, 2)), axis=1)[:, ::-1]
    reco = pt * (1 + 0.05 * rng.normal(size=pt.shape))
    simulation, data = bu.Simulation(pt, reco, names=["pt 1", "pt 2"]), bu.Data(reco[:1000])
    found = texts(simulation, data, systematics=[scale_of(simulation, lambda x, sign: x[:, ::-1] * (1 + 0.03 * sign))])
    assert len(found) == 2
    assert found[0] == (
        "reco_up of jes seems to hold pt 2 in the column of pt 1, pt 1 in the column of pt 2; give its features in the "
        "order of reco: pt 1, pt 2."
    )


def trees(cut_on: int, seed: int = 12):
    """A simulation of events above 20, of which those above 30 pass, and trees of its variations by 5 %.

    Trees hold events above 20. ``cut_on`` is the column that is cut: a feature, or what is none.
    """
    rng = np.random.default_rng(seed)
    values = 20.0 + rng.exponential(20.0, (4000, 2))
    simulation = bu.Simulation(values[:, :1], values[:, :1], names=["pt"], pass_reco=values[:, cut_on] > 30.0)
    sides = {}
    for side, factor in (("up", 1.05), ("down", 0.95)):
        moved = factor * values
        rows = np.flatnonzero((moved > 20.0).all(axis=1))
        sides[side] = {"key": rows, "reco": moved[rows, 0], "pass_reco": moved[rows, cut_on] > 30.0}
    return simulation, sides


def matched(simulation, sides, *, flags: bool, both: bool = True) -> list[str]:
    """What is warned of when the trees are matched."""
    given = {s: {k: v for k, v in side.items() if flags or k != "pass_reco"} for s, side in sides.items()}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bu.Systematic.from_events(
            "jes",
            simulation,
            key=np.arange(len(simulation)),
            up=given["up"],
            down=given["down"] if both else None,
            absent="fails",
        )
    return [str(w.message) for w in caught]


@pytest.mark.parametrize("both", [True, False])
def test_trees_of_a_looser_selection_without_flags(both):
    simulation, sides = trees(0)
    assert matched(simulation, sides, flags=True, both=both) == []
    (text,) = matched(simulation, sides, flags=False, both=both)
    edge = simulation.reco[simulation.pass_reco].min()
    beyond = int((sides["up"]["reco"] < edge).sum())
    assert text.startswith(f"{beyond} events that pass in up of jes lie beyond the edge of pt at {edge:.6g}")
    assert "give pass_reco" in text


def test_trees_without_flags_where_the_cut_is_on_no_feature():
    """Counts of the passing events, nominally and in the trees, are those of the arrays."""
    simulation, sides = trees(1)
    assert matched(simulation, sides, flags=True) == []
    (text,) = matched(simulation, sides, flags=False)
    up, down = (len(sides[side]["key"]) / simulation.pass_reco.sum() - 1 for side in ("up", "down"))
    assert min(up, down) > 0.2
    assert f"are {100 * up:.2g} % more in up of jes than nominally, and {100 * down:.2g} % more in down" in text


def test_trees_of_passing_events_are_silent():
    """Trees of the simulation's own selection need no flags: what is there passes."""
    simulation, sides = trees(0)
    tight = {s: {k: v[side["pass_reco"]] for k, v in side.items()} for s, side in sides.items()}
    assert matched(simulation, tight, flags=False) == []
