"""What a measurement adds: acceptance, fakes, backgrounds, systematics, yields, undefined features."""

import warnings

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold.errors import BiasWarning, InputError, OverlapWarning

EDGES = np.linspace(-2.4, 2.4, 9)
# three iterations: these tests compare unfoldings with each other, not with the truth
pytestmark = pytest.mark.filterwarnings("ignore:the last of 3 iterations:bayesunfold.errors.ConvergenceWarning")


def unfold(simulation, data, backgrounds=(), systematics=(), **settings):
    options = {"iterations": 3, "network": bu.Network(hidden=(8,)), "inference": "laplace", "draws": 200}
    options |= {"random_seed": 1, "progressbar": False}
    return bu.OmniFold(**(options | settings)).fit(simulation, data, backgrounds, systematics)


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(4)
    gen = rng.normal(0, 1, 4000)
    reco = gen + rng.normal(0, 0.5, 4000)
    data = rng.normal(0.3, 0.9, 3000) + rng.normal(0, 0.5, 3000)
    return gen, reco, data


@pytest.fixture(scope="module")
def nominal(events):
    gen, reco, data = events
    return unfold(bu.Simulation(gen, reco), data).spectrum("gen", EDGES).nominal


def acceptance_toy(seed, n, mean, width):
    """The acceptance toy: smear 0.2, shift -2.5, efficiency clip(0.3 + 0.7 (x + 10)/20, 0, 1), 10 % fakes."""
    rng = np.random.default_rng(seed)
    gen = rng.normal(mean, width, n)
    fake = rng.random(n) < 0.1
    reco = np.where(fake, rng.normal(-1.5, 3.0, n), gen + rng.normal(-2.5, 0.2, n))
    pass_reco = fake | (rng.random(n) < np.clip(0.3 + 0.7 * (gen + 10) / 20, 0, 1))
    return gen, reco, ~fake, pass_reco


@pytest.mark.parametrize("efficiency", ["learned", "prior"])
def test_acceptance_gives_back_the_full_yield(efficiency):
    """Data yield minus fakes over efficiency: total within four of its standard deviations of the expected truth."""
    sim = acceptance_toy(1, 10_000, 0.3, 2.5)
    _, reco, _, passed = acceptance_toy(2, 5000, 1.0, 2.5)
    simulation = bu.Simulation(sim[0], sim[1], pass_gen=sim[2], pass_reco=sim[3])
    result = unfold(simulation, reco[passed], efficiency=efficiency, iterations=4 if efficiency == "learned" else 8)
    edges = np.linspace(-6, 8, 8)
    s = result.spectrum("gen", edges)
    expected = 4500 * np.diff(stats.norm(1.0, 2.5).cdf(edges))
    total = s.draw_matrix.sum(axis=1) + s.outside
    assert abs(result.nominal.sum() - 4500) < 4 * total.std()
    pulls = (s.nominal - expected) / s.std()
    # "prior" converges from the generator's weights of misses, so it keeps a bias here; the largest of seven pulls is
    # 2.6 +- 0.65 and 5.6 +- 0.7 over toys
    assert np.abs(pulls).max() < (6 if efficiency == "learned" else 10)


def test_background_is_subtracted_and_its_normalisation_propagated(events, nominal):
    gen, reco, data = events
    rng = np.random.default_rng(6)
    simulation = bu.Simulation(gen, reco)
    data = np.concatenate([data, rng.normal(1.5, 0.7, 600)])
    features = rng.normal(1.5, 0.7, 4000)

    def background(scale, uncertainty=0.0):
        return bu.Background(features, np.full(4000, scale * 600 / 4000), "top", uncertainty)

    result = unfold(simulation, data, [background(1.0, 0.2)])
    s = result.spectrum("gen", EDGES)
    assert result.nominal.sum() == pytest.approx(3000)
    # the same events without background and its subtraction
    assert np.abs((s.nominal - nominal) / s.std()).max() < 1.5
    split = s.by_source()
    assert set(split) == {"data", "simulation", "prior", "top", "total"}
    up, down = (unfold(simulation, data, [background(f)]).spectrum("gen", EDGES).nominal for f in (1.2, 0.8))
    assert np.allclose(split["top"], np.abs(up - down) / 2, rtol=0.25, atol=0.25 * split["total"].max())


def test_a_cross_section_changes_nothing_beside_a_background(events):
    """What data hold beyond the background is the signal's yield, whatever the simulation's own total is."""
    gen, reco, data = events
    rng = np.random.default_rng(6)
    data = np.concatenate([data, rng.normal(1.5, 0.7, 2000)])
    background = bu.Background(rng.normal(1.5, 0.7, 4000), np.full(4000, 0.5), "top")
    systematic = bu.Systematic("cross section", weight_up=1.2 * (1 + 1e-6 * np.tanh(gen)))
    s = unfold(bu.Simulation(gen, reco), data, [background], [systematic]).spectrum("gen", EDGES)
    split = s.by_source()
    assert np.all(split["cross section"] < 0.1 * split["data"])  # step 2 has a prior, and a fifth more events moves it


def test_weight_systematic_agrees_with_rerunning(events, nominal):
    gen, reco, data = events
    up, down = 1 + 0.45 * np.tanh(1.3 * gen - reco), 1 - 0.3 * np.tanh(1.3 * gen - reco)
    systematic = bu.Systematic("shower", weight_up=up, weight_down=down)
    s = unfold(bu.Simulation(gen, reco), data, systematics=[systematic]).spectrum("gen", EDGES)
    high, low = (unfold(bu.Simulation(gen, reco, weight=w), data).spectrum("gen", EDGES).nominal for w in (up, down))
    rerun = np.sqrt(((high - nominal) ** 2 + (low - nominal) ** 2) / 2)
    # where the effect is zero, two reruns scatter by 0.06 of a band: five times that
    assert np.all(np.abs(s.by_source()["shower"] - rerun) < 0.3 * rerun + np.maximum(0.25 * rerun.max(), 0.3 * s.std()))
    assert np.all(s.by_source()["shower"] > 0)


def test_shifted_features_agree_with_rerunning(events, nominal):
    gen, reco, data = events
    systematic = bu.Systematic("jes", reco_up=1.06 * reco + 0.15, reco_down=0.94 * reco - 0.15)
    s = unfold(bu.Simulation(gen, reco), data, systematics=[systematic]).spectrum("gen", EDGES)
    high, low = (
        unfold(bu.Simulation(gen, f * reco + shift), data).spectrum("gen", EDGES).nominal
        for f, shift in ((1.06, 0.15), (0.94, -0.15))
    )
    rerun = np.sqrt(((high - nominal) ** 2 + (low - nominal) ** 2) / 2)
    assert np.all(np.abs(s.by_source()["jes"] - rerun) < 0.3 * rerun + np.maximum(0.25 * rerun.max(), 0.3 * s.std()))


def test_alternative_simulation_is_a_weight_systematic(events, nominal):
    gen, reco, data = events
    rng = np.random.default_rng(7)
    other = rng.normal(0, 1, 6000)
    alternative = bu.Simulation(other, other + rng.normal(0.1, 0.5, 6000))
    s = unfold(bu.Simulation(gen, reco), data, systematics=[bu.Systematic("model", alternative=alternative)]).spectrum(
        "gen", EDGES
    )
    rerun = unfold(alternative, data).spectrum("gen", EDGES).nominal - nominal
    band = np.hypot(s.by_source()["simulation"], 1.0)
    # two independent simulations differ by their statistics as well
    assert np.all(np.abs(np.abs(rerun) - s.by_source()["model"]) < 6 * band)
    assert s.by_source()["model"].max() > 0.3 * np.abs(rerun).max()


def test_luminosity_and_densities(events):
    gen, reco, data = events
    result = unfold(bu.Simulation(gen, reco), data)
    plain = result.spectrum("gen", EDGES)
    cross = result.spectrum("gen", EDGES, luminosity=(20.0, 0.02))
    assert np.allclose(cross.nominal, plain.nominal / 20)
    assert cross.by_source()["luminosity"] == pytest.approx(0.02 * cross.nominal, rel=0.2)
    # log-normal with the width log(1.4): in closed form, and 400 draws know it to a tenth
    wide = result.spectrum("gen", EDGES, luminosity=(20.0, 0.4))
    s = np.log(1.4)
    expected = np.sqrt(np.expm1(s**2)) * np.exp(s**2 / 2) * wide.nominal
    assert wide.by_source()["luminosity"] == pytest.approx(expected, rel=0.25)
    assert np.all(wide.sources["luminosity"]() > 0)
    # draw by draw, before these are centred: the plain spectrum over a luminosity of each member's own
    drawn = [result.spectrum("gen", EDGES, luminosity=each, centre="draws") for each in (None, (20.0, 0.02))]
    factor = drawn[1].draw_matrix / drawn[0].draw_matrix * 20
    np.testing.assert_allclose(factor, np.broadcast_to(factor[:, :1], factor.shape), rtol=1e-9)
    np.testing.assert_allclose(cross.sources["luminosity"](), factor * cross.nominal, rtol=1e-9)
    density = result.spectrum("gen", EDGES, normalization="density", luminosity=20.0)
    assert np.allclose(density.nominal * np.diff(EDGES), cross.nominal)
    total = plain.draw_matrix.sum(axis=1) + plain.outside
    # members carry the Poisson fluctuation of the total: sqrt(3000), its error 1/sqrt(400)
    assert total.std() == pytest.approx(np.sqrt(3000), rel=0.25)
    with pytest.raises(InputError, match="luminosity is 0"):
        result.spectrum("gen", EDGES, luminosity=0)
    with pytest.raises(InputError, match="shape has no luminosity"):
        result.spectrum("gen", EDGES, normalization="shape", luminosity=1.0)


def test_undefined_features_are_counted_apart_and_learned(tmp_path):
    """A second feature exists in 60 % of simulated and 40 % of measured events, seen without migration."""
    rng = np.random.default_rng(8)

    def sample(n, share):
        x = rng.normal(0, 1, n)
        second = np.where(rng.random(n) < share, rng.normal(1, 1, n), np.nan)
        return np.column_stack([x, second])

    gen = sample(4000, 0.6)
    reco = gen + rng.normal(0, 0.2, gen.shape)
    truth = sample(3000, 0.4)
    data = bu.Data(truth + rng.normal(0, 0.2, truth.shape), undefined="indicator")
    result = unfold(bu.Simulation(gen, reco, undefined="indicator"), data)
    s = result.spectrum("gen_1", np.linspace(-2, 4, 7))
    assert s.undefined.mean() == pytest.approx(np.isnan(truth[:, 1]).sum(), rel=0.05)
    everything = s.draw_matrix.sum(axis=1) + s.outside + s.undefined
    assert everything == pytest.approx(result.weights.sum("event").values, rel=0.05)
    pulls = (s.nominal - np.histogram(truth[:, 1], s.edges[0])[0]) / s.std()
    assert np.abs(pulls).max() < 4
    loaded = bu.load(result.save(tmp_path / "undefined.nc"))
    assert np.allclose(loaded.spectrum("gen_1", np.linspace(-2, 4, 7)).draw_matrix, s.draw_matrix, rtol=1e-4)
    with pytest.raises(InputError, match="do not overlap"):
        unfold(bu.Simulation(gen[:, 0], reco[:, 0]), bu.Data(np.array([0.0, np.nan, 1.0]), undefined="indicator"))


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BiasWarning")  # this is about files
def test_everything_survives_saving(events, tmp_path):
    gen, reco, data = events
    rng = np.random.default_rng(9)
    flags = {"pass_gen": rng.random(4000) < 0.9}
    systematics = [
        bu.Systematic("shower", weight_up=1 + 0.1 * np.tanh(gen)),
        bu.Systematic("jes", reco_up=reco + 0.05),
    ]
    backgrounds = [bu.Background(rng.normal(0, 1, 500), np.full(500, 0.5), "a b", 0.1)]
    quick = {"iterations": 1, "network": bu.Network(hidden=(4,)), "inference": "advi", "draws": 100}
    result = unfold(bu.Simulation(gen, reco, **flags), data, backgrounds, systematics, **quick)
    result = result.estimate_bias()
    loaded = bu.load(result.save(tmp_path / "full.nc"))
    one, two = (r.spectrum("gen", EDGES) for r in (result, loaded))
    assert np.allclose(one.draw_matrix, two.draw_matrix, rtol=1e-4)
    assert np.allclose(one.bias, two.bias)
    for name, std in one.by_source().items():
        assert np.allclose(std, two.by_source()[name], rtol=1e-3)
    assert list(one.by_source()) == ["data", "simulation", "prior", "a b", "shower", "jes", "total"]


def test_one_sigma_weights_are_on_the_line_through_every_member(events):
    gen, reco, data = events
    down = 1 - 0.2 * np.tanh(gen)
    systematics = [
        bu.Systematic("shower", weight_up=1 + 0.1 * np.tanh(gen), weight_down=down),
        bu.Systematic("jes", reco_up=1.03 * reco, reco_down=reco - 0.05),
    ]
    members = unfold(bu.Simulation(gen, reco), data, systematics=systematics, draws=30).members
    assert members.systematics == ("shower", "jes")
    nominal = members.nominal()
    for name, source in members.perturbations.effects.items():
        drawn = np.concatenate([w for _, w in members.blocks(name)])
        pair = np.concatenate([w for _, w in members.one_sigma(name).blocks(name)])
        assert pair.shape == (4000, 2)
        assert np.allclose(pair.sum(axis=0), nominal.sum(), rtol=1e-5)
        for side, sign in ((0, 1.0), (1, -1.0)):
            change = {"shower": (0.1, -0.2)[side] * np.tanh(gen), "jes": np.zeros(4000)}[name]
            one = np.log(pair[:, side] / nominal / (1 + change))
            mean, rest = np.zeros((2, 4000))
            if name == "shower":  # the logarithm of the mean change, and what is left of each event's
                mean, rest = (source.up, source.down)[side], source.rest[side]
                np.testing.assert_allclose(np.exp(mean) * (1 + rest), 1 + change, rtol=1e-9)
            for s in np.flatnonzero(sign * source.alpha > 0)[:5]:
                size = abs(source.alpha[s])
                all_of_it = np.log(drawn[:, s] / nominal / (1 + size * rest)) - size * mean
                # the same but for the normalisation of each member
                assert np.ptp(all_of_it - size * one) < 1e-4


def test_published_families_split_the_band(events, tmp_path):
    gen, reco, data = events
    systematics = [bu.Systematic("shower", weight_up=1 + 0.1 * np.tanh(gen)), bu.Systematic("jes", reco_up=1.02 * reco)]
    result = unfold(bu.Simulation(gen, reco), data, systematics=systematics, draws=200)
    folder = bu.io.write_publication(result, tmp_path, by_source=True)
    published = bu.io.read_publication(folder)
    assert published.metadata["weights"]["source"]["data"]["kind"] == "bootstrap"
    assert published.metadata["weights"]["source"]["prior"]["kind"] == "ensemble"
    square = (np.column_stack([gen, gen**2]), (EDGES, np.array([0.0, 1.0, 8.0])))
    for options in ({}, {"normalization": "shape"}, {"normalization": "density", "luminosity": 3.0}):
        one, two = (r.spectrum("gen", EDGES, **options) for r in (result, published))
        assert np.allclose(one.draw_matrix, two.draw_matrix, rtol=1e-4)
        assert np.allclose(one.flow, two.flow, rtol=1e-4)
        mine, theirs = one.by_source(), two.by_source()
        for name in ("data", "simulation", "prior"):
            assert np.allclose(mine[name], theirs[name], rtol=1e-3)
        for name in ("shower", "jes"):
            # the members' own nuisance parameters scatter, 200 of them by 1/sqrt(400) (3.5 sigma); a pair knows no
            # curvature, which shows where the first order cancels: small against the band
            assert np.allclose(mine[name], theirs[name], rtol=0.18, atol=0.05 * mine["total"].max())
    two_axes = [r.spectrum(tuple(square[0].T), square[1]) for r in (result, published)]
    assert two_axes[1].shape == (len(EDGES) - 1, 2)
    assert np.allclose(two_axes[0].covariance(), two_axes[1].covariance(), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="its uncertainty is not in published weights"):
        published.spectrum("gen", EDGES, luminosity=(3.0, 0.02))
    with pytest.raises(InputError, match="normalization is 'area'"):
        published.spectrum("gen", EDGES, normalization="area")
    plain = bu.io.read_publication(bu.io.write_publication(result, tmp_path / "plain"))
    assert list(plain.spectrum("gen", EDGES).by_source()) == ["shower", "jes", "total"]


def test_features_of_a_publication_do_not_look_like_weights(events, tmp_path):
    gen, reco, data = events
    result = unfold(bu.Simulation({"weight_nominal": gen}, {"x": reco}), data, draws=20)
    with pytest.raises(InputError, match="rename them"):
        bu.io.write_publication(result, tmp_path)


def test_bias_is_larger_when_stopped_early_and_points_the_right_way():
    rng = np.random.default_rng(10)
    gen, truth = rng.normal(0, 1, 5000), rng.normal(0.5, 0.8, 4000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BiasWarning)  # smoothing alone can reach half a band in one bin
        sharp = unfold(bu.Simulation(gen, gen + rng.normal(0, 0.01, 5000)), truth, iterations=3).estimate_bias()
    smeared = bu.Simulation(gen, gen + rng.normal(0, 1.0, 5000))
    with pytest.warns(BiasWarning, match="of its 68 % band"):
        early = unfold(smeared, truth + rng.normal(0, 1.0, 4000), iterations=1).estimate_bias()
    relative = []
    for s in (sharp.spectrum("gen", EDGES), early.spectrum("gen", EDGES)):
        core = s.nominal > 20
        relative.append(np.sqrt(np.mean((s.bias / s.std())[core] ** 2)))
    # about 0.3, and a retrained loop adds 0.06 to 0.14
    assert relative[0] < 1.0
    assert relative[1] > 3 * relative[0]
    true = s.nominal - 4000 * np.diff(stats.norm(0.5, 0.8).cdf(EDGES))
    assert np.corrcoef(s.bias, true)[0, 1] > 0.8


def test_null_directions_get_the_width_of_the_generator_prior():
    """Two particle-level cells, +-x, that look alike at detector level: only |x| is measured."""
    rng = np.random.default_rng(12)
    gen = np.where(rng.random(4000) < 0.5, -1.0, 1.0) * rng.normal(2.0, 0.5, 4000)
    truth = np.abs(rng.normal(2.2, 0.5, 4000))
    simulation = bu.Simulation(gen, np.abs(gen) + rng.normal(0, 0.2, 4000))
    data = truth + rng.normal(0, 0.2, 4000)

    def asymmetry(size):
        r = unfold(simulation, data, generator_prior=size, draws=300)
        values = r.spectrum("gen", [-6, 0, 6]).draw_matrix
        return np.log(values[:, 1] / values[:, 0]), r

    blind, _ = asymmetry(0.0)
    free, result = asymmetry(0.2)
    # what the prior says of the log ratio of the two cells, before any data
    step2 = result.members.step2.classifier
    x = result.members.events.gen
    start = step2.tangent(x) @ np.random.default_rng(1).standard_normal((step2.basis.shape[1], 500))
    start *= 0.2 / np.sqrt(np.mean((start - start.mean(axis=0)) ** 2))
    weight = np.exp(start)
    prior = np.log(weight[gen > 0].sum(axis=0) / weight[gen < 0].sum(axis=0))
    assert blind.std() < 0.06  # simulation statistics alone: 1 / sqrt(1000)
    assert free.std() == pytest.approx(np.hypot(prior.std(), blind.std()), rel=0.4)
    assert "generator" in result.spectrum("gen", [-6, 0, 6]).by_source()


def test_prior_dependence_vanishes_for_the_same_generator_and_not_for_another(events):
    gen, reco, data = events
    result = unfold(bu.Simulation(gen, reco), data, iterations=1)
    # the same generator: fits that stop elsewhere differ by 0.02 to 0.05 of a band
    assert np.abs(result.prior_dependence(np.ones(4000))["gen"]).max() < 0.3
    # one iteration leaves a fifth of a tilt of 0.3: 0.06 in the mean, two bands in the outer bins
    assert np.abs(result.prior_dependence(lambda g: np.exp(0.3 * g[:, 0]))["gen"]).max() > 0.5
    with pytest.raises(InputError, match="finite and not negative"):
        result.prior_dependence(-np.ones(4000))


@pytest.fixture(scope="module")
def with_fakes():
    """A fifth of the events are fakes, elsewhere than the signal."""
    rng = np.random.default_rng(5)
    gen, fake = rng.normal(0, 1, 2000), rng.random(2000) < 0.2
    reco = np.where(fake, rng.normal(-1, 0.7, 2000), gen + rng.normal(0, 0.5, 2000))
    simulation = bu.Simulation(gen, reco, pass_gen=~fake)
    quick = {"iterations": 1, "draws": 50, "network": bu.Network(hidden=(4,))}
    return unfold(simulation, rng.normal(0.2, 0.9, 800) + rng.normal(0, 0.5, 800), **quick)


@pytest.mark.parametrize("given", ["function", "array"])
def test_a_constant_factor_is_no_other_generator(with_fakes, given):
    """Fakes have the mean of the factors, so a factor of five leaves their share as it is."""

    def factor(size):
        if given == "function":
            return lambda gen: size * np.exp(0.1 * gen[:, 0])
        sim = with_fakes.simulation
        return np.where(sim.pass_gen, size * np.exp(0.1 * sim.gen[:, 0]), np.nan)

    one, five = (with_fakes.prior_dependence(factor(size))["gen"] for size in (1.0, 5.0))
    np.testing.assert_allclose(five, one, atol=1e-3)


def test_factors_of_fakes_in_an_array_count(with_fakes):
    """Twice the fakes: fewer signal events, by a third of the old share of a fifth and more in all bins together."""
    shift = with_fakes.prior_dependence(np.where(with_fakes.simulation.pass_gen, 1.0, 2.0))["gen"]
    assert shift.sum() < -3


def test_profile_of_a_linear_relation(events):
    gen, reco, data = events
    profile = unfold(bu.Simulation(gen, reco), data).profile("gen", 2 * gen, EDGES)
    a, b = (EDGES[:-1] - 0.3) / 0.9, (EDGES[1:] - 0.3) / 0.9
    expected = 2 * (0.3 + 0.9 * stats.truncnorm(a, b).mean())
    # the mean inside a bin moves little: toys differ by 0.04 +- 0.012
    assert np.allclose(profile["nominal"], expected, atol=0.12)
    assert np.all(profile.std("draw") < 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bu.Systematic("x"), "needs one of"),
        (lambda: bu.Background(np.ones(10), name="data"), "another name than data"),
        (lambda: bu.Systematic("x", weight_up=[1.0], reco_up=[1.0]), "2 are given"),
        (lambda: bu.Systematic("data", weight_up=[1.0]), "already a source"),
        (lambda: bu.Systematic("a/b", weight_up=[1.0]), "without a slash"),
        (lambda: bu.Systematic("x", weight_up=[1.0], reco_down=[1.0]), "down variation of a kind"),
        (lambda: bu.Background([1.0], relative_uncertainty=-0.1), "must be zero or a positive number"),
        (lambda: bu.Background([np.nan]), "NaN or infinity"),
    ],
)
def test_bad_objects(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"systematics": [bu.Systematic("x", weight_up=np.ones(4000))]}, "identical to the nominal weights"),
        ({"systematics": [bu.Systematic("x", weight_up=np.ones(3))]}, r"must be \(4000,\)"),
        ({"systematics": [bu.Systematic("x", weight_up=-np.ones(4000))]}, "must be positive"),
        ({"systematics": [bu.Systematic("x", reco_up=np.ones(3))]}, "must be the same events"),
        ({"backgrounds": [bu.Background(np.ones(10), np.full(10, 1e6))]}, "nothing is left for the signal"),
        ({"backgrounds": [bu.Background(np.ones((10, 2)))]}, "2 features and reco has 1"),
        ({"backgrounds": [bu.Background(np.ones(10)), bu.Background(np.ones(10))]}, "its own name"),
    ],
)
def test_bad_measurements(events, arguments, message):
    gen, reco, data = events
    with pytest.raises(InputError, match=message):
        unfold(bu.Simulation(gen, reco), data, **arguments)


def test_identical_shift_is_refused(events):
    gen, reco, data = events
    with pytest.raises(InputError, match="identical to the nominal features"):
        unfold(bu.Simulation(gen, reco), data, systematics=[bu.Systematic("x", reco_up=reco)])


def test_two_point_uncertainty_of_the_efficiency(events):
    """The alternative sees 70 % of its events and the simulation 80 %: particle-level yields differ by 1/7."""
    gen, reco, data = events
    rng = np.random.default_rng(12)
    simulation = bu.Simulation(gen, reco, pass_reco=rng.random(4000) < 0.8)
    alternative = bu.Simulation(gen + 1e-9, reco, pass_reco=rng.random(4000) < 0.7)
    result = unfold(simulation, data, systematics=[bu.Systematic("model", alternative=alternative)])
    s = result.spectrum("gen", [-1.0, 0.0, 1.0])
    # the statistics of the two samples' efficiencies give 12 % of 1/7: 5 sigma
    assert s.by_source()["model"] == pytest.approx(s.nominal / 7, rel=0.6)
    everything = bu.Simulation(gen, reco)
    with pytest.raises(InputError, match="fail reco and no event of the simulation does"):
        unfold(everything, data, systematics=[bu.Systematic("model", alternative=alternative)])
    with pytest.raises(InputError, match="identical to the simulation"):
        unfold(everything, data, systematics=[bu.Systematic("model", alternative=bu.Simulation(gen, reco))])


def test_two_point_with_undefined_features(events):
    gen, reco = (values[:1000] for values in events[:2])
    rng = np.random.default_rng(13)
    second = np.where(rng.random(1000) < 0.5, np.nan, 1.0 * gen)
    simulation = bu.Simulation(np.column_stack([gen, second]), np.column_stack([reco, second]), undefined="indicator")
    less = np.where(rng.random(1000) < 0.6, np.nan, 1.0 * gen)
    alternative = bu.Simulation(np.column_stack([gen, less]), np.column_stack([reco, less]), undefined="indicator")
    observed = bu.Data(np.column_stack([reco, second])[:500], undefined="indicator")
    result = unfold(
        simulation, observed, systematics=[bu.Systematic("model", alternative=alternative)], draws=60, iterations=1
    )
    assert np.all(np.isfinite(result.spectrum("gen_0", EDGES).by_source()["model"]))


@pytest.mark.parametrize("name", ["generator", "luminosity", "total"])
def test_names_of_other_sources_are_taken(events, name):
    _, reco, _ = events
    with pytest.raises(InputError, match="another name than data, simulation"):
        bu.Background(reco[:10], name=name)
    with pytest.raises(InputError, match="already a source"):
        bu.Systematic(name, reco_up=reco)


def test_several_spectra_have_a_joint_covariance(events):
    gen, reco, data = events
    result = unfold(bu.Simulation(gen, reco), data)
    both = result.spectra({"gen": EDGES})
    assert both.covariance() == pytest.approx(both["gen"].covariance())
    assert both.chi2({"gen": both["gen"].nominal}).value == pytest.approx(0)
    with pytest.raises(InputError, match="no model of gen"):
        both.chi2({})
    folded = result.refolded("reco", EDGES)
    assert set(folded.by_source()) == {"data", "simulation", "prior", "total"}
    assert len(result.history[0]["spectra"][0]) == 10
    for bad in (15, None, []):
        with pytest.raises(InputError, match="give the edges"):
            result.spectrum("gen", bad)
    with pytest.raises(InputError, match="a pair of it"):
        result.spectrum("gen", EDGES, luminosity=(1.0, 0.1, 0.2))


def test_gaps_and_far_events_are_seen():
    rng = np.random.default_rng(14)
    x = np.r_[rng.uniform(0, 1, 500), rng.uniform(9, 10, 500)]
    quick = {"iterations": 1, "draws": 10}
    with pytest.warns(OverlapWarning, match="100.0 % of the data lie outside"):
        unfold(bu.Simulation(x, x), rng.uniform(4, 6, 300), **quick)
    far = np.r_[rng.normal(0, 1, 1000), -1e4, 1e4]
    gen = pytest.warns(OverlapWarning, match="2 of 1002 simulated events at gen level lie far from all others in gen")
    with gen, pytest.warns(OverlapWarning, match="2 of 1002 simulated events at reco level"):
        unfold(bu.Simulation(far, far), rng.normal(0, 1, 300), **quick)
    with pytest.raises(InputError, match=r"is 1 in every simulated event and something else in 300"):
        unfold(bu.Simulation(x, np.column_stack([x, np.ones(1000)])), np.column_stack([x[:300], x[:300]]), **quick)
