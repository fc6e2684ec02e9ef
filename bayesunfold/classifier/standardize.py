"""Feature scaling for the networks, chosen from the simulation and never from data or truth.

Quantiles decide first. Events that lie far from all others (see :func:`isolated`) have no say in the scale. If the
other events still spread over much more than the range of 90 % of them, the feature goes through
``arcsinh((x - origin) / width)``, which is a logarithm on either side of the origin.

Each feature is then shifted by its mean and divided by its standard deviation. A feature with
long tails, |skewness| above ``SKEWNESS``, goes through a Yeo-Johnson power transform in between
(Biometrika 87 (2000) 954, doi:10.1093/biomet/87.4.954), which for positive steeply falling spectra acts like a
logarithm. All transforms are monotone and defined everywhere, so data outside the simulation's
range are neither clipped nor lost. Several features are then decorrelated by the symmetric square root of
their inverse covariance (ZCA, Kessy, Lewin, Strimmer, arXiv:1512.00809), which keeps each output close to its own
feature and gives directions in which features nearly determine each other the same scale as all others.

A feature that does not exist in some events (NaN) takes its mean there, and an indicator is added after all features.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import yeojohnson, yeojohnson_normmax

from bayesunfold._support.threads import row_blocks
from bayesunfold.classifier.additive import choose_intervals

__all__ = ["Standardizer", "isolated"]

Array = NDArray[np.floating]

SKEWNESS = 1.0
"""A feature more skewed than this gets a power transform (an exponential has skewness 2)."""

FAR = 1.0
"""A feature is stretched if its standard deviation exceeds this multiple of the range of 90 % of the events."""

GAP = 30.0
"""Events are isolated if they lie this many times as far from the median as the farthest of the others."""

CORE_WIDTHS = 2.0
"""Width of the stretch in standard deviations of the other events, where only isolated events call for it."""

ROUNDING = 1e-14
"""A standard deviation below this part of the largest value is rounding: the feature is the same in every event."""

STATE = ("centre", "scale", "power", "mean", "mixing", "undefined", "origin", "width", "intervals")
FIT_ROWS = 20_000
BLOCK = 100_000
"""Events that are standardised at a time."""

EIGENVALUE_FLOOR = 1e-4


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Standardizer:
    """A monotone map of each feature to about zero mean and unit width.

    Attributes
    ----------
    centre, scale : array, shape (d,)
        First affine map, in the features' own units.
    power : array, shape (d,)
        Yeo-Johnson parameter; 1 is the identity.
    mean : array, shape (d,)
        Mean after the power transform.
    mixing : array, shape (d, d)
        Symmetric matrix that makes the covariance the identity.
    undefined : array, shape (d,)
        1 for features that may be NaN, which get an indicator; 0 for others.
    origin, width : array, shape (d,)
        Of the stretch, in the features' own units; an infinite width is none.
    intervals : array, shape (intervals, 3)
        Of the additive part of a network: feature, low end and high end, in transformed units; empty without one.
    """

    centre: Array
    scale: Array
    power: Array
    mean: Array
    mixing: Array
    undefined: Array
    origin: Array
    width: Array
    intervals: Array = field(default_factory=lambda: np.zeros((0, 3)))

    @property
    def n_outputs(self) -> int:
        """Number of standardised features, indicators included."""
        return len(self.centre) + int(self.undefined.sum())

    @classmethod
    def fit(cls, values: Array, weight: Array, intervals: int = 0, *, linear: bool = False) -> Standardizer:
        """Choose the transform from simulated events.

        Parameters
        ----------
        values : array, shape (n, d)
            Features; NaN is "does not exist" and gets an indicator. A feature that never varies is centred and left
            at unit scale.
        weight : array, shape (n,)
            Event weights; their absolute values are used.
        intervals : int
            Intervals of each feature for the additive part of a network.
        linear : bool
            Only shift, scale and decorrelate.
        """
        undefined = np.isnan(values).any(axis=0)
        size = np.abs(weight)
        far = np.zeros(values.shape, bool) if linear else np.column_stack([isolated(column) for column in values.T])
        step = max(1, len(values) // FIT_ROWS)
        sample, weight, core = values[::step], size[::step], ~far[::step]
        if weight.sum() == 0:
            weight = np.ones(len(sample))
        weight = weight / weight.sum()
        core &= np.isfinite(sample)
        stretches = [
            (0.0, np.inf) if linear else _stretch(x[k], weight[k], r)
            for x, k, r in zip(sample.T, core.T, far.any(axis=0), strict=True)
        ]
        origin, width = np.array(stretches).T
        sample = _stretched(sample, origin, width)
        # each feature's moments are over the events in which it exists and is not far from all others
        shares = weight[:, None] * core
        shares = shares / np.maximum(shares.sum(axis=0), 1e-300)
        filled = np.where(core, sample, 0.0)
        exponent = np.frexp(np.abs(filled).max(axis=0))[1]  # squares of any unit stay finite: powers of two are exact
        filled = np.ldexp(filled, -exponent)
        centre = np.sum(shares * filled, axis=0)
        scale = np.sqrt(np.sum(shares * (filled - centre) ** 2, axis=0))
        scale[scale < ROUNDING] = 0.0
        centre, scale = np.ldexp(centre, exponent), _positive(np.ldexp(scale, exponent))
        z = np.where(core, (sample - centre) / scale, 0.0)
        skewness = np.sum(shares * z**3, axis=0)
        power = np.ones(values.shape[1])
        for j in np.flatnonzero(np.abs(skewness) > (np.inf if linear else SKEWNESS)):
            power[j] = yeojohnson_normmax(z[core[:, j], j])
        transformed = _power(z, power)
        mean = np.sum(shares * np.where(core, transformed, 0.0), axis=0)
        residual = np.where(core, transformed - mean, 0.0)
        values_, vectors = np.linalg.eigh((residual * weight[:, None]).T @ residual)
        # a feature that is a linear function of others has eigenvalue zero: it is left at the floor's scale
        values_ = np.maximum(values_, EIGENVALUE_FLOOR * max(values_.max(), 1e-300))
        values_ = np.where(values_.max() > 1e-200, values_, 1.0)
        mixing = (vectors / np.sqrt(values_)) @ vectors.T
        chosen = choose_intervals(transformed - mean, weight, core, intervals)
        return cls(centre, scale, power, mean, mixing, undefined.astype(np.float64), origin, width, chosen)

    def __call__(self, values: Array) -> Array:
        """Standardised features, float32, shape (n, n_outputs)."""
        out = np.empty((len(values), self.n_outputs), dtype=np.float32)
        with np.errstate(over="ignore"):  # what is beyond single precision is infinite, which the caller refuses
            for rows in row_blocks(len(values), BLOCK):  # memory for a block only
                out[rows] = self._mixed(np.asarray(values[rows], dtype=np.float64))
        return out

    def where(self, passing: NDArray[np.bool_], values: Array) -> Array:
        """Standardised features of the events that pass, zero for others, shape (n, n_outputs)."""
        out = np.zeros((len(values), self.n_outputs), dtype=np.float32)
        for rows in row_blocks(len(values), BLOCK):
            out[rows][passing[rows]] = self(values[rows][passing[rows]])
        return out

    def _mixed(self, values: Array) -> Array:
        z = self.each(values) - self.mean
        marked = self.undefined > 0
        if not marked.any():
            return z @ self.mixing
        missing = np.isnan(values[:, marked])
        z[:, marked] = np.where(missing, 0.0, z[:, marked])
        # indicators at -1 and 1: about the scale of the features
        return np.column_stack([z @ self.mixing, 2.0 * missing - 1.0])

    def each(self, values: Array) -> Array:
        """Features one by one after their own transforms, before decorrelation; NaN where they do not exist."""
        return _power((_stretched(values, self.origin, self.width) - self.centre) / self.scale, self.power)

    def state(self) -> dict[str, Array]:
        """Arrays from which ``Standardizer(**state)`` gives the same map."""
        return {name: getattr(self, name) for name in STATE}

    @classmethod
    def from_state(cls, state: dict[str, Array]) -> Standardizer:
        """Inverse of :meth:`state`; old states have no stretch and no intervals."""
        n = len(state["centre"])
        return cls(**({"origin": np.zeros(n), "width": np.full(n, np.inf)} | state))


def isolated(values: Array) -> NDArray[np.bool_]:
    """Events that lie far from all others, as placeholders (-999, 1e30) and broken values do.

    Distances from the median are put in order. Where one is ``GAP`` times its predecessor, and that is at least half
    the range of 90 % of the events, the rest is isolated. A feature that spreads over decades has larger gaps of its
    own: there the fourth power of the ratio of the quartiles of the distances takes the place of ``GAP``.

    A least or greatest value that several events share is isolated too, if it is ten times as far from the next one as
    all others are from each other.

    Parameters
    ----------
    values : array, shape (n,)
        NaN is never isolated.

    Returns
    -------
    boolean array, shape (n,)
    """
    exists = np.isfinite(values)
    out = np.zeros(len(values), dtype=bool)
    x = values[exists]
    if len(x) < FEWEST:
        return out
    x = x / max(float(np.abs(x).max()), np.finfo(float).tiny)  # differences of any unit stay finite
    found = _placeholder(x)
    low, middle, high = np.quantile(x[~found], [0.05, 0.5, 0.95])
    distance = np.abs(x - middle)
    ordered = np.sort(distance[~found])
    half, upper = np.quantile(ordered, [0.5, 0.75])
    gap = GAP if half == 0 else max(GAP, (upper / half) ** 4)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        jump = (ordered[1:] > gap * ordered[:-1]) & (ordered[:-1] >= 0.5 * (high - low)) & (ordered[:-1] > 0)
    if jump.any():
        found |= distance >= ordered[int(np.argmax(jump)) + 1]
    out[exists] = found
    return out


FEWEST = 20
"""Fewer events have no quantiles to judge by."""


def _placeholder(x: Array) -> NDArray[np.bool_]:
    """Events that share a least or greatest value far from all others."""
    for end in (x.min(), x.max()):
        same = x == end
        rest = x[~same]
        if same.sum() > 1 and len(rest) >= FEWEST and np.abs(rest - end).min() > 10 * np.ptp(rest) > 0:
            return same
    return np.zeros(len(x), dtype=bool)


def _stretch(x: Array, weight: Array, beside: np.bool_) -> tuple[float, float]:
    """Origin and width of the stretch of a feature, (0, infinity) if it needs none.

    Parameters
    ----------
    x, weight : array
        Of the events that are not isolated.
    beside : bool
        Whether there are isolated events beside them.
    """
    none = 0.0, np.inf
    if len(x) < FEWEST:
        return none
    low, middle, high = np.quantile(x, [0.05, 0.5, 0.95])
    unit = max(float(np.abs(x).max()), np.finfo(float).tiny)
    scaled = x / unit
    centre = np.average(scaled, weights=weight)
    std = float(np.sqrt(np.average((scaled - centre) ** 2, weights=weight)))
    if high > low and std > FAR * (high - low) / unit:
        if x.min() > 0:
            return 0.0, float(np.quantile(x, 0.01))
        quarters = np.quantile(np.abs(x - middle), [0.25, 0.5, 0.75, 0.9])
        return float(middle), float(quarters[quarters > 0][0])
    return (float(middle), CORE_WIDTHS * std * unit) if beside and std > 0 else none


def _stretched(values: Array, origin: Array, width: Array) -> Array:
    used = np.flatnonzero(np.isfinite(width))
    if len(used) == 0:
        return values
    out = values.copy()
    out[:, used] = np.arcsinh((values[:, used] - origin[used]) / width[used])
    return out


def _power(z: Array, power: Array) -> Array:
    out = z.copy()
    for j in np.flatnonzero(power != 1.0):
        out[:, j] = yeojohnson(z[:, j], lmbda=power[j])
    return out


def _positive(scale: Array) -> Array:
    return np.where(scale > 0, scale, 1.0)
