"""The additive part of a network: a sum of one-dimensional functions of the features, equations (A1) and (A2).

A network of several features smooths each single one, where a histogram would not. With

    f(x) = MLP(x) + sum_j sum_k c_jk rho_k(z_j),   rho_k(z) = clip((z - low_k) / (high_k - low_k), 0, 1) - 1/2     (A1)
    c_jk ~ Normal(0, s^2)                                                                                         (A2)

the log ratio has a random walk along each feature beside the joint network. It is linear in ``c``, and at the optimum
of a classifier both classes agree in every ``rho_k`` of every feature, up to the prior. ``z_j`` is feature j after its
own transform and before decorrelation, and the intervals are between its quantiles in the simulation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bayesunfold.classifier.standardize import Standardizer

__all__ = ["Additive", "choose_intervals"]

Array = NDArray[np.floating]

EDGE = 0.25
"""Where an outer interval is split, in shares of an interval."""

STEP = 1e-3
"""Width of a step beside a value that many events share, in standardised units: far above rounding."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Additive:
    """The functions ``rho_k`` of all features, of a network's inputs.

    Attributes
    ----------
    unmix : tuple of tuple of float, shape (d, d)
        Maps the decorrelated inputs back to the features.
    feature : tuple of int
        Feature of each interval.
    low, high : tuple of float
        Ends of each interval.
    indicator : tuple of int
        Input that is positive where the interval's feature does not exist; -1 for features that always exist.
    scale : float
        Prior standard deviation ``s`` of the coefficients.
    """

    unmix: tuple[tuple[float, ...], ...]
    feature: tuple[int, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    indicator: tuple[int, ...]
    scale: float

    @classmethod
    def of(cls, standardizer: Standardizer, scale: float) -> Additive | None:
        """The additive part on the inputs that a standardiser makes; None if it has no intervals."""
        if len(standardizer.intervals) == 0:
            return None
        d = len(standardizer.centre)
        marked = np.flatnonzero(standardizer.undefined > 0)
        column = {int(j): d + k for k, j in enumerate(marked)}
        feature = standardizer.intervals[:, 0].astype(int).tolist()
        return cls(
            tuple(map(tuple, np.linalg.inv(standardizer.mixing).tolist())),
            tuple(feature),
            tuple(standardizer.intervals[:, 1].tolist()),
            tuple(standardizer.intervals[:, 2].tolist()),
            tuple(column.get(j, -1) for j in feature),
            float(scale),
        )

    def __len__(self) -> int:
        return len(self.feature)

    @cached_property
    def arrays(self) -> tuple[Array, NDArray[np.integer], Array, Array, NDArray[np.integer]]:
        """``unmix``, ``feature``, ``low``, ``high - low`` and ``indicator``."""
        low, high = np.array(self.low), np.array(self.high)
        return np.array(self.unmix), np.array(self.feature), low, high - low, np.array(self.indicator)

    def basis(self, x: Array) -> Array:
        """``s rho_k`` at events, shape (n, intervals), of the type of ``x``; zero where the feature does not exist."""
        unmix, feature, low, width, indicator = (a.astype(x.dtype) if a.dtype.kind == "f" else a for a in self.arrays)
        out = (x[:, : len(unmix)] @ unmix)[:, feature]
        out -= low
        out /= width
        np.clip(out, 0.0, 1.0, out=out)
        out -= x.dtype.type(0.5)
        out *= x.dtype.type(self.scale)
        for column in np.unique(indicator[indicator >= 0]):
            out[np.ix_(x[:, column] > 0, indicator == column)] = 0.0
        return out

    def expression(self, x: Any) -> Any:
        """:meth:`basis` as a PyTensor expression, of inputs of shape (n, inputs)."""
        import pytensor.tensor as pt

        unmix, feature, low, width, indicator = self.arrays
        z = pt.dot(x[:, : len(unmix)], pt.as_tensor(unmix))[:, feature]
        steps = self.scale * (pt.clip((z - low) / width, 0.0, 1.0) - 0.5)
        exists = pt.stack([pt.le(x[:, c], 0.0) if c >= 0 else pt.ones_like(x[:, 0]) for c in indicator], axis=1)
        return steps * exists

    def nodes(self, g: Any, x: str) -> str:
        """:meth:`basis` as ONNX nodes: of a graph under construction and the name of the inputs."""
        unmix, feature, low, width, indicator = self.arrays
        z = g("MatMul", g("Gather", x, np.arange(len(unmix)), axis=1), unmix)
        z = g("Div", g("Sub", g("Gather", z, feature, axis=1), low), width)
        steps = g("Mul", g("Sub", g("Max", g("Min", z, 1.0), 0.0), 0.5), self.scale)
        if np.all(indicator < 0):
            return steps
        exists = g("Sub", 0.5, g("Mul", g("Gather", x, np.maximum(indicator, 0), axis=1), 0.5))  # from 1 and -1
        always = (indicator < 0).astype(np.float64)
        return g("Mul", steps, g("Max", g("Mul", exists, 1.0 - always), always))


def choose_intervals(values: Array, weight: Array, exists: NDArray[np.bool_], n: int) -> Array:
    """Intervals of each feature between its weighted quantiles.

    A value that as many events share as an interval holds gets steps of its own on either side, so that the function is
    free there.

    Parameters
    ----------
    values : array, shape (rows, d)
        Features after their own transforms.
    weight : array, shape (rows,)
        Not negative.
    exists : boolean array, shape (rows, d)
    n : int
        Intervals of a feature without such values; none if zero.

    Returns
    -------
    array, shape (intervals, 3)
        Feature, low end and high end of each.
    """
    found = []
    for j in range(values.shape[1] if n else 0):
        used = exists[:, j] & (weight > 0)
        order = np.argsort(values[used, j], kind="stable")
        ordered = values[used, j][order]
        if len(ordered) == 0 or ordered[0] == ordered[-1]:
            continue
        share = np.cumsum(weight[used][order])
        at = np.searchsorted(share, _levels(n) * share[-1], side="left")
        ends, counts = np.unique(ordered[np.minimum(at, len(ordered) - 1)], return_counts=True)
        found += [(float(j), low, high) for low, high in _between(ends, counts > 1, ordered)]
    return np.array(found).reshape(-1, 3)


def _levels(n: int) -> Array:
    """Equal shares of the events; the outer ones are split once more, since densities change fastest at edges."""
    return np.sort(np.r_[np.linspace(0, 1, n + 1), [EDGE / n, 1 - EDGE / n]])


def _between(ends: Array, shared: NDArray[np.bool_], ordered: Array) -> list[tuple[float, float]]:
    """Intervals between quantiles, with steps beside values that many events share."""
    out: list[tuple[float, float]] = []
    for k in range(len(ends) - 1):
        low, high = float(ends[k]), float(ends[k + 1])
        inside = np.searchsorted(ordered, high, side="left") > np.searchsorted(ordered, low, side="right")
        if not inside or high - low < 4 * STEP:
            out.append((low, high))
            continue
        if shared[k]:
            out.append((low, low + STEP))
            low += STEP
        end = high - STEP if shared[k + 1] else high
        out.append((low, end))
        if shared[k + 1]:
            out.append((end, high))
    return out
