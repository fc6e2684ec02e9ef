"""Scale factors of the detector level: as if each event were one that is seen and one that is missed."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.cli.configuration import _truth_of_result
from bayesunfold.omnifold.iteration import Iteration, Networks, iterate, recall
from bayesunfold.omnifold.problems import carried_share, step2_classes
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.nuisances import Nuisances
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents, standardize

FAST = {"network": bu.Network(hidden=(6,)), "draws": 200, "inference": "laplace", "progressbar": False}
BINS = np.linspace(-2.0, 2.0, 7)


def factor_of(x: np.ndarray) -> np.ndarray:
    """An efficiency correction that depends on what is measured, between 0.6 and 0.9."""
    return 0.75 + 0.15 * np.tanh(x)


@pytest.fixture(scope="module")
def samples() -> dict[str, np.ndarray]:
    """Simulation with misses and fakes whose detector sees too much; data of a narrower, shifted truth."""
    rng = np.random.default_rng(7)
    n, m = 6000, 3000
    gen, truth = rng.normal(0.0, 1.0, n), rng.normal(0.2, 0.9, m)
    reco, data = (t + rng.normal(0.0, 0.4, len(t)) for t in (gen, truth))
    kept = rng.random(m) < factor_of(data)
    return {
        "gen": gen,
        "reco": reco,
        "pass_gen": rng.random(n) < 0.95,
        "pass_reco": rng.random(n) < 0.9,
        "weight": rng.uniform(0.5, 1.5, n),
        "truth": truth,
        "data": data[kept],
        "extra": rng.normal(0.0, 1.2, 150),
    }


def with_factors(s: dict[str, np.ndarray]) -> bu.Simulation:
    """The simulation with scale factors."""
    columns = {name: s[name] for name in ("weight", "pass_gen", "pass_reco")}
    return bu.Simulation(s["gen"], s["reco"], **columns, reco_factor=factor_of(s["reco"]))


def split(s: dict[str, np.ndarray]) -> bu.Simulation:
    """The same without: each event once as far as it is seen, and once as far as it is missed."""
    factor = np.where(s["pass_reco"], factor_of(s["reco"]), 0.0)
    return bu.Simulation(
        np.tile(s["gen"], 2),
        np.tile(s["reco"], 2),
        weight=np.concatenate([s["weight"] * factor, s["weight"] * (1.0 - factor)]),
        pass_gen=np.tile(s["pass_gen"], 2),
        pass_reco=np.concatenate([s["pass_reco"], np.zeros(len(s["gen"]), bool)]),
    )


def loop_with(networks: tuple[Networks, ...], settings: Settings, events: StandardizedEvents) -> Iteration:
    """The last iteration of networks that were trained on other events."""
    found = None
    for k, each in enumerate(networks):
        found = iterate(events, settings, found, networks[0] if k else None, recall(each))
    assert found is not None
    return found


def loss_per_event(classifier: Classifier) -> tuple[float, np.ndarray]:
    """Mean loss of a classifier's events, and its gradient."""
    classes = classifier.classes.joined()
    loss, gradient = classes.loss_and_gradient(classifier.layout, classifier.theta)
    return loss / classes.zeros.sum(), gradient / classes.zeros.sum()


@pytest.mark.parametrize("efficiency", ["learned", "prior"])
def test_networks_of_scale_factors_are_those_of_events_that_are_seen_in_part(samples, efficiency):
    """Both ways of saying it have the same classes, so per event a network's loss is the same, and so are its weights.

    Split events are more events, and two trainings end at other minima, a standard deviation apart in the worst bin.
    """
    unfolder = bu.OmniFold(iterations=3, efficiency=efficiency, **FAST, random_seed=1)
    data = bu.Data(np.concatenate([samples["data"], samples["extra"]]))
    result = unfolder.fit(with_factors(samples), data)
    one, two = (
        loop_with(result.iterations, unfolder.settings, standardize(simulation, data))
        for simulation in (with_factors(samples), split(samples))
    )
    passing = samples["pass_gen"]
    assert np.allclose(two.push.reshape(2, -1)[:, passing], one.push[passing], rtol=1e-5)
    assert np.ptp(one.push[passing]) > 0.5
    for a, b in ((one.step1, two.step1), (one.step2, two.step2)):
        (loss, gradient), (expected, slope) = (loss_per_event(classifier) for classifier in (b, a))
        assert loss == pytest.approx(expected, rel=1e-6)
        assert np.allclose(gradient, slope, atol=1e-6)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("omnifold", {"iterations": 3, "efficiency": "learned"}),
        ("omnifold", {"iterations": 3, "efficiency": "prior"}),
        ("direct", {"moments": FAST["network"], "rounds": 0}),
    ],
)
def test_scale_factors_are_events_that_are_seen_in_part(samples, method, settings):
    """Where both have the same classes the answers agree too: tolerance for where trainings stop.

    With ``efficiency="prior"`` split events are more events, and the test above compares the same networks.
    """
    unfolder = (bu.OmniFold if method == "omnifold" else bu.UnbinnedFBU)(**FAST, **settings, random_seed=1)
    data = bu.Data(np.concatenate([samples["data"], samples["extra"]]))
    one = unfolder.fit(with_factors(samples), data)
    if settings.get("efficiency") != "prior":
        a, b = one.spectrum("gen", BINS), unfolder.fit(split(samples), data).spectrum("gen", BINS)
        width = np.sqrt(np.diag(a.covariance()))
        assert np.all(np.abs(a.nominal - b.nominal) < 0.2 * width)
    assert one.nominal_reco.sum() == pytest.approx(len(data))
    seen = one.simulation.pass_reco
    ratio = one.nominal_reco[seen & one.simulation.pass_gen] / one.nominal[seen & one.simulation.pass_gen]
    assert np.allclose(ratio, factor_of(samples["reco"])[seen & one.simulation.pass_gen])
    # each member too has the data's yield at detector level, up to the yield's own fluctuation
    drawn = one.members.accumulate(np.zeros(len(one.simulation), int), 1, reco=True)[:, 0]
    assert np.allclose(drawn, len(data) * one.members.signal_factor())


def test_bands_are_those_of_events_that_are_seen_in_part(samples):
    """200 draws each: a ratio of widths is uncertain by 7 %; the split events fluctuate a little less at gen."""
    unfolder = bu.OmniFold(iterations=3, **FAST, random_seed=1)
    data = bu.Data(np.concatenate([samples["data"], samples["extra"]]))
    one, two = (unfolder.fit(s, data).spectrum("gen", BINS) for s in (with_factors(samples), split(samples)))
    ratio = np.sqrt(np.diag(one.covariance()) / np.diag(two.covariance()))
    assert np.all((ratio > 0.65) & (ratio < 1.5))  # 4.4 standard deviations and more


def test_the_truth_comes_back(samples):
    """Data lose events that the simulation does not: scale factors put that right, and nothing else does."""
    data = bu.Data(samples["data"])
    columns = {name: samples[name] for name in ("weight", "pass_reco")}
    columns["pass_reco"] = np.ones(len(samples["gen"]), bool)
    settings = FAST | {"iterations": 4, "random_seed": 3}
    plain = bu.Simulation(samples["gen"], samples["reco"], **columns)
    right = bu.Simulation(samples["gen"], samples["reco"], **columns, reco_factor=factor_of(samples["reco"]))
    truth = len(samples["truth"]) * np.diff(stats.norm(0.2, 0.9).cdf(BINS))
    spectrum, wrong = (bu.OmniFold(**settings).fit(s, data).spectrum("gen", BINS) for s in (right, plain))
    assert spectrum.chi2(truth).p_value > 1e-4
    assert wrong.chi2(truth).p_value < 1e-10


def drawn_by(result: bu.UnfoldingResult, source: str) -> np.ndarray:
    """Contents of the bins in draws in which only one source fluctuates, shape (draws, bins)."""
    gen = result.simulation.gen[:, 0]
    groups = np.where((gen >= BINS[0]) & (gen < BINS[-1]), np.digitize(gen, BINS) - 1, -1)
    return result.members.accumulate(groups, len(BINS) - 1, source)


@pytest.mark.parametrize("method", ["omnifold", "direct"])
@pytest.mark.parametrize("factor", [None, 0.8])
def test_a_flat_efficiency_uncertainty_moves_the_yield(samples, method, factor):
    """The data stay, so an efficiency that is larger by ten per cent makes every bin smaller by a factor of 1.1."""
    nominal = np.full(len(samples["gen"]), 1.0 if factor is None else factor)
    trigger = bu.Systematic("trigger", reco_factor_up=1.1 * nominal, reco_factor_down=0.9 * nominal)
    settings = FAST | ({"iterations": 2} if method == "omnifold" else {})
    unfolder = (bu.OmniFold if method == "omnifold" else bu.UnbinnedFBU)(**settings, random_seed=1)
    columns = {"pass_reco": samples["pass_reco"], "reco_factor": None if factor is None else nominal}
    simulation = bu.Simulation(samples["gen"], samples["reco"], **columns)
    result = unfolder.fit(simulation, bu.Data(samples["data"]), systematics=[trigger])
    alpha = result.members.perturbations.effects["trigger"].alpha
    expected = result.spectrum("gen", BINS).nominal / (1.0 + 0.1 * alpha[:, None])
    # step 2 has as many more events against its prior, which moves it by a little
    assert np.allclose(drawn_by(result, "trigger"), expected, rtol=5e-3)
    ranking = result.spectrum("gen", BINS).ranking().set_index("source").loc["trigger"]
    assert np.allclose(ranking["relative up"], 1 / 1.1 - 1, atol=0.02)  # curved, so not quite that of one


@pytest.mark.parametrize("efficiency", ["learned", "prior"])
def test_an_efficiency_that_depends_on_the_detector_level_is_that_of_flags(samples, efficiency):
    """Events that a variation sees to nothing are those that do not pass there."""
    lost = np.random.default_rng(2).random(len(samples["reco"])) < 0.3 / (1.0 + np.exp(-3.0 * samples["reco"]))
    passes = samples["pass_reco"]
    unfolder = bu.OmniFold(iterations=2, efficiency=efficiency, **FAST, random_seed=1)
    simulation = bu.Simulation(samples["gen"], samples["reco"], samples["weight"], pass_reco=passes)
    flags = bu.Systematic("edge", pass_reco_up=passes & ~lost)
    factors = bu.Systematic("edge", reco_factor_up=np.where(lost, 0.0, 1.0))
    one, two = (
        drawn_by(unfolder.fit(simulation, bu.Data(samples["data"]), systematics=[s]), "edge") for s in (flags, factors)
    )
    assert np.ptp(one, axis=0).min() > 1.0
    assert np.allclose(one, two, rtol=1e-4)


def test_a_flat_uncertainty_that_is_profiled_keeps_its_prior(samples):
    """The particle level's normalisation is free, so data say nothing of it, and its band is the prior's."""
    flat = np.ones(len(samples["gen"]))
    trigger = bu.Systematic("trigger", reco_factor_up=1.1 * flat, profile=True)
    simulation = bu.Simulation(samples["gen"], samples["reco"], pass_reco=samples["pass_reco"])
    with pytest.warns(bu.errors.ProfilingWarning, match="changes nothing"):
        result = bu.UnbinnedFBU(**FAST, random_seed=1).fit(simulation, bu.Data(samples["data"]), systematics=[trigger])
    row = result.nuisances.loc["trigger"]
    assert row["mean"] == pytest.approx(0.0, abs=4.5 / np.sqrt(200))  # of 200 draws
    assert row["std"] == pytest.approx(1.0, abs=4.5 / np.sqrt(400))
    ranking = result.spectrum("gen", BINS).ranking().set_index("source").loc["trigger"]
    assert np.allclose(ranking["relative up"], 1 / 1.1 - 1, atol=0.02)


def test_a_profiled_scale_factor_is_found():
    """A second reading that nothing else changes says how large the scale factors are."""
    rng = np.random.default_rng(5)
    n, m, alpha = 20_000, 20_000, 1.0
    tag, seen = rng.random(n) < 0.5, rng.random(m) < 0.5 * np.exp(0.2 * alpha) / (0.5 + 0.5 * np.exp(0.2 * alpha))
    gen, truth = rng.normal(0, 1, n), rng.normal(0.1, 1, m)
    reco = np.column_stack([gen + rng.normal(0, 0.5, n), tag])
    data = np.column_stack([truth + rng.normal(0, 0.5, m), seen])
    tagging = bu.Systematic("tagging", reco_factor_up=np.where(tag, np.exp(0.2), 1.0), profile=True)
    unfolder = bu.UnbinnedFBU(**FAST, moments=FAST["network"], rounds=0, random_seed=1)
    result = unfolder.fit(bu.Simulation(gen, reco), bu.Data(data), systematics=[tagging])
    row = result.nuisances.loc["tagging"]
    # share of tagged events: error 0.5 / sqrt(m) of the data and as much of the simulation; d share / d alpha = 0.05
    error = 0.5 * np.sqrt(1 / n + 1 / m) / 0.05
    posterior = 1.0 / np.sqrt(1.0 + 1.0 / error**2)
    assert row["std"] == pytest.approx(posterior, rel=0.25)
    assert abs(row["mean"] - alpha * posterior**2 / error**2) < 4.5 * error
    assert result.simulation.reco_factor is not None


def test_a_response_matrix_has_scale_factors_in_its_efficiency(samples):
    """Contents as of split events; covariances against the sum over single events (B1)."""
    factors, both = with_factors(samples), split(samples)
    one, two = (bu.ResponseMatrix.from_events(s, BINS, BINS) for s in (factors, both))
    assert np.allclose(one.probabilities, two.probabilities)
    assert np.allclose(one.fakes, two.fakes)
    assert np.allclose(one.truth, two.truth)
    gen, reco = (np.digitize(values, BINS) - 1 for values in (samples["gen"], samples["reco"]))
    column = 2
    rows = np.flatnonzero((gen == column) & samples["pass_gen"])
    size = len(BINS) - 1
    inside = samples["pass_reco"][rows] & (reco[rows] >= 0) & (reco[rows] < size)
    pieces = np.zeros((len(rows), size))
    pieces[np.flatnonzero(inside), reco[rows[inside]]] = (samples["weight"] * factor_of(samples["reco"]))[rows[inside]]
    pieces -= np.outer(samples["weight"][rows], one.probabilities[:, column])
    assert np.allclose(one.column_covariance(column), pieces.T @ pieces / one.truth[column] ** 2)


def test_binned_statistics_are_those_of_resampled_simulations(samples):
    """Least squares with the covariance of the simulation's statistics, against 400 Poisson-weighted simulations."""
    data = np.histogram(samples["data"], BINS)[0].astype(float)
    rng = np.random.default_rng(3)
    nominal = bu.ResponseMatrix.from_events(with_factors(samples), BINS, BINS)
    own = bu.MatrixInversion().fit(nominal, data).by_source()["simulation"]
    found = []
    for _ in range(400):
        fluctuated = samples | {"weight": samples["weight"] * rng.exponential(size=len(samples["gen"]))}
        response = bu.ResponseMatrix.from_events(with_factors(fluctuated), BINS, BINS)
        found.append(np.linalg.solve(response.probabilities, data * (1 - response.fakes)))
    assert np.all(np.abs(own / np.std(found, axis=0) - 1) < 0.25)  # errors of 3.5 %, and what is not linear


def test_pull_weights_move_the_part_that_is_seen(samples):
    """The weights of step 2's class 1, before both classes are scaled alike, by a numerical derivative."""
    simulation = with_factors(samples)
    events = standardize(simulation, bu.Data(samples["data"]))
    pull = np.where(simulation.both, np.random.default_rng(1).uniform(0.5, 1.5, len(simulation)), np.nan)

    def ones(moved: np.ndarray, efficiency: str) -> np.ndarray:
        classes = step2_classes(events, moved, efficiency).sample("simulation")
        return classes.ones / classes.ones[simulation.misses & simulation.pass_gen].sum()

    share = carried_share(events, pull, "prior")
    log_change = np.log(ones(pull * 1.001, "prior")[simulation.both] / ones(pull, "prior")[simulation.both])
    assert np.allclose(log_change, share[simulation.both] * np.log(1.001), rtol=2e-3)
    assert np.array_equal(carried_share(events, pull, "learned"), simulation.both)


def test_files_toys_and_matched_variations_carry_them(samples, tmp_path):
    """A result that is loaded again, and a variation whose events come in another order."""
    simulation = with_factors(samples)
    order = np.random.default_rng(1).permutation(len(simulation))
    up = 1.1 * factor_of(samples["reco"])
    matched = bu.Systematic.from_events(
        "tag", simulation, key=np.arange(len(simulation)), up={"key": order, "reco_factor": up[order]}
    )
    assert np.allclose(matched.reco_factor_up, up)
    unfolder = bu.OmniFold(iterations=1, **FAST, random_seed=1)
    result = unfolder.fit(simulation, bu.Data(samples["data"]), systematics=[matched])
    again = bu.load(result.save(tmp_path / "result.nc"))
    assert np.array_equal(again.simulation.reco_factor, simulation.reco_factor)
    assert np.allclose(again.nominal_reco, result.nominal_reco)
    assert np.allclose(drawn_by(again, "tag"), drawn_by(result, "tag"))
    toys = bu.studies.ResampledToys(simulation, 2000.0)
    reco = toys(0)
    assert reco.simulation.reco_factor is not None
    # events are drawn as they count at detector level: the mean factor of drawn ones is its square over its mean
    passing, w, s = samples["pass_reco"], samples["weight"], factor_of(samples["reco"])
    expected = np.average(s[passing], weights=(w * s)[passing])
    drawn = factor_of(reco.measurement.features[:, 0])
    assert abs(drawn.mean() - expected) < 4.5 * drawn.std() / np.sqrt(len(drawn))


@pytest.mark.parametrize(
    ("factor", "match"),
    [
        (-1.0, "negative"),
        (np.inf, "NaN or infinite"),
        (np.nan, "NaN or infinite"),
        (0.0, "total weight must be positive"),
    ],
)
def test_bad_scale_factors_are_named(factor, match):
    values = np.ones(3)
    values[1 if factor else slice(None)] = factor
    with pytest.raises(bu.errors.InputError, match=f"reco_factor.*{match}"):
        bu.Simulation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], reco_factor=values)
    with pytest.raises(bu.errors.InputError, match="one weight per event"):
        bu.Simulation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], reco_factor=[1.0, 2.0])


def test_rows_that_fail_may_hold_nan():
    simulation = bu.Simulation(
        [1.0, 2.0, 3.0], [1.0, 2.0, np.nan], pass_reco=[True, True, False], reco_factor=[0.5, 0.7, np.nan]
    )
    assert simulation.reco_factor.tolist() == [0.5, 0.7, 1.0]
    assert "mean scale factor: 0.6" in repr(simulation)


def test_what_cannot_be_is_said(samples):
    simulation, data = with_factors(samples), bu.Data(samples["data"])
    with pytest.raises(bu.errors.InputError, match="scale factors make every event a miss in part"):
        bu.UnbinnedFBU(efficiency="prior", **FAST).fit(simulation, data)
    same = bu.Systematic("same", reco_factor_up=factor_of(samples["reco"]))
    with pytest.raises(bu.errors.InputError, match="identical to the nominal scale factors"):
        bu.OmniFold(iterations=1, **FAST).fit(simulation, data, systematics=[same])
    gone = bu.Systematic("gone", reco_factor_up=np.where(samples["reco"] > 0, 0.0, 1.0), profile=True)
    with pytest.raises(bu.errors.InputError, match="neither reach zero"):
        bu.UnbinnedFBU(**FAST).fit(simulation, data, systematics=[gone])
    other = bu.Simulation(samples["gen"] + 0.1, samples["reco"], pass_gen=samples["pass_gen"])
    with pytest.raises(bu.errors.InputError, match="give scale factors to both"):
        bu.OmniFold(iterations=1, **FAST).fit(simulation, data, systematics=[bu.Systematic("two", alternative=other)])
    with pytest.raises(bu.errors.InputError, match="needs one of weight_up"):
        bu.Systematic("both", weight_up=samples["weight"], reco_factor_up=samples["weight"])


def test_early_checks_count_events_as_detector_level_does(samples):
    data = bu.Data(samples["data"])
    check = bu.OmniFold(iterations=1, **FAST).check
    blind = bu.Simulation(samples["gen"], samples["reco"], reco_factor=np.where(samples["reco"] > 1, 0.0, 1.0))
    with pytest.warns(bu.errors.OverlapWarning, match="outside the simulation's detector-level distribution"):
        check(blind, data)
    huge = np.ones(len(samples["gen"]))
    huge[:3] = 3e5
    with pytest.raises(bu.errors.InputError, match="with their scale factors, are worth 3"):
        check(bu.Simulation(samples["gen"], samples["reco"], reco_factor=huge), data)
    plain = bu.Simulation(samples["gen"], samples["reco"])
    with pytest.raises(bu.errors.InputError, match=r"is on average 0.02 times .* reco_factor \+ difference"):
        check(plain, data, systematics=[bu.Systematic("s", reco_factor_up=0.02 * np.ones(len(plain)))])
    trigger = bu.Systematic("s", reco_factor_up=1.1 * np.ones(len(plain)))
    with pytest.raises(bu.errors.InputError, match="a miss in part"):
        bu.UnbinnedFBU(efficiency="prior", **FAST).check(plain, data, systematics=[trigger])


def test_events_that_pass_in_another_variation_have_their_scale_factors(samples):
    """Two profiled parameters: one lets events pass that fail, the other changes the scale factors of all."""
    passes = samples["reco"] < 0.5
    flags = bu.Systematic("cut", pass_reco_up=samples["reco"] < 0.6, pass_reco_down=samples["reco"] < 0.4, profile=True)
    factor = bu.Systematic("tag", reco_factor_up=np.full(len(passes), 1.2), profile=True)
    simulation = bu.Simulation(samples["gen"], samples["reco"], pass_reco=passes)
    scales = Scales.fit(simulation)
    nuisances = Nuisances.of(simulation, [], [flags, factor], scales, 1)
    moved = nuisances.moved(np.array([1.0, 1.0]), bu.Data(samples["data"][samples["data"] < 0.5]), scales)
    assert (moved.simulation.pass_reco & ~passes).sum() > 50
    assert np.allclose(moved.simulation.reco_factor, 1.2)


def test_a_flat_factor_separates_no_models_better(samples):
    """The bottom line at detector level: the data are what they are."""
    models = lambda x: np.exp(0.2 * x[:, 0]), lambda x: np.exp(-0.2 * x[:, 0])
    found = []
    for factor in (None, np.full(len(samples["gen"]), 0.5)):
        simulation = bu.Simulation(samples["gen"], samples["reco"], reco_factor=factor)
        result = bu.OmniFold(iterations=2, **FAST, random_seed=1).fit(simulation, bu.Data(samples["data"]))
        found.append(result.bottom_line(*models, {"gen": BINS}).detector)
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_toys_of_an_answer_have_its_share_of_fakes(samples, tmp_path):
    """What a result counts at detector level is not scaled twice."""
    simulation = with_factors(samples)
    result = bu.OmniFold(iterations=1, **FAST, random_seed=1).fit(simulation, bu.Data(samples["data"]))
    factor = _truth_of_result(result.save(tmp_path / "answer.nc"), simulation)
    toys = bu.studies.ResampledToys(simulation, len(samples["data"]), factor)
    seen = toys.truth * np.where(simulation.pass_reco, simulation.reco_factor, 0.0)
    assert np.allclose(seen, result.nominal_reco, rtol=1e-6)
