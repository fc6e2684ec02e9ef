"""The posterior of network and nuisance parameters together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import bayesunfold as bu
import bayesunfold.report.html as html
from bayesunfold._support.streams import training_stream
from bayesunfold.direct.draws import draw_parameters
from bayesunfold.direct.fit import Setup, prior_centre
from bayesunfold.direct.mode import mode_at
from bayesunfold.direct.moments import Moments
from bayesunfold.direct.profile import joint_mean, smoothed
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.errors import InputError, ProfilingWarning
from bayesunfold.omnifold.iteration import iterate, train
from bayesunfold.unfolding.standardized import standardize


def two_readings(seed, n=4000, *, shift=0.3, resolution=0.6, extra=()):
    """Truth N(0.3, 0.9); a second reading is shifted, and its resolution is another one than simulated."""
    rng = np.random.default_rng(seed)
    gen, truth = rng.normal(0, 1, n), rng.normal(0.3, 0.9, n)
    a, b = rng.normal(size=(2, n)), rng.normal(size=(2, n))
    reco = np.c_[gen + 0.4 * a[0], gen + 0.5 * a[1]]
    data = np.c_[truth + 0.4 * b[0], truth + shift + resolution * b[1]]

    def second(move, size):
        return np.c_[reco[:, 0], gen + move + size * a[1]]

    systematics = [
        bu.Systematic("shift", reco_up=second(0.3, 0.5), reco_down=second(-0.3, 0.5), profile=True),
        bu.Systematic("resolution", reco_up=second(0, 0.6), reco_down=second(0, 0.4), profile=True),
        *extra,
    ]
    return bu.Simulation(gen, reco, names=["t"], reco_names=["a", "b"]), bu.Data(data), systematics


@pytest.fixture(scope="module")
def profiled():
    simulation, data, systematics = two_readings(1)
    background = bu.Background(
        np.random.default_rng(5).normal([2.0, -2.0], 0.1, (2000, 2)), np.full(2000, 0.1), "top", 0.3, profile=True
    )
    there = np.random.default_rng(6).normal([2.0, -2.0], 0.1, (260, 2))
    data = bu.Data(np.concatenate([data.features, there]))
    return bu.UnbinnedFBU(random_seed=1, draws=400, progressbar=False).fit(simulation, data, [background], systematics)


def test_parameters_that_the_data_know_are_found(profiled):
    """True values 1, 1 and 1 (260 for 200 events): pulls below 5 (6e-7 each), widths far below the prior's."""
    table = profiled.nuisances
    assert list(table.index) == ["shift", "resolution", "top"]
    pulls = (table["mean"] - 1.0) / table["std"]
    assert np.all(np.abs(pulls) < 5)
    assert np.all(table["std"] < [0.4, 0.4, 0.6])
    truth = 0.3, 0.9
    mean = profiled.expectation(lambda t: t[:, 0])
    assert abs(float(mean.mean()) - truth[0]) < 5 * float(mean.std())


def test_a_file_keeps_them(profiled, tmp_path):
    profiled.save(tmp_path / "result.nc")
    again = bu.load(tmp_path / "result.nc")
    edges = np.linspace(-2, 2, 9)
    new, old = again.spectrum("t", edges), profiled.spectrum("t", edges)
    np.testing.assert_array_equal(new.draw_matrix, old.draw_matrix)
    for name, std in old.by_source().items():
        np.testing.assert_array_equal(new.by_source()[name], std)
    assert again.nuisances.equals(profiled.nuisances)
    assert again.backgrounds[0].profile
    assert set(again.model.named_vars) == set(profiled.model.named_vars) >= {"alpha", "mimic"}


def test_sources_add_up(profiled):
    """Squares of the sources and of the total, of independent parts: 400 draws, 7 standard errors."""
    split = profiled.spectrum("t", np.linspace(-2, 2, 9)).by_source()
    total = split.pop("total")
    np.testing.assert_allclose(np.sqrt(sum(std**2 for std in split.values())), total, rtol=7 / np.sqrt(2 * 400))


def test_they_are_shown(profiled, tmp_path, monkeypatch):
    drawn = html._svg

    def own(figure, salt):
        """Figures that pages of other results have too are not drawn."""
        return drawn(figure, salt) if "nuisances" in salt or "second classifier" in salt else "<svg></svg>"

    monkeypatch.setattr(html, "_svg", own)
    tree = profiled.to_datatree()
    assert tree["posterior"]["alpha"].dims == ("chain", "draw", "systematic")
    assert tree["posterior"]["correlation_t"].shape[0] == 3
    page = profiled.report(tmp_path / "report.html").read_text()
    assert "Nuisance parameters" in page
    assert "Correlations with the bins of t" in page
    ranking = profiled.spectrum("t", [-1, 0, 1]).ranking()
    assert set(ranking["source"]) == {"data", "simulation", "prior", "top", "shift", "resolution"}
    assert ranking.loc[ranking["kind"] == "profiled", "std"].notna().all()
    assert len(profiled.plot_pulls().axes) == 1
    figure = profiled.spectrum("t", [-1, 0, 1]).plot_ranking("t [0, 1)", top=4)
    assert len(figure.axes[0].get_yticklabels()) == 4
    with pytest.raises(InputError, match="bin is 'x'"):
        profiled.spectrum("t", [-1, 0, 1]).plot_ranking("x")
    row = profiled.ranking(lambda t: t[:, 0], "mean").set_index("source").loc["data"]
    assert row["up"] == pytest.approx(float(profiled.expectation(lambda t: t[:, 0]).std()), rel=0.5)


# inside hepdata_lib and the validator, which leave files open
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hepdata_has_their_table(profiled, tmp_path):
    pytest.importorskip("hepdata_lib")
    from bayesunfold.io import write_hepdata

    spectrum = profiled.spectrum("t", [-1, 0, 1, 100, 101])  # the last bin is empty and has no correlation
    folder = write_hepdata(tmp_path / "hep", {"t": spectrum}, nuisances=profiled.nuisances)
    written = (folder / "t_nuisances.yaml").read_text()
    assert written.count("correlation with") == 3
    assert "'-'" in written or '"-"' in written or " - value: -" in written
    assert "resolution" in (folder / "nuisance_parameters.yaml").read_text()


def test_impacts_are_those_of_the_posterior(profiled):
    """The impact of a parameter is its covariance with the bin over its width: 400 draws, 6 standard errors."""
    spectrum = profiled.spectrum("t", [-1, 0, 1])
    alpha = profiled.measurement.nuisances.draws()
    ranking = spectrum.ranking().set_index(["bin", "source"])
    for k, name in enumerate(profiled.measurement.nuisances.names):
        drawn, own = spectrum.draw_matrix[:, 0], alpha[k]
        expected = np.cov(drawn, own)[0, 1] / own.std(ddof=1)
        assert abs(ranking.loc[("t [-1, 0)", name), "up"] - expected) < 6 * drawn.std() / np.sqrt(len(own))


def test_the_same_twice_is_measured_as_a_sum():
    """Two equal parameters: each keeps the prior's width over the root of two, and a warning names both."""
    simulation, data, systematics = two_readings(2, 2000)
    twin = bu.Systematic("twin", reco_up=systematics[0].reco_up, reco_down=systematics[0].reco_down, profile=True)
    unfolder = bu.UnbinnedFBU(random_seed=2, draws=400, progressbar=False)
    with pytest.warns(ProfilingWarning, match="'shift' and 'twin' change the data alike"):
        result = unfolder.fit(simulation, data, [], [*systematics, twin])
    table = result.nuisances
    # 400 draws: 6 standard errors
    np.testing.assert_allclose(table.loc[["shift", "twin"], "std"], np.sqrt(0.5), rtol=6 / np.sqrt(800))
    np.testing.assert_allclose(*table.loc[["shift", "twin"], "mean"], atol=6 * np.sqrt(0.5 / 400) * 2)
    assert table.loc["shift", "correlation twin"] < -0.8


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BayesUnfoldWarning")
def test_a_parameter_that_the_particle_level_mimics_keeps_its_prior():
    """One reading of unknown resolution: a wider truth does the same. 400 draws: 6 standard errors."""
    rng = np.random.default_rng(3)
    n = 5000
    gen, truth = rng.normal(0, 1, n), rng.normal(0.2, 1, n)
    noise = rng.normal(0, 1, n)
    simulation, data = bu.Simulation(gen, gen + noise), bu.Data(truth + 1.2 * rng.normal(0, 1, n))
    unknown = bu.Systematic("resolution", reco_up=gen + 1.8 * noise, reco_down=gen + 0.2 * noise, profile=True)
    result = bu.UnbinnedFBU(random_seed=3, draws=400, progressbar=False).fit(simulation, data, [], [unknown])
    row = result.nuisances.loc["resolution"]
    assert abs(row["mean"]) < 6 / np.sqrt(400) + 0.05
    assert abs(row["std"] - 1) < 6 / np.sqrt(800)
    weights = result.weights.values.astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    sigma = np.sqrt(weights @ gen**2 - (weights @ gen) ** 2)
    low, high = np.quantile(sigma, [0.025, 0.975])
    assert low < 1 < high


@pytest.fixture(scope="module")
def linear():
    """A fit in pieces, with made-up columns."""
    toy = bu.datasets.gaussian_toy(500, 600, random_seed=2)
    settings = DirectSettings(bu.Network((6,), prior_scale=(1.0, 4.0)), bu.Network((8,), additive=6))
    events = standardize(toy.simulation, toy.measurement, intervals=(6, 0))
    first = iterate(events, settings, None, None, train(training_stream(3, 0)))
    _, layout = settings.layouts(events)
    centre = prior_centre(layout, first.step2.theta, 3)
    setup = Setup(layout, first, Moments.of(events, first, (first.step1,)), centre, 1.0)
    problem = setup.problem(events)
    mode = mode_at(problem, centre, np.ones(len(problem.groups)))
    rng = np.random.default_rng(8)
    p, size = mode.derivative.shape
    mode = replace(
        mode,
        alpha=np.array([0.3, -0.2]),
        columns=rng.normal(0, 2, (p, 2)),
        correlation=np.eye(2),
        free=0.1 * rng.normal(0, 1, (size, 2)),
    )
    return problem, mode


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_draws_have_the_covariance_of_network_and_nuisance_parameters(linear, correlation):
    """Equation (D7) with the columns (N1) to (N4): 6 standard errors of 4000 draws, in moments and parameters."""
    problem, mode = linear
    mode = replace(mode, correlation=np.array([[1.0, correlation], [correlation, 1.0]]))
    n, rng, size = 4000, np.random.default_rng(4), problem.layout.n_parameters
    noise = rng.standard_normal((size + 4, n))
    changes = {"data": rng.standard_normal((len(mode.residual), n))}
    drawn = draw_parameters(problem, mode, np.tile(np.log(mode.tau), (n, 1)), changes, noise, ("x", "y"))
    total = sum(drawn.values())
    a = np.hstack([mode.derivative, mode.columns])
    prior = np.zeros((size + 2, size + 2))
    prior[:size, :size] = np.diag(1 / problem.precisions(mode.tau)) + mode.free @ mode.free.T
    prior[size:, size:] = mode.correlation
    posterior = prior - prior @ a.T @ np.linalg.solve(np.eye(len(a)) + a @ prior @ a.T, a @ prior)
    look = np.vstack([a, np.eye(size + 2)[size:]])
    expected, found = look @ posterior @ look.T, np.cov(look @ total)
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)
    assert np.all(np.abs(found - expected) < 6 * error)
    theta, alpha, std = joint_mean(problem, mode, mode.tau)
    np.testing.assert_allclose(std**2, np.diag(posterior)[size:], rtol=1e-6)
    here = np.concatenate([mode.theta, mode.alpha])
    shift = look @ total.mean(axis=1) - look @ (np.concatenate([theta, alpha]) - here)
    assert np.all(np.abs(shift) < 6 * np.sqrt(np.diag(expected) / n))


def test_a_column_loses_its_noise_and_keeps_what_it_measures(linear):
    _, mode = linear
    a, rng = mode.derivative, np.random.default_rng(9)
    p = len(a)
    noise = np.diag(rng.uniform(0.2, 2.0, p))
    flat = a @ rng.normal(0, 0.3, a.shape[1])
    column, change = smoothed(flat + np.linalg.cholesky(noise) @ rng.normal(size=p), noise, a)
    np.testing.assert_allclose(column, a @ change, atol=1e-9)  # nothing but a change of the particle level
    gram = a @ a.T + np.eye(p)
    rest = np.linalg.inv(gram)
    values, vectors = np.linalg.eigh(rest)
    unlike = 60 * vectors[:, -1]  # what no particle level makes
    column, change = smoothed(flat + unlike, noise, a)
    kept = (column - a @ change) @ vectors[:, -1]
    assert 0.8 * 60 * values[-1] < kept <= 60.5 * values[-1]


def test_the_point_estimate_is_the_mean_of_the_posterior(profiled):
    """Members are centred on it: their own mean is near, 0.25 of the band and 6 standard errors of 400 draws."""
    edges = np.linspace(-1.5, 1.5, 7)
    t = profiled.simulation.gen[:, 0]
    drawn = profiled.members.accumulate(np.where(np.abs(t) < 1.5, np.digitize(t, edges) - 1, -1), 6)
    away = (drawn.mean(axis=0) - profiled.spectrum("t", edges).nominal) / drawn.std(axis=0)
    assert np.all(np.abs(away) < 0.25 + 6 / np.sqrt(400))


def test_a_shower_scale_that_is_profiled_does_not_widen_the_band():
    """Weights that change the particle level only: the network undoes them, event by event."""
    rng = np.random.default_rng(5)
    gen, truth = rng.normal(0, 1, 1500), rng.normal(0.3, 1, 1500)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, 1500), names=["t"])
    data = bu.Data(truth + rng.normal(0, 0.3, 1500))
    shower = bu.Systematic("shower", weight_up=np.exp(0.5 * gen), weight_down=np.exp(-0.5 * gen), profile=True)
    unfolder = bu.UnbinnedFBU(draws=400, random_seed=5, progressbar=False)
    plain, profiled = (unfolder.fit(simulation, data, [], s) for s in ([], [shower]))
    edges = np.linspace(-2, 2.5, 7)
    ratio = profiled.spectrum("t", edges).std() / plain.spectrum("t", edges).std()
    assert np.all(ratio < 1.4)
    assert profiled.nuisances.loc["shower", "std"] > 0.8
    up = profiled.members.one_sigma("shower")
    rows = np.concatenate([w for _, w in up.blocks("shower")])
    total = np.abs(rows / profiled.nominal[:, None] - 1)
    assert np.median(total) < 0.1  # what the weights change, the network takes back


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BayesUnfoldWarning")
def test_acceptance_of_all_kinds_beside_what_is_not_profiled():
    """Efficiency flags of misses, fakes and events outside of both levels; a trigger that is not profiled."""
    rng = np.random.default_rng(6)
    n = 1200
    gen, chance = rng.normal(0, 1, n), rng.random(n)
    reco, pass_gen = gen + rng.normal(0, 0.3, n), rng.random(n) < 0.9
    simulation = bu.Simulation(gen, reco, pass_gen=pass_gen, pass_reco=chance < 0.8, names=["t"])
    efficiency = bu.Systematic("efficiency", pass_reco_up=chance < 0.85, pass_reco_down=chance < 0.75, profile=True)
    trigger = bu.Systematic("trigger", pass_reco_up=chance < 0.82)
    tilt = bu.Systematic("tilt", weight_up=np.exp(0.1 * gen), profile=True)
    result = bu.UnbinnedFBU(draws=60, random_seed=6, progressbar=False).fit(
        simulation, rng.normal(0.1, 1, 900), [], [efficiency, trigger, tilt]
    )
    kept = result.members.perturbations.acceptances["efficiency"]
    assert kept.outside[0] > 0
    assert kept.outside == (kept.outside[0], -kept.outside[0])
    # the yield is what the data have over the efficiency, whose parameter nothing measures: 5 of 80 % per unit
    assert result.nuisances.loc["efficiency", "std"] > 0.8
    total = result.spectrum("t", [-4, 4])
    assert total.by_source()["efficiency"][0] / total.nominal[0] == pytest.approx(0.05 / 0.8, rel=0.4)


@pytest.mark.parametrize("method", ["laplace", pytest.param("advi", marks=pytest.mark.slow)])
def test_every_inference_method_profiles(method):
    """Precisions by ADVI or fixed: the parameters are those of importance sampling. 200 draws: 6 standard errors."""
    simulation, data, systematics = two_readings(4, 2000)
    small = {"network": bu.Network((8,)), "moments": bu.Network((8,), additive=6), "rounds": 0}
    reference, found = (
        bu.UnbinnedFBU(inference=each, draws=200, random_seed=4, progressbar=False, **small)
        .fit(simulation, data, [], systematics)
        .nuisances
        for each in ("marginal", method)
    )
    np.testing.assert_allclose(found["std"], reference["std"], rtol=6 / np.sqrt(200))
    assert np.all(np.abs(found["mean"] - reference["mean"]) < 6 * reference["std"] * np.sqrt(2 / 200))


def test_correlations_with_bins_are_those_of_the_draws(profiled):
    edges = np.array([-1.0, 0.0, 1.0])
    spectrum = profiled.spectrum("t", edges)
    table = spectrum.nuisance_correlations()
    assert table.columns.tolist() == ["shift", "resolution", "top"]
    tree = profiled.to_datatree({"t": edges})["posterior"]
    expected = tree["correlation_t"].transpose("bin_t", "systematic").values
    np.testing.assert_allclose(table.to_numpy(), expected, atol=1e-6)
    plain = bu.Spectrum((edges,), np.random.default_rng(1).normal(10, 1, (50, 2)), np.array([10.0, 10.0]))
    with pytest.raises(InputError, match="no profiled nuisance parameters"):
        plain.nuisance_correlations()
