"""Nuisance parameters that are correlated before the data."""

from __future__ import annotations

import json

import numpy as np
import pymc as pm
import pytest
import yaml

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError, ProfilingWarning
from bayesunfold.unfolding.correlations import check_correlations, prior_correlation
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
def correlated(toy):
    a, b = two(toy.simulation)
    v = toy.simulation.weight
    first = bu.Systematic("a", weight_up=v * (1 + a))
    return unfold(toy, [first, bu.Systematic("b", weight_up=v * (1 + b), correlation={"a": RHO})])


def test_correlated_ones_are_independent_ones_turned(toy, correlated):
    """``z_a a + (r z_a + sqrt(1 - r^2) z_b) b`` is also that of two independent changes."""
    a, b = two(toy.simulation)
    v = toy.simulation.weight
    turned = [
        bu.Systematic("a", weight_up=v * (1 + a + RHO * b)),
        bu.Systematic("b", weight_up=v * (1 + np.sqrt(1 - RHO**2) * b)),
    ]
    np.testing.assert_allclose(correlated.weights.values, unfold(toy, turned).weights.values, **SINGLE)
    one = unfold(toy, turned, bu.UnbinnedFBU(**FAST))
    a_first = bu.Systematic("a", weight_up=v * (1 + a), correlation={"b": RHO})
    two_ = unfold(toy, [a_first, bu.Systematic("b", weight_up=v * (1 + b))], bu.UnbinnedFBU(**FAST))
    np.testing.assert_allclose(two_.weights.values, one.weights.values, **SINGLE)


def test_the_total_is_not_that_of_independent_sources(toy, correlated):
    """Widths of the sources stay, their sum is ``a^2 + b^2 + 2 r a b``; to 6 errors of 200 draws."""
    a, b = two(toy.simulation)
    v = toy.simulation.weight
    alone = unfold(toy, [bu.Systematic(n, weight_up=v * (1 + c)) for n, c in (("a", a), ("b", b))])
    split, before = (r.spectrum("gen", BINS).by_source() for r in (correlated, alone))
    for name in ("a", "b"):
        np.testing.assert_allclose(split[name], before[name], rtol=6 / np.sqrt(2 * 200) * np.sqrt(2))
    alphas = [e.alpha for e in correlated.members.perturbations.effects.values()]
    error = (1 - RHO**2) / np.sqrt(200)
    assert abs(np.corrcoef(alphas)[0, 1] - RHO) < 6 * error


def test_draws_have_the_correlations():
    """Three parameters, 20 000 draws, 6 standard errors."""
    three = [weights("a", correlation={"c": -0.4}), weights("b", correlation={"a": 0.5}), weights("c")]
    expected = np.array([[1, 0.5, -0.4], [0.5, 1, 0], [-0.4, 0, 1]])
    np.testing.assert_array_equal(prior_correlation(three, ["a", "b", "c"]), expected)
    drawn = draw_alphas(three, 20_000, 1)
    assert np.all(np.abs(np.cov(drawn) - expected) < 6 * np.sqrt((1 + expected**2) / 20_000))
    np.testing.assert_array_equal(draw_alphas([weights("a")], 5, 1), draw_alphas([weights("b")], 5, 1))


def test_files_keep_them(correlated, tmp_path):
    correlated.save(tmp_path / "result.nc")
    again = bu.load(tmp_path / "result.nc")
    assert again.inputs.correlations == {"b": {"a": RHO}}
    bu.io.write_publication(again, tmp_path / "published", draws=10)
    entry = yaml.safe_load((tmp_path / "published" / "metadata.yaml").read_text())["weights"]["systematic"]
    assert entry["b"]["correlation"] == {"a": RHO}
    assert "correlation" not in entry["a"]
    assert json.dumps(again.inputs.correlations)


def test_what_is_known_of_one_is_known_of_the_other():
    """One changes nothing that is seen: its mean is r times the other's, its variance 1 - r^2 (1 - the other's)."""
    rng = np.random.default_rng(6)
    n = 3000
    gen, truth = rng.normal(0, 1, n), rng.normal(0.3, 0.9, n)
    a, b = rng.normal(size=(2, n)), rng.normal(size=(2, n))
    reco = np.c_[gen + 0.4 * a[0], gen + 0.5 * a[1]]
    data = np.c_[truth + 0.4 * b[0], truth + 0.4 + 0.5 * b[1]]
    moved = [np.c_[reco[:, 0], reco[:, 1] + shift] for shift in (0.3, -0.3)]
    nothing = [np.c_[reco[:, 0], reco[:, 1] + shift] for shift in (1e-9, -1e-9)]
    systematics = [
        bu.Systematic("seen", reco_up=moved[0], reco_down=moved[1], profile=True),
        bu.Systematic("unseen", reco_up=nothing[0], reco_down=nothing[1], correlation={"seen": RHO}, profile=True),
    ]
    unfolder = bu.UnbinnedFBU(random_seed=1, draws=400, progressbar=False)
    with pytest.warns(ProfilingWarning, match="what is known of it is what its correlations say"):
        result = unfolder.fit(bu.Simulation(gen, reco), bu.Data(data), systematics=systematics)
    seen, unseen = (result.nuisances.loc[name] for name in ("seen", "unseen"))
    assert abs(seen["mean"] - 4 / 3) < 5 * seen["std"]
    assert seen["std"] < 0.4
    expected = np.sqrt(1 - RHO**2 * (1 - seen["std"] ** 2))
    assert abs(unseen["mean"] - RHO * seen["mean"]) < 6 * expected / np.sqrt(400)
    assert abs(unseen["std"] / expected - 1) < 6 / np.sqrt(800)
    drawn = pm.draw(result.model["alpha"], 4000, random_seed=1)
    assert abs(np.corrcoef(drawn.T)[0, 1] - RHO) < 6 * (1 - RHO**2) / np.sqrt(4000)


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
