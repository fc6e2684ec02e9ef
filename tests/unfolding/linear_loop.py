"""A loop of linear networks, which can be refitted exactly: what equations (1)-(10) are compared with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import expit

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.two_class import Classifier, ClassWeights, TwoClass
from bayesunfold.unfolding.perturbations import Fluctuations, Perturbations, Variation
from bayesunfold.unfolding.propagation import Displacement

LAYOUT = Layout((3, 1), "tanh", (1.5,))
ALL = np.eye(4)


class Given(Fluctuations):
    """Fluctuations given by hand, float64 so that finite differences can be compared."""

    def __init__(self, values, move=None):
        super().__init__(*values.shape, seed=0, move=move)
        self.values = values

    def block(self, index):
        g = self.values[index * 4096 : (index + 1) * 4096]
        return g if self.move is None else g + self.move(index)

    def moved(self, move):
        return Given(self.values, move)


def perturbations(g_data, g_sim, xi=None, *, backgrounds=None, **more):
    events = {"data": Given(g_data), "simulation": Given(g_sim)} | (backgrounds or {})
    prior = np.zeros((4, g_sim.shape[1])) if xi is None else xi
    return Perturbations((), events, prior, **more)


def linear_step1(theta, basis, data, u, reco, w0, offset, backgrounds=()):
    """Step 1: data against the simulation and backgrounds of (name, features, weight)."""
    samples = [
        ClassWeights.of("data", data, ones=u),
        ClassWeights.of("simulation", reco, zeros=w0),
        *(ClassWeights.of(name, x, zeros=w) for name, x, w in backgrounds),
    ]
    return Classifier("step 1", LAYOUT, theta, TwoClass(tuple(samples), offset), directions=basis)


def linear_step2(theta, basis, gen, ones, zeros):
    classes = TwoClass((ClassWeights("simulation", gen, ones, zeros),), 0.0)
    return Classifier("step 2", LAYOUT, theta, classes, directions=basis)


def design(x):
    """Tangent features of the linear network: they do not depend on the weights."""
    scale = np.array([1.5 / np.sqrt(3)] * 3 + [1.5])
    return np.column_stack([x, np.ones(len(x))]) * scale


def newton(phi, ones, zeros, offset, pull):
    """Exact penalised logistic fit; ``pull`` adds a linear term, the prior noise."""
    theta = np.zeros(phi.shape[1])
    for _ in range(60):
        q = expit(phi @ theta + offset)
        gradient = phi.T @ (zeros * q - ones * (1 - q)) + theta - pull
        hessian = phi.T @ (phi * ((ones + zeros) * q * (1 - q))[:, None]) + np.eye(len(theta))
        theta = theta - np.linalg.solve(hessian, gradient)
    return theta


def refitted_loop(events, g_data, g_sim, xi, iterations):
    """The unfolding loop for a linear model, refitted to perturbed weights; sizes fixed as in the point estimate."""
    gen, reco, data, v, u = events
    phi_g, phi_r, phi_d = design(gen), design(reco), design(data)
    nominal = nominal_loop(events, iterations)
    log_nu, thetas = np.zeros(len(gen)), []
    for k in range(iterations):
        ref = nominal[k]
        w0 = ref["c"] * v * (1 + g_sim) * np.exp(log_nu)
        one = newton(
            np.r_[phi_d, phi_r],
            np.r_[u * (1 + g_data), np.zeros(len(reco))],
            np.r_[np.zeros(len(data)), w0],
            ref["offset"],
            xi,
        )
        omega = np.exp(log_nu + phi_r @ one)
        two = newton(phi_g, ref["c2"] * v * (1 + g_sim) * omega, v * (1 + g_sim), 0.0, np.zeros(4))
        log_nu = phi_g @ two
        thetas.append((one, two))
    return log_nu, thetas


def nominal_loop(events, iterations):
    gen, reco, data, v, u = events
    phi_g, phi_r, phi_d = design(gen), design(reco), design(data)
    log_nu, out = np.zeros(len(gen)), []
    for _ in range(iterations):
        w0 = v * np.exp(log_nu)
        c = w0.sum() / (w0**2).sum()
        offset = np.log(u.sum() / (c * w0.sum()))
        one = newton(
            np.r_[phi_d, phi_r], np.r_[u, np.zeros(len(reco))], np.r_[np.zeros(len(data)), c * w0], offset, np.zeros(4)
        )
        omega = np.exp(log_nu + phi_r @ one)
        c2 = v.sum() / (v * omega).sum()
        two = newton(phi_g, c2 * v * omega, v, 0.0, np.zeros(4))
        out.append({"c": c, "offset": offset, "c2": c2, "one": one, "two": two, "w0": c * w0, "ones": c2 * v * omega})
        log_nu = phi_g @ two
    return out


def linear_events():
    """Particle level, detector level, data, generator weights and data weights."""
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, (300, 3))
    reco = gen + rng.normal(0, 0.5, gen.shape)
    truth = rng.normal(0.3, 0.9, (200, 3))
    data = truth + rng.normal(0, 0.5, truth.shape)
    v = rng.random(300) + 0.5
    v *= (v.sum() / (v**2).sum()) * len(v) / len(v)
    return gen, reco, data, v, np.ones(200)


def answered(members, size=0.2):
    """The ensemble with one systematic ``"tune"``, which the particle-level network takes back."""
    network, gen = members.step2.classifier, members.events.gen
    d = np.eye(network.basis.shape[1])[:, :1]
    d *= size / Displacement(network, {"tune": d}).log_ratio_change(gen).std()
    log = Displacement(network, {"tune": d}).log_ratio_change(gen)[:, 0].astype(np.float64)
    alpha = np.linspace(-3, 3, members.n_members)
    p = replace(members.perturbations, effects={"tune": Variation(alpha, log, -log)}, signal={})
    step2 = Displacement(network, {"tune": -d * alpha})
    return replace(members, step2=step2, fakes=None, perturbations=p, _norms={})
