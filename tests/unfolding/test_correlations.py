"""Nuisance parameters that are correlated before the data."""

from __future__ import annotations

import numpy as np
import pymc as pm
import pytest
import yaml

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError, ProfilingWarning
from bayesunfold.unfolding.correlations import check_correlations, given_correlations, prior_correlation
from bayesunfold.unfolding.systematics import draw_alphas

FAST = {"network": bu.Network(hidden=(6,)), "draws": 200, "random_seed": 3, "progressbar": False}
RHO = 0.6
SINGLE = {"rtol": 2e-4, "atol": 1e-4}
"""Single precision, of weights of about a half."""

BINS = np.linspace(-2.0, 2.0, 5)


def weights(name, **given):
    return bu.Systematic(name, weight_up=np.ones(3), **given)


@pytest.fixture(scope="module")
def toy():
    return bu.datasets.gaussian_toy(600, 1500, random_seed=5)


def two(simulation):
    """Relative changes of the weights by two systematics."""
    x = simulation.gen[:, 0]
    return 0.1 * np.tanh(x), 0.08 * np.cos(x)


def unfold(toy, systematics, unfolder=None):
    unfolder = bu.OmniFold(2, inference="laplace", **FAST) if unfolder is None else unfolder
    return unfolder.fit(toy.simulation, toy.measurement, systematics=systematics)


@pytest.fixture(scope="module")
def efficiencies(toy):
    """Two uncertainties of the detector level, which do not cancel in the answer."""
    a, b = two(toy.simulation)
    first = bu.Systematic("a", reco_factor_up=1 + a)
    return unfold(toy, [first, bu.Systematic("b", reco_factor_up=1 + b, correlation={"a": RHO})])


@pytest.mark.parametrize("method", [None, "direct"])
def test_correlated_ones_are_independent_ones_turned(toy, method):
    """``z_a a + (r z_a + sqrt(1 - r^2) z_b) b`` is also that of two independent changes, here of 0.3 %.

    To first order: at three standard deviations the square is half of the precision asked for.
    """
    a, b = (0.03 * change for change in two(toy.simulation))
    v = toy.simulation.weight

    def found(*systematics):
        return unfold(toy, list(systematics), method and bu.UnbinnedFBU(**FAST)).weights.values

    first, second = bu.Systematic("a", weight_up=v * (1 + a)), bu.Systematic("b", weight_up=v * (1 + b))
    pair = found(first, second.changed(correlation={"a": RHO}))
    turned = found(
        bu.Systematic("a", weight_up=v * (1 + a + RHO * b)),
        bu.Systematic("b", weight_up=v * (1 + np.sqrt(1 - RHO**2) * b)),
    )
    np.testing.assert_allclose(pair, turned, **SINGLE)
    apart = np.abs(pair - found(first, second)) > SINGLE["atol"] + SINGLE["rtol"] * np.abs(pair)
    assert apart.mean() > 0.1  # without the correlation


def test_the_total_is_not_that_of_independent_sources(efficiencies):
    """The variance of both is ``a^2 + b^2 + 2 r a b``, of what the two sources move; to 6 errors of 200 draws."""
    spectrum = efficiencies.spectrum("gen", BINS)
    moved = {name: make() - spectrum.nominal for name, make in spectrum.sources.items() if name in ("a", "b")}
    alpha = {name: e.alpha for name, e in efficiencies.members.perturbations.effects.items()}
    slope = {name: alpha[name] @ moved[name] / (alpha[name] @ alpha[name]) for name in moved}
    both = spectrum.grouped({"both": ["a", "b"]}).by_source()["both"]
    expected = np.sqrt(slope["a"] ** 2 + slope["b"] ** 2 + 2 * RHO * slope["a"] * slope["b"])
    np.testing.assert_allclose(both, expected, rtol=6 / np.sqrt(2 * 200))
    error = (1 - RHO**2) / np.sqrt(200)
    assert abs(np.corrcoef(alpha["a"], alpha["b"])[0, 1] - RHO) < 6 * error


def test_draws_have_the_correlations():
    """Three parameters, 20 000 draws, 6 standard errors."""
    three = [weights("a", correlation={"c": -0.4}), weights("b", correlation={"a": 0.5}), weights("c")]
    expected = np.array([[1, 0.5, -0.4], [0.5, 1, 0], [-0.4, 0, 1]])
    np.testing.assert_array_equal(prior_correlation(given_correlations(three), ["a", "b", "c"]), expected)
    drawn = draw_alphas(three, 20_000, 1)
    assert np.all(np.abs(np.cov(drawn) - expected) < 6 * np.sqrt((1 + expected**2) / 20_000))
    np.testing.assert_array_equal(draw_alphas([weights("a")], 5, 1), draw_alphas([weights("b")], 5, 1))


def test_files_keep_them(efficiencies, tmp_path):
    efficiencies.save(tmp_path / "result.nc")
    again = bu.load(tmp_path / "result.nc")
    assert again.inputs.correlations == {"b": {"a": RHO}}
    bu.io.write_publication(again, tmp_path / "published", draws=10)
    entry = yaml.safe_load((tmp_path / "published" / "metadata.yaml").read_text())["weights"]["systematic"]
    assert entry["b"]["correlation"] == {"a": RHO}
    assert entry["a"]["correlation"] == {"b": RHO}
    read = bu.io.read_publication(tmp_path / "published").spectrum("gen", BINS)
    for found in (read, again.spectrum("gen", BINS)):
        assert {name: set(p.partners) for name, p in found.parameters.items()} == {"a": {"b"}, "b": {"a"}}
    both, mine = (
        s.grouped({"both": ["a", "b"]}).by_source()["both"] for s in (read, efficiencies.spectrum("gen", BINS))
    )
    np.testing.assert_allclose(both, mine, rtol=6 / np.sqrt(2 * 200))


def two_readings():
    """Truth N(0.3, 0.9); the better of two readings is shifted, and the other one says by how much."""
    rng = np.random.default_rng(6)
    n = 3000
    gen, truth = rng.normal(0, 1, n), rng.normal(0.3, 0.9, n)
    a, b = rng.normal(size=(2, n)), rng.normal(size=(2, n))
    reco = np.c_[gen + 0.4 * a[0], gen + 0.5 * a[1]]
    data = np.c_[truth + 0.4 * b[0], truth + 0.4 + 0.5 * b[1]]
    up, down = (np.c_[reco[:, 0], reco[:, 1] + shift] for shift in (0.3, -0.3))
    return bu.Simulation(gen, reco), bu.Data(data), [bu.Systematic("seen", reco_up=up, reco_down=down, profile=True)]


def test_what_is_known_of_one_is_known_of_the_other():
    """One changes nothing that is seen: its mean is r times the other's, its variance 1 - r^2 (1 - the other's)."""
    simulation, data, systematics = two_readings()
    up, down = (simulation.reco + np.array([0.0, shift]) for shift in (1e-9, -1e-9))
    systematics.append(bu.Systematic("unseen", reco_up=up, reco_down=down, correlation={"seen": RHO}, profile=True))
    unfolder = bu.UnbinnedFBU(**FAST | {"draws": 400}, moments=FAST["network"], rounds=0)
    with pytest.warns(ProfilingWarning, match="what is known of it is what its correlations say"):
        result = unfolder.fit(simulation, data, systematics=systematics)
    seen, unseen = (result.nuisances.loc[name] for name in ("seen", "unseen"))
    assert abs(seen["mean"] - 4 / 3) < 5 * seen["std"]
    assert seen["std"] < 0.4
    expected = np.sqrt(1 - RHO**2 * (1 - seen["std"] ** 2))
    assert abs(unseen["mean"] - RHO * seen["mean"]) < 6 * expected / np.sqrt(400)
    assert abs(unseen["std"] / expected - 1) < 6 / np.sqrt(800)
    drawn = pm.draw(result.model["alpha"], 4000, random_seed=1)
    assert abs(np.corrcoef(drawn.T)[0, 1] - RHO) < 6 * (1 - RHO**2) / np.sqrt(4000)


def test_impacts_are_covariances_with_the_parameter(tmp_path):
    """Over its width, in rankings and pairs; to 6 errors of 400 draws. The tilt is known by its correlation alone."""
    simulation, data, systematics = two_readings()
    tilt = bu.Systematic(
        "tilt", reco_factor_up=1 + 0.3 * np.tanh(simulation.gen[:, 0]), correlation={"seen": RHO}, profile=True
    )
    unfolder = bu.UnbinnedFBU(**FAST | {"draws": 400}, moments=FAST["network"], rounds=0)
    result = unfolder.fit(simulation, data, systematics=[*systematics, tilt])
    assert result.nuisances.loc["tilt", "std"] > 0.7
    result.save(tmp_path / "result.nc")
    place = np.digitize(simulation.gen[:, 0], BINS) - 1
    place = np.where((place >= 0) & (place < len(BINS) - 1), place, -1)
    for found in (result, bu.load(tmp_path / "result.nc")):
        spectrum = found.spectrum("gen", BINS)
        ranking = spectrum.ranking().set_index(["source", "bin"])["up"]
        centred = spectrum.draw_matrix - spectrum.draw_matrix.mean(axis=0)
        for name, drawn in zip(found.nuisances.index, found.measurement.nuisances.draws(), strict=True):
            covariance = (drawn - drawn.mean()) @ centred / (399 * drawn.std(ddof=1))
            error = np.sqrt((spectrum.std() ** 2 + covariance**2) / 400)
            assert np.all(np.abs(ranking[name].to_numpy() - covariance) < 6 * error)
            pair = found.members.one_sigma(name).accumulate(place, len(BINS) - 1, name)
            assert np.all(np.abs(0.5 * (pair[0] - pair[1]) - covariance) < 6 * error + 0.05 * np.abs(covariance))
            assert name != "tilt" or np.abs(covariance).max() > 6 * error.max()  # it has an impact
        grouped = spectrum.grouped({"both": ["seen", "tilt"]})
        assert list(grouped.nuisance_correlations().columns) == ["seen", "tilt"]
        assert set(grouped.ranking().set_index("source").loc["both", "kind"]) == {"group"}


@pytest.mark.parametrize(
    ("systematics", "words"),
    [
        ([weights("a", correlation={"b": 0.5})], "names 'b'; the systematics are: 'a'"),
        ([weights("a", correlation={"b": 0.5}), weights("b", correlation={"a": 0.4})], "is 0.5, and that of 'b'"),
        ([weights("a", correlation={"b": 0.5}), weights("b", profile=True)], "'b' is profiled and 'a' is not"),
        (
            [weights("a", correlation={"b": 0.9, "c": 0.9}), weights("b"), weights("c")],
            "of 'a', 'b', 'c' cannot all be",
        ),
    ],
)
def test_what_cannot_be_is_refused(systematics, words):
    with pytest.raises(InputError, match=words):
        check_correlations(systematics)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        ({"b": 1.0}, InputError, "between -1 and 1. One that is shared whole is one systematic"),
        ({"b": "half"}, InputError, "is 'half'"),
        ({"b": float("nan")}, InputError, "is nan"),
        ({"a": 0.5}, InputError, "names 'a' itself"),
        (0.5, InputTypeError, "pass a dict"),
    ],
)
def test_arguments_are_checked(value, kind, words):
    with pytest.raises(kind, match=words):
        weights("a", correlation=value)


def test_it_is_checked_before_any_training(toy):
    v = toy.simulation.weight
    with pytest.raises(InputError, match="names 'b'"):
        unfold(toy, [bu.Systematic("a", weight_up=1.1 * v, correlation={"b": 0.5})])
