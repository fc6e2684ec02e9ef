"""Equations (1)-(10) against a loop that is really refitted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.linearized import posterior_axes
from bayesunfold.classifier.two_class import Classifier, ClassWeights, TwoClass, leading_directions
from bayesunfold.unfolding.conditioning import condition_on
from bayesunfold.unfolding.perturbations import Fluctuations, Perturbations, Shift, Shifted, Variation
from bayesunfold.unfolding.propagation import Carried, Displacement, PullNormalization, linear_refit

LAYOUT = Layout((3, 1), "tanh", (1.5,))
ALL = np.eye(4)


class _Fixed(Fluctuations):
    """Fluctuations given by hand, float64 so that finite differences can be compared."""

    def __init__(self, values, move=None):
        super().__init__(*values.shape, seed=0, move=move)
        self.values = values

    def block(self, index):
        g = self.values[index * 4096 : (index + 1) * 4096]
        return g if self.move is None else g + self.move(index)

    def moved(self, move):
        return _Fixed(self.values, move)


def _perturbations(g_data, g_sim, xi=None, *, backgrounds=None, **more):
    events = {"data": _Fixed(g_data), "simulation": _Fixed(g_sim)} | (backgrounds or {})
    prior = np.zeros((4, g_sim.shape[1])) if xi is None else xi
    return Perturbations((), events, prior, **more)


def _step1(theta, basis, data, u, reco, w0, offset, backgrounds=()):
    """Step 1: data against the simulation and backgrounds of (name, features, weight)."""
    samples = [
        ClassWeights.of("data", data, ones=u),
        ClassWeights.of("simulation", reco, zeros=w0),
        *(ClassWeights.of(name, x, zeros=w) for name, x, w in backgrounds),
    ]
    return Classifier("step 1", LAYOUT, theta, TwoClass(tuple(samples), offset), directions=basis)


def _step2(theta, basis, gen, ones, zeros):
    classes = TwoClass((ClassWeights("simulation", gen, ones, zeros),), 0.0)
    return Classifier("step 2", LAYOUT, theta, classes, directions=basis)


def _design(x):
    """Tangent features of the linear network: they do not depend on the weights."""
    scale = np.array([1.5 / np.sqrt(3)] * 3 + [1.5])
    return np.column_stack([x, np.ones(len(x))]) * scale


def _newton(phi, ones, zeros, offset, pull):
    """Exact penalised logistic fit; ``pull`` adds a linear term, the prior noise."""
    theta = np.zeros(phi.shape[1])
    for _ in range(60):
        q = expit(phi @ theta + offset)
        gradient = phi.T @ (zeros * q - ones * (1 - q)) + theta - pull
        hessian = phi.T @ (phi * ((ones + zeros) * q * (1 - q))[:, None]) + np.eye(len(theta))
        theta = theta - np.linalg.solve(hessian, gradient)
    return theta


def _loop(events, g_data, g_sim, xi, iterations):
    """The unfolding loop for a linear model, refitted to perturbed weights; sizes fixed as in the point estimate."""
    gen, reco, data, v, u = events
    phi_g, phi_r, phi_d = _design(gen), _design(reco), _design(data)
    nominal = _nominal(events, iterations)
    log_nu, thetas = np.zeros(len(gen)), []
    for k in range(iterations):
        ref = nominal[k]
        w0 = ref["c"] * v * (1 + g_sim) * np.exp(log_nu)
        one = _newton(
            np.r_[phi_d, phi_r],
            np.r_[u * (1 + g_data), np.zeros(len(reco))],
            np.r_[np.zeros(len(data)), w0],
            ref["offset"],
            xi,
        )
        omega = np.exp(log_nu + phi_r @ one)
        two = _newton(phi_g, ref["c2"] * v * (1 + g_sim) * omega, v * (1 + g_sim), 0.0, np.zeros(4))
        log_nu = phi_g @ two
        thetas.append((one, two))
    return log_nu, thetas


def _nominal(events, iterations):
    gen, reco, data, v, u = events
    phi_g, phi_r, phi_d = _design(gen), _design(reco), _design(data)
    log_nu, out = np.zeros(len(gen)), []
    for _ in range(iterations):
        w0 = v * np.exp(log_nu)
        c = w0.sum() / (w0**2).sum()
        offset = np.log(u.sum() / (c * w0.sum()))
        one = _newton(
            np.r_[phi_d, phi_r], np.r_[u, np.zeros(len(reco))], np.r_[np.zeros(len(data)), c * w0], offset, np.zeros(4)
        )
        omega = np.exp(log_nu + phi_r @ one)
        c2 = v.sum() / (v * omega).sum()
        two = _newton(phi_g, c2 * v * omega, v, 0.0, np.zeros(4))
        out.append({"c": c, "offset": offset, "c2": c2, "one": one, "two": two, "w0": c * w0, "ones": c2 * v * omega})
        log_nu = phi_g @ two
    return out


@pytest.fixture(scope="module")
def events():
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, (300, 3))
    reco = gen + rng.normal(0, 0.5, gen.shape)
    truth = rng.normal(0.3, 0.9, (200, 3))
    data = truth + rng.normal(0, 0.5, truth.shape)
    v = rng.random(300) + 0.5
    v *= (v.sum() / (v**2).sum()) * len(v) / len(v)
    return gen, reco, data, v, np.ones(200)


def _carried(step1, step2, reco, shifts):
    """Simulated events of step 2 with the ratio of step 1 at one-sided shifted features."""
    here, nominal = step1.log_ratio(reco), step2.classes.sample("simulation")
    return {
        name: (replace(nominal, ones=nominal.ones * np.exp(step1.log_ratio(s.up.features) - here)), None)
        for name, s in shifts.items()
    }


def _propagate(events, g_data, g_sim, xi, iterations, basis=ALL, **more):
    gen, reco, data, v, u = events
    p = _perturbations(g_data, g_sim, xi, **more)
    rows = np.ones(len(gen), bool)
    two = None
    for ref in _nominal(events, iterations):
        step1 = _step1(ref["one"], basis, data, u, reco, ref["w0"], ref["offset"])
        step2 = _step2(ref["two"], basis, gen, ref["ones"], v)
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
    up, _ = _loop(events, step * g_data[:, 0], step * g_sim[:, 0], step * xi[:, 0], iterations)
    down, _ = _loop(events, -step * g_data[:, 0], -step * g_sim[:, 0], -step * xi[:, 0], iterations)
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


def test_conditioning_reproduces_the_draws(events):
    """Equations (7)-(10): after the shift, the member of the first step 1 *is* the posterior draw."""
    _gen, reco, data, _, u = events
    rng = np.random.default_rng(5)
    g_data, g_sim, xi = rng.exponential(size=(200, 6)) - 1, rng.exponential(size=(300, 6)) - 1, rng.normal(size=(4, 6))
    ref = _nominal(events, 1)[0]
    step1 = _step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"])
    before = _perturbations(g_data, g_sim, xi)
    axes, precision = posterior_axes(step1)
    draws = rng.standard_normal((6, 4))
    after = condition_on(step1, before, axes, draws).apply(before)
    moved = linear_refit(step1, [], after, prior=after.prior)
    # C1' d = z, with A1 = C1 C1'
    np.testing.assert_allclose(axes.T @ moved.total(), draws.T, atol=1e-9)
    curvature = axes @ axes.T
    np.testing.assert_allclose(np.linalg.eigvalsh(curvature), np.sort(precision), rtol=1e-10)


def test_conditioning_on_its_own_answer_moves_nothing(events):
    _gen, reco, data, _, u = events
    rng = np.random.default_rng(6)
    g_data, g_sim, xi = rng.normal(size=(200, 2)), rng.normal(size=(300, 2)), rng.normal(size=(4, 2))
    ref = _nominal(events, 1)[0]
    step1 = _step1(ref["one"], ALL, data, u, reco, ref["w0"], ref["offset"])
    p = _perturbations(g_data, g_sim, xi)
    axes, _ = posterior_axes(step1)
    own = linear_refit(step1, [], p, prior=xi).total()
    conditioning = condition_on(step1, p, axes, (axes.T @ own).T)
    np.testing.assert_allclose(conditioning.multiplier, 0.0, atol=1e-9)


def _nudged(events, variation, iterations, step):
    """The refitted loop with every simulated event's weight changed by ``step`` times the variation."""
    return _loop(events, np.zeros(200), step * variation, np.zeros(4), iterations)[0]


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
        nominal = _nominal(events, 2)
        log_nu, phi_g = np.zeros(300), _design(gen)
        for ref in nominal:
            w0 = ref["c"] * v * np.exp(log_nu)
            phi_r = _design(reco + size * direction)
            one = _newton(
                np.r_[_design(data), phi_r], np.r_[u, np.zeros(300)], np.r_[np.zeros(200), w0], ref["offset"], 0.0
            )
            two = _newton(phi_g, ref["c2"] * v * np.exp(log_nu + phi_r @ one), v, 0.0, 0.0)
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
        return _newton(
            np.r_[_design(data), _design(reco), _design(background)],
            np.r_[u, np.zeros(380)],
            np.r_[np.zeros(200), w0 * (1 + step * signal[0]), b * (1 + step * (g[:, 0] + 0.7))],
            0.1,
            0.0,
        )

    step1 = _step1(fit(0.0), ALL, data, u, reco, w0, 0.1, [("top", background, b)])
    p = _perturbations(
        np.zeros((200, 1)),
        np.zeros((300, 1)),
        backgrounds={"top": _Fixed(g)},
        signal={"top": signal},
        scales={"top": np.array([0.7])},
    )
    found = linear_refit(step1, [], p, prior=np.zeros((4, 1)))
    expected = (fit(1e-4) - fit(-1e-4)) / 2e-4
    np.testing.assert_allclose(found.by_source["top"][:, 0], expected, rtol=1e-6, atol=1e-8)


def test_level_of_the_pull_weights_is_kept(events):
    """``efficiency="prior"``: pull weights have mean one over events that pass both, misses keep their weight."""
    gen, reco, data, v, u = events
    rng = np.random.default_rng(11)
    both = rng.random(300) < 0.7
    g = rng.normal(size=(300, 1))
    ref = _nominal(events, 1)[0]
    phi = _design(gen)
    f1 = _design(reco) @ ref["one"]
    xi = rng.normal(size=(4, 1))

    def fit(step):
        one = ref["one"] + step * first.total()[:, 0]
        omega = np.exp(_design(reco) @ one)
        w = v * (1 + step * g[:, 0])
        omega = np.where(both, omega * (w[both].sum() / (w @ (omega * both))), 1.0)
        return _newton(phi, w * omega, w, 0.0, 0.0)

    p = _perturbations(np.zeros((200, 1)), g, xi)
    step1 = _step1(ref["one"], ALL, data, u, reco, np.where(both, ref["w0"], 0), ref["offset"])
    first = linear_refit(step1, [], p, prior=xi)
    pull = np.exp(f1)
    pull *= v[both].sum() / (v @ (pull * both))
    pulled, generated = np.where(both, v * pull, 0), np.where(both, v, 0)
    normalization = PullNormalization(pulled / pulled.sum(), generated / generated.sum())
    step2 = _step2(fit(0.0), ALL, gen, v * np.where(both, pull, 1.0), v)
    two = linear_refit(step2, [Carried(first, reco, "ones", both)], p, normalization=normalization)
    expected = (fit(1e-4) - fit(-1e-4)) / 2e-4
    np.testing.assert_allclose(two.total()[:, 0], expected, rtol=1e-5, atol=1e-7)


def test_fluctuations_do_not_depend_on_the_order_of_asking():
    first, second = Fluctuations(10_000, 5, seed=3), Fluctuations(10_000, 5, seed=3)
    np.testing.assert_array_equal(first.block(2), second.block(2))
    second.block(0)
    np.testing.assert_array_equal(first.block(0), second.block(0))
    assert first.block(2).shape == (10_000 - 2 * 4096, 5)
    assert not np.array_equal(first.block(0), Fluctuations(10_000, 5, seed=4).block(0))


def test_fluctuations_have_mean_zero_and_variance_one():
    """Exp(1) - 1; 1e6 numbers, so 5 sigma is 0.005 on the mean (false alarm 6e-7) and 0.014 on the variance."""
    g = np.concatenate([Fluctuations(10_000, 100, seed=1).block(i) for i in range(3)]).astype(float)
    assert abs(g.mean()) < 5 / np.sqrt(g.size)
    # the variance of (Exp(1) - 1)^2 is 9 - 1 = 8
    assert abs(g.var() - 1) < 5 * np.sqrt(8 / g.size)


@pytest.mark.parametrize("rows", [30, 500])
def test_leading_directions_span_the_informed_space(rows):
    """Both solutions (events or weights the smaller number) keep the directions with curvature."""
    rng = np.random.default_rng(7)
    hidden = rng.normal(size=(rows, 5)) * 10
    mix = np.linalg.qr(rng.normal(size=(60, 60)))[0][:, :5]
    jacobian = hidden @ mix.T
    basis = leading_directions(jacobian, np.ones(rows))
    assert basis.shape == (60, 5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(basis @ (basis.T @ mix), mix, atol=1e-8)


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
    found = linear_refit(step1, [], _perturbations(g, g), centre=centre)
    assert found.by_source["data"][:hidden] == pytest.approx(step[:hidden])
    assert found.by_source["data"][hidden:] == pytest.approx(0, abs=1e-12)
