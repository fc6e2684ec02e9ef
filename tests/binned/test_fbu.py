"""Fully Bayesian unfolding against quadrature, and its model as PyMC sees it."""

import hist
import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold.errors import InputError, OverlapWarning, WeightWarning

TOP = bu.BinnedBackground([10.0, 20.0], relative_uncertainty=0.3)


@pytest.mark.parametrize(
    "background",
    [
        # one more model to compile, which is the other's without the background's term
        pytest.param(None, marks=pytest.mark.slow),
        TOP,
    ],
    ids=["no background", "background"],
)
def test_two_bins_against_quadrature(background):
    """Two bins, flat prior, exact response, with and without a background of uncertain normalisation.

    4000 correlated draws, effective size above 1000: means to 5 standard errors, widths to 10 %.
    """
    p, data = np.array([[0.8, 0.3], [0.2, 0.7]]), np.array([40, 60])
    grid = np.arange(0.2, 160, 0.4)  # centres of cells
    a, b = np.meshgrid(grid, grid, indexing="ij")
    density = np.zeros(a.shape)
    for level in np.linspace(-5, 5, 41) if background else [0.0]:
        counts = np.multiply(background.counts, 1.3**level) if background else np.zeros(2)
        means = [p[j, 0] * a + p[j, 1] * b + counts[j] for j in range(2)]
        logp = sum(n * np.log(mean / n) - mean + n for n, mean in zip(data, means, strict=True))
        density += stats.norm.pdf(level) * np.exp(logp)
    density /= density.sum()
    s = bu.FBU(backgrounds={"top": background} if background else None, random_seed=3).fit(bu.ResponseMatrix(p), data)
    for k in range(2):
        marginal = density.sum(axis=1 - k)
        mean = grid @ marginal
        std = np.sqrt((grid - mean) ** 2 @ marginal)
        assert s.mean()[k] == pytest.approx(mean, abs=5 * std / np.sqrt(1000))
        assert s.std()[k] == pytest.approx(std, rel=0.1)


@pytest.mark.slow  # two models to compile
@pytest.mark.filterwarnings("ignore::bayesunfold.errors.ConvergenceWarning")  # widths are compared, with their errors
def test_finite_response_statistics_widen_the_posterior_as_propagation_says():
    """Independent columns of few simulated events: variances add, data and response, in the linear regime."""
    p, data = np.array([[0.8, 0.2], [0.2, 0.8]]), np.array([5000, 5000])
    R = bu.ResponseMatrix(p, truth=[400.0, 400.0])
    s = bu.FBU(random_seed=1).fit(R, data)
    expected = bu.MatrixInversion().fit(R, data)
    exact = bu.FBU(response_statistics=False, random_seed=1).fit(R, data)
    assert np.allclose(s.std(), expected.std(), rtol=0.12)
    assert np.allclose(exact.std(), expected.by_source()["data"], rtol=0.1)
    assert exact.std().max() < 0.8 * s.std().min()


@pytest.mark.slow  # four models to compile
def test_priors_pull_where_they_say():
    p = np.array([[0.6, 0.3, 0.1], [0.3, 0.4, 0.3], [0.1, 0.3, 0.6]])
    R, data = bu.ResponseMatrix(p, truth=[100, 100, 100]), np.array([45, 20, 40])
    flat = bu.FBU(random_seed=1).fit(R, data)
    tight = bu.FBU("lognormal", 0.02, response_statistics=False, random_seed=1).fit(R, data)
    smooth = bu.FBU("curvature", 30.0, response_statistics=False, random_seed=1).fit(R, data)
    assert np.allclose(tight.mean() / tight.mean().mean(), 1, atol=0.05)
    bend = [abs(np.diff(s.mean(), 2)[0]) / s.mean().mean() for s in (flat, smooth)]
    assert bend[1] < 0.2 * bend[0]
    entropy = bu.FBU("entropy", 50.0, response_statistics=False, random_seed=1).fit(R, data)
    assert np.ptp(entropy.mean()) < 0.3 * np.ptp(flat.mean())


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.ConvergenceWarning")  # widths are compared, with their errors
def test_background_and_systematic_are_nuisance_parameters():
    """Without the background each bin is Gamma(data + 1), of mean 1001 and variance 1001 in the first."""
    R = bu.ResponseMatrix(np.eye(2))
    data = np.array([1000, 2000])
    background = bu.BinnedBackground([200.0, 400.0], relative_uncertainty=0.5)
    fit = bu.FBU(backgrounds={"top": background}, random_seed=1).sample(R, data)
    assert fit.spectrum.mean()[0] < 1001 - 100
    assert fit.spectrum.std()[0] > 2 * np.sqrt(1001)
    assert {"posterior", "sample_stats", "posterior_predictive", "observed_data"} <= set(fit.tree.children)
    assert fit.tree["posterior"]["background_level"].sel(background_level_name="top").ndim == 2
    assert fit.tree["posterior_predictive"]["counts"].mean(("chain", "draw")).values == pytest.approx(data, rel=0.05)


# the compiled model is that of the test before
@pytest.mark.filterwarnings("ignore:R-hat")  # fifty draws a chain: this is about bins, not about convergence
def test_fbu_leaves_unseen_bins_out():
    with pytest.warns(OverlapWarning, match=r"particle-level bins \[0\] are never seen"):
        R = bu.ResponseMatrix([[0.0, 0.8, 0.2], [0.0, 0.2, 0.8]])
    s = bu.FBU(draws=50, tune=200, backgrounds={"b": bu.BinnedBackground([5.0, 5.0])}).fit(R, [100, 150])
    assert np.isnan(s.nominal[0])
    assert np.isinf(s.std()[0])
    assert np.isfinite(s.covariance()[1:, 1:]).all()


def test_what_is_given_is_checked_in_all_bins():
    """Bins that are left out change no warning, no error and no number of a bin."""
    edges = [0.0, 1.0, 2.0, 3.0]
    with pytest.warns(OverlapWarning):
        R = bu.ResponseMatrix([[0.0, 0.8, 0.2], [0.0, 0.0, 0.0], [0.0, 0.2, 0.8]], [0, 900, 900], reco_edges=edges)
    h = hist.Hist(hist.axis.Variable(edges), storage=hist.storage.Weight())
    h.fill([0.5, 1.5, 2.5, 2.5], weight=8.0)
    with pytest.warns(WeightWarning, match=r"above a tenth of the data's in bins \[0, 2\]"):
        bu.FBU(backgrounds={"b": bu.BinnedBackground(h)}).model(R, [100, 0, 100])
    model = bu.FBU(systematics={"left out": [0.0, 0.1, 0.0]}, response_statistics=False).model(R, [100, 0, 100])
    assert not model["effects"].get_value().any()
    with pytest.raises(InputError, match=r"bins \[2\] are not whole"):
        bu.FBU().model(R, [100, 0, 0.5])


def test_weighted_data_are_refused():
    h = hist.Hist(hist.axis.Integer(0, 2), storage=hist.storage.Weight())
    R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    h.view().value[...], h.view().variance[...] = [100, 150], [100, 1500]
    with pytest.raises(InputError, match=r"bins \[1\] have variances that differ from their contents"):
        bu.FBU().model(R, h)
    h.view().variance[...] = [100, 150]
    assert np.array_equal(bu.FBU().model(R, h)["data"].get_value(), [100, 150])


@pytest.mark.slow  # one more model to compile
def test_a_systematic_adds_in_quadrature():
    R, data = bu.ResponseMatrix(np.eye(2)), np.array([1000, 2000])
    shifted = bu.FBU(systematics={"scale": np.array([0.1, 0.1])}, random_seed=1).fit(R, data)
    assert shifted.std()[1] / shifted.mean()[1] == pytest.approx(np.hypot(np.log1p(0.1), 1 / np.sqrt(2000)), rel=0.12)


def test_the_model_is_visible_and_can_be_extended():
    import pymc as pm

    model = bu.FBU().model(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[50, 60]), [10, 20])
    assert {"truth_ratio", "response_cells", "truth", "expected", "counts"} <= set(model.named_vars)
    with model:
        pm.Deterministic("total", model["truth"].sum())
    assert "total" in model.named_vars
    assert np.isfinite(model.compile_logp()(model.initial_point()))


@pytest.mark.slow  # one more model to compile
@pytest.mark.filterwarnings("ignore::bayesunfold.errors.ConvergenceWarning")  # widths are compared, with their errors
def test_shares_of_fakes_move_with_the_simulation():
    """All events are seen where they were made, so only the fakes' share is uncertain: equation (B2).

    A share ``p`` of 300 events has variance ``p (1 - p) / 300``, and the data of 100 000 a bin add 0.3 %. 8000 draws,
    worth a quarter, know a width to about 2 %.
    """
    gen = np.repeat([0.5, 1.5], [200, 240])
    sample = np.concatenate([gen, np.repeat([0.5, 1.5], [100, 60])])
    simulation = bu.Simulation(sample, sample, pass_gen=np.arange(600) < 440)
    R = bu.ResponseMatrix.from_events(simulation, [0.0, 1.0, 2.0])
    assert np.allclose(R.fakes, [1 / 3, 1 / 5])
    s = bu.FBU(draws=2000, random_seed=1).fit(R, [100_000, 100_000])
    exact = np.sqrt(R.fakes / (1 - R.fakes) / 300 + 1e-5)
    np.testing.assert_allclose(s.std() / s.mean(), exact, rtol=0.12)
    linear = bu.MatrixInversion().fit(R, [100_000, 100_000])
    np.testing.assert_allclose(np.sqrt(np.diag(linear.covariance())) / linear.nominal, exact, rtol=1e-9)


@pytest.mark.slow  # one more model to compile
def test_a_prior_around_the_simulation_has_its_statistics():
    """A log-normal prior of width 0.1 around 100 simulated events a bin, 10 measured: against quadrature.

    Taken as exact, the simulated spectrum would give a width of 0.095.
    """
    R = bu.ResponseMatrix(np.eye(2), truth=[100, 100])
    s = bu.FBU("lognormal", np.expm1(0.1), random_seed=1).fit(R, [10, 10])
    log_u, log_g = np.linspace(-1, 1, 801)[:, None], np.linspace(-0.6, 0.6, 601)
    g = 100 * np.exp(log_g)
    weight = np.exp(-0.5 * ((log_u - log_g) / 0.1) ** 2 + 10 * log_u - 10 * np.exp(log_u) + 100 * np.log(g) - g - 360)
    weight = weight.sum(axis=1)
    mean, square = (np.average(np.exp(log_u[:, 0]) ** power, weights=weight) for power in (1, 2))
    assert np.sqrt(square - mean**2) > 0.12
    np.testing.assert_allclose(s.std() / 10, np.sqrt(square - mean**2), rtol=0.1)
    np.testing.assert_allclose(s.mean() / 10, mean, rtol=0.03)
