"""The direct posterior: its equations, detectors that see nothing or half, and everything an unfolding may hold."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

import bayesunfold as bu
import bayesunfold.report.html as html
from bayesunfold._support.streams import training_stream
from bayesunfold.classifier.arithmetic import tangent
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.cli import main
from bayesunfold.direct import estimator
from bayesunfold.direct.draws import draw_parameters, moment_changes
from bayesunfold.direct.fit import push_weights
from bayesunfold.direct.mode import find_mode
from bayesunfold.direct.posterior import find_posterior
from bayesunfold.direct.precision import precision_posterior
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.errors import InputError, InputTypeError, UnreliableDrawsWarning
from bayesunfold.omnifold.iteration import iterate, train
from bayesunfold.omnifold.loop import start_perturbations
from bayesunfold.unfolding.standardized import standardize


@pytest.fixture(scope="module")
def fitted():
    """A direct posterior in one dimension, piece by piece."""
    toy = bu.datasets.gaussian_toy(500, 600, random_seed=2)
    settings = DirectSettings(bu.Network((6,), prior_scale=(1.0, 4.0), additive=4), bu.Network((8,), additive=6))
    events = standardize(toy.simulation, toy.measurement, intervals=(6, 4))
    first = iterate(events, settings, None, None, train(training_stream(3, 0)))
    return SimpleNamespace(
        toy=toy,
        settings=settings,
        events=events,
        first=first,
        found=find_posterior(events, settings, first, 3),
    )


def test_the_derivative_is_that_of_the_moments(fitted):
    """Equation (D4) against finite differences."""
    problem, theta = fitted.found.problem, fitted.found.mode.theta
    weights = problem.weights(problem.at(theta))
    a = problem.derivative(theta, weights, np.arange(len(weights)))
    rng = np.random.default_rng(1)
    for _ in range(3):
        d = 1e-3 * rng.standard_normal(len(theta))
        change = problem.residual(problem.weights(problem.at(theta + d))) - problem.residual(
            problem.weights(problem.at(theta - d))
        )
        np.testing.assert_allclose(change, -2 * a @ d, atol=2e-3 * np.abs(change).max())
    pull = problem.features @ fitted.found.mode.residual
    np.testing.assert_allclose(
        problem.gradient(problem.at(theta), weights, pull), a.T @ fitted.found.mode.residual, atol=1e-3
    )


def test_the_fit_ends_at_a_stationary_point(fitted):
    assert fitted.found.mode.decrement < 0.1
    again = find_mode(fitted.found.problem, fitted.found.mode.theta, fitted.found.mode.tau)
    np.testing.assert_allclose(again.chi2, fitted.found.mode.chi2, rtol=0.02)


def test_draws_have_the_posteriors_covariance(fitted):
    """Equation (D7) with moments that fluctuate with unit covariance: 6 standard errors of 4000 draws (1e-9 each)."""
    problem, mode = fitted.found.problem, fitted.found.mode
    n, rng = 4000, np.random.default_rng(4)
    precisions = np.tile(np.log(mode.tau), (n, 1))
    noise = rng.standard_normal((len(mode.theta), n))
    changes = {"data": rng.standard_normal((len(mode.residual), n))}
    drawn = draw_parameters(problem, mode, precisions, changes, noise)
    d = drawn["data"] + drawn["prior"]
    a = mode.derivative
    hessian = a.T @ a + np.diag(problem.precisions(mode.tau))
    expected = a @ np.linalg.solve(hessian, a.T)
    found = np.cov(a @ d)
    error = np.sqrt((expected**2 + np.outer(np.diag(expected), np.diag(expected))) / n)
    assert np.all(np.abs(found - expected) < 6 * error)
    # the mean is where the linear model has its mode, which is the mode itself up to the remaining step
    shift = a @ d.mean(axis=1)
    assert np.all(np.abs(shift) < 6 * np.sqrt(np.diag(expected) / n) + 0.2 * np.sqrt(np.diag(expected)))


def test_changes_that_are_the_priors_own_add_to_its_draws(fitted):
    """The prior of the classifier of fakes moves the moments too: its part must not be overwritten."""
    problem, mode, rng = fitted.found.problem, fitted.found.mode, np.random.default_rng(6)
    precisions = np.tile(np.log(mode.tau), (3, 1))
    noise, change = rng.standard_normal((len(mode.theta), 3)), rng.standard_normal((len(mode.residual), 3))
    alone = draw_parameters(problem, mode, precisions, {"data": change}, noise)
    both = draw_parameters(problem, mode, precisions, {"prior": change}, noise)
    np.testing.assert_allclose(both["prior"], alone["prior"] + alone["data"], atol=1e-10)


def test_changes_of_the_moments_are_those_of_perturbed_weights(fitted):
    """Equation (D6): data exactly, the simulation as the derivative of moments that keep their total."""
    events, problem, mode = fitted.events, fitted.found.problem, fitted.found.mode
    settings = DirectSettings(fitted.settings.network, fitted.settings.moments, draws=3)
    p = start_perturbations(events, fitted.toy.simulation, [], settings, 5)
    network = Classifier("the particle-level network", problem.layout, mode.theta, fitted.first.step2.classes)
    push = push_weights(events, fitted.first, network)
    changes = moment_changes(events, problem.moments, push, fitted.first.step1, None, p)
    phi = problem.moments.features(events.data.x).astype(float)
    g = p.events["data"].block(0).astype(float)
    np.testing.assert_allclose(changes["data"], phi.T @ (events.data.weight[:, None] * g), atol=1e-3)
    w, g = problem.weights(problem.at(mode.theta)), p.events["simulation"].block(0).astype(float)

    def moments(step):
        moved = w[:, None] * (1 + step * g)
        return problem.features.T.astype(float) @ (moved * w.sum() / moved.sum(axis=0))

    expected = -(moments(1e-4) - moments(-1e-4)) / 2e-4
    np.testing.assert_allclose(changes["simulation"], expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BayesUnfoldWarning")
def test_a_blind_detector_leaves_the_prior():
    """Reco says nothing of gen: the band is that of draws of the prior, and holds another truth.

    The first truth is 7 of the loop's bands away; here each bin's is within 4 bands, and bands are a quarter of the
    content at least, where Poisson data that see everything would give 6 %. Fewer simulated events would have
    correlations by chance, which count as a measurement.
    """
    rng = np.random.default_rng(7)
    simulation = bu.Simulation(rng.normal(0, 1, 20_000), rng.normal(0, 1, 20_000))
    data = bu.Data(rng.normal(0, 1, 1000))
    unfolder = bu.UnbinnedFBU(draws=500, random_seed=1, progressbar=False)
    edges = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    spectrum = unfolder.fit(simulation, data).spectrum("gen", edges)
    truth = 1000 * np.diff(norm(0.5, 0.8).cdf(edges))
    assert np.all(spectrum.std() > 0.25 * spectrum.nominal.mean())
    assert np.all(np.abs(truth - spectrum.nominal) < 4 * spectrum.std())
    split = spectrum.by_source()
    assert np.all(split["prior"] > np.maximum(split["data"], split["simulation"]))
    # the log ratio's width, at the events, beside the prior's with the same precisions; precisions are the hyperprior's
    events = standardize(simulation, data.matched_to(simulation), intervals=(6, 0))
    settings = unfolder.settings(simulation)
    found = find_posterior(events, settings, iterate(events, settings, None, None, train(training_stream(1, 0))), 1)
    problem, precisions = found.problem, precision_posterior(found.evidence, found.fit.log_tau, rng)
    mean = precisions.mean()
    a, precision = found.mode.derivative, problem.precisions(np.exp(mean))
    j = tangent(problem.layout, found.mode.theta, problem.gen[:500])
    j -= j.mean(axis=0)
    prior = np.einsum("ij,ij->i", j / precision, j)
    posterior = np.einsum("ij,ij->i", j, np.linalg.solve(a.T @ a + np.diag(precision), j.T).T)
    ratio = np.sqrt(posterior.sum() / prior.sum())
    width = np.sqrt(precisions.probability @ (precisions.log_tau - mean) ** 2)
    assert 0.6 < ratio < 1.05, ratio  # over eight seeds 0.75 to 0.95
    assert np.all(np.abs(mean) < 0.5)
    assert np.all((width > 0.7) & (width < 1.1))  # the hyperprior's is 0.93, bounded at -2 widths


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BayesUnfoldWarning")
def test_a_half_blind_detector_measures_what_it_sees():
    """Reco knows the absolute value only: sums over mirrored bins are measured, their differences are not."""
    rng = np.random.default_rng(8)
    gen, truth = rng.normal(0, 1, 8000), rng.normal(0, 1.2, 4000)
    reco = np.abs(gen) + rng.normal(0, 0.1, 8000)
    data = np.abs(truth) + rng.normal(0, 0.1, 4000)
    unfolder = bu.UnbinnedFBU(draws=300, rounds=0, random_seed=1, progressbar=False)
    result = unfolder.fit(bu.Simulation(gen, reco), bu.Data(data))
    draws = result.spectrum("gen", [-2.0, -1.0, 0.0, 1.0, 2.0]).draw_matrix
    both = np.column_stack([draws[:, 0] + draws[:, 3], draws[:, 1] + draws[:, 2]])
    difference = np.column_stack([draws[:, 0] - draws[:, 3], draws[:, 1] - draws[:, 2]])
    assert np.all(difference.std(axis=0) > 3 * both.std(axis=0))
    cdf = norm(0, 1.2).cdf
    expected = 4000 * 2 * np.array([cdf(2) - cdf(1), cdf(1) - cdf(0)])
    assert np.all(np.abs(both.mean(axis=0) - expected) < 5 * both.std(axis=0))


@pytest.fixture(scope="module")
def everything():
    """Misses, fakes, weights of both signs, a background, systematics of both kinds, by both methods."""
    rng = np.random.default_rng(5)
    n = 4000
    gen = rng.normal(0, 1, n)
    reco = gen + rng.normal(0, 0.3, n)
    flags = {"pass_gen": rng.random(n) < 0.9, "pass_reco": rng.random(n) < 0.9}
    weight = rng.exponential(size=n) * np.where(rng.random(n) < 0.05, -1.0, 1.0)
    simulation = bu.Simulation(gen, reco, names=["pt"], weight=weight, **flags)
    systematics = [
        bu.Systematic("shower", weight_up=weight * (1 + 0.1 * np.tanh(gen))),
        bu.Systematic("scale", reco_up=1.03 * reco, pass_reco_up=flags["pass_reco"] & (rng.random(n) < 0.98)),
    ]
    top = bu.Background(rng.normal(1, 1, 300), np.full(300, 0.2), "top", 0.1)
    data = bu.Data(np.r_[rng.normal(0.2, 1, 1500), rng.normal(1, 1, 60)])
    direct = bu.UnbinnedFBU(draws=200, random_seed=1, progressbar=False)
    loop = bu.OmniFold(inference="laplace", draws=200, random_seed=1, progressbar=False)
    return [method.fit(simulation, data, [top], systematics) for method in (direct, loop)]


def test_it_agrees_with_the_loop_where_both_measure(everything):
    """Another method on the same events: differences within two bands, systematics within a factor of two."""
    edges = [-1.5, -0.5, 0.5, 1.5]
    direct, loop = (result.spectrum("pt", edges) for result in everything)
    assert np.all(np.abs(direct.nominal - loop.nominal) < 2 * np.hypot(direct.std(), loop.std()))
    one, two = direct.by_source(), loop.by_source()
    assert list(one) == list(two) == ["data", "simulation", "prior", "top", "shower", "scale", "total"]
    for source in ("data", "simulation", "top", "total"):
        ratio = one[source].sum() / two[source].sum()
        assert 0.5 < ratio < 2.0, (source, ratio)
    refolded = everything[0].refolded("pt", [-2.0, -0.7, 0.7, 2.0])
    signal = everything[0].members.events.signal_yield
    assert refolded.nominal.sum() < signal
    assert everything[0].members.nominal("reco").sum() == pytest.approx(signal)


def test_step_1_weighs_the_fakes(everything):
    """Up to one factor; a classifier of their own, which the loop has, is not trained."""
    assert ["fakes" in result.record.history[0]["losses"] for result in everything] == [False, True]
    events, push = everything[0].members.events, everything[0].members.push
    fakes = events.passes.fakes
    ratio = np.exp(everything[0].measurement.step1.log_ratio(events.reco[fakes]))
    assert fakes.any()
    np.testing.assert_allclose(push[fakes] / ratio, (push[fakes] / ratio).mean(), rtol=1e-5)


def test_one_sigma_is_the_mean_slope_of_all_members(everything):
    """Each member has slopes of its own: the pair is the least-squares line through zero of each side."""
    result, edges = everything[0], np.array([-1.5, -0.5, 0.5, 1.5])
    groups = np.digitize(result.simulation.gen_column("pt"), edges) - 1
    groups = np.where(result.simulation.pass_gen & (groups < 3), groups, -1)
    nominal = np.bincount(groups[groups >= 0], result.nominal[groups >= 0])
    for name in ("shower", "scale"):
        alpha = result.members.perturbations.effects[name].alpha
        pair = result.members.one_sigma(name)
        moved, changes = result.members.step2.by_source[name], result.members.accumulate(groups, 3, name) - nominal
        sums = pair.accumulate(groups, 3, name) - nominal
        for k, sign in enumerate((1.0, -1.0)):
            side = sign * alpha > 0
            size = np.abs(alpha[side])[:, None]
            slope = np.linalg.lstsq(size, moved[:, side].T, rcond=None)[0][0]
            np.testing.assert_allclose(pair.step2.by_source[name][:, k], slope, rtol=1e-9)
            if name == "scale":  # sums are straight to a few per cent where the normalisation moves little
                np.testing.assert_allclose(sums[k], np.linalg.lstsq(size, changes[side], rcond=None)[0][0], rtol=0.03)


# zarr writes what netCDF does, in another format, which tests of a loop's result have too
@pytest.mark.parametrize("suffix", [".nc", pytest.param(".zarr", marks=pytest.mark.slow)])
def test_it_survives_a_file(everything, tmp_path, suffix):
    result = everything[0]
    loaded = bu.load(result.save(tmp_path / f"r{suffix}"))
    np.testing.assert_array_equal(loaded.weights, result.weights)
    np.testing.assert_array_equal(loaded.nominal, result.nominal)
    assert loaded.record == result.record
    assert loaded.summary() == result.summary()
    assert "Choudalakis" in bu.citations(loaded)


def test_dashboard_publication_and_arviz(everything, tmp_path, monkeypatch):
    result = everything[0]
    monkeypatch.setattr(html, "_svg", lambda *_: "<svg></svg>")  # only words are read
    assert "exact draws" in result.report(tmp_path / "r.html").read_text()
    published = bu.io.read_publication(bu.io.write_publication(result, tmp_path / "p", by_source=True))
    assert list(published.pairs) == ["shower", "scale"]
    assert "unfolded_pt" in result.to_datatree()["posterior"]
    with pytest.raises(InputError, match="no loop whose stopping biases it"):
        result.estimate_bias()
    with pytest.raises(InputError, match="UnbinnedFBU has no iterations to draw"):
        result.plot_history()
    spectrum = result.spectrum("pt", [-1, 0, 1])
    assert spectrum.method == "UnbinnedFBU"
    assert "Choudalakis" in bu.citations(spectrum)
    page = (tmp_path / "r.html").read_text()
    assert "the fit has converged" in page
    assert "Iterations" not in page
    assert "chi-square of" in result.summary()
    assert "iteration 1" not in result.summary()


def test_the_same_seed_gives_the_same_result_and_a_checkpoint_goes_on(tmp_path):
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    unfolder = bu.UnbinnedFBU(draws=20, random_seed=4, progressbar=False)
    one = unfolder.fit(toy.simulation, toy.data, checkpoint=tmp_path / "c.npz")
    two = unfolder.fit(toy.simulation, toy.data, checkpoint=tmp_path / "c.npz")
    np.testing.assert_array_equal(one.weights, two.weights)


def test_a_checkpoint_that_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    """An empty one would refuse the next run with other settings."""
    toy = bu.datasets.gaussian_toy(100, 100, random_seed=1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(estimator, "write_checkpoint", full)
    with pytest.raises(OSError, match="No space left"):
        bu.UnbinnedFBU(bu.Network((6,)), progressbar=False).fit(toy.simulation, toy.data, checkpoint=tmp_path / "c.npz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"network": (8, 8)}, InputTypeError, "pass a bayesunfold.Network"),
        ({"network": bu.Network(prior_scale="evidence")}, InputError, "precisions are learned"),
        ({"inference": "hmc"}, InputError, "'marginal', 'laplace', 'advi', 'nuts'"),
        ({"prior": 0.0}, InputError, "prior"),
        ({"rounds": -1}, InputError, "rounds"),
        ({"draws": 1}, InputError, "draws"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        bu.UnbinnedFBU(**arguments)


def test_one_line_and_a_configuration_take_either_method(tmp_path, capsys):
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    settings = {"draws": 20, "random_seed": 4, "progressbar": False}
    one = bu.unfold(toy.gen, toy.reco, toy.data, method="direct", **settings)
    two = bu.UnbinnedFBU(**settings).fit(bu.Simulation(toy.gen, toy.reco), toy.data)
    np.testing.assert_array_equal(one.weights, two.weights)
    with pytest.raises(InputError, match="'omnifold', 'direct'"):
        bu.unfold(toy.gen, toy.reco, toy.data, method="bayes")
    np.savez(tmp_path / "s.npz", x=toy.gen[:, 0], y=toy.reco[:, 0])
    np.savez(tmp_path / "d.npz", y=toy.data[:, 0])
    text = (
        '[simulation]\nfile = "s.npz"\ngen = ["x"]\nreco = ["y"]\n[data]\nfile = "d.npz"\nfeatures = ["y"]\n'
        '[[spectrum]]\nobservable = "x"\nbins = [-2, 0, 2]\n'
        '[output]\nreport = false\n[unfolding]\nmethod = "direct"\ndraws = 20\nrandom_seed = 4\n'
    )
    (tmp_path / "c.toml").write_text(text)
    assert main(["unfold", str(tmp_path / "c.toml")]) == 0
    assert bu.load(tmp_path / "c" / "unfolded.nc").configuration["method"] == "direct"
    (tmp_path / "e.toml").write_text(text + "iterations = 3\n")
    assert main(["unfold", str(tmp_path / "e.toml")]) == 2
    assert "iterations does not belong to the method 'direct'" in capsys.readouterr().err


def test_few_importance_samples_are_told(monkeypatch):
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    monkeypatch.setattr(estimator, "FEW_POINTS", 10_000)
    with pytest.warns(UnreliableDrawsWarning, match='inference="nuts"'):
        bu.UnbinnedFBU(draws=20, rounds=0, random_seed=4, progressbar=False).fit(toy.simulation, toy.data)


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("row", ["1", "4"])
def test_bands_cover(row):
    """60 toys of two rows of the coverage table: means within 3.9 standard errors (1e-4) of 0.68 and 0.95."""
    settings = {
        "1": ({"n_data": 1000, "n_simulation": 1000, "smear": 0.2}, np.arange(-5.0, 8.0)),
        "4": (
            {
                "n_data": 2000,
                "n_simulation": 10_000,
                "smear": 0.5,
                "shift": 0.0,
                "gen": (0.0, 1.0),
                "truth": (0.3, 0.9),
            },
            np.linspace(-2.0, 2.4, 12),
        ),
    }
    toy, edges = settings[row]
    expected = bu.datasets.gaussian_toy(**toy, random_seed=0).expected(edges)
    study = bu.coverage_study(
        lambda seed: bu.datasets.gaussian_toy(**toy, poisson=True, random_seed=10_000 + seed),
        unfold=lambda t, seed: bu.UnbinnedFBU(random_seed=seed, progressbar=False).fit(t.simulation, t.measurement),
        bins=edges,
        expected=expected,
        toys=60,
        workers=0,
        progressbar=False,
    )
    for level, low, high in ((0.68, 0.65, 0.80), (0.95, 0.93, 0.99)):
        mean, error = study.mean_coverage(level)
        assert low - 3.9 * error < mean < high + 3.9 * error


def test_misses_keep_their_generator_weight_on_request(tmp_path):
    """``efficiency="prior"``: misses have equal weights and no network, passing events the weights of the default."""
    rng = np.random.default_rng(8)
    gen = rng.normal(0, 1, 2000)
    passes = rng.random(2000) < 0.5 + 0.3 * np.tanh(gen)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, 2000), pass_reco=passes, names=["t"])
    data = rng.normal(0.4, 1, 1000)
    learned, prior = (
        bu.UnbinnedFBU(efficiency=e, draws=60, random_seed=8, progressbar=False).fit(simulation, data)
        for e in ("learned", "prior")
    )
    np.testing.assert_allclose(prior.nominal[passes], learned.nominal[passes])
    np.testing.assert_allclose(prior.nominal[~passes], prior.nominal[passes].sum() / passes.sum())
    drawn = prior.weights.values
    np.testing.assert_allclose(drawn[:, passes], learned.weights.values[:, passes])
    only = np.concatenate([w for _, w in prior.members.blocks("data")])[~passes]
    np.testing.assert_allclose(only.std(axis=0), 0.0, atol=2e-4 * only.mean())  # alike, in single precision
    # the loop's answer to the same question, within both bands: 5 standard deviations
    loop = bu.OmniFold(5, efficiency="prior", inference="laplace", draws=200, random_seed=8, progressbar=False)
    edges = [-2, -1, 0, 1, 2]
    other, mine = (r.spectrum("t", edges) for r in (loop.fit(simulation, data), prior))
    assert np.all(np.abs(other.nominal - mine.nominal) < 5 * np.hypot(other.std(), mine.std()))
    prior.save(tmp_path / "r.nc")
    np.testing.assert_array_equal(bu.load(tmp_path / "r.nc").nominal, prior.nominal)
    with pytest.raises(InputError, match="efficiency is 'no'"):
        bu.UnbinnedFBU(efficiency="no")
