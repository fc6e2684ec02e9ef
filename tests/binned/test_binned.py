"""Response matrix, matrix inversion, Tikhonov, SVD and IBU against closed forms, toys and published numbers."""

import contextlib
import json
import pickle
from pathlib import Path

import hist
import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.binned.compare import triangular_discriminator
from bayesunfold.binned.regularized import difference_matrix
from bayesunfold.errors import InputError, OverlapWarning, WeightWarning

REFERENCES = Path(__file__).parents[1] / "references"
EDGES = np.array([-9, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 11.0])


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.fixture(scope="module")
def toy():
    return bu.datasets.gaussian_toy(1000, 1000, random_seed=1)


@pytest.fixture(scope="module")
def response(toy):
    return bu.ResponseMatrix.from_events(toy.simulation, EDGES, EDGES - 2.5)


@pytest.fixture(scope="module")
def counts(toy):
    return np.histogram(toy.data, EDGES - 2.5)[0]


def smeared(n=6, width=0.8):
    x = np.arange(n)
    p = np.exp(-0.5 * ((x[:, None] - x) / width) ** 2)
    return 0.9 * p / p.sum(axis=0)


def test_columns_sum_to_the_efficiency_and_fold_reproduces_the_simulation(toy, response):
    gen, reco = np.asarray(toy.gen), np.asarray(toy.reco)
    inside = (gen >= EDGES[0]) & (gen < EDGES[-1])
    expected = np.histogram(reco[inside], EDGES - 2.5)[0]
    assert np.allclose(response.fold(response.truth), expected)
    assert np.allclose(response.efficiency, response.probabilities.sum(axis=0))


def test_fakes_and_misses_are_counted(rng):
    gen, reco = rng.normal(0, 1, 500), rng.normal(0, 1, 500)
    pass_gen = rng.random(500) < 0.8
    pass_reco = ~pass_gen | (rng.random(500) < 0.7)
    simulation = bu.Simulation(gen, reco, pass_gen=pass_gen, pass_reco=pass_reco)
    R = bu.ResponseMatrix.from_events(simulation, [-5, 0, 5], [-5, -1, 1, 5])
    assert R.probabilities.shape == (3, 2)
    both = pass_gen & pass_reco
    assert R.efficiency[0] == pytest.approx(both[gen < 0].sum() / pass_gen[gen < 0].sum())
    # fakes and true events together are all that is reconstructed
    assert np.allclose(R.fold(R.truth, fakes=True), np.histogram(reco[pass_reco], [-5, -1, 1, 5])[0])


def test_from_hist_equals_from_events(toy, response):
    h = hist.Hist(hist.axis.Variable(EDGES - 2.5, name="reco"), hist.axis.Variable(EDGES, name="gen"))
    h.fill(np.ravel(toy.reco), np.ravel(toy.gen))
    R = bu.ResponseMatrix.from_hist(h)
    assert np.allclose(R.probabilities, response.probabilities)
    assert np.allclose(R.fakes, response.fakes)
    numpy_way = np.histogram2d(np.ravel(toy.reco), np.ravel(toy.gen), [EDGES - 2.5, EDGES])
    inside = np.histogram(np.asarray(toy.gen), EDGES)
    assert np.allclose(bu.ResponseMatrix.from_hist(numpy_way, truth=inside).probabilities, response.probabilities)


def test_two_dimensional_bins_are_flattened(rng):
    gen = rng.normal(0, 1, (2000, 2))
    reco = gen + rng.normal(0, 0.2, gen.shape)
    simulation = bu.Simulation(gen, reco)
    bins = ([-6, 0, 6], [-6, -1, 1, 6])
    R = bu.ResponseMatrix.from_events(simulation, bins, bins, gen=("gen_0", "gen_1"), reco=("reco_0", "reco_1"))
    assert R.probabilities.shape == (6, 6)
    assert R.truth.sum() == 2000
    assert bu.IBU(3).fit(R, R.fold(R.truth).round()).shape == (2, 3)


def test_column_covariance_is_multinomial_for_unit_weights(response):
    p, n = response.probabilities[:, 5], response.truth[5]
    assert np.allclose(response.column_covariance(5), (np.diag(p) - np.outer(p, p)) / n)


def test_purity_and_stability_of_a_diagonal_response():
    R = bu.ResponseMatrix(np.diag([0.5, 0.8]), truth=[10, 20])
    assert np.allclose(R.purity, 1)
    assert np.allclose(R.stability, 1)
    assert np.allclose(R.efficiency, [0.5, 0.8])


@pytest.mark.parametrize("example", ["1", "2"])
def test_published_ibu_numbers_iteration_by_iteration(example):
    """Source and convention are named in the file; its prior of example 1 is Jeffreys' on causes 0.5 and 1.5.

    Spectrum and response errors agree at every iteration. Its statistical error contains the same formula only in the
    first: later it multiplies the propagation matrices in another order; the next test shows which order is right.
    """
    case = json.loads((REFERENCES / "ibu_examples.json").read_text())["examples"][example]
    given = case["inputs"]
    prior = given["prior"]
    if isinstance(prior, str):
        prior = 1.0 / np.array([0.5, 1.5])
    efficiency = np.array(given["efficiencies"])
    R = bu.ResponseMatrix(given["response"], truth=(efficiency / given["efficiencies_err"]) ** 2, efficiency=efficiency)
    for k, published in enumerate(case["iterations"], start=1):
        s = bu.IBU(k, prior=np.asarray(prior)).fit(R, given["data"])
        assert np.allclose(s.nominal, published["unfolded"], rtol=1e-6)
        assert np.allclose(s.by_source()["simulation"], published["sys_err"], rtol=1e-6)
        if k == 1:
            d = bu.IBU(1, prior=np.asarray(prior)).steps(R, given["data"])[0].data_derivative
            assert np.allclose(np.sqrt((d**2) @ np.square(given["data_err"])), published["stat_err"], rtol=1e-6)


def test_ibu_statistical_error_agrees_with_toys_where_the_published_one_does_not(rng):
    """40 000 Gaussian toys: the relative error of a standard deviation is 0.35 %; the limit of 2 % is 5.6 of them."""
    case = json.loads((REFERENCES / "ibu_examples.json").read_text())["examples"]["2"]
    given = case["inputs"]
    R = bu.ResponseMatrix(given["response"], efficiency=given["efficiencies"])
    data, sigma = np.array(given["data"], float), np.array(given["data_err"])
    # small fluctuations, so that the toys measure the derivative and not its curvature
    toys = data + 0.1 * sigma * rng.standard_normal((40_000, 2))
    for k in (2, 4, 6):
        ibu = bu.IBU(k, prior=given["prior"])
        spread = ibu.unfold_many(R, toys).std(axis=0) / 0.1
        d = ibu.steps(R, data)[-1].data_derivative
        ours = np.sqrt((d**2) @ sigma**2)
        assert np.allclose(ours, spread, rtol=0.02)
        published = np.array(case["iterations"][k - 1]["stat_err"])
        assert np.abs(published / ours - 1).max() > 0.025


def test_ibu_simulation_error_agrees_with_refilled_responses(rng):
    """2000 multinomial responses; the relative error of a standard deviation is 1.6 %, the limit five of them."""
    p = smeared(4)
    size = np.array([4e5, 6e5, 5e5, 3e5])  # large, so that the response is linear over the fluctuation
    R = bu.ResponseMatrix(p, truth=size)
    data = R.fold([900.0, 1500.0, 800.0, 700.0])
    ibu = bu.IBU(5, prior=size)  # given, so that it does not fluctuate
    found = np.empty((2000, 4))
    for t in range(len(found)):
        full = np.vstack([p, 1 - p.sum(axis=0)])
        drawn = np.stack([rng.multinomial(int(size[c]), full[:, c]) / size[c] for c in range(4)], axis=1)
        found[t] = ibu.unfold_many(bu.ResponseMatrix(drawn[:-1], truth=size), data[None])[0]
    assert np.allclose(ibu.fit(R, data).by_source()["simulation"], found.std(axis=0), rtol=0.08)


def test_ibu_identity_response_returns_the_data():
    data = np.array([4.0, 0.0, 7.0])
    assert np.allclose(bu.IBU(3).fit(bu.ResponseMatrix(np.eye(3)), data).nominal, data)


def test_ibu_conserves_the_yield(response, counts):
    s = bu.IBU(4).fit(response, counts)
    assert (s.nominal * response.efficiency).sum() == pytest.approx(response.signal(counts).sum())


def test_ibu_is_equivariant_under_permutations():
    p, truth, data = smeared(5), np.arange(1.0, 6), np.array([30, 60, 80, 40, 20])
    g, r = np.array([2, 0, 1, 4, 3]), np.array([4, 3, 2, 0, 1])
    plain = bu.IBU(4).fit(bu.ResponseMatrix(p, truth=truth), data)
    moved = bu.IBU(4).fit(bu.ResponseMatrix(p[r][:, g], truth=truth[g]), data[r])
    assert np.allclose(moved.nominal, plain.nominal[g])
    assert np.allclose(moved.covariance(), plain.covariance()[np.ix_(g, g)])


def test_many_ibu_iterations_reach_the_maximum_likelihood():
    p = smeared(4, 0.6)
    truth = np.array([500.0, 900.0, 700.0, 300.0])
    R = bu.ResponseMatrix(p)
    s = bu.IBU(5000, errors=False).fit(R, R.fold(truth))
    assert np.allclose(s.nominal, truth, rtol=1e-3)


def test_unfold_many_equals_fit(response, counts):
    both = bu.IBU(4).unfold_many(response, np.stack([counts, 2 * counts]))
    one = bu.IBU(4).fit(response, counts).nominal
    assert np.allclose(both[0], one)
    assert np.allclose(both[1], 2 * one)


def test_ibu_auto_stops_and_converged_steps_are_small(response, counts):
    steps = bu.IBU("auto", stop=0.1).steps(response, counts)
    sigma = np.sqrt((steps[-1].data_derivative ** 2) @ counts)
    moved = steps[-1].unfolded - steps[-2].unfolded
    assert 2 <= len(steps) < 50
    assert np.sqrt(np.mean((moved[sigma > 0] / sigma[sigma > 0]) ** 2)) < 0.1


def test_matrix_inversion_is_the_inverse_with_its_exact_covariance(response, counts):
    s = bu.MatrixInversion().fit(response, counts)
    inverse = np.linalg.inv(response.probabilities)
    assert np.allclose(s.nominal, inverse @ response.signal(counts))
    variances = np.where(counts > 0, counts, 1.0) * (1 - response.fakes) ** 2
    assert np.allclose(s.by_source()["data"], np.sqrt(np.diag((inverse * variances) @ inverse.T)))


def test_taller_response_gives_weighted_least_squares(rng):
    p = rng.dirichlet(np.ones(7), size=3).T * 0.9
    data = np.array([50.0, 40, 30, 60, 20, 80, 10])
    s = bu.MatrixInversion().fit(bu.ResponseMatrix(p), data)

    def solved(w):
        return np.linalg.solve((p.T * w) @ p, (p.T * w) @ data)

    expected = solved(1 / data)
    for _ in range(3):  # weights of the fitted contents
        expected = solved(1 / np.maximum(p @ expected, 1.0))
    assert np.allclose(s.nominal, expected)


def test_tikhonov_without_regularisation_is_least_squares(response, counts):
    plain = bu.MatrixInversion().fit(response, counts)
    free = bu.Tikhonov(tau=0.0).fit(response, counts)
    assert np.allclose(free.nominal, plain.nominal)
    assert np.allclose(free.covariance(), plain.covariance())


def test_tikhonov_closed_form():
    R = bu.ResponseMatrix(smeared(5))
    data = R.fold([100.0, 200, 300, 200, 100])
    tau, L = 0.1, difference_matrix(5, "curvature")
    a = R.probabilities
    expected = np.linalg.solve((a.T / data) @ a + tau**2 * L.T @ L, (a.T / data) @ data)
    assert np.allclose(bu.Tikhonov(tau=tau).fit(R, data).nominal, expected)


def test_tikhonov_area_constraint_keeps_the_total():
    R = bu.ResponseMatrix(smeared(5))
    data = np.array([90.0, 190, 280, 170, 90])
    s = bu.Tikhonov("size", tau=0.5, area=True).fit(R, data)
    assert R.fold(s.nominal).sum() == pytest.approx(data.sum())
    assert R.fold(bu.Tikhonov("size", tau=0.5).fit(R, data).nominal).sum() != pytest.approx(data.sum(), rel=1e-3)


@pytest.mark.parametrize("area", [False, True])
def test_linear_derivatives_equal_finite_differences(area):
    p, data = smeared(4), np.array([80.0, 160, 150, 70])
    method = bu.Tikhonov(tau=0.05, area=area)
    R = bu.ResponseMatrix(p, truth=[100.0, 100, 100, 100])
    problem, raw = method._set_up(R, data)
    x, estimator, inverse = problem.solve(0.05)
    step = 1e-6
    shifted = np.stack(
        [
            (
                problem.__class__(R, data + step * e, problem.variances, problem.penalty, problem.bias, area).solve(
                    0.05
                )[0]
                - x
            )
            / step
            for e in np.eye(4)
        ],
        axis=1,
    )
    assert np.allclose(estimator, shifted, atol=1e-5)
    # response: perturb one element and compare with what the covariance is made of
    cov = problem.covariances(x, estimator, inverse, raw, 0.05)["simulation"]
    total = np.zeros((4, 4))
    for c in range(4):
        d = np.empty((4, 4))
        for j in range(4):
            q = p.copy()
            q[j, c] += step
            other = problem.__class__(
                bu.ResponseMatrix(q), data, problem.variances, problem.penalty, problem.bias, area
            )
            d[:, j] = (other.solve(0.05)[0] - x) / step
        total += d @ R.column_covariance(c) @ d.T
    assert np.allclose(cov, total, rtol=1e-3, atol=1e-6 * np.abs(total).max())


def test_tau_scans_find_a_strength_between_the_extremes(response, counts):
    for choice in ("lcurve", "correlation"):
        method = bu.Tikhonov(tau=choice)
        scan = method.scan(response, counts)
        assert np.all(np.diff(scan.chi2) >= -1e-6 * scan.chi2.max())
        assert np.all(np.diff(scan.penalty) <= 1e-6 * scan.penalty.max())
        assert 0 < scan.chosen < len(scan.tau) - 1
        assert method.fit(response, counts).settings["tau"] == scan.tau[scan.chosen]


def test_svd_with_full_rank_approaches_inversion_and_low_rank_the_simulation():
    truth = np.array([100.0, 300, 500, 300, 150])
    R = bu.ResponseMatrix(smeared(5, 0.5), truth=truth)
    data = R.fold(truth)
    for k in range(2, 6):  # data that agree with the simulation have no curvature to damp
        assert np.allclose(bu.SVDUnfolding(k).fit(R, data).nominal, truth, rtol=1e-3)
    # free of damping it is matrix inversion: the same normal equations with the strength at zero
    bumpy = R.fold(truth * [1.1, 0.9, 1.1, 0.9, 1.1])
    distance = [
        np.abs(bu.SVDUnfolding(k).fit(R, bumpy).nominal / truth - [1.1, 0.9, 1.1, 0.9, 1.1]).max() for k in (2, 5)
    ]
    assert distance[1] < 0.6 * distance[0]


def test_methods_share_the_spectrum_and_compare_tabulates_them(toy, response, counts):
    truth = toy.expected(EDGES)
    spectra = [m.fit(response, counts) for m in (bu.IBU(4), bu.MatrixInversion(), bu.Tikhonov(), bu.SVDUnfolding(10))]
    table = bu.compare(spectra, truth=truth)
    assert [r["method"] for r in table.rows()] == ["IBU", "matrix inversion", "Tikhonov", "SVD"]
    # Gaussian errors of Poisson counts: one of 245 toys gives 1e-6
    assert table.rows()[1]["p-value"] > 1e-10
    assert table.plot().axes
    assert response.plot().axes
    assert spectra[0].to_hist().values().sum() == pytest.approx(spectra[0].nominal.sum())


def test_draws_have_the_covariance_they_come_from(response, counts):
    s = bu.IBU(4, draws=4000).fit(response, counts)
    ratio = s.draw_matrix.std(axis=0, ddof=1)[1:-1] / s.std()[1:-1]
    assert np.allclose(ratio, 1, atol=0.06)  # five standard errors of 1.1 %


def test_errors_can_be_switched_off(response, counts):
    s = bu.IBU(4, errors=False).fit(response, counts)
    # not computed is NaN, which no one takes for an uncertainty of zero
    assert np.isnan(s.draw_matrix).all()
    assert np.isnan(s.std()).all()
    with pytest.raises(InputError, match="errors=True"):
        s.chi2(s.nominal)
    row = bu.compare([s], truth=counts).rows()[0]
    assert np.isnan(row["chi2"])
    assert row["discriminator"] > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bu.ResponseMatrix([[0.9, 0.3], [0.3, 0.4]]), r"columns \[0\]"),
        (lambda: bu.ResponseMatrix([[0.9, np.nan], [0.0, 0.1]]), r"NaN or infinite in bins \[1\]"),
        (lambda: bu.ResponseMatrix([[0.9, -0.1], [0.0, 0.1]]), r"negative in bins \[1\]"),
        (lambda: bu.ResponseMatrix([[0.9, 0.1]], efficiency=[0.5, 0.0]), r"zero in particle-level bins \[1\]"),
        (lambda: bu.ResponseMatrix([[0.9, 0.1]], truth=[1.0]), "has 1 entries"),
        (lambda: bu.IBU(3).fit(bu.ResponseMatrix(np.eye(2)), [1, -2]), r"negative in bins \[1\]"),
        (lambda: bu.IBU(3).fit(bu.ResponseMatrix(np.eye(2)), [1, 2, 3]), "3 bins and the response 2"),
        (lambda: bu.IBU(3).fit(bu.ResponseMatrix(np.eye(2)), [1, np.nan]), r"NaN or infinite in bins \[1\]"),
        (lambda: bu.IBU(0), "iterations is 0"),
        (lambda: bu.IBU(2, prior=[1.0, -1.0]).fit(bu.ResponseMatrix(np.eye(2)), [1, 2]), "none negative"),
        (lambda: bu.Tikhonov(tau=-1.0), "tau is -1.0"),
        (lambda: bu.Tikhonov("slope"), "regularize is 'slope'"),
        (lambda: bu.SVDUnfolding(3).fit(bu.ResponseMatrix(np.eye(2)), [1, 2]), "k is 3"),
        (lambda: bu.MatrixInversion().fit(bu.ResponseMatrix([[0.5, 0.4, 0.3], [0.4, 0.5, 0.6]]), [1, 2]), "cannot"),
        (lambda: bu.FBU().fit(bu.ResponseMatrix(np.eye(2)), [1.5, 2]), r"bins \[0\] are not whole"),
        (lambda: bu.FBU("jeffreys"), "prior is 'jeffreys'"),
        (
            lambda: bu.FBU(backgrounds={"top": bu.BinnedBackground([9, 9])}).fit(bu.ResponseMatrix(np.eye(2)), [1, 2]),
            "exceed the data in every bin",
        ),
        (
            lambda: bu.FBU(systematics={"jes": [0.0, 0.0]}).fit(bu.ResponseMatrix(np.eye(2)), [1, 2]),
            "identical to nominal",
        ),
        (lambda: bu.compare([]), "nothing to compare"),
    ],
)
def test_bad_input_is_a_clear_error(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_bins_without_simulation_are_named(toy):
    with pytest.warns(OverlapWarning, match=r"particle-level bins \[2\] are never seen"):
        R = bu.ResponseMatrix.from_events(toy.simulation, [-9, 0, 11, 12], [-12, 0, 9])
    assert R.seen.tolist() == [True, True, False]


@pytest.fixture(scope="module")
def breit_wigner():
    """The standard example of the field's C++ toolbox: 40 x 40 bins, of which the first four are never seen."""
    rng = np.random.default_rng(1)
    edges = np.linspace(-10, 10, 41)
    gen = 0.3 + 1.25 * np.tan(np.pi * (rng.random(100_000) - 0.5))
    gen = gen[(gen >= -10) & (gen < 10)]
    seen = rng.random(len(gen)) < 0.3 + 0.7 / 20 * (gen + 10)
    reco = np.where(seen, gen + rng.normal(-2.5, 0.2, len(gen)), np.nan)
    simulation = bu.Simulation(gen, reco, pass_reco=seen)
    with pytest.warns(OverlapWarning, match="never seen and are unfolded to NaN") as caught:
        response = bu.ResponseMatrix.from_events(simulation, edges)
    assert len(caught) == 1
    truth = rng.normal(0, 2, 10_000)
    truth = truth[rng.random(len(truth)) < 0.3 + 0.7 / 20 * (truth + 10)]
    return response, np.histogram(truth + rng.normal(-2.5, 0.2, len(truth)), edges)[0]


def test_ibu_of_a_response_with_unseen_bins_is_the_textbook_formula(breit_wigner):
    """D'Agostini 1995, equations 3 to 5, written out; bins that are not seen have no part in them."""
    R, counts = breit_wigner
    p, efficiency = R.probabilities, R.probabilities.sum(axis=0)
    n = R.truth.copy()
    for _ in range(4):
        new = np.zeros(40)
        for i in np.flatnonzero(efficiency):
            share = [p[j, i] * n[i] / (p[j] @ n) if p[j] @ n > 0 else 0.0 for j in range(40)]
            new[i] = np.array(share) @ (counts * (1 - R.fakes)) / efficiency[i]
        n = new
    s = bu.IBU(4).fit(R, counts)
    seen = efficiency > 0
    np.testing.assert_allclose(s.nominal[seen], n[seen], rtol=1e-10, atol=1e-10)
    assert np.isnan(s.nominal[~seen]).all()
    assert np.isinf(s.std()[~seen]).all()


@pytest.mark.parametrize(
    "method",
    [bu.IBU(4), bu.IBU(4, prior=np.ones(40)), bu.Tikhonov("curvature"), bu.SVDUnfolding(8)],
    ids=["IBU", "prior", "Tikhonov", "SVD"],
)
def test_unseen_bins_are_left_out_of_comparisons_figures_and_files(breit_wigner, method, tmp_path):
    R, counts = breit_wigner
    s = method.fit(R, counts)
    model = np.where(R.seen, np.maximum(np.nan_to_num(s.nominal), 0.0), 1e9) + 1.0
    few = s.std()[R.seen] == 0  # bins with efficiency and without a simulated event in the data's reach
    with pytest.warns(OverlapWarning) if few.any() else contextlib.nullcontext():
        assert 0 < s.chi2(model).dof <= R.seen.sum()
        assert np.isfinite(bu.compare({"a": s}, truth=model).rows()[0]["discriminator"])
    assert np.isfinite(s.correlation()).all()
    s.plot().savefig(tmp_path / "s.png")
    again = pickle.loads(pickle.dumps(s))
    np.testing.assert_array_equal(again.nominal, s.nominal)
    assert bu.io.write_root(tmp_path / "s.root", {"s": s}).exists()


def test_data_where_no_simulation_arrives_are_named():
    with pytest.warns(OverlapWarning, match=r"detector-level bins \[2\], which are left out"):
        R = bu.ResponseMatrix([[0.8, 0.2], [0.1, 0.7], [0.0, 0.0]])
    with pytest.warns(OverlapWarning, match=r"7 of 37 data events lie in detector-level bins \[2\]"):
        s = bu.IBU(3).fit(R, [10, 20, 7])
    np.testing.assert_allclose(s.nominal, bu.IBU(3).fit(bu.ResponseMatrix(R.probabilities[:2]), [10, 20]).nominal)


def test_ill_conditioned_inversion_warns():
    p = np.array([[0.5, 0.5 - 1e-10], [0.5, 0.5 + 1e-10]])
    with pytest.warns(WeightWarning, match="condition number"):
        bu.MatrixInversion(errors=False).fit(bu.ResponseMatrix(p), [10, 10])


def test_ibu_of_the_packaged_events_agrees_with_the_reference():
    """Triangular discriminators of IBU with 4 iterations, computed elsewhere with plain NumPy."""
    from bayesunfold.binned.compare import triangular_discriminator

    reference = json.loads((Path(bu.__file__).parents[1] / "benchmarks" / "zjets_reference.json").read_text())
    z = bu.datasets.zjets()
    for name, published in reference.items():
        edges = np.array(published["bin_edges"])

        def clip(x, edges=edges):
            return np.clip(np.nan_to_num(x), edges[0], np.nextafter(edges[-1], -np.inf))

        gen, reco = clip(z.simulation.gen_column(name)), clip(z.simulation.reco_column(name))
        R = bu.ResponseMatrix.from_events(z.simulation, edges, edges, gen=gen, reco=reco)
        data = np.histogram(clip(z.data.features[:, z.features.index(name)]), edges)[0]
        truth = np.histogram(clip(z.truth(name)), edges)[0]
        ibu = bu.IBU(4, errors=False).fit(R, data).nominal
        assert triangular_discriminator(ibu, truth) == pytest.approx(published["ibu4"], rel=1e-9)


def test_histograms_with_other_bins_are_refused(response, counts):
    edges = response.reco_edges[0]
    assert np.allclose(bu.IBU(2).fit(response, (counts, edges)).nominal, bu.IBU(2).fit(response, counts).nominal)
    for method in (bu.IBU(2), bu.MatrixInversion(), bu.Tikhonov(), bu.SVDUnfolding(3)):
        with pytest.raises(InputError, match="rebin one"):
            method.fit(response, (counts, edges + 0.5))
    with pytest.raises(InputError, match="truth histogram has the bins"):
        bu.ResponseMatrix.from_hist((np.eye(2), [0, 1, 2], [0, 1, 2]), truth=(np.ones(2), [0, 1, 3]))
    with pytest.raises(InputError, match="gen_edges"):
        bu.ResponseMatrix(np.eye(2), gen_edges=[0, 2, 1])
    plain = bu.ResponseMatrix.from_hist((np.eye(2), [0, 1, 2], [0, 1, 2]), truth=[2, 2])
    assert plain.efficiency == pytest.approx(0.5)


def test_histograms_in_several_dimensions_keep_their_names():
    import hist

    axes = [hist.axis.Regular(2, 0, 2, name=n) for n in ("reco x", "reco y", "x", "y")]
    h = hist.Hist(*axes, storage=hist.storage.Weight())
    rng = np.random.default_rng(1)
    x, y = rng.uniform(0, 2, (2, 4000))
    h.fill(np.clip(x + 0.1, 0, 1.99), y, x, y)
    R = bu.ResponseMatrix.from_hist(h)
    assert R.gen_names == ("x", "y")
    s = bu.IBU(2).fit(R, R.fold(R.truth))
    assert s.nominal == pytest.approx(R.truth)
    assert s.to_hist().axes[1].label == "y"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bu.IBU(2).unfold_many(bu.ResponseMatrix(np.eye(2)), [[1, -1]]), r"negative in bins \[1\]"),
        (lambda: bu.ResponseMatrix(np.eye(2)).fold([1, np.nan]), "NaN or infinite in 1 bins"),
        (lambda: bu.ResponseMatrix(np.eye(2), efficiency=[1, 3]), r"bins \[1\] is above one"),
        (lambda: bu.compare([bu.IBU(1).fit(bu.ResponseMatrix(np.eye(2)), [1, 2])], truth=[0, 0]), "sums to 0"),
    ],
)
def test_more_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_zjets_discriminators_are_the_published_ones():
    """IBU with 4 iterations, under- and overflow in the outermost bins, seven observables of the packaged events."""
    reference = json.loads((Path(bu.__file__).parents[1] / "benchmarks" / "zjets_reference.json").read_text())
    events = bu.datasets.zjets()
    simulation = events.simulation
    for j, name in enumerate(events.features):
        edges = np.array(reference[name]["bin_edges"])

        def clip(x, edges=edges):
            return np.clip(np.nan_to_num(x), edges[0], np.nextafter(edges[-1], -np.inf))

        gen, reco = clip(simulation.gen[:, j]), clip(simulation.reco[:, j])
        response = bu.ResponseMatrix.from_events(simulation, edges, edges, gen=gen, reco=reco)
        truth, data = (np.histogram(clip(x), edges)[0] for x in (events.truth(name), events.data.features[:, j]))
        answer = bu.IBU(4, errors=False).fit(response, data).nominal
        assert triangular_discriminator(answer, truth) == pytest.approx(reference[name]["ibu4"], rel=1e-9)
        generator = np.histogram(gen[simulation.pass_gen], edges)[0]
        assert triangular_discriminator(generator, truth) == pytest.approx(reference[name]["generator"], rel=1e-9)
