"""Binned methods where bands, bins or penalties are easily wrong: each number is had without the library."""

from itertools import pairwise

import hist
import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.binned.fbu import _warn_if_limited
from bayesunfold.binned.regularized import difference_matrix
from bayesunfold.errors import ConvergenceWarning, InputError, OverlapWarning, WeightWarning
from bayesunfold.plots import plot_ranking

SMEARED = np.array([[0.8, 0.2, 0.0], [0.2, 0.6, 0.2], [0.0, 0.2, 0.8]])


@pytest.mark.parametrize(
    ("response", "data", "background"),
    [
        (np.diag([0.05] + [0.9] * 9), [50_000] + [1100] * 9, None),  # one bin is hardly ever seen
        (np.diag([0.9, 0.9]), [510, 500], [505.0, 505.0]),  # hardly any signal above the background
    ],
)
def test_a_flat_prior_reaches_as_far_as_all_data_in_one_bin(response, data, background):
    backgrounds = None if background is None else {"b": bu.BinnedBackground(background, 0.2)}
    model = bu.FBU(backgrounds=backgrounds).model(bu.ResponseMatrix(response), data)
    limit = model["limit"].get_value() * model["scaled_simulation"].get_value()
    assert np.all(limit >= sum(data) / response.sum(axis=0))


def test_a_background_of_few_simulated_events_is_told():
    h = hist.Hist(hist.axis.Regular(2, 0, 2), storage=hist.storage.Weight())
    h.fill([0.5, 0.5, 1.5], weight=20.0)
    R = bu.ResponseMatrix(np.eye(2), reco_edges=[[0, 1, 2]])
    with pytest.warns(WeightWarning, match=r"'top' has statistical variances .* in bins \[0, 1\]"):
        bu.FBU(backgrounds={"top": bu.BinnedBackground(h)}).model(R, [200, 150])
    bu.FBU(backgrounds={"top": bu.BinnedBackground([40.0, 20.0])}).model(R, [200, 150])


def test_draws_at_the_limit_of_a_flat_prior_are_told():
    rng = np.random.default_rng(1)
    share = rng.uniform(0, [[[0.5, 1.0]]], (2, 1000, 2))  # the second bin is flat up to the limit
    with pytest.warns(ConvergenceWarning, match=r"in bins \[1\]"):
        _warn_if_limited(share)
    _warn_if_limited(share[..., :1])


@pytest.mark.parametrize("method", [bu.IBU(4), bu.MatrixInversion(), bu.Tikhonov("derivative", tau=0.01)])
def test_draws_of_independent_data_are_independent(method):
    """A correlation of 2000 draws has a standard deviation of 0.022; six of them stay below 0.12 but for 4e-7."""
    R = bu.ResponseMatrix(SMEARED)
    rng = np.random.default_rng(2)
    one, two = (method.fit(R, rng.poisson([300, 400, 500])) for _ in range(2))
    for k in range(3):
        assert abs(np.corrcoef(one.draw_matrix[:, k], two.draw_matrix[:, k])[0, 1]) < 0.12
    again = method.fit(R, np.random.default_rng(2).poisson([300, 400, 500]))
    np.testing.assert_array_equal(again.draw_matrix, one.draw_matrix)


def test_an_array_of_gen_values_leaves_detector_level_its_own():
    rng = np.random.default_rng(3)
    gen = rng.normal(size=5000)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.5, 5000))
    edges = np.linspace(-3, 3, 7)
    plain = bu.ResponseMatrix.from_events(simulation, edges)
    for given in (gen, "gen", (gen,)):
        found = bu.ResponseMatrix.from_events(simulation, edges, gen=given)
        np.testing.assert_array_equal(found.probabilities, plain.probabilities)
    two = bu.Simulation(np.stack([gen, gen], 1), np.stack([gen, gen], 1))
    with pytest.raises(InputError, match="say which with reco="):
        bu.ResponseMatrix.from_events(two, edges, gen=gen)


def test_an_efficiency_kept_apart_is_for_ibu_only():
    R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[100, 200], efficiency=[0.5, 0.5])
    assert bu.IBU(300).fit(R, R.fold([50, 100])).nominal == pytest.approx([100, 200], rel=1e-6)
    printed = bu.ResponseMatrix([[0.123456, 0.2], [0.2, 0.3]], efficiency=[0.32346, 0.5])  # the sums in five digits
    bu.MatrixInversion().fit(printed, [60, 90])
    for method in (bu.MatrixInversion(), bu.Tikhonov("size", tau=0.0), bu.SVDUnfolding(2), bu.FBU()):
        with pytest.raises(InputError, match="multiplying the columns"):
            method.fit(R, [60, 90])


def test_events_on_the_last_edge_are_told():
    values = np.arange(4.0).repeat(100)
    with pytest.warns(OverlapWarning, match="100 simulated events lie exactly on the last edge, 3"):
        bu.ResponseMatrix.from_events(bu.Simulation(values, values), [0, 1, 2, 3])
    bu.ResponseMatrix.from_events(bu.Simulation(values, values), [-0.5, 0.5, 1.5, 2.5, 3.5])


def test_histograms_without_their_variances_are_refused():
    edges = np.array([0.0, 1.0, 2.0])
    R = bu.ResponseMatrix(np.eye(2), reco_edges=[edges])
    with pytest.raises(InputError, match="Weight storage"):
        bu.IBU(2).fit(R, ([100, 200], edges, [1e4, 1e4]))
    h = hist.Hist(hist.axis.Variable(edges))
    h.fill([0.5, 1.5], weight=[10.0, 20.0])
    bu.FBU(backgrounds={"b": bu.BinnedBackground(h)}).model(R, [100, 200])  # whose shape is exact
    with pytest.raises(InputError, match="filled with weights or scaled"):
        bu.IBU(2).fit(R, h)


def test_an_array_of_truth_has_the_weights_of_the_migration():
    """Events of weight 10: counts and weights that a hundredth of the events would give without weights."""
    migration = hist.Hist(*(hist.axis.Regular(3, 0, 3) for _ in range(2)), storage=hist.storage.Weight())
    counts = np.round(1000 * SMEARED).astype(int)
    for j, i in np.ndindex(3, 3):
        migration.fill(np.full(counts[j, i], j + 0.5), np.full(counts[j, i], i + 0.5), weight=10.0)
    truth = np.full(3, 1500.0)
    weighted = bu.ResponseMatrix.from_hist(migration, truth=10 * truth)
    plain = bu.ResponseMatrix.from_hist((counts, *([0, 1, 2, 3],) * 2), truth=truth)
    for k in range(3):
        np.testing.assert_allclose(weighted.column_covariance(k), plain.column_covariance(k), rtol=1e-12)
    np.testing.assert_allclose(weighted.cells().missed, 100 * (truth - counts.sum(axis=0)))


def test_an_array_of_fakes_has_the_weights_of_the_migration():
    """Events of weight 10, as a histogram with their squares or as an array."""
    axis = hist.axis.Regular(2, 0, 2)
    migration = hist.Hist(axis, axis, storage=hist.storage.Weight())
    migration.fill([0.5] * 80 + [1.5] * 120, [0.5] * 100 + [1.5] * 100, weight=10.0)
    fakes = hist.Hist(axis, storage=hist.storage.Weight())
    fakes.fill([0.5] * 5 + [1.5] * 7, weight=10.0)
    for given in (fakes, fakes.values(), fakes.to_numpy()):
        found = bu.ResponseMatrix.from_hist(migration, fakes=given).cells()
        np.testing.assert_allclose(found.fakes, [500.0, 700.0], rtol=1e-12)


def test_rounding_makes_no_fakes():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        x = rng.uniform(0, 20, 5000)
        found = bu.ResponseMatrix.from_hist(np.histogram2d(x, x, np.arange(21.0), weights=rng.gamma(1, 1, 5000)))
        assert not found.fakes.any()


def test_an_empty_bin_has_the_variance_of_one_event():
    R = bu.ResponseMatrix(np.eye(3))
    for method in (bu.IBU(3), bu.MatrixInversion()):
        assert method.fit(R, [100, 10, 0]).std() == pytest.approx([10.0, np.sqrt(10.0), 1.0])
        h = hist.Hist(hist.axis.Regular(3, 0, 3), storage=hist.storage.Weight())
        h.fill([0.5, 0.5, 1.5], weight=1000.0)  # prescaled
        assert method.fit(R, h).std() == pytest.approx([np.sqrt(2e6), 1000.0, 1000.0])


def test_least_squares_of_many_detector_bins_is_not_pulled_low():
    """300 toys of 40 bins with ten events each: the mean total is 400 within 1.2; observed variances give 380."""
    p = np.repeat(np.eye(20), 2, axis=0) / 2
    R, rng = bu.ResponseMatrix(p), np.random.default_rng(4)
    fits = [bu.MatrixInversion(draws=2).fit(R, rng.poisson(p @ np.full(20, 20.0))) for _ in range(300)]
    total = np.array([s.nominal.sum() for s in fits])
    assert abs(total.mean() - 400) < 5.0 * 20 / np.sqrt(300)
    error = np.sqrt([s.exact_covariance.sum() for s in fits])
    # 68 % of 300 toys: 0.027 each way
    assert np.mean(np.abs(total - 400) < error) > 0.683 - 4.5 * 0.027


def test_penalties_run_along_each_axis():
    plane = np.add.outer(3.0 * np.arange(4), 100.0 * np.arange(5)).ravel()
    assert np.abs(difference_matrix((4, 5), "curvature") @ plane).max() < 1e-9
    slopes = np.abs(difference_matrix((4, 5), "derivative") @ plane)
    assert sorted(set(slopes.round(9))) == [3.0, 100.0]
    assert difference_matrix((4, 5), "size").shape == (20, 20)
    kept = np.ones(6, dtype=bool)
    kept[2] = False
    assert difference_matrix(6, "derivative", kept).tolist() == [[-1, 1, 0, 0, 0], [0, 0, -1, 1, 0], [0, 0, 0, -1, 1]]
    with pytest.raises(InputError, match="more than 2 bins in a row"):
        difference_matrix((2, 2), "curvature")


def test_a_plane_over_two_axes_is_not_bent():
    truth = (1000.0 + np.add.outer(50.0 * np.arange(4), -200.0 * np.arange(4))).ravel()
    one = np.array([[0.8, 0.1, 0.0, 0.0], [0.1, 0.7, 0.1, 0.0], [0.0, 0.1, 0.7, 0.1], [0.0, 0.0, 0.1, 0.8]])
    edges = (np.arange(5.0), np.arange(5.0))
    R = bu.ResponseMatrix(np.kron(one, one), gen_edges=edges, gen_names=("x", "y"))
    found = bu.Tikhonov("curvature", tau=0.05).fit(R, R.fold(truth))
    assert found.nominal == pytest.approx(truth, rel=1e-6)
    with pytest.raises(InputError, match="2 particle-level axes"):
        bu.SVDUnfolding(3).fit(R, R.fold(truth))
    with pytest.raises(InputError, match="2 particle-level axes"):
        bu.FBU("curvature").fit(R, np.round(R.fold(truth)))


def test_bins_that_are_not_seen_disturb_no_toys():
    with pytest.warns(OverlapWarning, match="never seen"):
        R = bu.ResponseMatrix([[0.8, 0.2, 0.0], [0.2, 0.8, 0.0]], truth=[100, 100, 10])
    expected = bu.IBU(3).fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[100, 100]), [100, 150])
    many, steps = bu.IBU(3).unfold_many(R, [[100, 150]]), bu.IBU(3).steps(R, [100, 150])
    for found in (many[0], steps[-1].unfolded):
        np.testing.assert_allclose(found, [*expected.nominal, np.nan])
    np.testing.assert_allclose(steps[-1].mixing[:2] @ [100, 150], expected.nominal)
    assert np.isnan(steps[-1].data_derivative[2]).all()


def test_a_ranking_is_drawn_of_a_bin_that_is_measured():
    with pytest.warns(OverlapWarning, match="never seen"):
        R = bu.ResponseMatrix([[0.0, 0.8, 0.2], [0.0, 0.2, 0.8]], truth=[10, 100, 100])
    ranking = bu.MatrixInversion().fit(R, [100, 150]).ranking()
    labels = list(dict.fromkeys(ranking["bin"]))
    assert labels[1] in plot_ranking(ranking).axes[0].get_xlabel()
    with pytest.raises(InputError, match="no content, or is not measured"):
        plot_ranking(ranking, labels[0])


def test_spectra_that_are_no_like_quantities_are_not_compared():
    rng = np.random.default_rng(5)

    def spectrum(edges, **given):
        return bu.Spectrum((np.array(edges),), rng.normal(100, 5, (50, 2)), np.full(2, 100.0), **given)

    one = spectrum([0.0, 1.0, 11.0])
    with pytest.raises(InputError, match="luminosity"):
        bu.compare([one, spectrum([0.0, 1.0, 11.0], luminosity=36.0)])
    lifetimes = spectrum([0.0, 1e-12, 2e-12]), spectrum([0.0, 5e-13, 9e-13])
    masses = spectrum([5279.0, 5279.02, 5279.04]), spectrum([5279.01, 5279.03, 5279.05])
    for pair in (lifetimes, masses):
        assert not pair[0].same_bins(pair[1])
        assert pair[0].same_bins(pair[0])


def test_densities_compare_as_yields_do():
    R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], gen_edges=[[0.0, 1.0, 11.0]])
    s, truth = bu.IBU(4).fit(R, [100, 150]), np.array([90.0, 160.0])
    width = np.diff([0.0, 1.0, 11.0])
    density = bu.Spectrum(s.edges, s.draw_matrix / width, s.nominal / width, normalization="density")
    plain, dense = (bu.compare([a], b).rows()[0] for a, b in ((s, truth), (density, truth / width)))
    for name in ("total", "discriminator"):
        assert dense[name] == pytest.approx(plain[name])


def test_the_number_of_iterations_is_kept():
    R = bu.ResponseMatrix(SMEARED)
    counts = [bu.IBU(n).fit(R, [300, 400, 500]).settings["iterations"] for n in (2, 5)]
    assert counts == [2, 5]
    assert bu.IBU("auto").fit(R, [300, 400, 500]).settings["iterations"] >= 1


def test_fakes_do_not_stop_the_loop_earlier():
    """Data and fakes in proportion: the errors of the signal, which count for the stop, are those of scaled data."""
    p, data = SMEARED, np.array([3000.0, 1000.0, 4000.0])
    plain = bu.IBU("auto").fit(bu.ResponseMatrix(p), (data, *([0, 1, 2, 3],)))
    found = bu.IBU("auto").steps(bu.ResponseMatrix(p, fakes=[0.5] * 3), 2 * data, data * 4)
    assert len(found) == plain.settings["iterations"]
    for a, b in pairwise(found):
        assert not np.array_equal(a.unfolded, b.unfolded)
