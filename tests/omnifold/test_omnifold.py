"""The loop: limits, symmetries, reproducibility, interrupts."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import ConvergenceError, ConvergenceWarning, FileFormatError, InputError

QUICK = {"iterations": 2, "inference": "laplace", "draws": 100, "progressbar": False, "random_seed": 4}
SMALL = bu.Network(hidden=(8, 8))
EDGES = np.array([-5.0, -2.0, 0.0, 2.0, 4.0, 7.0])


def _fit(simulation, data, **settings):
    return bu.OmniFold(**(QUICK | {"network": SMALL} | settings)).fit(simulation, data)


def test_identical_samples_give_unit_weights():
    """Data and simulation from one distribution: the unfolded shape is the generator's, within its band."""
    rng = np.random.default_rng(1)
    gen = rng.normal(size=3000)
    reco = gen + rng.normal(0, 0.3, 3000)
    data = rng.normal(size=3000) + rng.normal(0, 0.3, 3000)
    edges = np.linspace(-2, 2, 9)
    result = _fit(bu.Simulation(gen, reco), bu.Data(data), draws=400)
    expected = 3000 * np.diff([float(v) for v in _normal_cdf(edges)])
    # chi-square of 8 bins with the covariance of 400 draws: a false-alarm rate below 1e-5
    assert result.spectrum("gen", edges).chi2(expected).p_value > 1e-6


def _normal_cdf(x):
    from scipy.stats import norm

    return norm.cdf(x)


def test_perfect_detector_returns_the_data():
    """Without smearing the unfolded spectrum is the data's own, up to the network's smoothness."""
    rng = np.random.default_rng(2)
    gen = rng.normal(0.0, 1.0, 4000)
    data = rng.normal(0.4, 1.0, 4000)
    edges = np.linspace(-1.5, 2.0, 8)
    spectrum = _fit(bu.Simulation(gen, gen), bu.Data(data)).spectrum("gen", edges)
    counts = np.histogram(data, edges)[0]
    # 16 toys: 3.3 at most, and 2.1 in all others
    assert np.all(np.abs(spectrum.nominal - counts) < 6 * spectrum.std())


def test_yield_is_the_datas_and_members_carry_its_fluctuation(result, toy):
    assert result.nominal.sum() == pytest.approx(len(toy.data), rel=1e-9)
    totals = result.weights.sum("event").values
    n = len(toy.data)
    # Gamma(N + 1/2): mean N + 1/2, variance N + 1/2; 200 members, 5 standard errors
    assert abs(totals.mean() - n - 0.5) < 5 * np.sqrt(n / 200)
    assert abs(totals.var(ddof=1) / n - 1) < 5 * np.sqrt(2 / 199)


def test_same_seed_same_result(result, toy):
    again = bu.OmniFold(2, inference="laplace", draws=200, random_seed=5, progressbar=False).fit(
        toy.simulation, toy.measurement
    )
    np.testing.assert_array_equal(result.nominal, again.nominal)
    np.testing.assert_array_equal(result.weights.values, again.weights.values)
    other = bu.OmniFold(2, inference="laplace", draws=200, random_seed=6, progressbar=False).fit(
        toy.simulation, toy.measurement
    )
    assert not np.array_equal(result.weights.values, other.weights.values)


def test_scaling_generator_weights_changes_nothing(toy):
    one = _fit(toy.simulation, toy.measurement)
    seven = _fit(bu.Simulation(toy.gen, toy.reco, weight=np.full(len(toy.gen), 7.0)), toy.measurement)
    np.testing.assert_allclose(one.nominal, seven.nominal, rtol=1e-6)


def test_affine_maps_of_features_change_nothing(toy):
    one = _fit(toy.simulation, toy.measurement)
    moved = _fit(bu.Simulation(1000 * toy.gen - 5, 0.01 * toy.reco + 3), bu.Data(0.01 * toy.data + 3))
    # the standardised features are equal to single precision, and the fit amplifies the rest to a tenth of a band
    for level in ("gen", "reco"):
        a, b = (getattr(r.members.events, level) for r in (one, moved))
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    width = one.spectrum("gen", EDGES).std()
    a, b = one.spectrum("gen", EDGES).nominal, moved.spectrum("gen", 1000 * EDGES - 5).nominal
    assert np.all(np.abs(a - b) < 0.5 * width)


def test_permuting_events_permutes_weights(toy):
    order = np.random.default_rng(3).permutation(len(toy.gen))
    one = _fit(toy.simulation, toy.measurement, restarts=3)
    mixed = _fit(bu.Simulation(toy.gen[order], toy.reco[order]), toy.measurement, restarts=3)
    width = one.spectrum("gen", EDGES).std()
    a, b = one.spectrum("gen", EDGES).nominal, mixed.spectrum("gen", EDGES).nominal
    # the sums run in another order, so the fits stop at slightly different points of the same posterior: by at most a
    # tenth of a band in each of four fits, 0.28 together for the difference
    assert np.all(np.abs(a - b) < 0.5 * width)


def test_integer_weights_are_repeated_events():
    """An event of weight 2 is two events to the point estimate, at equal effective sizes of both."""
    rng = np.random.default_rng(5)
    gen = rng.normal(size=500)
    reco = gen + rng.normal(0, 0.3, 500)
    data = rng.normal(0.3, 1, 1000)
    twice = _fit(bu.Simulation(np.repeat(gen, 2), np.repeat(reco, 2)), bu.Data(data), draws=400)
    weighted = _fit(bu.Simulation(gen, reco, weight=np.full(500, 2.0)), bu.Data(data), draws=400)
    edges = np.linspace(-1.5, 1.5, 5)
    a, b = twice.spectrum("gen", edges), weighted.spectrum("gen", edges)
    # data are the same: 16 toys differ by 0.33 +- 0.20 of a band, 0.68 at most
    assert np.all(np.abs(a.nominal - b.nominal) < 2.0 * b.std())
    # half as many events: the simulation's part is sqrt(2) times as wide, known to 3 % from 400 draws
    assert b.by_source()["simulation"].sum() > 1.15 * a.by_source()["simulation"].sum()


def test_negative_weights_are_legal_and_cost_information():
    rng = np.random.default_rng(3)
    gen = rng.normal(size=12_000)
    reco = gen + rng.normal(0, 0.5, 12_000)
    # close to the simulation: members of a large ratio are not linear, and their total depends on where a fit stops
    data = bu.Data(rng.normal(0.2, 1, 600) + rng.normal(0, 0.5, 600))
    sign = np.where(np.arange(12_000) % 10 == 0, -1.0, 1.0)
    result = _fit(bu.Simulation(gen, reco, weight=sign), data, draws=200)
    plain = _fit(bu.Simulation(gen, reco), data, draws=200)
    assert np.all(np.isfinite(result.nominal))
    assert result.nominal.sum() == pytest.approx(600)
    edges = np.array([-1.5, -0.5, 0.5, 1.5])
    signed, unsigned = result.spectrum("gen", edges), plain.spectrum("gen", edges)
    assert np.all(np.abs(signed.nominal - unsigned.nominal) < 5 * signed.std())
    # a tenth is negative: the events are worth 0.8^2 of them, and the simulation's part of the band is 1 / 0.8 = 1.25
    # times as wide. Three seeds give 1.21 to 1.27, two processors and two sets of versions the same to 0.001.
    wide, narrow = (s.by_source()["simulation"].sum() for s in (signed, unsigned))
    assert wide > 1.1 * narrow


def test_too_many_negative_weights_are_an_error(toy):
    """Half of the events negative in one region: the ratio there is not defined."""
    sign = np.where((toy.gen[:, 0] > 2) & (np.arange(len(toy.gen)) % 3 > 0), -1.0, 1.0)
    # whichever comes first: the ratio runs away, the curvature is indefinite, or a class has no weight left
    with pytest.raises((ConvergenceError, InputError), match="negative"):
        _fit(bu.Simulation(toy.gen, toy.reco, weight=sign), toy.measurement)


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.ConvergenceWarning")  # of 3 iterations, for some data
def test_misses_and_fakes(accepted):
    simulation, data = accepted
    result = _fit(simulation, data, iterations=3)
    weights = result.weights.values
    assert np.all(weights[:, simulation.fakes] == 0)
    assert np.all(np.isfinite(weights))
    # detector level, fakes included, adds up to the data
    refolded = result.refolded("reco", [-100.0, 100.0])
    assert refolded.nominal[0] == pytest.approx(len(data), rel=1e-9)
    # 2000 true events; the band of the total must hold it within 4 standard deviations
    total = result.spectrum("gen", [-100.0, 100.0])
    assert abs(result.nominal.sum() - 2000) < 4 * total.std()[0]


def test_interrupted_run_resumes_bit_by_bit(toy, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    whole = _fit(toy.simulation, toy.measurement, iterations=3)
    import bayesunfold.omnifold.estimator as module

    train, calls = module.train, []

    def interrupted(*args, **kwargs):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return train(*args, **kwargs)

    monkeypatch.setattr(module, "train", interrupted)
    unfolder = bu.OmniFold(**(QUICK | {"network": SMALL, "iterations": 3}))
    with pytest.raises(KeyboardInterrupt):
        unfolder.fit(toy.simulation, toy.measurement, checkpoint=path)
    assert path.exists()
    calls.clear()
    calls.append(1)
    resumed = unfolder.fit(toy.simulation, toy.measurement, checkpoint=path)
    np.testing.assert_array_equal(whole.weights.values, resumed.weights.values)
    other = bu.OmniFold(**(QUICK | {"network": bu.Network((4,))}))
    with pytest.raises(FileFormatError, match="other settings"):
        other.fit(toy.simulation, toy.measurement, checkpoint=path)
    path.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="not a checkpoint"):
        unfolder.fit(toy.simulation, toy.measurement, checkpoint=path)


def test_different_dimensions_and_sizes():
    rng = np.random.default_rng(7)
    gen = rng.normal(size=(700, 3))
    reco = np.column_stack([gen @ [1.0, 0.5, 0.2], gen[:, 0]]) + rng.normal(0, 0.3, (700, 2))
    truth = rng.normal(0.1, 1.1, (450, 3))
    data = np.column_stack([truth @ [1.0, 0.5, 0.2], truth[:, 0]]) + rng.normal(0, 0.3, (450, 2))
    result = _fit(bu.Simulation(gen, reco), bu.Data(data))
    assert result.weights.shape == (100, 700)
    assert result.nominal.sum() == pytest.approx(450)


def test_progress_goes_to_standard_error(toy, capsys):
    bu.OmniFold(**(QUICK | {"network": SMALL, "progressbar": True})).fit(toy.simulation, toy.measurement)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 iterations, 100 members" in captured.err


def test_auto_stops_and_says_why(toy):
    result = _fit(toy.simulation, toy.measurement, iterations="auto")
    assert result.history[-1]["change"] < 0.15 <= result.history[0]["change"]
    assert len(result.history) == len(result.iterations) < 12


def test_checkpoint_without_a_seed_goes_on_with_its_own(toy, tmp_path):
    path = tmp_path / "run.npz"
    settings = QUICK | {"network": SMALL, "random_seed": None}
    first = bu.OmniFold(**(settings | {"iterations": 1})).fit(toy.simulation, toy.measurement, checkpoint=path)
    second = bu.OmniFold(**settings).fit(toy.simulation, toy.measurement, checkpoint=path)
    assert second.configuration["random_seed"] == first.configuration["random_seed"]
    np.testing.assert_array_equal(first.iterations[0].step1, second.iterations[0].step1)


def test_numpy_integers_are_integers(toy, tmp_path):
    result = _fit(toy.simulation, toy.measurement, iterations=np.int64(1), random_seed=np.int64(3), draws=np.int32(20))
    assert result.save(tmp_path / "r.nc").stat().st_mode & 0o044 == 0o044 & ~_mask()


def _mask():
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_laplace_draws_are_the_members_own_answers(result):
    """Draw s of the first step 1 is member s, made again here from the seeds."""
    from bayesunfold.omnifold.loop import sample_fluctuations
    from bayesunfold.unfolding.perturbations import Perturbations
    from bayesunfold.unfolding.propagation import linear_refit

    events, step1 = result.members.events, result.measurement.step1
    xi = np.random.Generator(np.random.Philox(key=[5, 10_001])).standard_normal((len(step1.theta), 200))
    answer = linear_refit(step1, [], Perturbations((), sample_fluctuations(events, 200, 5), xi), prior=xi)
    change = result.linearized_posterior().tangent[:50] @ result.draws.z.T
    np.testing.assert_allclose(change, answer.log_ratio_change(events.data.x[:50]), atol=2e-3)


def test_iterations_that_still_move_are_warned_of():
    """A coarse detector: three iterations are far from converged, which one or two never promise."""
    toy = bu.datasets.gaussian_toy(4000, 4000, smear=2.5, random_seed=1)
    settings = {"inference": "laplace", "draws": 50, "random_seed": 1, "progressbar": False}
    with pytest.warns(ConvergenceWarning, match=r"the last of 3 iterations still moves the spectrum by \d"):
        result = bu.OmniFold(3, **settings).fit(toy.simulation, toy.measurement)
    assert result.history[-1]["change"] >= 0.5
    bu.OmniFold(2, **settings).fit(toy.simulation, toy.measurement)
