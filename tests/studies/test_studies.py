"""The coverage study on problems where coverage is known, and its bookkeeping."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
from bayesunfold._support.statistics import clopper_pearson
from bayesunfold.errors import FileFormatError, InputError, InputTypeError
from bayesunfold.spectrum import Spectrum
from bayesunfold.studies import load_coverage

EDGES = np.array([0.0, 1.0, 2.0, 3.0])
TRUTH = np.array([100.0, 50.0, 25.0])


def _counts(seed):
    return np.random.default_rng(seed).poisson(TRUTH)


def _gaussian_band(counts, seed, inflate=1.0):
    """Gaussian draws around the counts with the Poisson width: calibrated up to discreteness."""
    rng = np.random.default_rng(seed + 10**6)
    width = inflate * np.sqrt(TRUTH)
    return Spectrum((EDGES,), counts + width * rng.standard_normal((2000, 3)), counts.astype(float))


def _study(**options):
    settings = {"bins": EDGES, "expected": TRUTH, "unfold": _gaussian_band, "toys": 300, "workers": 0}
    return bu.coverage_study(_counts, **(settings | {"progressbar": False} | options))


@pytest.mark.statistical
def test_calibrated_bands_cover_and_narrow_ones_do_not():
    """900 intervals; 4 binomial standard deviations and 5 of widths and biases: below 1e-4 together."""
    study = _study()
    for level in (0.68, 0.95):
        mean, _ = study.mean_coverage(level)
        # exact coverage of counts +- z sqrt(truth), summed over the Poisson distribution
        z = stats.norm.ppf(0.5 + level / 2)
        exact = np.mean(
            [
                stats.poisson.cdf(np.floor(t + z * np.sqrt(t)), t)
                - stats.poisson.cdf(np.ceil(t - z * np.sqrt(t)) - 1, t)
                for t in TRUTH
            ]
        )
        assert abs(mean - exact) < 4 * np.sqrt(exact * (1 - exact) / 900) + 0.02  # 0.02: edges at integer counts
    assert study.width_ratio() == pytest.approx(np.ones(3), abs=5 / np.sqrt(2 * 299))
    assert np.all(np.abs(study.bias()) < 5 / np.sqrt(300))
    narrow = _study(unfold=partial(_gaussian_band, inflate=0.5))
    assert narrow.mean_coverage(0.68)[0] < 0.5
    assert narrow.joint_coverage(0.68) < 0.3


def test_clopper_pearson_published_value():
    """The rule of three: 0 of n at 95 % one-sided is about 3/n; exact 1 - 0.025**(1/n) two-sided."""
    low, high = clopper_pearson(0, 20, 0.95)
    assert low == 0
    assert high == pytest.approx(1 - 0.025 ** (1 / 20))
    low, high = clopper_pearson(20, 20, 0.95)
    assert (low, high) == (pytest.approx(0.025 ** (1 / 20)), 1.0)


def test_workers_do_not_change_the_table():
    serial, parallel = _study(toys=6), _study(toys=6, workers=2)
    np.testing.assert_array_equal(serial.lower, parallel.lower)
    np.testing.assert_array_equal(serial.chi2, parallel.chi2)


def test_workers_of_a_computer_that_slept_are_not_taken_for_lost(monkeypatch):
    """Dask forgets workers that were silent for five minutes, as all are while a laptop is closed."""
    import dask
    import distributed

    waits = []

    def local(**_):
        waits.append(dask.config.get("distributed.scheduler.worker-ttl"))
        raise RuntimeError

    monkeypatch.setattr(distributed, "LocalCluster", local)
    with pytest.raises(InputError, match="__main__"):
        _study(toys=2, workers=2)
    assert waits == [None]


def test_killed_study_resumes(tmp_path):
    path = tmp_path / "study.jsonl"
    calls = []

    def dying(seed):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(seed)
        return _counts(seed)

    with pytest.raises(KeyboardInterrupt):
        bu.coverage_study(
            dying,
            bins=EDGES,
            expected=TRUTH,
            unfold=_gaussian_band,
            toys=5,
            workers=0,
            checkpoint=path,
            progressbar=False,
        )
    with path.open("a") as file:
        file.write('{"seed": 3, "nomi')  # killed in the middle of a line
    resumed = _study(toys=5, checkpoint=path)
    again = load_coverage(resumed.save(tmp_path / "study.npz"))
    for study in (resumed, again):  # two of five toys are of this run
        assert study.summary()["toys per minute"] == pytest.approx(60 * 2 / resumed.wall_seconds)
    np.testing.assert_array_equal(resumed.lower, _study(toys=5).lower)
    with pytest.raises(InputError, match="other bins"):
        _study(toys=5, checkpoint=path, expected=TRUTH + 1)


def test_saved_study_reads_back(tmp_path):
    study = _study(toys=4)
    again = load_coverage(study.save(tmp_path / "study.npz"))
    assert again.summary() == pytest.approx(study.summary())
    assert again.table() == study.table()
    frame = again.to_dataframe()
    np.testing.assert_array_equal(frame["0.68 covers"], study.coverage(0.68))
    np.testing.assert_array_equal(frame["high"], np.concatenate([e[1:] for e in study.edges.values()]))
    study.plot().savefig(tmp_path / "figure.png")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(FileFormatError, match="misses"):
        load_coverage(tmp_path / "other.npz")


def test_ranks_are_drawn_by_arviz():
    import arviz as az

    tree = _study(toys=50).to_datatree()
    assert tree["prior_sbc"]["gen"].dims == ("chain", "draw", "bin_gen")
    assert az.plot_ecdf_pit(tree, backend="none") is not None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expected": TRUTH[:2]}, "shape"),
        ({"expected": -TRUTH}, "not negative"),
        ({"expected": {"pt": TRUTH}}, "misses 'gen'"),
        ({"levels": (68,)}, "between 0 and 1"),
        ({"toys": 1}, "at least 2"),
    ],
)
def test_bad_requests(options, words):
    with pytest.raises(InputError, match=words):
        _study(**options)


@pytest.mark.slow
@pytest.mark.statistical
# a toy that stops at the most iterations says so, and counts like the others
@pytest.mark.filterwarnings("ignore:after 12 iterations the spectrum still moves:bayesunfold.errors.ConvergenceWarning")
def test_default_bands_cover():
    """Row 1 of the coverage table with 60 toys: means within 3.5 standard errors of their windows."""
    edges = np.linspace(-9, 11, 21)

    def toy(seed):
        return bu.datasets.gaussian_toy(poisson=True, random_seed=500 + seed)

    study = bu.coverage_study(toy, bins=edges, expected=toy(0).expected(edges), toys=60, workers=0, progressbar=False)
    for level, low, high in ((0.68, 0.66, 0.70), (0.95, 0.93, 0.97)):
        mean, error = study.mean_coverage(level)
        assert low - 3.5 * error < mean < high + 3.5 * error


@pytest.mark.slow  # most of a minute; CI runs only the docstring of compare_with_refits
@pytest.mark.filterwarnings("ignore:the last of 3 iterations:bayesunfold.errors.ConvergenceWarning")  # for speed
def test_members_move_as_the_refitted_loop_does():
    """Same fluctuations in both, so that widths agree to some per cent in well filled bins.

    A retrained loop scatters by up to 0.05 of a band, 0.1 of a fluctuation of half its size: with twenty refits the
    ratio is known to 2 %. The linear response is within 5 %, so 15 % is five times the former beside the latter.
    """
    toy = bu.datasets.gaussian_toy(1000, 3000, smear=0.5, shift=0.0, gen=(0.0, 1.0), truth=(0.3, 0.9), random_seed=3)
    unfolder = bu.OmniFold(3, inference="laplace", draws=30, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.measurement)
    found = bu.studies.compare_with_refits(result, "gen", np.linspace(-0.8, 1.6, 4), 20, 0.5, progressbar=False)
    assert found.width_ratio == pytest.approx(1, abs=0.15)
    assert np.all(found.correlation > 0.8)
    assert "members/refits" in found.table()
    np.testing.assert_array_equal(found.to_dataframe()["members/refits"], found.width_ratio)
    with pytest.raises(InputError, match="refits is 31"):
        bu.studies.compare_with_refits(result, "gen", [0, 1], 31)


def test_resampled_toys_have_the_population_as_their_mean():
    """Yields of 200 toys against the population's: Poisson errors, 5 sigma; backgrounds are part of the data."""
    population = bu.datasets.gaussian_toy(100, 3000, random_seed=4).simulation
    background = bu.Background(np.linspace(-3, 3, 50), np.full(50, 0.4), name="flat", relative_uncertainty=0.1)
    make = bu.studies.ResampledToys(population, 120.0, np.exp(0.1 * population.gen[:, 0]), [background])
    profiled = bu.Background(background.features, background.weight, "flat", 0.1, profile=True)
    assert bu.studies.ResampledToys(population, 120.0, None, [profiled])(0).backgrounds[0].profile
    edges = np.array([-20.0, -2.0, 1.0, 20.0])
    assert make.expected({"gen": edges})["gen"].sum() == pytest.approx(100)
    found = np.zeros(3)
    for seed in range(200):
        toy = make(seed)
        found += np.histogram(toy.measurement.features, edges)[0]
        assert len(toy.simulation) == 3000
        assert toy.backgrounds[0].weight.sum() == pytest.approx(20)
    reco = np.histogram(population.reco[:, 0], edges, weights=make.truth)[0]
    mean = reco + np.histogram(background.features[:, 0], edges, weights=background.weight)[0]
    assert np.all(np.abs(found / 200 - mean) < 5 * np.sqrt(mean / 200))
    again = make(199)
    assert np.array_equal(again.measurement.features, toy.measurement.features)
    with pytest.raises(InputError, match="negative weights"):
        bu.studies.ResampledToys(population, 100, np.r_[-1.0, np.ones(2999)])
    with pytest.raises(InputError, match="nothing is left"):
        bu.studies.ResampledToys(population, 10, None, [background])


def test_resampled_toys_with_misses_and_fakes():
    """Fakes without a factor take the mean of the others, so their share stays; bins are half open as spectra's are."""
    rng = np.random.default_rng(5)
    gen = rng.integers(0, 6, 4000).astype(float)
    reco = gen + rng.normal(0, 0.3, 4000)
    pass_gen, pass_reco = rng.random(4000) > 0.2, rng.random(4000) > 0.3
    kept = pass_gen | pass_reco
    gen = np.where(pass_gen, gen, np.nan)[kept]
    simulation = bu.Simulation(gen, reco[kept], pass_gen=pass_gen[kept], pass_reco=pass_reco[kept])
    make = bu.studies.ResampledToys(simulation, 500, np.exp(0.2 * gen))
    fakes, both = simulation.fakes, simulation.both
    mean = np.exp(0.2 * gen[simulation.pass_gen]).mean()
    share = mean * fakes.sum() / (mean * fakes.sum() + np.exp(0.2 * gen[both]).sum())
    assert make.truth[fakes].sum() / 500 == pytest.approx(share)
    expected = make.expected({"gen": np.arange(6.0)})["gen"]
    assert expected[4] == pytest.approx(make.truth[gen == 4].sum())  # and not 5, the last edge
    assert np.isnan(make(1).simulation.gen).any()


@pytest.mark.slow  # the error is also that of workers that do not start, test_workers_of_a_computer_that_slept
def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    """Worker processes run the script again; the error says so, whatever the workers print."""
    (tmp_path / "study.py").write_text(
        "import bayesunfold as bu\n"
        "toy = bu.datasets.gaussian_toy(100, 100, random_seed=1)\n"
        "bu.coverage_study(lambda seed: toy, bins=[0, 1], expected=[30.0], toys=2, workers=1, progressbar=False)\n"
    )
    found = subprocess.run([sys.executable, tmp_path / "study.py"], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert found.stderr.strip().splitlines()[-1].endswith("or pass workers=0 to stay in one process.")


def _failing_toy(seed):
    if seed == 3:
        msg = "no toy today"
        raise ValueError(msg)
    return seed


def test_an_error_in_a_toy_is_all_that_is_heard(capfd):
    """The error itself, without the workers' complaints about what it leaves behind."""
    spectrum = bu.Spectrum((np.array([0.0, 1.0]),), 30 + np.arange(5.0)[:, None], np.full(1, 32.0))
    with pytest.raises(ValueError, match="no toy today"):
        bu.coverage_study(
            _failing_toy,
            bins=[0, 1],
            expected=[30.0],
            unfold=partial(_constant, spectrum),
            toys=100,
            workers=1,
            progressbar=False,
        )
    out, err = capfd.readouterr()
    assert out == ""
    assert "distributed" not in err


def _constant(spectrum, toy, seed):
    return spectrum


@pytest.mark.parametrize("answer", ["one", "list", "dict"])
def test_spectra_come_in_any_container(answer):
    spectrum = bu.Spectrum((np.array([0.0, 1.0]),), 10 + np.arange(5.0)[:, None], np.full(1, 12.0))
    given = {"one": spectrum, "list": [spectrum], "dict": {"gen": spectrum}}[answer]
    study = bu.coverage_study(
        lambda seed: seed,
        bins=[0, 1],
        expected=[30.0],
        unfold=lambda *_: given,
        toys=2,
        workers=0,
        progressbar=False,
    )
    assert np.all(study.nominal == 12)
    with pytest.raises(InputTypeError, match="unfold returned int"):
        bu.coverage_study(
            lambda seed: seed,
            bins=[0, 1],
            expected=[30.0],
            unfold=lambda *_: 1,
            toys=2,
            workers=0,
            progressbar=False,
        )


def test_a_toys_backgrounds_are_unfolded_by_default(monkeypatch):
    from bayesunfold.studies.pseudo_experiments import _default_unfold

    given = []
    monkeypatch.setattr(bu.OmniFold, "fit", lambda _, *arguments: given.append(arguments))
    rng = np.random.default_rng(1)
    gen = rng.normal(size=500)
    simulation, top = bu.Simulation(gen, gen), bu.Background(rng.normal(size=100), np.ones(100), "top")
    _default_unfold(bu.studies.ResampledToys(simulation, 300.0, backgrounds=[top])(1), 1)
    assert [b.name for b in given[0][2]] == ["top"]


def test_a_stress_study_goes_on_with_the_same_settings_only(tmp_path):
    toy = bu.datasets.gaussian_toy(200, 800, random_seed=1)
    quick = {"iterations": 1, "inference": "laplace", "draws": 10, "network": bu.Network(hidden=(3,))}
    hidden = toy.simulation.gen[:, 0] ** 2
    place = {"bins": {"gen": [-3, 0, 3]}, "workers": 0, "progressbar": False, "checkpoint": tmp_path / "toys.jsonl"}
    bu.studies.stress(toy.simulation, toy.data, hidden=hidden, toys=2, settings=quick, **place)
    bu.studies.stress(toy.simulation, toy.data, hidden=hidden, toys=3, settings=quick, **place)
    for other in ({"settings": quick | {"iterations": 2}}, {"settings": quick, "factor": 0.0}):
        with pytest.raises(InputError, match="other bins, truth, levels or settings"):
            bu.studies.stress(toy.simulation, toy.data, hidden=hidden, toys=3, **other, **place)


def test_joint_coverage_counts_observables_with_a_core():
    none = np.zeros((4, 2))
    chi2, dof = np.array([[0.0, 0.1], [0.0, 0.1], [0.0, 0.1], [0.0, 9.0]]), np.array([[0, 1]] * 4)
    study = bu.CoverageStudy(
        {"a": np.array([0.0, 1.0]), "b": np.array([0.0, 1.0])},
        np.array([5.0, 100.0]),
        (0.68,),
        *(none, none),
        *(np.zeros((4, 1, 2)),) * 2,
        *(none, chi2, dof, none[:, 0], np.arange(4)),
    )
    assert study.joint_coverage(0.68) == 0.75


def test_spectra_that_a_study_cannot_score_are_refused():
    rng = np.random.default_rng(2)

    def spectrum(edges, **given):
        return bu.Spectrum((np.array(edges),), rng.normal(100, 5, (50, 2)), np.full(2, 100.0), **given)

    def study(*found):
        return bu.coverage_study(
            lambda seed: seed,
            unfold=lambda _toy, _seed: list(found),
            bins={"x": [0, 1, 2]},
            expected=[100.0, 100.0],
            toys=2,
            workers=0,
            progressbar=False,
        )

    good = spectrum([0.0, 1.0, 2.0])
    assert study(good).n_toys == 2
    for bad, words in (
        ([spectrum([0.0, 5.0, 10.0])], "other bins"),
        ([spectrum([0.0, 1.0, 2.0], normalization="density")], "return yields"),
        ([good, good], "returned 2 spectra"),
    ):
        with pytest.raises(InputError, match=words):
            study(*bad)
