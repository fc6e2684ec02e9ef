"""The conditional mixture and the map of features to normal scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bayesunfold.generative.columns import Column, encode
from bayesunfold.generative.density import matched_features
from bayesunfold.generative.mixture import Mixture, loss_and_gradient
from bayesunfold.generative.resample import choose, proposal_size


def random_mixture(n_inputs=3, n_classes=3, n_gaussians=4, seed=1):
    rng = np.random.default_rng(seed)
    mixture = Mixture.start(n_inputs, 6, n_classes, n_gaussians, rng)
    noisy = [p.astype(float) + 0.3 * rng.standard_normal(p.shape) for p in mixture.parameters]
    return replace(mixture, parameters=noisy)


@pytest.mark.parametrize(("n_classes", "n_gaussians"), [(1, 4), (3, 4), (3, 0), (1, 1)])
def test_gradient_is_the_derivative_of_the_loss(n_classes, n_gaussians):
    """Central differences, relative error 1e-6."""
    rng = np.random.default_rng(2)
    mixture = random_mixture(n_classes=n_classes, n_gaussians=n_gaussians)
    u, score, weight = rng.standard_normal((20, 3)), rng.standard_normal(20), rng.random(20)
    classes = rng.integers(0, n_classes, 20)
    _, gradient = loss_and_gradient(mixture, u, classes, score, weight)
    for k, p in enumerate(mixture.parameters):
        for place in [tuple(rng.integers(0, p.shape)) for _ in range(6)]:
            step = np.zeros_like(p)
            step[place] = 1e-6
            sides = []
            for sign in (1, -1):
                moved = [q + sign * step if i == k else q for i, q in enumerate(mixture.parameters)]
                sides.append(loss_and_gradient(replace(mixture, parameters=moved), u, classes, score, weight)[0])
            assert gradient[k][place] == pytest.approx((sides[0] - sides[1]) / 2e-6, rel=1e-5, abs=1e-7)


def test_density_has_integral_one_and_its_distribution_is_its_integral():
    said = random_mixture().outputs(np.zeros((1, 3)))
    grid = np.linspace(-30, 30, 60_001)
    at = replace(
        said, **{name: np.repeat(getattr(said, name), len(grid), axis=1) for name in said.__dataclass_fields__}
    )
    density = np.exp(at.log_density(grid))
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=1e-6)
    cumulative = np.cumsum(density) * (grid[1] - grid[0])
    np.testing.assert_allclose(at.distribution(grid)[::1000], cumulative[::1000], atol=2e-3)
    assert np.exp(said.log_class).sum() == pytest.approx(1)


def test_negative_weights_cannot_push_a_density_to_nothing():
    """The gradient of an event of weight -1 fades where the density is below its floor."""
    mixture = random_mixture(n_classes=1)
    u, classes = np.zeros((1, 3)), np.zeros(1, int)
    near = loss_and_gradient(mixture, u, classes, np.array([0.0]), np.array([-1.0]))[1]
    far = loss_and_gradient(mixture, u, classes, np.array([60.0]), np.array([-1.0]))[1]
    assert max(np.abs(g).max() for g in far) < 1e-3 * max(np.abs(g).max() for g in near)


def test_samples_follow_the_mixture():
    """Kolmogorov-Smirnov at 1e-6, 20 000 draws."""
    mixture = random_mixture(n_classes=1)
    u = np.zeros((20_000, 3))
    _, score = mixture.sample(mixture.outputs(u), np.random.default_rng(3))
    one = mixture.outputs(u[:1])

    def distribution(x):
        many = {name: np.repeat(getattr(one, name), len(x), axis=1) for name in one.__dataclass_fields__}
        return replace(one, **many).distribution(np.asarray(x))

    assert stats.kstest(score, distribution).pvalue > 1e-6


# columns


def test_a_normal_feature_is_its_own_score():
    """To 0.05 in the bulk: the error of a quantile of 100 000 events is 0.01 and less."""
    x = np.random.default_rng(4).normal(3, 2, 100_000)
    column = Column.fit("x", x, np.ones(len(x)))
    bulk = np.abs(x - 3) < 5
    np.testing.assert_allclose(column.score(x)[bulk], (x[bulk] - 3) / 2, atol=0.05)
    assert column.n_classes == column.n_inputs == 1


def test_values_come_back_from_scores():
    x = np.random.default_rng(5).exponential(2.0, 5000)
    column = Column.fit("x", x, np.ones(len(x)))
    np.testing.assert_allclose(column.value(column.classes(x), column.score(x)), x, rtol=1e-9, atol=1e-12)
    inside = x[(x > np.quantile(x, 0.02)) & (x < np.quantile(x, 0.98))][:200]
    numeric = (column.score(inside + 1e-7) - column.score(inside - 1e-7)) / 2e-7
    assert np.mean(np.isclose(numeric, column.slope(inside), rtol=1e-3)) > 0.95  # all but those at a knot


def test_weights_count_in_the_scores():
    """Half of the events without weight: scores are those of the others."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=20_000)
    weight = np.where(x > 0, 1.0, 1e-9)
    column = Column.fit("x", x, weight)
    assert column.score(np.array([np.quantile(x[x > 0], 0.5)]))[0] == pytest.approx(0, abs=0.05)


def test_integers_stay_integers_and_have_their_share():
    """Scores of Poisson(30) spread between the edges are N(0, 1): Kolmogorov-Smirnov at 1e-6."""
    rng = np.random.default_rng(7)
    x = rng.poisson(30, 50_000).astype(float)
    column = Column.fit("n", x, np.ones(len(x)))
    assert column.whole
    spread = column.spread_score(x, rng)
    np.testing.assert_array_equal(column.value(column.classes(x), spread), x)
    np.testing.assert_array_equal(column.value(column.classes(x), column.score(x)), x)
    assert stats.kstest(spread, "norm").pvalue > 1e-6


@pytest.mark.parametrize("draw", ["fives", "placeholder"])
def test_integers_with_gaps_give_no_others(draw):
    rng = np.random.default_rng(11)
    x = 5.0 * rng.integers(0, 40, 20_000)
    if draw == "placeholder":
        x = rng.poisson(30, 20_000).astype(float)
        x[:300] = -99.0
    column = Column.fit("n", x, np.ones(len(x)))
    assert column.whole
    drawn = column.value(np.zeros(5000, int), rng.standard_normal(5000))
    assert set(drawn) <= set(x)
    assert column.level(np.array([x[-1], 0.5])).tolist()[1] == -1


def test_a_rare_kind_among_few_is_a_class():
    x = np.random.default_rng(12).choice([-211.0, 13.0, 11.0, 211.0], 5000)
    x[0] = -2212.0
    column = Column.fit("id", x, np.ones(5000))
    assert column.atoms.tolist() == [-2212.0, -211.0, 11.0, 13.0, 211.0]


def test_a_single_other_value_is_an_atom():
    x = np.random.default_rng(13).choice([0.5, 1.5, 2.5], 3000)
    x = np.where(np.arange(3000) < 2950, x, np.random.default_rng(14).choice(np.arange(30) + 100.25, 3000))
    x[0] = 7.25
    column = Column.fit("x", x, np.ones(3000))
    assert column.low == 0.5
    two = Column.fit("x", np.r_[np.full(30, 1.5), np.full(30, 2.5), 7.25], np.ones(61))
    assert two.atoms.tolist() == [1.5, 2.5, 7.25]
    assert not two.continuous


def test_a_feature_that_never_exists():
    column = Column.fit("x", np.full(30, np.nan), np.ones(30))
    assert np.isnan(column.value(np.zeros(3, int), np.zeros(3))).all()
    assert column.outside(np.array([1.0, np.nan])).tolist() == [True, False]


def test_few_values_are_classes_of_their_own():
    x = np.random.default_rng(8).choice([0.0, 0.5, 2.0], 1000)
    column = Column.fit("x", x, np.ones(1000))
    assert not column.continuous
    assert column.atoms.tolist() == [0.0, 0.5, 2.0]
    np.testing.assert_array_equal(column.value(column.classes(x), np.zeros(1000)), x)


def test_shared_values_and_nan_are_atoms_beside_a_continuous_rest():
    rng = np.random.default_rng(9)
    x = rng.normal(size=2000)
    x[:200], x[200:260] = -14.0, np.nan
    column = Column.fit("x", x, np.ones(2000))
    assert column.atoms[0] == -14.0
    assert np.isnan(column.atoms[1])
    assert column.n_classes == column.n_inputs == 3
    classes = column.classes(x)
    assert np.bincount(classes).tolist() == [200, 60, 1740]
    back = column.value(classes, column.score(x))
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-12)
    read = encode([column], x[:, None])
    assert read[:200, 1].tolist() == [1.0] * 200
    assert np.isfinite(read).all()


def test_what_the_simulation_lacks_is_outside():
    column = Column.fit("x", np.arange(100.0) + 0.25, np.ones(100))
    assert column.outside(np.array([-1.0, 50.0, 100.0, np.nan])).tolist() == [True, False, True, True]


def test_constant_feature():
    column = Column.fit("x", np.full(50, 3.0), np.ones(50))
    assert column.value(np.zeros(4, int), np.zeros(4)).tolist() == [3.0] * 4


def test_partners_are_named_alike_or_numbered_alike():
    assert matched_features(["pt", "m"], ["m", "pt"]) == (1, 0)
    assert matched_features(["pt", "y"], ["pt"]) == (0, None)
    assert matched_features(["gen_0", "gen_1"], ["reco_0", "reco_1"]) == (0, 1)
    assert matched_features(["gen"], ["a", "b"]) == (None,)


# choice of proposals


def test_chosen_proposals_have_the_shares_of_their_weights():
    """Stratified: of 100 draws each proposal has its share to within one; 200 events of random weights."""
    rng = np.random.default_rng(10)
    factor = rng.exponential(size=(200, 7, 1))
    chosen = choose(factor, 100, rng)
    counts = np.apply_along_axis(np.bincount, 1, chosen, minlength=7)
    expected = 100 * factor[:, :, 0] / factor[:, :, 0].sum(axis=1, keepdims=True)
    assert np.abs(counts - expected).max() < 2  # both ends of a share may round


def test_each_draw_has_the_weights_of_its_member():
    factor = np.zeros((5, 4, 2))
    factor[:, 1, 0] = factor[:, 3, 1] = 1.0
    chosen = choose(factor, 6, np.random.default_rng(1))
    assert chosen.tolist() == [[1, 3] * 3] * 5


def test_effective_number_of_proposals():
    factor = np.array([[[1.0], [1.0], [0.0], [0.0]]])
    assert proposal_size(factor).tolist() == [2.0]
