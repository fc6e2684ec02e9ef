"""Simulation statistics of the binned methods against responses filled again with fluctuating event weights."""

import numpy as np
import pytest

import bayesunfold as bu

EDGES = np.concatenate([[-9.0], np.linspace(-1.6, 1.6, 7), [9.0]])
REFILLS = 1200
SIZE = 0.02
"""Of the weights' fluctuations: small, so that the refills measure the derivative and not its curvature."""


@pytest.fixture(scope="module")
def simulated():
    """Weighted events with misses and fakes, and data of another spectrum."""
    rng = np.random.default_rng(3)
    gen = rng.normal(0, 1, 6000)
    reco = gen + rng.normal(0, 0.5, 6000)
    pass_gen, pass_reco = rng.random(6000) < 0.8, rng.random(6000) < np.clip(0.6 + 0.1 * gen, 0, 1)
    kept = pass_gen | pass_reco
    weight = rng.choice([0.5, 1.0, 2.0], kept.sum())
    data = np.histogram(rng.normal(0.3, 0.9, 3000) + rng.normal(0, 0.5, 3000), EDGES)[0]
    return (gen[kept], reco[kept]), {"pass_gen": pass_gen[kept], "pass_reco": pass_reco[kept]}, weight, data


def response(simulated, weight):
    events, flags, _, _ = simulated
    return bu.ResponseMatrix.from_events(bu.Simulation(*events, weight=weight, **flags), EDGES)


METHODS = {
    "IBU, first guess not forgotten": lambda errors: bu.IBU(2, errors=errors),
    "IBU": lambda errors: bu.IBU(6, errors=errors),
    "IBU, flat prior": lambda errors: bu.IBU(2, prior="flat", errors=errors),
    "inversion": lambda errors: bu.MatrixInversion(errors=errors),
    "Tikhonov": lambda errors: bu.Tikhonov("derivative", tau=0.02, errors=errors),
    "Tikhonov about the simulation": lambda errors: bu.Tikhonov(tau=0.02, bias=1.0, errors=errors),
    "the same with the area": lambda errors: bu.Tikhonov(tau=0.02, bias=1.0, area=True, errors=errors),
    "SVD": lambda errors: bu.SVDUnfolding(5, errors=errors),
}


@pytest.fixture(scope="module")
def refilled(simulated):
    """Point estimates of all methods for refilled responses."""
    rng = np.random.default_rng(4)
    weight, data = simulated[2:]
    found = {name: [] for name in METHODS}
    for _ in range(REFILLS):
        r = response(simulated, weight * (1 + SIZE * (rng.standard_exponential(len(weight)) - 1)))
        for name, method in METHODS.items():
            found[name].append(method(False).fit(r, data).nominal)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize("name", METHODS)
def test_simulation_statistics_agree_with_refilled_responses(simulated, refilled, name):
    """The response, the shares of fakes and the simulated spectrum move with the same events.

    1200 refills know a standard deviation to 2.0 %; the limit is seven of these, a false-alarm rate below 1e-9 for all
    64 bins.
    """
    weight, data = simulated[2:]
    s = METHODS[name](True).fit(response(simulated, weight), data)
    width = s.by_source()["simulation"]
    np.testing.assert_allclose(width, refilled[name].std(axis=0) / SIZE, rtol=0.145)


@pytest.mark.parametrize("bias", [1.0, 0.7])
def test_a_penalty_around_the_scaled_simulation_follows_the_data(bias):
    """With an all-powerful penalty on size the result is the scaled simulation, and so is its error the data's total.

    ``x = f n sum(d) / sum(R n)``: relative error ``1 / sqrt(sum d)`` in every bin.
    """
    R = bu.ResponseMatrix([[0.8, 0.2], [0.1, 0.7]])
    R = bu.ResponseMatrix(R.probabilities, truth=[4e8, 6e8])
    s = bu.Tikhonov("size", tau=1e6, bias=bias).fit(R, [400, 500])
    expected = bias * R.truth * 900 / R.fold(R.truth).sum()
    np.testing.assert_allclose(s.nominal, expected, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(s.covariance())), expected / 30, rtol=1e-3)


def test_one_iteration_with_a_blind_detector_returns_the_prior_with_its_statistics():
    """A response without migration information: the shape stays the simulation's, with its binomial error.

    All bins look alike at detector level, so ``n_i = total t_i / T``, and the share of unit weights has variance
    ``p (1 - p) / T``. Every event is seen, so the response adds nothing.
    """
    t = np.array([300.0, 700.0])
    R = bu.ResponseMatrix(np.full((2, 2), 0.5), truth=t)
    s = bu.IBU(1).fit(R, [500, 500])
    np.testing.assert_allclose(s.nominal, [300, 700])
    share = 0.3 * 0.7 / 1000
    np.testing.assert_allclose(s.by_source()["simulation"], 1000 * np.sqrt(share) * np.ones(2), rtol=1e-9)


def test_the_scale_of_a_flat_comparison_follows_the_data_too():
    """Without simulated counts the comparison is flat, and its level still the data's: relative error ``1 / 30``."""
    R = bu.ResponseMatrix([[0.8, 0.2], [0.1, 0.7]])
    s = bu.Tikhonov("size", tau=1e6, bias=1.0).fit(R, [400, 500])
    np.testing.assert_allclose(np.sqrt(np.diag(s.covariance())) / s.nominal, 1 / 30, rtol=1e-3)
