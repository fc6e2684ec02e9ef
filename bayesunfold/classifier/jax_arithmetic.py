"""What the engine computes per event, in JAX: for a GPU.

The functions are those of :mod:`bayesunfold.classifier.arithmetic` and :mod:`bayesunfold.classifier.sums`, and give
the same numbers up to rounding in single precision: products are never in a shorter one, and losses are summed in
double precision. Blocks are padded by events of weight zero and bases by zero directions, to few lengths, so each
function is compiled a few times only.

This module is imported only where JAX was asked for.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import pairwise
from threading import Lock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.additive import Additive
from bayesunfold.classifier.arithmetic import Layout, blocks

__all__ = ["JaxArithmetic"]

Array = NDArray[np.floating]
Device = Any  # an array or arrays on the device

ROWS = 65_536
"""Most events whose outputs of layers are in memory."""

JACOBIANS = 4_096
"""Most events whose derivatives with respect to all weights are in memory."""

LENGTHS, FEWER_LENGTHS = (1_024, 4_096, 16_384, ROWS), (16_384, ROWS)
"""Rows of padded blocks: fewer where compiling a function for each of them takes longer than zeros do."""

DIRECTIONS, MORE_DIRECTIONS = 64, 128
"""Padded bases have a multiple of this number of directions."""

KEPT_NETWORKS = 16
"""Networks that stay in the device's memory."""


def __dir__() -> list[str]:
    return __all__


class JaxArithmetic:
    """Sums and outputs of networks over events, on JAX's default device.

    Events of a training and weights of networks stay on the device while they are used again.
    """

    def __init__(self) -> None:
        self._events: dict[int, Device] = {}
        self._networks = _Kept(KEPT_NETWORKS)

    def forward(self, layout: Layout, theta: Array, x: Array) -> Array:
        """Network output, shape (n,), in double precision."""
        out = np.empty(len(x))
        with _exact():
            network = _network(layout, theta, x.dtype)
            parts = [(rows, _output(layout.activation, network, _padded(x[rows]))) for rows in blocks(len(x), ROWS)]
            for rows, part in parts:
                out[rows] = np.asarray(part)[: rows.stop - rows.start]
        return out

    def loss_and_gradient(self, layout: Layout, theta: Array, classes: Any) -> tuple[float, Array]:
        """Weighted Bernoulli loss of two joined classes, and its gradient."""
        with _exact():
            network = _network(layout, theta, classes.x.dtype)
            loss, slopes = _loss(layout.activation, network, self._held(classes), classes.offset)
            return float(loss), _gradient(layout, slopes)

    def _held(self, classes: Any) -> Device:
        """Features and weights of two joined classes on the device, as long as these live."""
        key = id(classes)
        if key not in self._events:
            n = len(classes.x)
            rows = _length(n) if n <= ROWS else -(-n // ROWS) * ROWS
            padded = tuple(_padded(column, rows) for column in (classes.x, classes.ones, classes.zeros))
            self._events[key] = jax.device_put(padded)
            weakref.finalize(classes, self._events.pop, key, None)
        return self._events[key]

    def minibatch_steps(
        self,
        layout: Layout,
        state: tuple[Array, Array, Array],
        classes: Any,
        centre: Array,
        batches: NDArray[np.integer],
        rates: Array,
        done: int,
    ) -> tuple[Array, Array, Array]:
        """Weights and moments of Adam after a step per row of ``batches``, ``done`` steps being made before.

        Parameters
        ----------
        state : arrays, shape (P,)
            Standardised weights, and moments of their gradients.
        classes : Joined
        centre : array, shape (P,)
            Of the prior, which is spread over the batches as the loss is.
        batches : int array, shape (steps, rows)
        rates : array, shape (steps,)
            Of zeros last, with any rows, where calls have an equal number of steps.
        """
        with _exact():
            intervals = _network(layout, state[0], classes.x.dtype)[1]
            problem = _scale(layout), intervals, centre, classes.offset, len(classes.x) / batches.shape[1]
            steps = batches, rates, np.arange(done + 1, done + 1 + len(rates))
            found = _adam(layout.activation, layout.sizes, state, self._held(classes), problem, steps)
            theta, first, second = map(np.array, found)
            return theta, first, second

    def gradient_sum(self, layout: Layout, theta: Array, x: Array, weights: Array) -> Array:
        """``sum_i w_i grad f(x_i)``, shape (P,), in double precision, of one event or more."""
        with _exact():
            network = _network(layout, theta, x.dtype)
            parts = ((_padded(x[rows]), _padded(weights[rows].astype(x.dtype))) for rows in blocks(len(x), ROWS))
            return _gradient(layout, _total(_weighted(layout.activation, network, *part) for part in parts))

    def tangent(self, layout: Layout, theta: Array, basis: Array, x: Array) -> Device:
        """Tangent features of a block of events along a basis, with zeros after rows and columns, on the device."""
        with _exact():
            return _tangent(layout.activation, *self._along(layout, theta, basis, x), _padded(x), len(x))

    def group_scores(self, layout: Layout, theta: Array, basis: Array, x: Array, weight: Array, size: int) -> Array:
        """``sum_i w_i phi_i`` over groups of ``size`` consecutive events, shape (groups, p), of the type of ``x``."""
        groups = len(x) // size
        rows = -(-_length(len(x)) // size) * size
        with _exact():
            network, directions = self._along(layout, theta, basis, x)
            events = _padded(x, rows), _padded(weight.astype(x.dtype), rows)
            return np.array(_group_scores(layout.activation, size, network, directions, *events))[
                :groups, : basis.shape[1]
            ]

    def _along(self, layout: Layout, theta: Array, basis: Array, x: Array) -> tuple[Device, Device]:
        """A network, and the directions of a basis layer by layer."""
        return self._networks(
            (theta, basis, layout, x.dtype), lambda: _network_and_directions(layout, theta, basis, x.dtype)
        )

    def curvature(self, layout: Layout, theta: Array, x: Array, weight: Array) -> Array:
        """``J' diag(w) J`` of tangent features ``J`` in all directions, shape (P, P), in double precision."""
        with _exact():
            network = _network(layout, theta, x.dtype)
            parts = [(_padded(x[rows]), _padded(weight[rows].astype(x.dtype))) for rows in blocks(len(x), JACOBIANS)]
            scale = _scale(layout)
            total = _total(_curvature(layout.activation, network, *part) for part in parts)
            return np.asarray(total) * scale[:, None] * scale

    @staticmethod
    def times(features: Device, weight: Array) -> Device:
        """``diag(w) F``."""
        with _exact():
            return _times(features, _padded(weight.astype(features.dtype)))

    @staticmethod
    def squares(features: Device) -> Array:
        """Squared length of each row."""
        with _exact():
            return np.asarray(_squares(features))

    @staticmethod
    def dot(features: Device, columns: Array) -> Array:
        """``F' C`` of columns of shape (n,) or (n, k)."""
        with _exact():
            return np.asarray(_dot(features, _padded(columns)))

    @staticmethod
    def cross(features: Device, other: Device) -> Array:
        """``F' G``."""
        with _exact():
            return np.asarray(_cross(features, other))


class _Kept:
    """What was made last from some objects, which are told apart by identity and kept alive."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, Lock()
        self._found: OrderedDict[tuple[int, ...], tuple[tuple[Any, ...], Device]] = OrderedDict()

    def __call__(self, key: tuple[Any, ...], make: Callable[[], Device]) -> Device:
        number = tuple(map(id, key))
        with self._lock:
            if number not in self._found:
                while len(self._found) >= self._most:
                    self._found.popitem(last=False)
                self._found[number] = key, make()
            self._found.move_to_end(number)
            return self._found[number][1]


@contextmanager
def _exact() -> Iterator[None]:
    """Double precision where it is asked for, and single precision never shortened; in this thread only."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield


@cache
def _compiles_quickly() -> bool:
    """Whether JAX compiles for a processor and not for a GPU."""
    return jax.default_backend() == "cpu"


def _length(n: int) -> int:
    """Rows of a padded block."""
    return next((length for length in (LENGTHS if _compiles_quickly() else FEWER_LENGTHS) if n <= length), n)


def _padded(values: Array, rows: int | None = None) -> Array:
    """Rows of zeros after those of a block."""
    missing = (_length(len(values)) if rows is None else rows) - len(values)
    return np.pad(values, ((0, missing), *((0, 0),) * (values.ndim - 1))) if missing else values


def _total(parts: Iterator[Device]) -> Device:
    """Sum in double precision, on the device."""
    total = _double(next(parts))
    for part in parts:
        total = _add(total, part)
    return total


def _network(layout: Layout, theta: Array, dtype: np.dtype) -> tuple[Any, Any]:
    """Scaled weights of the layers and coefficients of the additive part, and the intervals of the latter."""
    coefficients = theta[layout.n_network :].astype(dtype)
    intervals = None if layout.additive is None else _intervals(layout.additive, dtype)
    return (layout.layers(theta, dtype), coefficients), intervals


def _intervals(additive: Additive, dtype: np.dtype) -> Device:
    """What :func:`_steps` needs of an additive part."""
    unmix, feature, low, width, indicator = additive.arrays
    scale = np.asarray(additive.scale, dtype)
    return unmix.astype(dtype), feature, low.astype(dtype), width.astype(dtype), indicator, scale


def _network_and_directions(layout: Layout, theta: Array, basis: Array, dtype: np.dtype) -> Device:
    """A network, and directions of scaled weights: of ``W`` and ``b`` of each layer, of the coefficients last."""
    multiple = DIRECTIONS if _compiles_quickly() else MORE_DIRECTIONS
    padded = np.pad(_scale(layout)[:, None] * basis, ((0, 0), (0, -basis.shape[1] % multiple))).astype(dtype)
    layers = [(padded[w], padded[b]) for w, b, *_ in layout.pieces()]
    return jax.device_put((_network(layout, theta, dtype), (layers, padded[layout.n_network :])))


def _gradient(layout: Layout, slopes: Device) -> Array:
    """Gradient in standardised parameters from that in scaled weights, shape (P,)."""
    layers, coefficients = slopes
    flat = [np.ravel(part) for layer in layers for part in layer]
    return _scale(layout) * np.concatenate([*flat, np.asarray(coefficients)])


def _scale(layout: Layout) -> Array:
    """Scaled weight per standardised parameter, shape (P,)."""
    out = np.ones(layout.n_parameters)
    for w, b, _, _, w_scale, b_scale in layout.pieces():
        out[w], out[b] = w_scale, b_scale
    return out


# Functions of arrays, compiled once per shape.

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "softplus": jax.nn.softplus}


def _steps(intervals: Device, x: Device) -> Device:
    """Tangent features of the additive part, shape (n, intervals): equation (A1) times the scale."""
    unmix, feature, low, width, indicator, scale = intervals
    values = (x[:, : unmix.shape[0]] @ unmix)[:, feature]
    missing = (indicator >= 0) & (x[:, jnp.maximum(indicator, 0)] > 0)
    return jnp.where(missing, 0.0, scale * (jnp.clip((values - low) / width, 0.0, 1.0) - 0.5))


def _hidden(activation: str, layers: Device, x: Device) -> list[Device]:
    """Inputs of each layer, and the output (n, 1) last."""
    values = [x]
    for k, (weight, bias) in enumerate(layers):
        z = values[-1] @ weight + bias
        values.append(ACTIVATIONS[activation](z) if k < len(layers) - 1 else z)
    return values


def _value(activation: str, weights: Device, intervals: Device, x: Device) -> Device:
    layers, coefficients = weights
    out = _hidden(activation, layers, x)[-1][:, 0]
    return out if intervals is None else out + _steps(intervals, x) @ coefficients


@partial(jax.jit, static_argnums=0)
def _output(activation: str, network: Device, x: Device) -> Device:
    weights, intervals = network
    return _value(activation, weights, intervals, x)


def _bernoulli(logit: Device, ones: Device, zeros: Device) -> Device:
    """Loss of events with weights in both classes."""
    return (ones + zeros) @ jnp.logaddexp(logit, 0.0) - ones @ logit


@partial(jax.jit, static_argnums=0)
def _loss(activation: str, network: Device, events: Device, offset: float) -> Device:
    """Loss and its gradient in the scaled weights, summed over blocks of events in double precision."""
    weights, intervals = network
    size = min(ROWS, len(events[0]))

    def loss(weights: Device, block: Device) -> Device:
        x, ones, zeros = block
        return _bernoulli(_value(activation, weights, intervals, x).astype(jnp.float64) + offset, ones, zeros)

    def add(total: Device, block: Device) -> tuple[Device, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(weights, block)), None

    nothing = jax.tree.map(lambda part: jnp.zeros(jnp.shape(part), jnp.float64), (0.0, weights))
    blocks = jax.tree.map(lambda column: column.reshape(-1, size, *column.shape[1:]), events)
    return jax.lax.scan(add, nothing, blocks)[0]


@partial(jax.jit, static_argnums=0)
def _weighted(activation: str, network: Device, x: Device, weight: Device) -> Device:
    """Gradient, in the scaled weights, of the weighted sum of outputs."""
    weights, intervals = network
    return jax.grad(lambda weights: weight @ _value(activation, weights, intervals, x))(weights)


@jax.jit
def _double(part: Device) -> Device:
    return jax.tree.map(lambda a: a.astype(jnp.float64), part)


@jax.jit
def _add(total: Device, part: Device) -> Device:
    return jax.tree.map(lambda a, b: a + b, total, part)


@partial(jax.jit, static_argnums=(0, 1))
def _adam(
    activation: str,
    sizes: tuple[int, ...],
    state: Device,
    events: Device,
    problem: Device,
    steps: Device,
) -> Device:
    x, ones, zeros = events
    scale, intervals, centre, offset, factor = problem

    def objective(theta: Device, rows: Device) -> Device:
        layers, start = [], 0
        scaled = (scale * theta).astype(x.dtype)
        for fan_in, fan_out in pairwise(sizes):
            middle, end = start + fan_in * fan_out, start + (fan_in + 1) * fan_out
            layers.append((scaled[start:middle].reshape(fan_in, fan_out), scaled[middle:end]))
            start = end
        logit = _value(activation, (layers, scaled[start:]), intervals, x[rows]).astype(jnp.float64) + offset
        loss = _bernoulli(logit, ones[rows], zeros[rows])
        return factor * loss + 0.5 * ((theta - centre) ** 2).sum()

    def step(state: Device, given: Device) -> tuple[Device, None]:
        theta, first, second = state
        rows, rate, number = given
        gradient = jax.grad(objective)(theta, rows)
        first = first + 0.1 * (gradient - first)
        second = second + 0.01 * (gradient**2 - second)
        move = (first / (1 - 0.9**number)) / (jnp.sqrt(second / (1 - 0.99**number)) + 1e-8)
        return (theta - rate * move, first, second), None

    return jax.lax.scan(step, state, steps)[0]


def _slopes(activation: str, network: Device, x: Device, delta: Device) -> Iterator[tuple[int, Device, Device]]:
    """Number, inputs and derivatives with respect to the sums of each layer, the last layer first."""
    (layers, _), _ = network
    values = _hidden(activation, layers, x)
    for k in range(len(layers) - 1, -1, -1):
        yield k, values[k], delta
        if k:
            through = jax.vjp(ACTIVATIONS[activation], values[k - 1] @ layers[k - 1][0] + layers[k - 1][1])[1]
            delta = through(delta @ layers[k][0].T)[0]


@partial(jax.jit, static_argnums=0)
def _tangent(activation: str, network: Device, directions: Device, x: Device, n: int) -> Device:
    """Tangent features of the first ``n`` rows, zeros in the others."""
    along, added = directions
    out = jnp.zeros((len(x), added.shape[1]), x.dtype) if network[1] is None else _steps(network[1], x) @ added
    for k, values, delta in _slopes(activation, network, x, jnp.ones((len(x), 1), x.dtype)):
        outer = (values[:, :, None] * delta[:, None, :]).reshape(len(x), -1)
        out = out + outer @ along[k][0] + delta @ along[k][1]
    return jnp.where(jnp.arange(len(x))[:, None] < n, out, 0.0)


@partial(jax.jit, static_argnums=(0, 1))
def _group_scores(activation: str, size: int, network: Device, directions: Device, x: Device, weight: Device) -> Device:
    along, added = directions
    groups = len(x) // size
    out = jnp.zeros((groups, added.shape[1]), x.dtype)
    if network[1] is not None:
        out = (_steps(network[1], x) * weight[:, None]).reshape(groups, size, -1).sum(axis=1) @ added
    for k, values, delta in _slopes(activation, network, x, weight[:, None]):
        inputs, each = values.reshape(groups, size, -1), delta.reshape(groups, size, -1)
        outer = jnp.einsum("gsi,gso->gio", inputs, each).reshape(groups, -1)
        out = out + outer @ along[k][0] + each.sum(axis=1) @ along[k][1]
    return out


@partial(jax.jit, static_argnums=0)
def _curvature(activation: str, network: Device, x: Device, weight: Device) -> Device:
    added = jnp.zeros((len(x), 0), x.dtype) if network[1] is None else _steps(network[1], x)
    layers = [
        jnp.concatenate([(values[:, :, None] * delta[:, None, :]).reshape(len(x), -1), delta], axis=1)
        for _, values, delta in _slopes(activation, network, x, jnp.ones((len(x), 1), x.dtype))
    ]
    jacobian = jnp.concatenate([*layers[::-1], added], axis=1)
    return jacobian.T @ (weight[:, None] * jacobian)


@jax.jit
def _times(features: Device, weight: Device) -> Device:
    return weight[:, None] * features


@jax.jit
def _squares(features: Device) -> Device:
    return (features * features).sum(axis=1)


@jax.jit
def _cross(features: Device, other: Device) -> Device:
    return features.T @ other


@jax.jit
def _dot(features: Device, columns: Device) -> Device:
    return features.T @ columns
