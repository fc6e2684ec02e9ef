"""Arithmetic of a fully connected network, in NumPy.

The parameters are *standardised*: the vector ``theta`` has a Normal(0, 1) prior, and layer
``l`` uses ``W = scale_l * theta_W / sqrt(fan_in)`` and ``b = scale_l * theta_b``. Everything
that touches events (:func:`forward`, :func:`loss_and_gradient`, :func:`tangent`) works on
blocks of events, so memory does not grow with events x weights.

Blocks run in parallel inside :func:`bayesunfold._support.threads.block_threads`, and many events on an accelerator
inside :func:`bayesunfold.classifier.backend.on_backend`.

Cost: one pass over ``n`` events costs about ``6 n P`` floating-point operations for a gradient
and ``2 n P p`` for tangent features in ``p`` directions (``P`` weights).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bayesunfold._support.threads import accelerator, map_blocks, map_here, row_blocks
from bayesunfold.classifier.activations import ACTIVATIONS, log1pexp
from bayesunfold.classifier.additive import Additive

__all__ = [
    "Layout",
    "accelerator_for",
    "activations",
    "backward",
    "blocks",
    "curvature",
    "events_per_pass",
    "forward",
    "loss_and_gradient",
    "pass_blocks",
    "tangent",
    "weighted_gradient",
    "weighted_gram",
]

Array = NDArray[np.floating]

BLOCK = 8192
"""Events per block: activations of a 48-unit layer then fit into a core's cache."""

WORTHWHILE = 2 * BLOCK
"""Events from which on a pass goes to an accelerator, if there is one."""


def __dir__() -> list[str]:
    return __all__


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover ``range(n)`` in order, ``size`` rows at a time."""
    return row_blocks(n, size)


def accelerator_for(n: int) -> Any:
    """What computes a pass over ``n`` events instead of NumPy, if there is something and they are many."""
    return accelerator.get() if n >= WORTHWHILE else None


def events_per_pass(size: int) -> int:
    """Events of a block: ``size``, or more for an accelerator, which small blocks would leave idle."""
    return size if accelerator.get() is None else max(size, WORTHWHILE)


def pass_blocks(n: int, size: int) -> Iterator[slice]:
    """As :func:`blocks`, of :func:`events_per_pass` rows."""
    return row_blocks(n, events_per_pass(size))


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

    def backwards(self) -> list[tuple[tuple[slice, slice, int, int, float, float], int]]:
        """Pieces and number of each layer, the last layer first."""
        return [(piece, layer) for layer, piece in enumerate(self.pieces())][::-1]

    def layers(self, theta: Array, dtype: type | np.dtype = np.float64) -> list[tuple[Array, Array]]:
        """Scaled ``(W, b)`` of each layer; ``W`` has shape ``(fan_in, fan_out)``."""
        return [
            (
                (theta[w] * w_scale).reshape(fan_in, fan_out).astype(dtype),
                (theta[b] * b_scale).astype(dtype),
            )
            for w, b, fan_in, fan_out, w_scale, b_scale in self.pieces()
        ]


def activations(layout: Layout, layers: list[tuple[Array, Array]], x: Array) -> tuple[list[Array], Array | None]:
    """Inputs of each layer, the network's output of shape ``(n, 1)`` last, and features of the additive part if any."""
    act = ACTIVATIONS[layout.activation].value
    values = [x]
    for k, (weight, bias) in enumerate(layers):
        z = values[-1] @ weight
        z += bias
        values.append(act(z) if k < len(layers) - 1 else z)
    return values, None if layout.additive is None else layout.additive.basis(x)


def network_output(
    layout: Layout, layers: list[tuple[Array, Array]], theta: Array, x: Array
) -> tuple[Array, list[Array], Array | None]:
    """Output of shape (n,), inputs of each layer, and tangent features of the additive part if there is one."""
    values, added = activations(layout, layers, x)
    output = values[-1][:, 0]
    if added is not None:
        output = output + added @ theta[layout.n_network :].astype(x.dtype)
    return output, values, added


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
    device = accelerator_for(len(x))
    if device is not None:
        found: Array = device.forward(layout, theta, x)
        return found
    layers = layout.layers(theta, x.dtype)
    out = np.empty(len(x))

    def one(block: slice) -> tuple[slice, Array]:
        return block, network_output(layout, layers, theta, x[block])[0]

    for block, part in map_blocks(one, blocks(len(x))):
        out[block] = part
    return out


def backward(delta: Array, weight: Array) -> Array:
    """Derivatives with respect to a layer's inputs from those with respect to its outputs, ``delta @ weight.T``."""
    return delta * weight[:, 0] if weight.shape[1] == 1 else delta @ weight.T  # BLAS is slow for one column


def weighted_gradient(
    layout: Layout, layers: list[tuple[Array, Array]], values: list[Array], added: Array | None, delta: Array
) -> Array:
    """Gradient of the weighted sum of a block's outputs, weights of shape (n, 1); values from :func:`activations`."""
    derivative = ACTIVATIONS[layout.activation].derivative
    out = np.empty(layout.n_parameters)
    if added is not None:
        out[layout.n_network :] = added.T @ delta[:, 0]
    ones = np.ones(len(delta), delta.dtype)
    for (w, b, _, _, w_scale, b_scale), layer in layout.backwards():
        out[w] = w_scale * (values[layer].T @ delta).ravel()
        out[b] = b_scale * (ones @ delta)
        if layer:
            delta = backward(delta, layers[layer][0])
            delta *= derivative(values[layer])
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
    layers = layout.layers(theta, x.dtype)

    def one(block: slice) -> tuple[float, Array]:
        output, values, added = network_output(layout, layers, theta, x[block])
        logit = output.astype(np.float64) + offset
        first, zeroth = ones[block], zeros[block]
        loss = float((first + zeroth) @ log1pexp(logit) - first @ logit)  # log(1 + exp(-z)) = log(1 + exp(z)) - z
        q = expit(logit)
        delta = (zeroth * q - first * (1.0 - q)).astype(x.dtype)[:, None]
        return loss, weighted_gradient(layout, layers, values, added, delta)

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
    device = accelerator.get()
    if device is not None and basis is not None:
        found = np.empty((len(x), basis.shape[1]), x.dtype)
        for rows in blocks(len(x), WORTHWHILE):
            part = np.asarray(device.tangent(layout, theta, basis, x[rows]))
            found[rows] = part[: rows.stop - rows.start, : basis.shape[1]]
        return found
    layers = layout.layers(theta, x.dtype)
    directions = None if basis is None else basis.astype(x.dtype)
    # a row per weight: products of long rows are fast
    full = np.empty((layout.n_parameters, len(x)), x.dtype) if directions is None else np.empty((0, 0), x.dtype)
    out = full.T if directions is None else np.empty((len(x), directions.shape[1]), dtype=x.dtype)

    def one(block: slice) -> None:
        if directions is None:
            _jacobian(layout, layers, x[block], full[:, block])
        else:
            part = np.empty((layout.n_parameters, block.stop - block.start), x.dtype)
            _jacobian(layout, layers, x[block], part)
            np.matmul(part.T, directions, out=out[block])

    for _ in map_here(one, blocks(len(x), BLOCK if directions is None else 2048)):
        pass
    return out


def _jacobian(layout: Layout, layers: list[tuple[Array, Array]], x: Array, out: Array) -> None:
    """Gradient of the output at each event, into ``out`` of shape (P, n)."""
    derivative = ACTIVATIONS[layout.activation].derivative
    values, added = activations(layout, layers, x)
    if added is not None:
        out[layout.n_network :] = added.T
    delta = np.ones((len(x), 1), dtype=x.dtype)
    for (w, b, fan_in, fan_out, w_scale, b_scale), layer in layout.backwards():
        np.multiply(delta.T, x.dtype.type(b_scale), out=out[b])
        scaled = np.ascontiguousarray((x.dtype.type(w_scale) * delta).T)
        inputs = np.ascontiguousarray(values[layer].T)
        for k in range(fan_in):
            np.multiply(inputs[k], scaled, out=out[w][k * fan_out : (k + 1) * fan_out])
        if layer:
            delta = backward(delta, layers[layer][0])
            delta *= derivative(values[layer])


def products(features: Array, weight: Array) -> Array:
    """``F' diag(w) F`` of one block of features (n, p) and weights (n,), shape (p, p), of the features' type."""
    if np.all(weight >= 0):  # a matrix times its own transpose costs half of a product
        half = features * np.sqrt(weight)[:, None].astype(features.dtype)
        return half.T @ half
    return features.T @ (features * weight[:, None].astype(features.dtype))


def curvature(layout: Layout, theta: Array, x: Array, weight: Array) -> Array:
    """``J' diag(w) J`` of tangent features ``J`` in all directions, shape (P, P), in double precision."""
    device = accelerator.get()
    if device is not None:
        found: Array = device.curvature(layout, theta, x, weight)
        return found
    return weighted_gram(tangent(layout, theta, x), weight)


def weighted_gram(features: Array, weight: Array) -> Array:
    """``F' diag(w) F`` of features (n, p) and weights (n,), shape (p, p), summed over blocks in double precision."""

    def one(block: slice) -> Array:
        return products(features[block], weight[block])

    out = np.zeros((features.shape[1], features.shape[1]))
    for part in map_blocks(one, blocks(len(features))):
        out += part
    return out
