"""Systematics that vary backgrounds, together with the simulation or alone."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.cli.blind import split_blind

FAST = {"network": bu.Network(hidden=(6,)), "draws": 300, "inference": "laplace", "progressbar": False}
BINS = np.linspace(-2.0, 2.5, 7)
METHODS = ["omnifold", "direct"]


def unfolder(method: str, **more) -> bu.OmniFold | bu.UnbinnedFBU:
    """Without the second classifier of a direct posterior, unless ``rounds`` are given."""
    direct = {"rounds": 0, "moments": FAST["network"]}
    settings = FAST | ({"iterations": 2} if method == "omnifold" else direct) | more
    return (bu.OmniFold if method == "omnifold" else bu.UnbinnedFBU)(**settings, random_seed=2)


@pytest.fixture(scope="module")
def samples() -> dict[str, np.ndarray]:
    """A quarter of the data are background, at larger values."""
    rng = np.random.default_rng(11)
    gen, truth = rng.normal(0.0, 1.0, 8000), rng.normal(0.2, 0.9, 6000)
    reco, signal = (t + rng.normal(0.0, 0.4, len(t)) for t in (gen, truth))
    return {
        "gen": gen,
        "reco": reco,
        "data": np.concatenate([signal, rng.normal(1.0, 0.7, 2000)]),
        "top": rng.normal(1.0, 0.7, 20_000),
    }


def top(samples, shift: float = 0.0, factor: float = 1.0, **more) -> bu.Background:
    """2000 expected events."""
    return bu.Background(samples["top"] + shift, np.full(20_000, 0.1 * factor), "top", **more)


def drawn_by(result: bu.UnfoldingResult, source: str, bins: np.ndarray = BINS) -> np.ndarray:
    """Contents of the bins in draws in which only one source fluctuates, shape (draws, bins)."""
    gen = result.simulation.gen[:, 0]
    groups = np.where((gen >= bins[0]) & (gen < bins[-1]), np.digitize(gen, bins) - 1, -1)
    return result.members.accumulate(groups, len(bins) - 1, source)


def slope(drawn: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Change of each bin per unit of a parameter."""
    centred = alpha - alpha.mean()
    return (centred @ drawn) / (centred @ centred)


def alpha_of(result: bu.UnfoldingResult, name: str) -> np.ndarray:
    return result.members.perturbations.effects[name].alpha


@pytest.mark.parametrize("method", METHODS)
def test_a_varied_normalisation_is_the_normalisation_uncertainty(samples, method):
    """The same said twice: as relative_uncertainty, and as the background with larger weights."""
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    one = unfolder(method).fit(simulation, data, [top(samples, relative_uncertainty=0.1)])
    norm = bu.Systematic("norm", backgrounds={"top": top(samples, factor=1.1)})
    two = unfolder(method).fit(simulation, data, [top(samples)], [norm])
    assert repr(norm) == "Systematic(norm: backgrounds top)"
    scale = one.members.perturbations.scales["top"] / 0.1
    expected = slope(drawn_by(one, "top"), scale)
    found = slope(drawn_by(two, "norm"), alpha_of(two, "norm"))
    # the first has the background's own statistics too, which 300 draws average to a seventeenth of a deviation
    error = 4.5 * drawn_by(two, "top").std(axis=0) / np.sqrt(300)
    assert np.all(np.abs(found - expected) < error + 0.02 * np.abs(expected))
    assert np.abs(found).max() > 10 * error.min()


@pytest.mark.parametrize("method", METHODS)
def test_signal_and_background_move_together(samples, method):
    """A parameter that raises the efficiency and the background by a tenth: the total is known in closed form."""
    flat = np.ones(len(samples["gen"]))
    both = bu.Systematic(
        "trigger",
        reco_factor_up=1.1 * flat,
        reco_factor_down=0.9 * flat,
        backgrounds={"top": (top(samples, factor=1.1), top(samples, factor=0.9))},
    )
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    result = unfolder(method).fit(simulation, data, [top(samples)], [both])
    alpha = alpha_of(result, "trigger")
    total = drawn_by(result, "trigger", np.array([-100.0, 100.0]))[:, 0]
    assert np.allclose(total, (8000 - 2000 * (1 + 0.1 * alpha)) / (1 + 0.1 * alpha), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_other_events_and_other_weights_say_the_same(samples, method):
    """Events in another order are not recognised as the same ones, and need not be."""
    order = np.random.default_rng(1).permutation(20_000)
    weight = 0.1 * np.exp(0.2 * samples["top"])
    same = bu.Background(samples["top"], weight, "top")
    other = bu.Background(samples["top"][order], weight[order], "top")
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    one, two = (
        drawn_by(
            unfolder(method).fit(simulation, data, [top(samples)], [bu.Systematic("s", backgrounds={"top": b})]), "s"
        )
        for b in (same, other)
    )
    assert np.allclose(one, two, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_shifted_background_moves_the_answer_as_a_new_unfolding_does(samples, method):
    """One standard deviation against unfolding with the shifted background, by more than trainings differ."""
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    scale = bu.Systematic("scale", backgrounds={"top": (top(samples, 0.15), top(samples, -0.15))})
    result = unfolder(method).fit(simulation, data, [top(samples)], [scale])
    up, down = (unfolder(method).fit(simulation, data, [top(samples, s)]).spectrum("gen", BINS) for s in (0.15, -0.15))
    expected = 0.5 * (up.nominal - down.nominal)
    found = slope(drawn_by(result, "scale"), alpha_of(result, "scale"))
    assert np.linalg.norm(found - expected) < 0.25 * np.linalg.norm(expected)
    assert np.linalg.norm(expected) > 20
    assert set(result.spectrum("gen", BINS).ranking().set_index("source").loc["scale", "kind"]) == {"systematic"}


def test_a_varied_background_can_be_profiled(samples):
    """As the background's own profiled normalisation, but for log-normal against linear."""
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    one = unfolder("direct").fit(simulation, data, [top(samples, relative_uncertainty=0.1, profile=True)])
    norm = bu.Systematic("norm", backgrounds={"top": top(samples, factor=1.1)}, profile=True)
    two = unfolder("direct").fit(simulation, data, [top(samples)], [norm])
    a, b = one.nuisances.loc["top"], two.nuisances.loc["norm"]
    assert b["std"] == pytest.approx(a["std"], abs=0.2)  # 300 draws each
    assert b["mean"] == pytest.approx(a["mean"], abs=0.35)
    assert two.backgrounds[0].weight.sum() == pytest.approx(2000 * (1 + 0.1 * b["mean"]), abs=4.5 * 200 / np.sqrt(300))
    moved = bu.Systematic("other", backgrounds={"top": top(samples, 0.15)})
    three = unfolder("direct").fit(simulation, data, [top(samples)], [norm, moved])
    alone = unfolder("direct").fit(simulation, data, [top(samples)], [moved])
    found, expected = (slope(drawn_by(r, "other"), alpha_of(r, "other")) for r in (three, alone))
    assert np.linalg.norm(found - expected) < 0.25 * np.linalg.norm(expected)


def test_a_profiled_shape_is_found(samples):
    """Data with a background that is shifted by one standard deviation of a variation that changes nothing else."""
    rng = np.random.default_rng(5)
    data = np.concatenate([samples["data"][:6000], rng.normal(1.0, 0.7, 2000)])
    second = np.concatenate([rng.normal(0, 1, 6000), rng.normal(0.5, 1, 2000)])
    simulation = bu.Simulation(samples["gen"], np.column_stack([samples["reco"], rng.normal(0, 1, 8000)]))

    def background(shift: float) -> bu.Background:
        x = np.column_stack([samples["top"], rng.normal(shift, 1, 20_000)])
        return bu.Background(x, np.full(20_000, 0.1), "top")

    shape = bu.Systematic("shape", backgrounds={"top": (background(0.5), background(-0.5))}, profile=True)
    given = simulation, bu.Data(np.column_stack([data, second])), [background(0.0)], [shape]
    result = unfolder("direct", rounds=1).fit(*given)
    row = result.nuisances.loc["shape"]
    # a mean of 2000 among 8000 events, known to 1 / sqrt(2000) at best and twice that at worst, in units of 0.5
    assert 0.04 < row["std"] < 0.2
    assert abs(row["mean"] - 1.0) < 4.5 * row["std"]


def test_what_cannot_be_is_said(samples):
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    known = [top(samples)]

    def fails(match: str, kind: type[Exception] = bu.errors.InputError, **backgrounds) -> None:
        with pytest.raises(kind, match=match):
            unfolder("omnifold").fit(simulation, data, known, [bu.Systematic("s", backgrounds=backgrounds)])

    fails("varies the background 'qcd'; there are: 'top'", qcd=top(samples))
    fails("leaves the background 'top' as it is", top=(top(samples), top(samples)))
    fails("pass a bayesunfold.Background", bu.errors.InputTypeError, top=3.0)
    fails("features", top=bu.Background(np.ones((5, 2)) * np.arange(5)[:, None], name="top"))
    with pytest.raises(bu.errors.InputTypeError, match="pass a dict"):
        bu.Systematic("s", backgrounds=[top(samples)])
    with pytest.raises(bu.errors.InputError, match="needs one of"):
        bu.Systematic("s")
    fails("has 10 expected events and 2000 nominally", top=top(samples, factor=0.005))
    fails("background 'top' in 's' lie more than", top=top(samples, shift=1e6))


def test_named_columns_may_come_in_any_order(samples):
    """A profiled yield moves the background, a variation that is not profiled stands on top of that."""
    rng = np.random.default_rng(3)
    second = {
        "data": rng.normal(np.repeat([0.0, 0.5], [6000, 2000]), 1),
        "sim": rng.normal(0, 1, 8000),
        "top": rng.normal(0.5, 1, 20_000),
    }
    simulation = bu.Simulation(samples["gen"], np.column_stack([samples["reco"], second["sim"]]), reco_names=["a", "b"])
    data = bu.Data(np.column_stack([samples["data"], second["data"]]), names=["a", "b"])

    def background(shift: float, order: list[int], **more) -> bu.Background:
        x = np.column_stack([samples["top"] + shift, second["top"]])[:, order]
        return bu.Background(x, np.full(20_000, 0.1), "top", names=[("a", "b")[k] for k in order], **more)

    found = []
    for order in ([0, 1], [1, 0]):
        shape = bu.Systematic("shape", backgrounds={"top": background(0.15, order)})
        nominal = background(0.0, order, relative_uncertainty=0.2, profile=True)
        found.append(drawn_by(unfolder("direct").fit(simulation, data, [nominal], [shape]), "shape"))
    assert np.allclose(*found, rtol=1e-3)


@pytest.fixture(scope="module")
def absent(samples) -> bu.UnfoldingResult:
    """Data without the background, of which one variation is profiled and another one is not.

    A second reading tells it from the signal, and half of it is in the data at most.
    """
    rng = np.random.default_rng(5)
    simulation = bu.Simulation(samples["gen"], np.column_stack([samples["reco"], rng.normal(0, 1, 8000)]))
    data = bu.Data(np.column_stack([samples["data"][:6000], rng.normal(0, 1, 6000)]))
    x = np.column_stack([samples["top"], rng.normal(1.5, 0.5, 20_000)])
    nominal, varied, more = (bu.Background(x, np.full(20_000, weight), "top") for weight in (0.1, 0.25, 0.15))
    size = bu.Systematic("size", backgrounds={"top": varied}, profile=True)
    other = bu.Systematic("other", backgrounds={"top": (more, bu.Background(x, np.full(20_000, 0.05), "top"))})
    return unfolder("direct", moments=None).fit(simulation, data, [nominal], [size, other])


def test_a_background_that_is_not_there_does_not_become_negative(absent):
    """Its total is log-linear in a profiled parameter, so it stays positive wherever the data pull."""
    assert 0 < absent.backgrounds[0].weight.sum() < 1000
    assert absent.nuisances.loc["size", "mean"] < -0.7


def test_goodness_of_fit_of_other_events_says_why_not(samples):
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    scale = bu.Systematic("scale", backgrounds={"top": (top(samples, 0.15), top(samples, -0.15))}, profile=True)
    result = unfolder("direct").fit(simulation, data, [top(samples)], [scale])
    assert (result.backgrounds[0].weight < 0).any()
    with pytest.raises(bu.errors.InputError, match="as other weights of the same events"):
        result.goodness_of_fit(2, progressbar=False)
    assert 0 <= result.goodness_of_fit(0).moments <= 1


def test_more_background_than_data_is_said(samples):
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    sources = [top(samples, factor=3.0)]
    large = bu.Systematic("large", backgrounds={"top": top(samples, factor=4.5)})
    with pytest.warns(bu.errors.OverlapWarning, match="exceed the data"):
        unfolder("omnifold").fit(simulation, data, sources, [large])


def test_blind_pseudo_data_leave_the_variation_as_it_is(samples):
    """Taking pseudo-data out of a background changes no variation of it.

    Of other events it is the same to rounding; of the same ones up to their thinning, which is 4.5 standard deviations.
    """
    simulation = bu.Simulation(samples["gen"], samples["reco"])
    nominal = top(samples)
    x, w = nominal.features[:, 0], nominal.weight
    same, other = bu.Background(samples["top"], w * np.exp(0.1 * x), "top"), top(samples, 0.1, 1.05)
    split = split_blind(simulation, [nominal], 4000.0)
    kept = split.backgrounds[0].weight
    for side in (same, other):
        (found, _) = split.systematic(bu.Systematic("s", backgrounds={"top": side})).backgrounds["top"]
        assert side is other or (found.weight >= 0).all()
        for function in (np.ones_like, np.square, np.sin):
            expected = side.weight @ function(side.features[:, 0]) - w @ function(x)
            change = found.weight @ function(found.features[:, 0]) - kept @ function(x)
            each = w * (np.exp(0.1 * x) - 1.0) * function(x) if side is same else np.zeros(len(x))
            error = np.sqrt((each**2 * w / (1.0 - w)).sum())  # thinned with probability w, kept with 1 / (1 - w)
            assert abs(change - expected) < 4.5 * error + 1e-6


def test_variations_of_two_kinds_on_one_background(absent):
    """One of them profiled: the other changes as much of the background as there is then."""
    left = absent.backgrounds[0].weight.sum()
    assert 0 < left < 1000
    total = drawn_by(absent, "other", np.array([-100.0, 100.0]))[:, 0]
    # half of what is left per standard deviation, less what the profiled parameter takes back; not half of 2000
    change = slope(total[:, None], alpha_of(absent, "other"))[0]
    assert -0.55 * left < change < 0.1 * left


@pytest.mark.parametrize("scale", [0.97, 0.99, 1.01, 1.03])
def test_events_that_were_cut_nominally_are_missed(scale):
    """An energy scale of the events of the nominal selection crosses its edge, or leaves a gap."""
    rng = np.random.default_rng(3)
    gen = 25 + rng.exponential(50, 8000)
    reco, data = gen * rng.normal(1, 0.1, 8000), 25 + rng.exponential(55, 4000)
    simulation = bu.Simulation(gen, reco, pass_reco=reco > 30)
    every = 20 + rng.exponential(50, 10_000)

    def background(x: np.ndarray) -> bu.Background:
        return bu.Background(x, np.full(len(x), 0.1), "top")

    nominal = background(every[every > 30])
    check = unfolder("omnifold").check
    wrong = bu.Systematic("s", backgrounds={"top": background(every[every > 30] * scale)})
    with pytest.warns(bu.errors.OverlapWarning, match="the events that pass the selection in the variation"):
        check(simulation, bu.Data(data[data > 30]), [nominal], [wrong])
    right = every * scale
    for side in (background(right[right > 30]), (nominal, background(nominal.features[:6000]))):
        check(simulation, bu.Data(data[data > 30]), [nominal], [bu.Systematic("s", backgrounds={"top": side})])


@pytest.mark.parametrize("method", METHODS)
def test_the_luminosity_of_backgrounds_is_that_of_the_spectrum(samples, method, tmp_path):
    """One parameter: more luminosity is more background, and a larger divisor. The total is known in closed form."""
    simulation, data = bu.Simulation(samples["gen"], samples["reco"]), bu.Data(samples["data"])
    lumi = bu.Systematic("luminosity", backgrounds={"top": (top(samples, factor=1.1), top(samples, factor=0.9))})
    result = unfolder(method).fit(simulation, data, [top(samples)], [lumi])
    spectrum = result.spectrum("gen", [-100.0, 100.0], luminosity=(4.0, 0.1), centre="draws")
    alpha = alpha_of(result, "luminosity")
    expected = (8000 - 2000 * (1 + 0.1 * alpha)) / (4.0 * 1.1**alpha)
    assert np.allclose(spectrum.sources["luminosity"]()[:, 0], expected, rtol=1e-5)
    assert spectrum.nominal == pytest.approx(1500.0)
    ranking = spectrum.ranking().set_index("source").loc["luminosity"]
    assert ranking["kind"] == "systematic"
    with pytest.raises(bu.errors.InputError, match="that of the spectrum has no"):
        result.spectrum("gen", [-100.0, 100.0], luminosity=4.0)
    published = bu.io.read_publication(bu.io.write_publication(result, tmp_path / "published"))
    with pytest.raises(bu.errors.InputError, match="take the cross section of the result"):
        published.spectrum("gen", [-100.0, 100.0], luminosity=4.0)
    alone = result.spectrum("gen", [-100.0, 100.0], centre="draws")
    ratio = alone.draw_matrix[:, 0] / spectrum.draw_matrix[:, 0] / 4.0
    assert np.allclose(ratio, 1.1**alpha, rtol=1e-6)  # all sources together have the same parameter


def test_what_a_systematic_of_that_name_may_hold(samples):
    varied = {"top": top(samples, factor=1.1)}
    for more in (
        {},
        {"weight_up": np.ones(8000), "backgrounds": varied},
        {"backgrounds": varied, "profile": True},
    ):
        with pytest.raises(bu.errors.InputError, match=r"already a source|needs one of"):
            bu.Systematic("luminosity", **more)
