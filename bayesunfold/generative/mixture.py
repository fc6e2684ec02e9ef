"""The density of one particle-level feature given others: classes for atoms, a mixture of Gaussians for the rest.

Bishop, "Mixture density networks", Aston University NCRG/94/004 (1994), with the network's first guess linear in its
inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

__all__ = ["Mixture", "Outputs", "Parameters", "loss_and_gradient"]

Array = NDArray[np.floating]
Integers = NDArray[np.integer]

LEAST_LOG_WIDTH, MOST_LOG_WIDTH = float(np.log(2e-3)), 2.0
"""Bounds of a Gaussian's logarithmic width, in normal scores."""

FLOOR = -8.0
"""Log density below which events of negative weight no longer push it down: without it they would win all."""


def __dir__() -> list[str]:
    return __all__


Parameters = list[Array]
"""Weights and biases of two hidden layers and the output, and the linear map from inputs to outputs."""


@dataclass(frozen=True)
class Outputs:
    """What a network says of each event; events are last, so that sums over few classes and Gaussians are fast.

    Attributes
    ----------
    log_class : array, shape (C, n)
        Log probability of each class.
    log_share : array, shape (K, n)
        Log shares of the Gaussians.
    location, log_width : array, shape (K, n)
    """

    log_class: Array
    log_share: Array
    location: Array
    log_width: Array

    def log_density(self, score: Array) -> Array:
        """Of the mixture at normal scores, shape (n,)."""
        return _log_sum(self.components(score))

    def components(self, score: Array) -> Array:
        """Log of each Gaussian's part of the density, shape (K, n)."""
        return self.components_at(self.deviations(score, np.exp(-self.log_width)))

    def components_at(self, z: Array) -> Array:
        """The same, of deviations from each Gaussian's location in its widths, shape (K, n)."""
        return self.log_share - self.log_width - 0.5 * z * z - np.float32(0.5 * np.log(2 * np.pi))

    def deviations(self, score: Array, inverse_width: Array) -> Array:
        """Of normal scores from each Gaussian's location, in its widths, shape (K, n)."""
        return (score - self.location) * inverse_width

    def distribution(self, score: Array) -> Array:
        """Of the mixture at normal scores, shape (n,)."""
        z = self.deviations(score, np.exp(-self.log_width))
        return np.sum(np.exp(self.log_share) * ndtr(z), axis=0)


@dataclass(frozen=True)
class Mixture:
    """A network with its parameters.

    Attributes
    ----------
    n_classes : int
        Atoms, and one for all other values.
    n_gaussians : int
        Zero if there are atoms only.
    parameters : Parameters
    """

    n_classes: int
    n_gaussians: int
    parameters: Parameters

    @classmethod
    def start(cls, n_inputs: int, hidden: int, n_classes: int, n_gaussians: int, rng: np.random.Generator) -> Mixture:
        """Random hidden layers, no dependence on the inputs."""
        size = n_classes + 3 * n_gaussians

        def layer(rows: int, columns: int, scale: float) -> list[Array]:
            w = rng.standard_normal((rows, columns)) * scale / np.sqrt(max(rows, 1))
            return [w.astype(np.float32), np.zeros(columns, dtype=np.float32)]

        first, second, last = layer(n_inputs, hidden, 1.0), layer(hidden, hidden, 1.0), layer(hidden, size, 0.1)
        skip = np.zeros((n_inputs, size), dtype=np.float32)
        if n_gaussians > 1:
            last[1][n_classes + n_gaussians : n_classes + 2 * n_gaussians] = np.linspace(-1.5, 1.5, n_gaussians)
        return cls(n_classes, n_gaussians, [*first, *second, *last, skip])

    def outputs(self, u: Array) -> Outputs:
        """At inputs u, shape (n, n_inputs), float32."""
        return self._split(_forward(self.parameters, u)[0])

    def _split(self, out: Array) -> Outputs:
        c, k = self.n_classes, self.n_gaussians
        classes, shares = out[:c], out[c : c + k]
        width = np.clip(out[c + 2 * k :], LEAST_LOG_WIDTH, MOST_LOG_WIDTH)
        return Outputs(classes - _log_sum(classes), shares - _log_sum(shares), out[c + k : c + 2 * k], width)

    def sample(self, outputs: Outputs, rng: np.random.Generator) -> tuple[Integers, Array]:
        """A class and a normal score for each event."""
        n = outputs.log_class.shape[1]
        classes: Integers = np.zeros(n, dtype=np.int64)
        if self.n_classes > 1:
            classes = _choose(outputs.log_class, rng)
        if not self.n_gaussians:
            return classes, np.zeros(n)
        chosen = _choose(outputs.log_share, rng)
        rows = np.arange(n)
        width = np.exp(outputs.log_width[chosen, rows])
        return classes, outputs.location[chosen, rows] + width * rng.standard_normal(n, dtype=np.float32)


def _log_sum(x: Array) -> Array:
    """Log of the sum of exponentials, shape (n,)."""
    if len(x) == 0:
        return np.zeros(x.shape[1], dtype=x.dtype)
    if len(x) == 1:
        return x[0]
    most = x.max(axis=0)
    return most + np.log(np.exp(x - most).sum(axis=0))


def _choose(log_share: Array, rng: np.random.Generator) -> Integers:
    """A row for each column, with the given log probabilities."""
    total = np.cumsum(np.exp(log_share), axis=0)
    u = rng.random(total.shape[1], dtype=np.float32) * total[-1]
    return np.minimum((u > total).sum(axis=0), len(total) - 1)


def _forward(parameters: Parameters, u: Array) -> tuple[Array, Array, Array]:
    """Outputs, shape (size, n), and hidden layers, shape (n, hidden)."""
    w1, b1, w2, b2, w3, b3, skip = parameters
    first = u @ w1
    first += b1
    _tanh(first)
    second = first @ w2
    second += b2
    _tanh(second)
    out = w3.T @ second.T
    out += skip.T @ u.T
    out += b3[:, None]
    return out, first, second


def _tanh(x: Array) -> None:
    """In place, by the exponential: faster than NumPy's own without the widest vector instructions, right to 2e-7."""
    x *= -2
    with np.errstate(over="ignore"):  # far below zero the result is -1
        np.exp(x, out=x)
    x += 1
    np.divide(2, x, out=x)
    x -= 1


def loss_and_gradient(
    mixture: Mixture, u: Array, classes: Integers, score: Array, weight: Array
) -> tuple[float, Parameters]:
    """Weighted negative log density, and its gradient by the parameters.

    Parameters
    ----------
    mixture : Mixture
    u : array, shape (n, n_inputs)
    classes : int array, shape (n,)
        The last class is that of all values that are no atoms.
    score : array, shape (n,)
        Normal scores; those of atoms do not matter.
    weight : array, shape (n,)
        May be negative.
    """
    c, k = mixture.n_classes, mixture.n_gaussians
    out, first, second = _forward(mixture.parameters, u)
    said = mixture._split(out)
    rows = np.arange(len(u))
    delta = np.empty_like(out)
    log_density = said.log_class[classes, rows].astype(np.float64)
    delta[:c] = np.exp(said.log_class)
    delta[classes, rows] -= 1.0
    if k:
        regular = classes == c - 1
        inverse = np.exp(-said.log_width)
        z = said.deviations(score, inverse)
        parts = said.components_at(z)
        total = _log_sum(parts)
        log_density += np.where(regular, total, 0.0)
        share = np.exp(parts - total)
        raw = out[c + 2 * k :]
        inside = (raw > LEAST_LOG_WIDTH) & (raw < MOST_LOG_WIDTH)
        delta[c : c + k] = np.exp(said.log_share) - share
        delta[c + k : c + 2 * k] = -share * z * inverse
        delta[c + 2 * k :] = share * (1.0 - z * z) * inside
        delta[c:] *= regular
    w = weight
    if (weight < 0).any():
        w = np.where(weight < 0, weight * np.exp(np.minimum(log_density - FLOOR, 0.0)), weight)
    delta *= w.astype(delta.dtype)
    return -float(w @ log_density), _backward(mixture.parameters, u, first, second, delta)


def _backward(parameters: Parameters, u: Array, first: Array, second: Array, delta: Array) -> Parameters:
    """Gradient by the parameters, from that by the outputs, shape (size, n)."""
    _, _, w2, _, w3, _, _ = parameters
    by_second = delta.T @ w3.T
    by_second *= 1.0 - second * second
    by_first = by_second @ w2.T
    by_first *= 1.0 - first * first
    return [
        u.T @ by_first,
        by_first.sum(axis=0),
        first.T @ by_second,
        by_second.sum(axis=0),
        second.T @ delta.T,
        delta.sum(axis=1),
        u.T @ delta.T,
    ]
