"""Arithmetic of a fully connected network, in NumPy.

The parameters are *standardised*: the vector ``theta`` has a Normal(0, 1) prior, and layer
``l`` uses ``W = scale_l * theta_W / sqrt(fan_in)`` and ``b = scale_l * theta_b``. Everything
that touches events (:func:`forward`, :func:`loss_and_gradient`, :func:`tangent`) works on
blocks of events, so memory does not grow with events x weights.

Blocks run in parallel inside :func:`bayesunfold._support.threads.block_threads`.

Cost: one pass over ``n`` events costs about ``6 n P`` floating-point operations for a gradient
and ``2 n P p`` for tangent features in ``p`` directions (``P`` weights).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.activations import ACTIVATIONS, log1pexp
from bayesunfold.classifier.additive import Additive

__all__ = ["Layout", "blocks", "forward", "loss_and_gradient", "tangent", "weighted_gram"]

Array = NDArray[np.floating]

BLOCK = 8192
"""Events per block: activations of a 48-unit layer then fit into a core's cache."""


def __dir__() -> list[str]:
    return __all__


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover ``range(n)`` in order, ``size`` rows at a time."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


@dataclass(frozen=True)
class Layout:
    """Where each layer's weights sit in the parameter vector, and how they are scaled.

    Attributes
    ----------
    sizes : tuple of int
        Units per layer, input first, ending with 1 (the log density ratio).
    activation : str
        ``"tanh"``, ``"relu"`` or ``"softplus"``.
    scales : tuple of float
        Prior standard deviation of each layer (times ``sqrt(fan_in)`` for its weights).
    additive : Additive, optional
        One-dimensional functions of the features that are added; their coefficients are the last parameters.
    """

    sizes: tuple[int, ...]
    activation: str
    scales: tuple[float, ...]
    additive: Additive | None = None

    @property
    def n_parameters(self) -> int:
        """Number of weights, biases and coefficients of the additive part."""
        return self.n_network + (0 if self.additive is None else len(self.additive))

    @property
    def n_network(self) -> int:
        """Number of weights and biases."""
        return sum((a + 1) * b for a, b in zip(self.sizes[:-1], self.sizes[1:], strict=True))

    @property
    def n_hidden_parameters(self) -> int:
        """Number of weights and biases before the output layer."""
        return self.n_network - (self.sizes[-2] + 1) * self.sizes[-1]

    def pieces(self) -> Iterator[tuple[slice, slice, int, int, float, float]]:
        """Slices of ``W`` and ``b``, their shape, and the scale of each, layer by layer."""
        start = 0
        for fan_in, fan_out, scale in zip(self.sizes[:-1], self.sizes[1:], self.scales, strict=True):
            middle = start + fan_in * fan_out
            end = middle + fan_out
            yield (
                slice(start, middle),
                slice(middle, end),
                fan_in,
                fan_out,
                scale / np.sqrt(fan_in),
                scale,
            )
            start = end

    def layers(self, theta: Array, dtype: type | np.dtype = np.float64) -> list[tuple[Array, Array]]:
        """Scaled ``(W, b)`` of each layer; ``W`` has shape ``(fan_in, fan_out)``."""
        return [
            (
                (theta[w] * w_scale).reshape(fan_in, fan_out).astype(dtype),
                (theta[b] * b_scale).astype(dtype),
            )
            for w, b, fan_in, fan_out, w_scale, b_scale in self.pieces()
        ]


def _activations(layout: Layout, layers: list[tuple[Array, Array]], x: Array) -> list[Array]:
    """Inputs of each layer, followed by the network's output of shape ``(n, 1)``."""
    act = ACTIVATIONS[layout.activation].value
    values = [x]
    for weight, bias in layers[:-1]:
        values.append(act(values[-1] @ weight + bias))
    weight, bias = layers[-1]
    values.append(values[-1] @ weight + bias)
    return values


def _output(
    layout: Layout, layers: list[tuple[Array, Array]], theta: Array, x: Array
) -> tuple[Array, list[Array], Array | None]:
    """Output of shape (n,), inputs of each layer, and tangent features of the additive part if there is one."""
    values = _activations(layout, layers, x)
    output = values[-1][:, 0]
    if layout.additive is None:
        return output, values, None
    added = layout.additive.basis(x)
    return output + added @ theta[layout.n_network :].astype(x.dtype), values, added


def forward(layout: Layout, theta: Array, x: Array) -> Array:
    """Network output ``f(x; theta)``, shape ``(n,)``, in double precision.

    Parameters
    ----------
    layout : Layout
    theta : array, shape (P,)
        Standardised parameters.
    x : array, shape (n, d)
        Standardised features. Empty input gives an empty output.
    """
    layers = layout.layers(theta, x.dtype)
    out = np.empty(len(x))

    def one(block: slice) -> None:
        out[block] = _output(layout, layers, theta, x[block])[0]

    for _ in map_blocks(one, blocks(len(x))):
        pass
    return out


def loss_and_gradient(
    layout: Layout, theta: Array, x: Array, ones: Array, zeros: Array, offset: float
) -> tuple[float, Array]:
    """Weighted Bernoulli loss of a classifier and its gradient, without the prior.

    The loss is ``sum ones * log(1 + exp(-f - offset)) + zeros * log(1 + exp(f + offset))``.
    An event may belong to both classes at once (step 2 of the unfolding), which is why each
    event has two weights instead of a label.

    Parameters
    ----------
    x : array, shape (n, d)
    ones, zeros : array, shape (n,)
        Weight of each event in class 1 and in class 0; negative weights are allowed.
    offset : float
        Fixed part of the logit, the log ratio of the classes' total weights.

    Returns
    -------
    loss : float
    gradient : array, shape (P,)
    """
    derivative = ACTIVATIONS[layout.activation].derivative
    layers = layout.layers(theta, x.dtype)
    pieces = list(layout.pieces())

    def one(block: slice) -> tuple[float, Array]:
        gradient = np.empty(layout.n_parameters)
        output, values, added = _output(layout, layers, theta, x[block])
        logit = output.astype(np.float64) + offset
        first, zeroth = ones[block], zeros[block]
        loss = float((first + zeroth) @ log1pexp(logit) - first @ logit)  # log(1 + exp(-z)) = log(1 + exp(z)) - z
        q = expit(logit)
        delta = (zeroth * q - first * (1.0 - q)).astype(x.dtype)[:, None]
        if added is not None:
            gradient[layout.n_network :] = added.T @ delta[:, 0]
        for layer in range(len(layers) - 1, -1, -1):
            w, b, _, _, w_scale, b_scale = pieces[layer]
            gradient[w] = w_scale * (values[layer].T @ delta).ravel()
            gradient[b] = b_scale * delta.sum(axis=0)
            if layer:
                delta = (delta @ layers[layer][0].T) * derivative(values[layer])
        return loss, gradient

    total, gradients = 0.0, np.zeros(layout.n_parameters)
    for loss, gradient in map_blocks(one, blocks(len(x))):
        total += loss
        gradients += gradient
    return total, gradients


def tangent(layout: Layout, theta: Array, x: Array, basis: Array | None = None) -> Array:
    """Tangent features: gradient of the output at each event, in the directions of ``basis``.

    Parameters
    ----------
    x : array, shape (n, d)
    basis : array, shape (P, p), optional
        Directions in the space of standardised parameters; all ``P`` axes if omitted.

    Returns
    -------
    array, shape (n, p) or (n, P), of the type of ``x``
    """
    derivative = ACTIVATIONS[layout.activation].derivative
    layers = layout.layers(theta, x.dtype)
    pieces = list(layout.pieces())
    width = layout.n_parameters if basis is None else basis.shape[1]
    directions = None if basis is None else basis.astype(x.dtype)
    out = np.empty((len(x), width), dtype=x.dtype)

    def one(block: slice) -> None:
        _, values, added = _output(layout, layers, theta, x[block])
        full = out[block] if directions is None else np.empty((len(values[0]), layout.n_parameters), x.dtype)
        if added is not None:
            full[:, layout.n_network :] = added
        delta = np.ones((len(values[0]), 1), dtype=x.dtype)
        for layer in range(len(layers) - 1, -1, -1):
            w, b, fan_in, fan_out, w_scale, b_scale = pieces[layer]
            outer = full[:, w].reshape(-1, fan_in, fan_out)
            np.multiply(values[layer][:, :, None], (w_scale * delta)[:, None, :], out=outer)
            np.multiply(delta, x.dtype.type(b_scale), out=full[:, b])
            if layer:
                delta = (delta @ layers[layer][0].T) * derivative(values[layer])
        if directions is not None:
            np.matmul(full, directions, out=out[block])

    for _ in map_blocks(one, blocks(len(x), BLOCK if directions is None else 2048)):
        pass
    return out


def weighted_gram(features: Array, weight: Array) -> Array:
    """``F' diag(w) F`` of features (n, p) and weights (n,), shape (p, p), summed over blocks in double precision."""

    def one(block: slice) -> Array:
        part = features[block]
        return part.T @ (part * weight[block, None].astype(part.dtype))

    out = np.zeros((features.shape[1], features.shape[1]))
    for part in map_blocks(one, blocks(len(features))):
        out += part
    return out
