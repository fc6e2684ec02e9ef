"""Spectra against numbers known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectrum

EDGES = (np.array([0.0, 1.0, 2.0, 4.0]),)


def _gaussian(n=20_000, seed=1):
    cov = np.array([[4.0, 1.0, 0.0], [1.0, 2.0, -0.5], [0.0, -0.5, 1.0]])
    mean = np.array([10.0, 20.0, 30.0])
    rng = np.random.default_rng(seed)
    return Spectrum(EDGES, rng.multivariate_normal(mean, cov, n), mean), mean, cov


def test_moments_and_intervals_of_gaussian_draws():
    s, mean, cov = _gaussian()
    n = len(s.draw_matrix)
    # 5 standard errors everywhere: false alarm below 1e-5 for all together
    assert np.all(np.abs(s.mean() - mean) < 5 * np.sqrt(np.diag(cov) / n))
    assert np.all(np.abs(s.std() ** 2 / np.diag(cov) - 1) < 5 * np.sqrt(2 / n))
    error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / n)
    assert np.all(np.abs(s.covariance() - cov) < 5 * error)
    low, high = s.interval(0.68)
    half = stats.norm.ppf(0.84) * np.sqrt(np.diag(cov))
    quantile_error = np.sqrt(0.84 * 0.16 / n) / stats.norm.pdf(stats.norm.ppf(0.84)) * np.sqrt(np.diag(cov))
    assert np.all(np.abs(high - mean - half) < 5 * quantile_error)
    assert np.all(np.abs(mean - low - half) < 5 * quantile_error)
    np.testing.assert_allclose(np.diag(s.correlation()), 1.0)


def test_chi2_is_the_quadratic_form_and_counts_its_rank():
    s, mean, cov = _gaussian(100_000)
    model = mean + np.array([1.0, -2.0, 0.5])
    expected = (mean - model) @ np.linalg.solve(cov, mean - model)
    got = s.chi2(model)
    assert got.dof == 3
    # relative error of an inverse covariance from S draws is about sqrt(2/S); 5 sigma
    assert got.value == pytest.approx(expected, rel=5 * np.sqrt(2 / 100_000))
    assert got.p_value == pytest.approx(stats.chi2.sf(got.value, 3))
    constrained = np.column_stack([s.draw_matrix[:, :2], 60.0 - s.draw_matrix[:, :2].sum(axis=1)])
    assert Spectrum(EDGES, constrained, np.array([10.0, 20.0, 30.0])).chi2([11, 19, 30]).dof == 2


def test_chi2_of_few_draws_is_unbiased():
    """Mean over 2000 spectra of 40 draws each: the Hartlap factor makes it dof; 5 standard errors."""
    rng = np.random.default_rng(3)
    values = []
    for _ in range(2000):
        draws = rng.standard_normal((40, 3))
        values.append(Spectrum(EDGES, draws, rng.standard_normal(3)).chi2(np.zeros(3)).value)
    assert abs(np.mean(values) - 3.0) < 5 * np.std(values) / np.sqrt(2000)


def test_chi2_adds_the_models_covariance():
    s, mean, cov = _gaussian(100_000)
    model = mean + 1.0
    expected = np.ones(3) @ np.linalg.solve(cov + np.eye(3), np.ones(3))
    assert s.chi2(model, np.eye(3)).value == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("level", [0.0, 1.0, 68])
def test_bad_level(level):
    with pytest.raises(InputError, match="between 0 and 1"):
        _gaussian(100)[0].interval(level)


def test_bad_models_and_shapes():
    s, _, _ = _gaussian(100)
    with pytest.raises(InputError, match="2 bins and the spectrum 3"):
        s.chi2([1, 2])
    with pytest.raises(InputError, match="3 bins"):
        Spectrum(EDGES, np.zeros((5, 2)), np.zeros(3))
    with pytest.raises(InputError, match="4 draws cannot"):
        Spectrum(EDGES, np.random.default_rng(1).normal(size=(4, 3)), np.zeros(3)).chi2(np.ones(3))
    with pytest.raises(InputError, match="no uncertainty"):
        Spectrum(EDGES, np.zeros((50, 3)), np.zeros(3)).chi2(np.ones(3))
    with pytest.raises(InputError, match="sources"):
        s.by_source()


def test_hist_round_trip():
    s, mean, _ = _gaussian(500)
    h = s.to_hist()
    np.testing.assert_allclose(h.values(), mean)
    np.testing.assert_allclose(h.variances(), s.std() ** 2)
    np.testing.assert_allclose(h.axes[0].edges, EDGES[0])


def test_draws_have_names():
    s, _, _ = _gaussian(50)
    assert s.draws.dims == ("draw", "bin")
    two = Spectrum((EDGES[0], np.array([0.0, 1.0])), np.ones((5, 3)), np.ones(3), names=("a", "b"))
    assert two.draws.dims == ("draw", "bin_0", "bin_1")
    assert "2" not in two.table().splitlines()[0]
    assert two.to_hist().ndim == 2


def test_flow_bins_and_bins_of_two_observables():
    """Inside and flow bins add up to the yield; bins of two observables are drawn one after another."""
    toy = bu.datasets.gaussian_toy(400, 600, dimension=2, random_seed=2)
    unfolder = bu.OmniFold(2, inference="laplace", draws=40, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    name, other = result.simulation.gen_names
    s = result.spectrum(name, [-1.0, 0.0, 2.0])
    h = s.to_hist()
    assert h.sum(flow=True).value == pytest.approx(400, rel=0.05)
    low = result.spectrum(name, [-100.0, -1.0])
    assert h.values(flow=True)[0] == pytest.approx(low.nominal[0], rel=1e-5)
    assert s.flow[0] + s.flow[1] == pytest.approx(s.outside, rel=1e-5)
    shape = result.spectrum(name, [-1.0, 0.0, 2.0], normalization="shape")
    assert shape.to_hist().sum(flow=True).value == pytest.approx(1, rel=0.05)
    pair = result.spectrum((name, other), ([-1, 0, 1], [-1, 0, 1, 2]))
    assert pair.plot().axes[1].get_xlabel() == f"bin of {name} x {other}"


def test_points_beyond_a_panel_are_marked():
    from bayesunfold.plots.style import figure, limit

    ax = figure().subplots()
    ax.plot([1, 2, 3, 4], [0.0, 5.0, -7.0, 1.0], "o", color="red")
    ax.plot([1, 4], [9.0, 9.0])  # a line has no points to lose
    limit(ax, -2, 2)
    marks = {line.get_marker(): (line.get_xdata().tolist(), line.get_ydata().tolist()) for line in ax.lines[2:]}
    assert marks == {"^": ([2.0], [2.0]), "v": ([3.0], [-2.0])}
    assert ax.get_ylim() == (-2, 2)


def test_a_frame_holds_what_the_methods_say():
    s, mean, _ = _gaussian(500)
    truth = mean + np.array([1.0, 0.0, -2.0])
    frame = s.to_dataframe(truth)
    np.testing.assert_array_equal(frame["low"], [0, 1, 2])
    np.testing.assert_array_equal(frame["high"], [1, 2, 4])
    np.testing.assert_array_equal(frame["unfolded"], mean)
    np.testing.assert_array_equal(frame["95 % low"], s.interval(0.95)[0])
    np.testing.assert_allclose(frame["pull"] * s.std(), [-1, 0, 2], atol=1e-12)
    lines = s.table(truth).splitlines()
    assert lines[0].split() == ["bin", "unfolded", "68", "%", "low", "68", "%", "high", "truth", "pull"]
    assert lines[3].split()[:3] == ["[2,", "4)", "30"]
    with pytest.raises(InputError, match="2 bins and the spectrum 3"):
        s.to_dataframe([1, 2])


def test_a_frame_of_two_axes_has_the_edges_of_both():
    axes = np.array([0.0, 1.0, 3.0]), np.array([0.0, 5.0, 6.0, 9.0])
    s = Spectrum(axes, np.random.default_rng(1).normal(5, 1, (50, 6)), np.arange(6.0), names=("a", "b"))
    frame = s.to_dataframe()
    np.testing.assert_array_equal(frame["low_a"], [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(frame["high_b"], [5, 6, 9, 5, 6, 9])
    same = Spectrum(axes, s.draw_matrix, s.nominal, names=("a", "a"))
    assert list(same.to_dataframe())[:4] == ["low_a_0", "high_a_0", "low_a_1", "high_a_1"]


def test_what_is_in_range_is_a_sum_of_contents():
    """Densities of 5 and 1 in bins of widths 10 and 90: 50 + 90 events."""
    edges, contents = (np.array([0.0, 10.0, 100.0]),), np.array([5.0, 1.0])
    drawn = np.random.default_rng(1).normal(contents, 0.1, (50, 2))
    for options, words in (
        ({"normalization": "density"}, "yield 140 in range"),
        ({"normalization": "density", "luminosity": 2.0}, "cross section 140 in range"),
        ({"normalization": "yield"}, "yield 6 in range"),
        ({"normalization": "shape"}, "fraction 6 in range"),
    ):
        assert words in repr(Spectrum(edges, drawn, contents, **options))
    page = Spectrum(edges, drawn, contents, normalization="density")._repr_html_()
    assert ">yield in range</th>" in page
    assert ">140</td>" in page
    two = Spectrum((np.array([0.0, 2.0]), edges[0]), drawn, contents, normalization="density")
    assert "yield 280 in range" in repr(two)
    unseen = Spectrum(edges, drawn, np.array([np.nan, 1.0]), normalization="density")
    assert "yield 90 in range" in repr(unseen)
