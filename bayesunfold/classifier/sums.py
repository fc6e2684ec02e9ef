"""Sums of tangent features over events: of products with columns, and without the features as gradients.

A sum over events of tangent features is one gradient, ``6 n P`` operations for ``P`` weights; the features of every
event, in ``p`` directions, are ``2 n P p``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import accelerator, map_blocks, map_here, remote
from bayesunfold.classifier.activations import ACTIVATIONS
from bayesunfold.classifier.arithmetic import (
    Layout,
    accelerator_for,
    activations,
    backward,
    blocks,
    forward,
    network_output,
    products,
    tangent,
    weighted_gradient,
)

__all__ = ["MOST_KEPT", "ForwardPass", "TangentFeatures", "gradient_sum", "group_gradients", "group_scores"]

Array = NDArray[np.floating]

MOST_KEPT = 1 << 28
"""Bytes of what is computed from events that are kept for a second pass over them."""


def __dir__() -> list[str]:
    return __all__


class TangentFeatures:
    """Tangent features ``F`` of a block of events, shape (n, p), for sums over them.

    They may lie on an accelerator, so that only sums come back.
    """

    def __init__(self, values: Any, shape: tuple[int, int], device: Any = None) -> None:
        self._values, self._shape, self._device = values, shape, device  # on a device there may be zeros beyond

    @classmethod
    def of(cls, layout: Layout, theta: Array, x: Array, basis: Array) -> TangentFeatures:
        """Of events, in the directions of a basis of shape (P, p)."""
        device = accelerator.get()
        if device is None:
            return cls(tangent(layout, theta, x, basis), (len(x), basis.shape[1]))
        return cls(device.tangent(layout, theta, basis, x), (len(x), basis.shape[1]), device)

    @property
    def dtype(self) -> np.dtype:
        """Their type."""
        return np.dtype(self._values.dtype)

    def times(self, weight: Array) -> TangentFeatures:
        """``diag(w) F``."""
        if self._device is None:
            return TangentFeatures(self._values * weight[:, None].astype(self.dtype, copy=False), self._shape)
        return TangentFeatures(self._device.times(self._values, weight), self._shape, self._device)

    def dot(self, columns: Array) -> Array:
        """``F' C`` of columns of shape (n,) or (n, k)."""
        if self._device is None:
            found: Array = self._values.T @ columns
            return found
        return np.asarray(self._device.dot(self._values, columns)[: self._shape[1]])

    def cross(self, other: TangentFeatures) -> Array:
        """``F' G`` of other features of the same events."""
        if self._device is None:
            found: Array = self._values.T @ other._values
            return found
        return np.asarray(self._device.cross(self._values, other._values)[: self._shape[1], : other._shape[1]])

    def gram(self, weight: Array) -> Array:
        """``F' diag(w) F``, shape (p, p)."""
        return products(self._values, weight) if self._device is None else self.cross(self.times(weight))

    def squares(self) -> Array:
        """Squared length of each event's features, shape (n,)."""
        if self._device is None:
            return np.einsum("ij,ij->i", self._values, self._values)
        return np.asarray(self._device.squares(self._values))[: self._shape[0]]


@dataclass(frozen=True)
class ForwardPass:
    """A network's output at events, from which a gradient is the way back only if the activations may be kept.

    Attributes
    ----------
    layout : Layout
    theta : array, shape (P,)
    x : array, shape (n, d)
    output : array, shape (n,)
        ``f(x; theta)``, in double precision.
    """

    layout: Layout
    theta: Array
    x: Array
    output: Array
    _kept: tuple[tuple[slice, list[Array], Array | None], ...] | None = field(repr=False)

    @classmethod
    def of(cls, layout: Layout, theta: Array, x: Array) -> ForwardPass:
        """The pass through a network, here, on an accelerator or on a cluster."""
        units = sum(layout.sizes[1:]) + (0 if layout.additive is None else len(layout.additive))
        elsewhere = remote.get() is not None or accelerator_for(len(x)) is not None
        if elsewhere or len(x) * units * x.dtype.itemsize > MOST_KEPT:
            return cls(layout, theta, x, forward(layout, theta, x), None)
        layers = layout.layers(theta, x.dtype)
        output = np.empty(len(x))

        def one(rows: slice) -> tuple[slice, list[Array], Array | None]:
            output[rows], values, added = network_output(layout, layers, theta, x[rows])
            return rows, values, added

        return cls(layout, theta, x, output, tuple(map_here(one, blocks(len(x)))))

    def gradient_sum(self, weights: Array) -> Array:
        """``sum_i w_i grad f(x_i)``, shape (P,), in double precision."""
        if self._kept is None:
            found: Array = gradient_sum(self.layout, self.theta, self.x, weights)[0]
            return found
        layers = self.layout.layers(self.theta, self.x.dtype)

        def one(block: tuple[slice, list[Array], Array | None]) -> Array:
            rows, values, added = block
            each = weights[rows, None].astype(self.x.dtype, copy=False)
            return weighted_gradient(self.layout, layers, values, added, each)

        out = np.zeros(self.layout.n_parameters)
        for part in map_here(one, self._kept):
            out += part
        return out


def gradient_sum(layout: Layout, theta: Array, x: Array, weights: Array, columns: int = 1) -> Array:
    """``sum_i w_ik grad f(x_i)``, shape (K, P), in double precision.

    Parameters
    ----------
    layout : Layout
    theta : array, shape (P,)
    x : array, shape (n, d)
        Standardised features. Of no events the sum is zero.
    weights : array, shape (n,) or (n, K)
    columns : int
        K.
    """
    device = accelerator_for(len(x))
    if device is not None:
        each = weights.reshape(len(x), columns).T
        return np.stack([device.gradient_sum(layout, theta, x, column) for column in each])
    layers = layout.layers(theta, x.dtype)

    def one(rows: slice) -> Array:
        values, added = activations(layout, layers, x[rows])
        each = weights[rows].astype(x.dtype, copy=False).reshape(len(values[0]), columns)
        return np.stack([weighted_gradient(layout, layers, values, added, each[:, k, None]) for k in range(columns)])

    out = np.zeros((columns, layout.n_parameters))
    for part in map_blocks(one, blocks(len(x))):
        out += part
    return out


def group_scores(layout: Layout, theta: Array, x: Array, weight: Array, size: int, basis: Array) -> Array:
    """``sum_i w_i phi_i`` over groups of ``size`` consecutive events, shape (groups, p), of the type of ``x``.

    Parameters
    ----------
    x : array, shape (groups * size, d)
    weight : array, shape (groups * size,)
    basis : array, shape (P, p)
        Directions of the tangent features ``phi``.
    """
    device = accelerator.get()
    if device is not None:
        found: Array = device.group_scores(layout, theta, basis, x, weight, size)
        return found
    return group_gradients(layout, theta, x, weight, size) @ basis.astype(x.dtype, copy=False)


def group_gradients(layout: Layout, theta: Array, x: Array, weight: Array, size: int) -> Array:
    """``sum_i w_i grad f(x_i)`` over groups, shape (groups, P)."""
    derivative = ACTIVATIONS[layout.activation].derivative
    layers = layout.layers(theta, x.dtype)
    values, added = activations(layout, layers, x)
    groups = len(x) // size
    out = np.empty((groups, layout.n_parameters), x.dtype)
    delta = weight.astype(x.dtype)[:, None]
    if added is not None:
        out[:, layout.n_network :] = (added * delta).reshape(groups, size, -1).sum(axis=1)
    for (w, b, fan_in, fan_out, w_scale, b_scale), layer in layout.backwards():
        each = delta.reshape(groups, size, fan_out)
        inputs = values[layer].reshape(groups, size, fan_in).transpose(0, 2, 1)
        np.multiply(np.matmul(inputs, each).reshape(groups, -1), x.dtype.type(w_scale), out=out[:, w])
        np.multiply(each.sum(axis=1), x.dtype.type(b_scale), out=out[:, b])
        if layer:
            delta = backward(delta, layers[layer][0])
            delta *= derivative(values[layer])
    return out
