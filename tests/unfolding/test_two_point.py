"""Two-point uncertainties: the ratio of two simulations, and what is known of it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold.classifier.estimator import BayesianClassifier
from bayesunfold.errors import BayesUnfoldWarning, FileFormatError, InputError, WeightWarning
from bayesunfold.unfolding.perturbations import Variation, interpolate
from bayesunfold.unfolding.two_point import two_point_change

FAST = {"network": bu.Network(hidden=(6,)), "draws": 100, "random_seed": 3, "progressbar": False}
EDGES = stats.norm.ppf(np.linspace(0, 1, 7))


def smeared(rng, n, mean=0.0, width=1.0):
    gen = rng.normal(mean, width, n)
    return bu.Simulation(gen, gen + rng.normal(0, 0.5, n))


@pytest.mark.parametrize("shift", [pytest.param(0.0, marks=pytest.mark.slow), 0.15])
def test_draws_hold_the_true_ratio(shift):
    """Bins of the ratio's posterior against the exact content, six bins of four samples.

    Pulls are those of N(0, 1): the mean of 24 squares, of which 20 are free, is below 0.3 or above 3 less often than
    once in 1e5, with twice the errors that 20 draws leave.
    """
    squares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        simulation, other = smeared(rng, 20_000), smeared(rng, 3000, shift)
        change, draws = two_point_change(bu.Systematic("model", alternative=other), simulation, seed)
        expected = np.diff(stats.norm(shift).cdf(EDGES))
        place = np.digitize(simulation.gen[:, 0], EDGES) - 1
        share = np.array([np.bincount(place, np.exp(c), minlength=6) for c in (change, *(change + draws.T))])
        share /= share.sum(axis=1, keepdims=True)
        own = np.diff(stats.norm.cdf(EDGES)) / 20_000  # the nominal events of a bin are not where the truth has them
        squares.append((share[0] - expected) ** 2 / (share[1:].var(axis=0, ddof=1) + own))
    assert 0.3 < np.mean(squares) < 3


def test_samples_that_are_alike_have_a_ratio_near_one():
    """Six bins of 2000 events fluctuate by 5.5 % around one; single weights stay within twice that."""
    rng = np.random.default_rng(1)
    simulation, other = smeared(rng, 8000), smeared(rng, 2000)
    change, _ = two_point_change(bu.Systematic("model", alternative=other), simulation, 1)
    assert np.sqrt(np.mean(np.expm1(change) ** 2)) < 2 * np.sqrt(6 / 2000)


def test_a_difference_of_resolutions_is_found():
    """Resolutions 0.5 and 0.7 leave gen and most of reco alone, and this seed began in a network that says nothing.

    The variance of reco - gen is 0.49 in the alternative; 5 of the width of 20 draws are exceeded once in 1e4.
    """
    rng = np.random.default_rng(1)
    simulation = smeared(rng, 1000)
    gen = rng.normal(0, 1, 1000)
    other = bu.Simulation(gen, gen + rng.normal(0, 0.7, 1000))
    change, draws = two_point_change(bu.Systematic("s", alternative=other), simulation, 1)
    weight = 1 + np.column_stack([change, change[:, None] + draws])
    variance = (simulation.reco - simulation.gen)[:, 0] ** 2 @ weight / weight.sum(axis=0)
    assert abs(variance[0] - 0.49) < 5 * variance[1:].std(ddof=1) < 0.24


def test_two_uncertainties_have_draws_of_their_own():
    """Twenty independent pairs have a correlation above 0.9 less often than once in 1e7."""
    rng = np.random.default_rng(4)
    simulation, other = smeared(rng, 2000), smeared(rng, 1000, 0.1)
    tail = simulation.gen[:, 0] > 1
    a, b = (two_point_change(bu.Systematic(n, alternative=other), simulation, 1)[1][tail].sum(axis=0) for n in "ab")
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.9


def test_columns_add_up_to_the_change():
    rng = np.random.default_rng(2)
    up, draws, alpha = rng.normal(size=40), rng.normal(size=(40, 3)).astype(np.float32), rng.normal(size=10)
    v = Variation(alpha, up, -up, draws=draws)
    expected = np.stack([alpha[k] * (up + draws[:, k % 3]) for k in range(10)], axis=1)
    np.testing.assert_allclose(v.change(slice(None), alpha), expected, rtol=1e-6, atol=1e-6)
    found = np.sum([interpolate(*column[:3]) for column in v.columns()], axis=0)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    plain = Variation(alpha, up, -up)
    np.testing.assert_array_equal(plain.columns()[0][2], alpha)
    assert len(plain.columns()) == 1


@pytest.mark.parametrize("method", ["omnifold", "direct"])
def test_members_have_the_draws_and_files_keep_them(method, tmp_path):
    """The loop's members follow ``alpha (mean + draw)``: as a systematic of as many members' own weights would."""
    rng = np.random.default_rng(5)
    simulation, other = smeared(rng, 1500), smeared(rng, 400, 0.2)
    truth = rng.normal(0.2, 0.9, 600)
    data = bu.Data(truth + rng.normal(0, 0.5, 600))
    unfolder = bu.UnbinnedFBU(**FAST) if method == "direct" else bu.OmniFold(2, inference="laplace", **FAST)
    result = unfolder.fit(simulation, data, systematics=[bu.Systematic("model", alternative=other)])
    effect = result.members.perturbations.variations["model"]
    assert effect.draws is not None
    assert np.abs(effect.draws.mean(axis=1)).max() < 1e-5
    pair = result.members.one_sigma("model")
    spectrum = result.spectrum("gen", EDGES[1:-1])
    edges = np.digitize(simulation.gen[:, 0], EDGES[1:-1]) - 1
    moved = pair.accumulate(np.where(edges < 4, edges, -1), 4, "model")
    half = 0.5 * np.abs(moved[0] - moved[1])
    drawn = np.asarray(spectrum.sources["model"]()) - spectrum.nominal
    slope = effect.alpha @ drawn / (effect.alpha @ effect.alpha)  # the draws average out
    # twenty draws average out as far as the members that share them have alike parameters
    of_draw = np.bincount(np.arange(100) % 20, effect.alpha**2) / (effect.alpha @ effect.alpha)
    rest = (drawn - np.outer(effect.alpha, slope)) / np.sqrt(np.mean(effect.alpha**2))
    noise = rest.std(axis=0) * np.sqrt(of_draw @ of_draw)
    assert np.all(np.abs(half - np.abs(slope)) < 6 * noise)
    assert np.abs(half).max() > 0.3 * spectrum.by_source()["model"].max()
    result.save(tmp_path / "result.nc")
    again = bu.load(tmp_path / "result.nc")
    np.testing.assert_array_equal(again.members.perturbations.variations["model"].draws, effect.draws)
    np.testing.assert_allclose(again.weights.values, result.weights.values, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the two-point uncertainty 'model' is profiled:bayesunfold.errors.ProfilingWarning")
def test_noise_of_a_ratio_measures_nothing():
    """Both samples are of one generator, so the data say nothing of the parameter, which keeps its prior.

    With the noise of the events alone this sample's posterior was 0.63 +- 0.40. To 6 errors of 300 draws.
    """
    rng = np.random.default_rng(2)

    def readings(truth):
        return np.c_[truth + rng.normal(0, 0.5, len(truth)), truth + rng.normal(0, 0.5, len(truth))]

    def sample(n):
        gen = rng.normal(0, 1, n)
        first = gen + rng.normal(0, 0.5, n)
        return bu.Simulation(gen, np.c_[first, gen + rng.normal(0, 0.5, n)])

    simulation, other = sample(4000), sample(500)
    data = bu.Data(readings(rng.normal(0.2, 0.9, 4000)))
    model = bu.Systematic("model", alternative=other, profile=True)
    result = bu.UnbinnedFBU(random_seed=2, draws=300, progressbar=False).fit(simulation, data, systematics=[model])
    row = result.nuisances.loc["model"]
    assert abs(row["mean"]) < 6 / np.sqrt(300) + 0.05
    assert abs(row["std"] - 1) < 6 / np.sqrt(600)
    plain = bu.UnbinnedFBU(random_seed=2, draws=300, progressbar=False).fit(
        simulation, data, systematics=[model.changed(profile=False)]
    )
    noise, without = (r.spectrum("gen", EDGES[1:-1]).by_source() for r in (result, plain))
    both = np.hypot(noise["model"], noise["model, statistics"])
    assert np.all(both > 0.6 * without["model"])  # profiling has taught nothing, so the noise stays


@pytest.mark.filterwarnings("ignore:the two-point uncertainty 'model' is profiled:bayesunfold.errors.ProfilingWarning")
def test_statistics_of_a_profiled_ratio_are_a_source(tmp_path):
    """Draws of the ratio's logarithm times the size of the parameter, a row of their own without a parameter."""
    rng = np.random.default_rng(8)
    gen, other, truth = rng.normal(0, 1, 3000), rng.normal(0, 1, 2000), rng.normal(0.2, 0.9, 1500)

    def readings(t, shift):
        return np.c_[t + shift + rng.normal(0, 0.5, len(t)), t + rng.normal(0, 0.5, len(t))]

    simulation, data = bu.Simulation(gen, readings(gen, 0.0)), bu.Data(readings(truth, 0.3))
    model = bu.Systematic("model", alternative=bu.Simulation(other, readings(other, 0.3)), profile=True)
    unfolder = bu.UnbinnedFBU(**FAST | {"draws": 200}, moments=FAST["network"], rounds=0)
    result = unfolder.fit(simulation, data, systematics=[model])
    row = result.nuisances.loc["model"]
    assert abs(row["mean"] - 1) < 5 * row["std"]
    effect = result.members.perturbations.variations["model, statistics"]
    _, draws = two_point_change(model, simulation, 3)
    expected = draws * np.hypot(row["mean"], row["std"])
    np.testing.assert_allclose(effect.draws, expected, rtol=0.05, atol=0.02)  # mean and width of 200 draws
    spectrum = result.spectrum("gen", EDGES[1:-1])
    assert np.all(spectrum.by_source()["model, statistics"] > 0)
    kinds = spectrum.ranking().set_index("source")["kind"]
    assert set(kinds.loc[["model, statistics"]]) == {"statistics"}
    assert result.members.systematics == ("model",)
    folder = bu.io.write_publication(result, tmp_path / "published", draws=10, by_source=True)
    entry = bu.io.read_publication(folder).metadata["weights"]
    assert "model, statistics" in entry["source"]
    assert entry["systematic"]["model"]["profiled"]["mean"] == pytest.approx(row["mean"])
    assert "statistics" in entry["systematic"]["model"]
    taken = bu.Systematic("model, statistics", weight_up=1.1 * simulation.weight)
    with pytest.raises(InputError, match="give each its own name"):
        unfolder.fit(simulation, data, systematics=[model, taken])
    result.save(tmp_path / "result.nc")
    again = bu.load(tmp_path / "result.nc").spectrum("gen", EDGES[1:-1])
    np.testing.assert_allclose(
        again.by_source()["model, statistics"], spectrum.by_source()["model, statistics"], rtol=1e-4
    )


def test_its_draws_stay_when_something_else_is_profiled():
    rng = np.random.default_rng(6)
    simulation, other = smeared(rng, 1500), smeared(rng, 400, 0.2)
    data = bu.Data(rng.normal(0.2, 1.0, 600))
    tilt = bu.Systematic("tilt", weight_up=np.exp(0.1 * simulation.gen[:, 0]), profile=True)
    model = bu.Systematic("model", alternative=other)
    result = bu.UnbinnedFBU(**FAST).fit(simulation, data, systematics=[tilt, model])
    effects = result.members.perturbations.variations
    assert effects["model"].draws is not None
    assert effects["tilt"].draws is None


@pytest.mark.parametrize("unfolder", [bu.OmniFold, bu.UnbinnedFBU])
def test_mistakes_are_told_before_anything_is_trained(unfolder, monkeypatch, tmp_path):
    """A second alternative that weights cannot express, and a checkpoint of another network."""
    rng = np.random.default_rng(1)
    simulation, other = smeared(rng, 300), smeared(rng, 300, 0.1)
    bad = bu.Simulation(other.gen, other.reco, pass_gen=np.arange(300) > 5)
    good, second = (bu.Systematic(name, alternative=a) for name, a in (("shower", other), ("matching", bad)))
    path = tmp_path / "run.npz"
    settings = {"draws": 20, "random_seed": 3, "progressbar": False}

    def make(hidden):
        given = {"iterations": 1, "inference": "laplace"} if unfolder is bu.OmniFold else {"rounds": 0}
        return unfolder(network=bu.Network((hidden,)), **settings, **given)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesUnfoldWarning)
        make(4).fit(simulation, other.reco, checkpoint=path)
        make(4).check(simulation, other.reco, checkpoint=path)
        monkeypatch.setattr(BayesianClassifier, "fit", lambda *_, **__: pytest.fail("something was trained"))
        for call in (make(4).fit, make(4).check):
            with pytest.raises(InputError, match="alternative of 'matching' fail gen"):
                call(simulation, other.reco, systematics=[good, second])
        for call in (make(5).fit, make(5).check):
            with pytest.raises(FileFormatError, match="other settings"):
                call(simulation, other.reco, systematics=[good], checkpoint=path)


def test_scale_factors_of_an_alternative_that_are_not_used_are_told():
    """Factors of mean 1.05 beside 1 are told; within a percent nothing is said."""
    rng = np.random.default_rng(2)
    nominal, other = smeared(rng, 400), smeared(rng, 400, 0.1)
    simulation = bu.Simulation(nominal.gen, nominal.reco, reco_factor=np.ones(400))

    def check(factor):
        alternative = bu.Simulation(other.gen, other.reco, reco_factor=np.full(400, factor))
        bu.OmniFold().check(simulation, other.reco, systematics=[bu.Systematic("shower", alternative=alternative)])

    check(1.005)
    with pytest.warns(
        WeightWarning, match=r"of 'shower' have mean 1\.05 and spread 0\.000, those of the simulation 1 and"
    ):
        check(1.05)
