"""Reweighting, calibration, closure and likelihood ratios against densities that are known."""

import numpy as np
import pytest
from scipy import stats
from scipy.special import polygamma
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError, OverlapWarning, WeightWarning
from bayesunfold.reweighting import Calibrator, reliability, weighted_auc


def likelihood_ratio(*parameters):
    """A network of one layer is as good as the default one for one or two parameters, at a tenth of the cost."""
    network = bu.Network(hidden=(8,), activation="softplus", prior_scale="evidence")
    return bu.LikelihoodRatio(
        parameters, classifier=bu.BayesianClassifier(network, "laplace", draws=100, random_state=1), random_state=1
    )


def true_ratio(x):
    """log N(0.4, 1.1) / N(0, 1), task A of the comparison with peers."""
    return stats.norm(0.4, 1.1).logpdf(x) - stats.norm(0, 1).logpdf(x)


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(1)
    return rng.normal(0, 1, 10_000), rng.normal(0.4, 1.1, 10_000)


@pytest.fixture(scope="module")
def fitted(samples):
    return bu.Reweighter(draws=200, random_state=1).fit(*samples)


def error(reweighter):
    x = np.linspace(-3, 3, 601)
    w = np.exp(-0.5 * x**2)
    return np.average((reweighter.log_ratio(x) - true_ratio(x)) ** 2, weights=w)


def test_classifier_finds_the_known_ratio(fitted):
    """The variance of three parameters from 20 000 events is 6e-4: chi-square of 50 for 3 is 1e-10, training adds."""
    assert error(fitted) < 1e-2


def test_weights_have_mean_one_point_estimate_and_draws(fitted, samples):
    assert fitted.weights(samples[0]).mean() == pytest.approx(1, abs=1e-9)
    assert fitted.weight_draws(samples[0]).mean(axis=1) == pytest.approx(1, abs=1e-6)


def test_an_event_alone_weighs_what_it_weighs_in_a_batch(fitted, samples):
    x = np.r_[samples[0][:5], 0.123]
    assert [fitted.weights([v])[0] for v in x] == pytest.approx(fitted.weights(x), rel=1e-10)


def test_order_of_rows_does_not_matter_to_the_folds(samples):
    source, target = samples[0][:2000], samples[1][:2000]
    rng = np.random.default_rng(2)
    one = bu.Reweighter(draws=10, random_state=1).fit(source, target)
    two = bu.Reweighter(draws=10, random_state=1).fit(rng.permutation(source), rng.permutation(target))
    x = np.linspace(-2, 2, 9)
    # another order of summation stops the fits elsewhere within their tolerance, 0.3 of a posterior width of 0.15
    assert one.log_ratio(x) == pytest.approx(two.log_ratio(x), abs=0.2)
    index = np.arange(2000)
    given = bu.Reweighter(draws=10, random_state=1).fit(source, target, fold=(index, index))
    assert given.log_ratio(x) == pytest.approx(one.log_ratio(x), abs=0.2)


def test_scaling_weights_changes_nothing(samples):
    source, target = samples[0][:2000], samples[1][:2000]
    x = np.linspace(-2, 2, 9)
    one = bu.Reweighter(draws=10, random_state=1).fit(source, target)
    two = bu.Reweighter(draws=10, random_state=1).fit(source, target, np.full(2000, 7.0), np.full(2000, 0.2))
    assert one.log_ratio(x) == pytest.approx(two.log_ratio(x), abs=1e-3)


def test_negative_weights_give_finite_ratios(samples):
    rng = np.random.default_rng(3)
    weight = np.where(rng.random(10_000) < 0.3, -1.0, 1.0)
    reweighter = bu.Reweighter(draws=10, random_state=1).fit(*samples, source_weight=weight)
    same = bu.Reweighter(draws=10, random_state=1).fit(samples[0][:1600], samples[1])  # equal effective size
    assert np.all(np.isfinite(reweighter.log_ratio(samples[0])))
    # expected 2e-3, a third of a chi-square of three
    assert error(reweighter) < 5 * max(error(same), 3e-3)


def test_analytic_ratio_from_scipy_callables_and_pymc(samples):
    import pymc as pm

    for densities in (
        (stats.norm(0, 1), stats.norm(0.4, 1.1)),
        (stats.norm(0, 1).pdf, stats.norm(0.4, 1.1).pdf),
        (pm.Normal.dist(0, 1), pm.Normal.dist(0.4, 1.1)),
    ):
        reweighter = bu.Reweighter("analytic", densities=densities, draws=3).fit(*samples)
        x = np.linspace(-2, 2, 5)
        shift = reweighter.log_ratio(x) - true_ratio(x)
        assert np.ptp(shift) < 1e-9
        assert abs(shift[0]) < 0.05  # normalised on this sample
        assert reweighter.log_ratio_draws(x).shape == (3, 5)


def test_binned_ratio_is_the_ratio_of_counts_with_gamma_errors(samples):
    edges = np.linspace(-3, 3, 13)
    reweighter = bu.Reweighter("binned", bins=edges, draws=4000).fit(*samples)
    a, b = (np.histogram(np.clip(s, -2.999, 2.999), edges)[0] for s in samples)
    centres = 0.5 * (edges[1:] + edges[:-1])
    expected = np.log(b + 0.5) - np.log(a + 0.5)
    assert np.ptp(reweighter.log_ratio(centres) - expected) < 1e-9
    spread = reweighter.log_ratio_draws(centres)
    # relative errors of counts, added; normalisation takes a little away
    assert spread.std(axis=0) == pytest.approx(np.sqrt(1 / a + 1 / b), rel=0.15, abs=0.004)
    assert reweighter.report_["merged bins"] == 0


def test_binned_draws_are_ratios_of_normalised_histograms():
    """Logs of a Dirichlet's shares have the variance ``trigamma(n + 1/2) - trigamma(N + K/2)``, and both samples add.

    4000 draws know a standard deviation to 1.1 %: 5 of it in six bins are exceeded once in 3e5.
    """
    rng = np.random.default_rng(6)
    samples, edges = (rng.normal(0, 1, 3000), rng.normal(1, 1, 6000)), np.array([-9, -0.5, 0, 0.5, 1, 1.5, 9])
    fitted = bu.Reweighter("binned", bins=edges, draws=4000, random_state=1).fit(*samples)
    counts = np.array([np.histogram(s, edges)[0] for s in samples]) + 0.5
    expected = np.sqrt(np.sum(polygamma(1, counts) - polygamma(1, counts.sum(axis=1, keepdims=True)), axis=0))
    centres = 0.5 * (edges[1:] + edges[:-1])
    draws = fitted.log_ratio_draws(centres)
    assert draws.std(axis=0) == pytest.approx(expected, rel=0.055)
    same = bu.Reweighter("binned", bins=edges, draws=4000, random_state=1, temper=1.0).fit(*samples)
    np.testing.assert_allclose(same.log_ratio_draws(centres), draws, atol=1e-12)


def test_sparse_bins_are_merged_and_counted():
    rng = np.random.default_rng(4)
    reweighter = bu.Reweighter("binned", bins=np.linspace(-6, 6, 61), draws=10).fit(
        rng.normal(0, 1, 500), rng.normal(0, 1, 500)
    )
    assert reweighter.report_["merged bins"] > 10
    assert np.all(np.isfinite(reweighter.log_ratio(np.linspace(-6, 5.9, 30))))


def test_any_scikit_learn_classifier_with_bootstrap_draws(samples):
    reweighter = bu.Reweighter(
        classifier=HistGradientBoostingClassifier(max_iter=30), calibration="beta", bootstraps=5, draws=20
    ).fit(samples[0][:4000], samples[1][:4000])
    assert error(reweighter) < 0.05
    draws = reweighter.log_ratio_draws(np.array([0.0, 1.0]))
    assert draws.shape == (20, 2)
    assert len(np.unique(draws[:, 0])) == 5


@pytest.mark.parametrize("sizes", [(6000, 600), (600, 6000)])
def test_class_sizes_are_no_part_of_another_classifiers_ratio(sizes):
    """N(0.5, 1) to N(-0.5, 1) has the log ratio x, which a temperature of one leaves; bootstrap draws have it too.

    600 events of unit width know the slope to 0.05 and the level to 0.05: 4.5 of both is once in 1e5.
    """
    rng = np.random.default_rng(3)
    a, b = rng.normal(-0.5, 1, sizes[0]), rng.normal(0.5, 1, sizes[1])
    fitted = bu.Reweighter(
        classifier=LogisticRegression(), calibration="temperature", bootstraps=2, draws=2, random_state=1
    ).fit(a, b)
    x = np.linspace(-2, 2, 5)
    assert np.polyfit(x, fitted.log_ratio(x), 1) == pytest.approx([1.0, 0.0], abs=0.25)
    assert fitted.report_["mean weight before calibration"] == pytest.approx(1.0, abs=0.35)
    assert np.polyfit(x, fitted.log_ratio_draws(x)[0], 1) == pytest.approx([1.0, 0.0], abs=0.4)


def test_clip_and_temper_report_what_they_change(samples):
    reweighter = bu.Reweighter(clip=1.5, temper=0.9, draws=10, random_state=1).fit(samples[0][:3000], samples[1][:3000])
    w = reweighter.weights(samples[0][:3000])
    assert w.mean() == pytest.approx(1, abs=1e-9)
    assert reweighter.report_["effective size after clip, temper and truncate"] > reweighter.report_["effective size"]
    assert reweighter.report_["share of events clipped"] > 0


def test_power_by_region(fitted, samples):
    power = fitted.power(samples[0], np.where(samples[0] > 1, "tail", "core"))
    assert set(power) == {"tail", "core"}
    assert 0 < power["tail"]["share left"] <= 1


@pytest.mark.parametrize("method", ["beta", "isotonic", "histogram", "sigmoid", "temperature"])
def test_calibration_undoes_a_known_distortion(method):
    """The true log ratio of N(0.5, 1) to N(-0.5, 1) is x; it is given stretched by 2."""
    rng = np.random.default_rng(5)
    x = np.r_[rng.normal(-0.5, 1, 20_000), rng.normal(0.5, 1, 20_000)]
    y = np.repeat([0, 1], 20_000)
    calibrator = Calibrator(method).fit(2 * x, y)
    z = np.linspace(-1, 1, 5)
    # 400 samples: 0.03 +- 0.016 for the smooth ones, 0.13 +- 0.04 for those in steps
    assert calibrator(2 * z) == pytest.approx(z, abs=0.4 if method in ("isotonic", "histogram") else 0.15)
    assert np.all(np.isfinite(calibrator(np.array([-50.0, 50.0]))))
    assert np.all(np.diff(calibrator(np.linspace(-8, 8, 200))) >= -1e-12)


def test_reliability_of_true_and_of_stretched_ratios():
    rng = np.random.default_rng(6)
    x = np.r_[rng.normal(-0.5, 1, 20_000), rng.normal(0.5, 1, 20_000)]
    y = np.repeat([0, 1], 20_000)
    right, wrong = reliability(x, y), reliability(2 * x, y)
    assert right.error < 0.015
    assert wrong.error > 0.05
    low, high = np.percentile(right.observed, [0.5, 99.5], axis=0)
    assert np.mean((low <= right.predicted) & (right.predicted <= high)) > 0.7


def test_weighted_auc_equals_the_mann_whitney_statistic():
    rng = np.random.default_rng(7)
    a, b = rng.normal(0, 1, 300), rng.normal(1, 1, 200)
    expected = stats.mannwhitneyu(b, a).statistic / (300 * 200)
    score, label = np.r_[a, b], np.repeat([0, 1], [300, 200])
    assert weighted_auc(score, label) == pytest.approx(expected)
    assert weighted_auc(score, label, np.full(500, 3.0)) == pytest.approx(expected)


def test_closure_of_binned_weights_has_no_tail_to_fit():
    """Many events of a bin share the largest weight; a tail of one value has no shape."""
    rng = np.random.default_rng(1)
    source, target = rng.normal(0, 1, 1000), rng.normal(0.5, 1, 1000)
    found = bu.closure(bu.Reweighter("binned", bins=5).fit(source, target), source, target)
    assert found.pareto_k == 0.0


def test_closure_on_the_events_of_an_only_classifier_is_warned_of():
    rng = np.random.default_rng(1)
    samples, others = rng.normal(size=(2, 400)), rng.normal(size=(2, 400))
    one = bu.Reweighter(folds=1, draws=10).fit(*samples)
    with pytest.warns(WeightWarning, match="100 % of the events were in the training"):
        bu.closure(one, *samples)
    bu.closure(one, *others)
    bu.closure(bu.Reweighter(draws=10).fit(*samples), *samples)


def test_closure_passes_for_good_weights_and_fails_without(fitted):
    """Fresh events: the second classifier finds what the posterior expects, within 4.5 sigma (7e-6)."""
    rng = np.random.default_rng(8)
    source, target = rng.normal(0, 1, 8000), rng.normal(0.4, 1.1, 8000)
    good = bu.closure(fitted, source, target)
    assert abs(good.auc - 0.5) < (good.auc_posterior - 0.5) + 4.5 * good.auc_std
    assert good.auc_before > 0.57
    assert abs(good.mean_weight - 1) < 5 * good.mean_weight_std + 0.01
    flat = bu.Reweighter("analytic", densities=(stats.norm(0, 1), stats.norm(0, 1)), draws=2).fit(source, target)
    assert bu.closure(flat, source, target).p_value < 1e-12
    # the AUC of the exact ratio on the same events
    assert good.auc_reach == pytest.approx(
        weighted_auc(true_ratio(np.r_[source, target]), np.repeat([0, 1], 8000)), abs=0.005
    )
    assert 0.5 < good.auc_posterior < 0.52
    assert good.plot().axes or good.plot().subfigs
    assert "second classifier" in good.table()
    assert list(zip(*good.to_dataframe().values.T, strict=True)) == [(n, *c) for n, c in good.chi2.items()]


def test_packaged_simulation_reweighted_to_its_own_nature():
    """Seven observables, weights and closure on different events; 7e-6 is the false-alarm rate."""
    z = bu.datasets.zjets()
    source, target = (
        np.column_stack([sample[f"gen_{name}"] for name in z.features])[sample["pass_gen"]]
        for sample in (z.sim, z.nature)
    )
    reweighter = bu.Reweighter(draws=30, random_state=1).fit(source[:10_000], target[:10_000])
    found = bu.closure(reweighter, source[10_000:20_000], target[10_000:20_000])
    assert found.auc_before > 0.58
    assert abs(found.auc - 0.5) < (found.auc_posterior - 0.5) + 4.5 * found.auc_std
    assert found.auc_reach > found.auc_before - 0.01


@pytest.mark.slow  # minutes
@pytest.mark.statistical
@pytest.mark.parametrize("dimension", [1, 5])
def test_coverage_of_log_ratio_draws(dimension):
    """Twenty training sets of 5000 + 5000 events; windows at 0.1 % false alarm.

    Points of one training set are correlated, so errors come from the spread of a set's coverage over sets (measured at
    68 %: 0.21 in one dimension, 0.11 in five; at 95 %: 0.05), divided by the root of twenty, times 3.3.
    """
    if dimension == 1:
        low, high = stats.norm(0, 1), stats.norm(0.4, 1.1)
    else:
        power = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
        scale = np.array([1.05, 0.95, 1.0, 1.05, 0.95])
        low = stats.multivariate_normal(np.zeros(5), 0.3**power)
        high = stats.multivariate_normal([0.3, -0.2, 0.2, 0.0, 0.1], 0.5**power * np.outer(scale, scale))
    points = low.rvs(40, random_state=np.random.default_rng(99))
    truth = high.logpdf(points) - low.logpdf(points)
    hits = {0.68: [], 0.95: []}
    for seed in range(20):
        rng = np.random.default_rng(2000 + seed)
        source, target = low.rvs(5000, random_state=rng), high.rvs(5000, random_state=rng)
        draws = bu.Reweighter(random_state=seed).fit(source, target).log_ratio_draws(points)
        for level, found in hits.items():
            lower, upper = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=0)
            found.append(np.mean((lower <= truth) & (truth <= upper)))
    assert np.mean(hits[0.68]) == pytest.approx(0.68, abs=0.15 if dimension == 1 else 0.08)
    assert np.mean(hits[0.95]) == pytest.approx(0.95, abs=0.045)


def test_likelihood_ratio_of_a_gaussian_mean():
    """Known: log lambda of n events is n (m0 - m1) (mean - (m0 + m1) / 2)."""
    rng = np.random.default_rng(9)
    theta = rng.uniform(-1, 1, 20_000)
    ratio = likelihood_ratio("mu").fit(rng.normal(theta, 1), theta)
    data = rng.normal(0.3, 1, 200)
    expected = 200 * 0.6 * (data.mean() - 0.2)
    draws = ratio.log_lambda_draws(data, [0.5], [-0.1])
    assert ratio.log_lambda(data, [0.5], [-0.1]) == pytest.approx(expected, abs=5 * draws.std() + 1.0)
    assert ratio.log_lambda(data, [0.5], [-0.1]) == -ratio.log_lambda(data, [-0.1], [0.5])
    grid = np.linspace(-0.9, 0.9, 37)
    scan = ratio.scan(data, grid)
    # over four seeds the network moves the best value by 0.03 at most, an eighth of the limit
    assert scan.best[0] == pytest.approx(data.mean(), abs=0.25)
    assert scan.band()[0].shape == (37,)
    wilks = ratio.confidence_set(data, grid, 0.95)
    width = np.ptp(wilks.theta[wilks.inside])
    assert width == pytest.approx(2 * 1.96 / np.sqrt(200), abs=0.11)
    neyman = ratio.confidence_set(
        data, grid[12:25:3], 0.95, simulate=lambda t, n, rng: rng.normal(t[0], 1, (n, 1)), toys=200
    )
    # the 95 % quantile of 200 toys is known to 0.5: 6 sigma
    assert neyman.threshold[2] == pytest.approx(3.84, abs=3.0)
    extended = ratio.scan(data, grid, expected=lambda t: 200 * np.exp(t[0] - 0.3))
    assert extended.best[0] == pytest.approx(0.3, abs=0.25)
    with pytest.warns(OverlapWarning, match="extrapolates"):
        ratio.log_ratio(data[:3], [2.0])
    with pytest.raises(InputError, match="outside the range"):
        ratio.log_ratio(data[:3], [2.0], extrapolate="error")


@pytest.mark.parametrize("dimension", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_likelihood_ratio_in_several_dimensions(dimension):
    """Means of correlated Gaussians, two parameters: log p(x|a)/p(x|b) is linear in x and known."""
    rng = np.random.default_rng(20)
    cov = 0.4 ** np.abs(np.subtract.outer(np.arange(dimension), np.arange(dimension)))
    shift = np.zeros((2, dimension))
    shift[0], shift[1, :2] = 0.5, (0.6, -0.6)
    inverse = np.linalg.inv(cov)
    theta = rng.uniform(-1, 1, (25_000, 2))
    noise = rng.multivariate_normal(np.zeros(dimension), cov, 25_000)
    ratio = bu.LikelihoodRatio(["a", "b"], draws=50, random_state=1).fit(theta @ shift + noise, theta)
    one, two = np.array([0.4, -0.3]), np.array([-0.2, 0.3])
    data = one @ shift + rng.multivariate_normal(np.zeros(dimension), cov, 100)

    def exact(x):
        return (x - 0.5 * (one + two) @ shift) @ inverse @ ((one - two) @ shift)

    found = ratio.log_ratio(data, one) - ratio.log_ratio(data, two)
    assert np.sqrt(np.mean((found - exact(data)) ** 2)) < 0.15 * exact(data).std() + 0.1
    drawn = ratio.log_lambda_draws(data, one, two)
    assert ratio.log_lambda(data, one, two) == pytest.approx(exact(data).sum(), abs=5 * drawn.std() + 1.0)


# a study of 52 s; the calibration of single ratios is tested above
@pytest.mark.slow
def test_expected_coverage_of_a_confidence_set():
    """Known to be the level for a Gaussian mean; 150 toys know it to 0.038: 0.2 is 5 sigma. And for counts alone."""
    rng = np.random.default_rng(21)
    theta = rng.uniform(-1, 1, 20_000)
    ratio = bu.LikelihoodRatio(["mu"], draws=10, random_state=1).fit(rng.normal(theta, 1), theta)
    grid = np.linspace(-0.9, 0.9, 37)

    def simulate(t, n, rng):
        return rng.normal(t[0], 1, n)

    found = ratio.expected_coverage(simulate, [0.0, 0.4], grid, 100, toys=150)
    assert found.coverage == pytest.approx(0.68, abs=0.2)
    assert np.all((found.lower < found.coverage) & (found.coverage < found.upper))
    counted = ratio.expected_coverage(simulate, [0.0], grid, expected=lambda t: 100 * np.exp(t[0]), toys=150)
    assert counted.coverage[0] == pytest.approx(0.68, abs=0.2)
    with pytest.raises(InputError, match="either n"):
        ratio.expected_coverage(simulate, [0.0], grid)


def test_model_of_the_parameters_is_the_scan():
    """The PyMC model's log density is the scan's, with prior and Poisson term."""
    rng = np.random.default_rng(22)
    theta = rng.uniform([-1, 0.5], [1, 2.0], (5000, 2))
    x = np.column_stack([rng.normal(theta[:, 0], 1), rng.exponential(theta[:, 1])])
    ratio = likelihood_ratio("mu", "tau").fit(x, theta)
    assert np.any(ratio.classifier_.standardizer_.power != 1)
    data = x[:50]
    model = ratio.model(data, lambda t: -0.5 * t[0] ** 2, lambda t: 40 * np.exp(t[0]))
    density = model.compile_logp(jacobian=False, mode="FAST_COMPILE")
    points = np.array([[-0.4, 0.8], [0.0, 1.2], [0.3, 1.9]])
    found = []
    for point in points:
        values = {}
        for value, rv, number in zip(model.value_vars, model.free_RVs, point, strict=True):
            values[value.name] = model.rvs_to_transforms[rv].forward(number, *rv.owner.inputs).eval(mode="FAST_COMPILE")
        found.append(float(density(values)))
    counts = 40 * np.exp(points[:, 0])
    expected = [ratio.log_ratio(data, p).sum() for p in points] - 0.5 * points[:, 0] ** 2 + 50 * np.log(counts) - counts
    assert np.diff(found) == pytest.approx(np.diff(expected), abs=1e-3)
    with pytest.raises(InputError, match="one number for one parameter point"):
        ratio.model(data, lambda t: t)


@pytest.mark.slow  # compiles a sampler
def test_posterior_of_a_parameter():
    """NUTS; a Gaussian mean with a flat prior has mean ``mean(data)`` and width ``1 / sqrt(n)``."""
    rng = np.random.default_rng(10)
    theta = rng.uniform(-1, 1, 20_000)
    ratio = bu.LikelihoodRatio(["mu"], draws=20, random_state=1).fit(rng.normal(theta, 1), theta)
    data = rng.normal(0.2, 1, 200)
    tree = ratio.posterior(data, draws=800, chains=2)
    mu = np.asarray(tree["posterior"]["mu"])
    assert mu.mean() == pytest.approx(data.mean(), abs=0.1)
    assert mu.std() == pytest.approx(1 / np.sqrt(200), rel=0.3)
    # a Normal(0, 0.05) prior: precisions 400 and 200 add
    tight = ratio.posterior(data, lambda t: -0.5 * (t[0] / 0.05) ** 2, draws=800, chains=2)
    mu = np.asarray(tight["posterior"]["mu"])
    assert mu.mean() == pytest.approx(data.mean() * 200 / 600, abs=0.05)
    assert mu.std() == pytest.approx(1 / np.sqrt(600), rel=0.3)


def test_blending_two_models():
    rng = np.random.default_rng(11)
    a, b = rng.normal(0, 1, 4000), rng.normal(0.5, 1, 4000)
    trust = lambda x: np.column_stack([x[:, 0] < 0, x[:, 0] >= 0]).astype(float)  # noqa: E731
    found = bu.blend([a, b], trust)
    assert found.total == (a < 0).sum() + (b >= 0).sum()
    assert found.total_std == pytest.approx(np.sqrt(found.total))
    with pytest.raises(InputError, match="not all zero"):
        bu.blend([a, b], lambda x: np.zeros((len(x), 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bu.Reweighter().fit([1.0, 2.0], [5.0, 6.0]), "do not overlap"),
        (lambda: bu.Reweighter().fit([1.0, 2.0], [[1.0, 2.0]]), "1 features and target 2"),
        (lambda: bu.Reweighter().fit([], [1.0]), "empty"),
        (lambda: bu.Reweighter().fit([1.0, 2.0], [1.0, 2.0], [-1.0, 0.5]), "sums to -0.5"),
        (lambda: bu.Reweighter("magic"), "'classifier', 'binned' or 'analytic'"),
        (lambda: bu.Reweighter("analytic"), "which needs them"),
        (lambda: bu.Reweighter(calibration="platt"), "calibration is 'platt'"),
        (lambda: bu.Reweighter(temper=2.0), r"lie in \(0, 1\]"),
        (lambda: bu.Reweighter().weights([1.0]), "not fitted"),
        (
            lambda: bu.Reweighter("analytic", densities=(lambda x: x, lambda x: x)).fit([-1.0, 2.0], [1.0, 2.0]),
            "negative or NaN in 1 events",
        ),
        (lambda: Calibrator().fit(np.zeros(20), np.repeat([0, 1], 10)), "10 effective calibration events"),
        (lambda: bu.LikelihoodRatio([]), "list of different names"),
        (lambda: bu.LikelihoodRatio(["a"]).fit([1.0, 2.0], [1.0, 1.0]), "never vary"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError if "fitted" not in message else Exception, match=message):
        call()


def test_small_overlap_warns():
    rng = np.random.default_rng(12)
    with pytest.warns(WeightWarning, match="overlap little"), pytest.warns(OverlapWarning, match="no weights can"):
        bu.Reweighter("analytic", densities=(stats.norm(0, 1), stats.norm(4, 1)), draws=2).fit(
            rng.normal(0, 1, 3000), rng.normal(4, 1, 3000)
        )


def test_any_classifier_is_taken_by_what_it_is_not_by_its_length(samples):
    """An ensemble that is not fitted has no length yet."""
    from sklearn.ensemble import RandomForestClassifier

    forest = RandomForestClassifier(20, min_samples_leaf=50, random_state=1)
    reweighter = bu.Reweighter(classifier=forest, bootstraps=2, draws=4).fit(samples[0][:2000], samples[1][:2000])
    assert np.all(np.isfinite(reweighter.weights(samples[0][:2000])))
    assert bu.closure(reweighter, samples[0][2000:4000], samples[1][2000:4000], classifier=forest).auc < 0.6


def test_values_that_repeat_are_in_every_fold():
    """An integer feature: weights are ratios of counts, and closure sees their absence."""
    rng = np.random.default_rng(30)
    source, target = (rng.choice(3, 4000, p=p).astype(float) for p in ([0.4, 0.3, 0.3], [0.24, 0.27, 0.49]))
    reweighter = bu.Reweighter(draws=10, random_state=1).fit(source, target)
    found = reweighter.weights(np.arange(3.0))
    expected = np.bincount(target.astype(int)) / np.bincount(source.astype(int))
    assert found == pytest.approx(expected, rel=0.15)
    ones = lambda x: np.ones(len(x))  # noqa: E731
    flat = bu.Reweighter("analytic", densities=(ones, ones), draws=2)
    assert bu.closure(flat.fit(source, target), source, target).p_value < 1e-6


def test_infinite_ratios_and_other_classifiers_are_refused(samples):
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    a, b = samples[0][:500], samples[1][:500]
    for calibration in (None, "beta"):
        with pytest.raises(InputError, match="infinite or NaN in"):
            bu.Reweighter(classifier=DecisionTreeClassifier(), calibration=calibration, bootstraps=2).fit(a, b)
    with pytest.raises(InputTypeError, match="no predict_proba"):
        bu.Reweighter(classifier=LinearSVC(), bootstraps=2).fit(a, b)
    with pytest.raises(InputTypeError, match="no sample_weight"):
        bu.Reweighter(classifier=KNeighborsClassifier(), bootstraps=2).fit(a, b)
    zero = (lambda x: np.ones(len(x)), lambda x: np.zeros(len(x)))
    with pytest.raises(InputError, match="infinite or NaN in 500 of 500"):
        bu.Reweighter("analytic", densities=zero, draws=2).fit(a, b)
    half = bu.Reweighter("analytic", densities=(lambda x: np.ones(len(x)), lambda x: 1.0 * (x > 0)), draws=2).fit(a, b)
    assert half.weights([-1.0])[0] == 0


def test_smooth_truncation(samples):
    a, b = samples[0][:3000], samples[1][:3000]
    free = bu.Reweighter("binned", draws=2).fit(a, b)
    cut = bu.Reweighter("binned", draws=2, truncate=1.5).fit(a, b)
    w, t = free.weights(a), cut.weights(a)
    bounded = w / (1 + w / 1.5)
    assert t == pytest.approx(bounded / bounded.mean())
    assert cut.report_["effective size after clip, temper and truncate"] > cut.report_["effective size"]


def test_a_gap_of_the_source_under_the_target_warns():
    rng = np.random.default_rng(31)
    source = np.r_[rng.normal(0, 0.5, 1000), rng.normal(10, 0.5, 1000)]
    target = np.r_[rng.normal(0, 0.5, 1500), rng.normal(5, 0.5, 500)]
    with pytest.warns(
        OverlapWarning, match=r"2[3-6]\.\d % of the target lie where the source has no events in feature 0"
    ):
        bu.Reweighter("binned", draws=2).fit(source, target)


def test_a_likelihood_ratio_of_weights_that_depend_on_the_parameter():
    """Cross sections per parameter point are no part of a ratio of normalised densities.

    The exact value is -3.7 for these data; weights of exp(mu) that did not cancel would add one per event.
    """
    rng = np.random.default_rng(1)
    theta = rng.uniform(-1, 1, 6000)
    x = rng.normal(theta, 1)
    data = rng.normal(0.0, 1, 200)
    exact = stats.norm(0.5, 1).logpdf(data).sum() - stats.norm(-0.5, 1).logpdf(data).sum()
    ratio = likelihood_ratio("mu").fit(x, theta, np.exp(theta))
    assert abs(ratio.log_lambda(data, [0.5], [-0.5]) - exact) < 30


def test_a_likelihood_ratio_learns_from_few_events():
    """Joint and shuffled events have the same marginals, so that nothing is a minimum, in which this seed began.

    The exact value is ``n mean``; 20 draws know the width to 16 %, so that 5 of it are exceeded once in 1e4.
    """
    rng = np.random.default_rng(1)
    theta = rng.uniform(-1, 1, 500)
    ratio = bu.LikelihoodRatio(["mu"], draws=20, random_state=1).fit(rng.normal(theta, 1), theta)
    data = rng.normal(0.4, 1, 200)
    found, draws = ratio.log_lambda(data, 0.5, -0.5), ratio.log_lambda_draws(data, 0.5, -0.5)
    assert abs(found - 200 * data.mean()) < 5 * draws.std() < 200


def test_a_given_classifier_stays_as_it_is():
    rng = np.random.default_rng(2)
    theta = rng.uniform(-1, 1, 500)
    classifier = bu.BayesianClassifier(bu.Network(hidden=(4,)), "laplace", draws=5)
    ratio = bu.LikelihoodRatio(["mu"], classifier=classifier).fit(rng.normal(theta, 1), theta)
    assert ratio.classifier_ is not classifier
    assert not hasattr(classifier, "theta_")


@pytest.mark.parametrize("classifier", [None, LogisticRegression()])
def test_bands_do_not_shrink_with_the_number_of_folds(classifier):
    """Trainings of several folds share events, and so fluctuations; independent draws would give 0.58 and 0.47.

    200 draws: a ratio of two standard deviations is known to 7 %.
    """
    rng = np.random.default_rng(3)
    source, target, new = rng.normal(0, 1, 1500), rng.normal(0.3, 1, 1500), rng.normal(0, 1, 2000)
    folds = 4 if classifier is None else 5
    network = bu.BayesianClassifier(bu.Network(hidden=(6,)), "laplace", draws=200, random_state=1)
    widths = []
    for k in (1, folds):
        given = network if classifier is None else classifier
        fitted = bu.Reweighter(classifier=given, folds=k, draws=200, bootstraps=200, random_state=1).fit(source, target)
        w = fitted.weight_draws(new)
        widths.append((w @ new / w.sum(axis=1)).std())
    assert 0.7 < widths[1] / widths[0] < 1.4


def test_histogram_calibration_holds_on_values_that_repeat():
    """Three values with known shares: the log ratios are those of the counts."""
    z = np.repeat([-1.0, 0.0, 1.0], 2000)
    shares = [0.27, 0.5, 0.74]
    y = np.concatenate([np.arange(2000) < 2000 * share for share in shares]).astype(int)
    balance = np.log(np.sum(y == 0) / np.sum(y == 1))
    expected = [np.log(s / (1 - s)) + balance for s in shares]
    for method in ("histogram", "isotonic"):
        found = Calibrator(method).fit(z, y)
        assert found([-1.0, 0.0, 1.0]) == pytest.approx(expected, abs=1e-9)


def test_histogram_calibration_of_nothing_is_nothing():
    """The mean of a fit that keeps the events' total is zero within noise; a running maximum gives 0.3."""
    rng = np.random.default_rng(4)
    z = rng.normal(size=4000)
    y = rng.integers(0, 2, 4000)
    assert abs(Calibrator("histogram").fit(z, y)(z).mean()) < 0.15


def test_reliability_has_no_bins_without_events():
    z = np.repeat([-1.0, 0.0, 1.0], 1000)
    y = np.random.default_rng(5).integers(0, 2, 3000)
    found = reliability(z, y)
    assert found.predicted.shape == (3,)
    assert np.isfinite(found.error)
    assert np.isfinite(found.observed).all()


def test_columns_in_another_order_are_noticed():
    pd = pytest.importorskip("pandas")
    rng = np.random.default_rng(6)
    one = pd.DataFrame(rng.normal(size=(300, 2)), columns=["pt", "eta"])
    two = pd.DataFrame(rng.normal(0.1, 1, size=(300, 2)), columns=["pt", "eta"])
    other = ["eta", "pt"]
    fitted = bu.Reweighter("binned", bins=4, draws=10).fit(one, two)
    with pytest.raises(InputError, match=r"x has columns .* the training samples have"):
        bu.closure(fitted, one[other], two[other])
    with pytest.raises(InputError, match="same ones in the same order"):
        bu.blend([one, two[other]], lambda x: np.ones((len(x), 2)))
    theta = rng.uniform(-1, 1, 300)
    network = bu.BayesianClassifier(bu.Network(hidden=(3,)), "laplace", draws=5)
    ratio = bu.LikelihoodRatio(["mu"], classifier=network).fit(one, theta)
    with pytest.raises(InputError, match=r"data has columns .* the training samples have"):
        ratio.log_ratio(two[other], [0.0])
