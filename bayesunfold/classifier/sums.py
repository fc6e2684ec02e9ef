"""Sums of tangent features over events, without the features: gradients of weighted sums of the network's output.

A sum over events of tangent features is one gradient, ``6 n P`` operations for ``P`` weights; the features of every
event, in ``p`` directions, are ``2 n P p``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.activations import ACTIVATIONS
from bayesunfold.classifier.arithmetic import Layout, activations, backward, blocks, weighted_gradient

__all__ = ["gradient_sum", "group_gradients"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


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
    layers = layout.layers(theta, x.dtype)

    def one(rows: slice) -> Array:
        values, added = activations(layout, layers, x[rows])
        each = weights[rows].astype(x.dtype, copy=False).reshape(len(values[0]), columns)
        return np.stack([weighted_gradient(layout, layers, values, added, each[:, k, None]) for k in range(columns)])

    out = np.zeros((columns, layout.n_parameters))
    for part in map_blocks(one, blocks(len(x))):
        out += part
    return out


def group_gradients(layout: Layout, theta: Array, x: Array, weight: Array, size: int) -> Array:
    """``sum_i w_i grad f(x_i)`` over groups of ``size`` consecutive events, shape (groups, P), of the type of ``x``.

    Parameters
    ----------
    x : array, shape (groups * size, d)
    weight : array, shape (groups * size,)
    """
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
