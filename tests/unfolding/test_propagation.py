"""Equations (1)-(6) against a loop that is really refitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from linear_loop import (
    ALL,
    Given,
    design,
    linear_events,
    linear_step1,
    linear_step2,
    newton,
    nominal_loop,
    perturbations,
    refitted_loop,
)

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.two_class import Classifier, ClassWeights, TwoClass
from bayesunfold.unfolding.perturbations import Shift, Shifted, Variation
from bayesunfold.unfolding.propagation import Carried, Displacement, PullNormalization, linear_refit


@pytest.fixture(scope="module")
def events():
    return linear_events()


def _carried(step1, step2, reco, shifts):
    """Simulated events of step 2 with the ratio of step 1 at one-sided shifted features."""
    here, nominal = step1.log_ratio(reco), step2.classes.sample("simulation")
    return {
        name: (replace(nominal, ones=nominal.ones * np.exp(step1.log_ratio(s.up.features) - here)), None)
        for name, s in shifts.items()
    }


def _propagate(events, g_data, g_sim, xi, iterations, basis=ALL, **more):
    gen, reco, data, v, u = events
    p = perturbations(g_data, g_sim, xi, **more)
    rows = np.ones(len(gen), bool)
    two = None
    for ref in nominal_loop(events, iterations):
        step1 = linear_step1(ref["one"], basis, data, u, reco, ref["w0"], ref["offset"])
        step2 = linear_step2(ref["two"], basis, gen, ref["ones"], v)
        carried = [] if two is None else [Carried(two, gen, "zeros", rows)]
        nominal = step1.classes.sample("simulation")
        varied = {name: (replace(nominal, x=s.up.features), None) for name, s in p.shifts.items()}
        one = linear_refit(step1, carried, p, prior=xi, varied=varied)
        carried = [Carried(one, reco, "ones", rows)] + ([] if two is None else [Carried(two, gen, "ones", rows)])
        two = linear_refit(step2, carried, p, varied=_carried(step1, step2, reco, p.shifts))
    return one, two


@pytest.mark.parametrize("source", ["data", "simulation", "prior", "all"])
@pytest.mark.parametrize("iterations", [1, 3])
def test_equations_2_5_6_are_the_derivative_of_the_refitted_loop(events, source, iterations):
    rng = np.random.default_rng(2)
    g_data = rng.standard_normal((200, 1)) * (source in ("data", "all"))
    g_sim = rng.standard_normal((300, 1)) * (source in ("simulation", "all"))
    xi = rng.standard_normal((4, 1)) * (source in ("prior", "all"))
    _, two = _propagate(events, g_data, g_sim, xi, iterations)
    change = two.log_ratio_change(events[0])[:, 0]
    step = 1e-4
    up, _ = refitted_loop(events, step * g_data[:, 0], step * g_sim[:, 0], step * xi[:, 0], iterations)
    down, _ = refitted_loop(events, -step * g_data[:, 0], -step * g_sim[:, 0], -step * xi[:, 0], iterations)
    np.testing.assert_allclose(change, (up - down) / (2 * step), rtol=1e-6, atol=2e-7)


def test_sources_add_up_to_the_total(events):
    rng = np.random.default_rng(3)
    fluctuations = rng.standard_normal((200, 4)), rng.standard_normal((300, 4)), rng.standard_normal((4, 4))
    _, two = _propagate(events, *fluctuations, 3)
    split = [two.log_ratio_change(events[0], s) for s in ("data", "simulation", "prior")]
    np.testing.assert_allclose(np.sum(split, axis=0), two.log_ratio_change(events[0]), atol=1e-12)
    alone = _propagate(events, fluctuations[0], 0 * fluctuations[1], 0 * fluctuations[2], 3)[1]
    np.testing.assert_allclose(split[0], alone.log_ratio_change(events[0]), atol=1e-12)


def test_a_rotated_basis_changes_nothing(events):
    rng = np.random.default_rng(4)
    fluctuations = rng.standard_normal((200, 3)), rng.standard_normal((300, 3)), rng.standard_normal((4, 3))
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    plain = _propagate(events, *fluctuations, 2)[1].log_ratio_change(events[0])
    turned = _propagate(events, *fluctuations, 2, basis=rotation)[1].log_ratio_change(events[0])
    np.testing.assert_allclose(plain, turned, atol=1e-10)


def _nudged(events, variation, iterations, step):
    """The refitted loop with every simulated event's weight changed by ``step`` times the variation."""
    return refitted_loop(events, np.zeros(200), step * variation, np.zeros(4), iterations)[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_weight_systematics_equal_the_refitted_loop(events, sign):
    rng = np.random.default_rng(8)
    up, down = rng.normal(size=300), rng.normal(size=300)
    variation = Variation(np.array([sign]), up, down)
    none = np.zeros((200, 1)), np.zeros((300, 1)), np.zeros((4, 1))
    _, two = _propagate(events, *none, 3, effects={"scale": variation})
    change = two.log_ratio_change(events[0], "scale")[:, 0]
    step, v = 1e-4, up if sign > 0 else down
    expected = (_nudged(events, v, 3, step) - _nudged(events, v, 3, -step)) / (2 * step)
    np.testing.assert_allclose(change, expected, rtol=1e-6, atol=2e-7)
    assert two.by_source["simulation"] == pytest.approx(0.0)


def test_shifted_features_equal_the_refitted_loop(events):
    """Energy scales: the loop refitted with simulated detector-level features moved, one-sided and linear."""
    gen, reco, data, v, u = events
    rng = np.random.default_rng(9)
    direction = 0.3 * rng.normal(size=reco.shape) + 0.5
    none = np.zeros((200, 2)), np.zeros((300, 2)), np.zeros((4, 2))
    step = 1e-4

    def moved(size):
        nominal = nominal_loop(events, 2)
        log_nu, phi_g = np.zeros(300), design(gen)
        for ref in nominal:
            w0 = ref["c"] * v * np.exp(log_nu)
            phi_r = design(reco + size * direction)
            one = newton(
                np.r_[design(data), phi_r], np.r_[u, np.zeros(300)], np.r_[np.zeros(200), w0], ref["offset"], 0.0
            )
            two = newton(phi_g, ref["c2"] * v * np.exp(log_nu + phi_r @ one), v, 0.0, 0.0)
            log_nu = phi_g @ two
        return log_nu

    shift = Shift(np.array([1.0, -2.0]), Shifted(reco + step * direction, np.ones(300, bool)), None)
    _, two = _propagate(events, *none, 2, effects={"jes": shift})
    change = two.log_ratio_change(gen, "jes") / step
    expected = (moved(step) - moved(-step)) / (2 * step)
    np.testing.assert_allclose(change[:, 0], expected, rtol=2e-3, atol=2e-4)
    np.testing.assert_allclose(change[:, 1], -2 * expected, rtol=2e-3, atol=4e-4)


def test_backgrounds_equal_the_refitted_step_1(events):
    """Events of a background and the signal's total, which is what the data hold beyond it."""
    _gen, reco, data, v, u = events
    rng = np.random.default_rng(10)
    background = rng.normal(1.0, 1.0, (80, 3))
    b = 0.3 + rng.random(80)
    g, signal = rng.normal(size=(80, 1)), np.array([0.4])
    w0 = v * 0.6

    def fit(step):
        return newton(
            np.r_[design(data), design(reco), design(background)],
            np.r_[u, np.zeros(380)],
            np.r_[np.zeros(200), w0 * (1 + step * signal[0]), b * (1 + step * (g[:, 0] + 0.7))],
            0.1,
            0.0,
        )

    step1 = linear_step1(fit(0.0), ALL, data, u, reco, w0, 0.1, [("top", background, b)])
    p = perturbations(
        np.zeros((200, 1)),
        np.zeros((300, 1)),
        backgrounds={"top": Given(g)},
        signal={"top": signal},
        scales={"top": np.array([0.7])},
    )
    found = linear_refit(step1, [], p, prior=np.zeros((4, 1)))
    expected = (fit(1e-4) - fit(-1e-4)) / 2e-4
    np.testing.assert_allclose(found.by_source["top"][:, 0], expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("source", ["simulation", "scale", "prior"])
def test_the_signal_keeps_its_total_beside_backgrounds(events, source):
    """What moves the simulation's weights, its events, a systematic or push weights, leaves them what data hold."""
    gen, reco, data, v, u = events
    rng = np.random.default_rng(12)
    background, w0 = rng.normal(1.0, 1.0, (80, 3)), v * 0.6
    none, g, xi = np.zeros((300, 1)), rng.normal(size=(300, 1)) + 0.5, rng.normal(size=(4, 1))
    p = perturbations(
        np.zeros((200, 1)),
        g if source == "simulation" else none,
        backgrounds={"top": Given(np.zeros((80, 1)))},
        effects={"scale": Variation(np.ones(1), g[:, 0], none[:, 0])} if source == "scale" else {},
    )
    nu = linear_step2(np.zeros(4), ALL, gen, v, v)
    push = Displacement(nu, {"prior": xi})
    change = push.log_ratio_change(gen)[:, 0] if source == "prior" else g[:, 0]

    def fit(step):
        w = w0 * np.exp(step * change)
        return newton(
            np.r_[design(data), design(reco), design(background)],
            np.r_[u, np.zeros(380)],
            np.r_[np.zeros(200), w * (w0.sum() / w.sum()), np.ones(80)],
            0.1,
            0.0,
        )

    step1 = linear_step1(fit(0.0), ALL, data, u, reco, w0, 0.1, [("top", background, np.ones(80))])
    carried = [Carried(push, gen, "zeros", np.ones(300, bool))] if source == "prior" else []
    found = linear_refit(step1, carried, p)
    expected = (fit(1e-4) - fit(-1e-4)) / 2e-4
    np.testing.assert_allclose(found.by_source[source][:, 0], expected, rtol=1e-6, atol=1e-8)


def test_level_of_the_pull_weights_is_kept(events):
    """``efficiency="prior"``: pull weights have mean one over events that pass both, misses keep their weight."""
    gen, reco, data, v, u = events
    rng = np.random.default_rng(11)
    both = rng.random(300) < 0.7
    g = rng.normal(size=(300, 1))
    ref = nominal_loop(events, 1)[0]
    phi = design(gen)
    f1 = design(reco) @ ref["one"]
    xi = rng.normal(size=(4, 1))

    def fit(step):
        one = ref["one"] + step * first.total()[:, 0]
        omega = np.exp(design(reco) @ one)
        w = v * (1 + step * g[:, 0])
        omega = np.where(both, omega * (w[both].sum() / (w @ (omega * both))), 1.0)
        return newton(phi, w * omega, w, 0.0, 0.0)

    p = perturbations(np.zeros((200, 1)), g, xi)
    step1 = linear_step1(ref["one"], ALL, data, u, reco, np.where(both, ref["w0"], 0), ref["offset"])
    first = linear_refit(step1, [], p, prior=xi)
    pull = np.exp(f1)
    pull *= v[both].sum() / (v @ (pull * both))
    pulled, generated = np.where(both, v * pull, 0), np.where(both, v, 0)
    normalization = PullNormalization(pulled / pulled.sum(), generated / generated.sum(), both)
    step2 = linear_step2(fit(0.0), ALL, gen, v * np.where(both, pull, 1.0), v)
    two = linear_refit(step2, [Carried(first, reco, "ones", both)], p, normalization=normalization)
    expected = (fit(1e-4) - fit(-1e-4)) / 2e-4
    np.testing.assert_allclose(two.total()[:, 0], expected, rtol=1e-5, atol=1e-7)


def test_prior_follows_the_hidden_layers_of_its_centre():
    """Without information from events, weights are where their prior's mean is; output layers have none in common."""
    rng = np.random.default_rng(8)
    layout = Layout((1, 6, 1), "tanh", (2.0, 4.0))
    n, hidden = layout.n_parameters, layout.n_hidden_parameters
    x, g = rng.standard_normal((5, 1)), np.zeros((5, 3))
    samples = ClassWeights.of("data", x), ClassWeights.of("simulation", x)
    step1 = Classifier("step 1", layout, rng.standard_normal(n), TwoClass(samples, 0.0), directions=np.eye(n))
    step = rng.standard_normal((n, 3))
    rotation = np.linalg.qr(rng.standard_normal((n, n)))[0]
    centre = Displacement(replace(step1, directions=rotation), {"data": rotation.T @ step})
    found = linear_refit(step1, [], perturbations(g, g), centre=centre)
    assert found.by_source["data"][:hidden] == pytest.approx(step[:hidden])
    assert found.by_source["data"][hidden:] == pytest.approx(0, abs=1e-12)
