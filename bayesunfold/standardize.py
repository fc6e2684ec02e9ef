"""Feature scaling for the networks, chosen from the simulation and never from data or truth.

Each feature is shifted by its mean and divided by its standard deviation. A feature with
long tails, |skewness| above ``SKEWNESS``, goes through a Yeo-Johnson power transform in between
(Biometrika 87 (2000) 954, doi:10.1093/biomet/87.4.954), which for positive steeply falling spectra acts like a
logarithm. The transform is monotone and defined everywhere, so data outside the simulation's
range are neither clipped nor lost. Several features are then decorrelated by the symmetric square root of
their inverse covariance (ZCA, Kessy, Lewin, Strimmer, arXiv:1512.00809), which keeps each output close to its own
feature and gives directions in which features nearly determine each other the same scale as all others.

A feature that does not exist in some events (NaN) takes its mean there, and an indicator is added after all features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import yeojohnson, yeojohnson_normmax

__all__ = ["Standardizer"]

Array = NDArray[np.floating]

SKEWNESS = 1.0
"""A feature more skewed than this gets a power transform (an exponential has skewness 2)."""

STATE = ("centre", "scale", "power", "mean", "mixing", "undefined")
FIT_ROWS = 20_000
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
    """

    centre: Array
    scale: Array
    power: Array
    mean: Array
    mixing: Array
    undefined: Array

    @property
    def n_outputs(self) -> int:
        """Number of standardised features, indicators included."""
        return len(self.centre) + int(self.undefined.sum())

    @classmethod
    def fit(cls, values: Array, weight: Array) -> Standardizer:
        """Choose the transform from simulated events.

        Parameters
        ----------
        values : array, shape (n, d)
            Features; NaN is "does not exist" and gets an indicator. A feature that never varies is centred and left
            at unit scale.
        weight : array, shape (n,)
            Event weights; their absolute values are used.
        """
        undefined = np.isnan(values).any(axis=0)
        step = max(1, len(values) // FIT_ROWS)
        sample, weight = values[::step], np.abs(weight[::step])
        if weight.sum() == 0:
            weight = np.ones(len(sample))
        weight = weight / weight.sum()
        exists = np.isfinite(sample)
        # each feature's moments are over the events in which it exists
        shares = weight[:, None] * exists
        shares = shares / np.maximum(shares.sum(axis=0), 1e-300)
        filled = np.where(exists, sample, 0.0)
        centre = np.sum(shares * filled, axis=0)
        scale = _positive(np.sqrt(np.sum(shares * (filled - centre) ** 2, axis=0)))
        z = np.where(exists, (sample - centre) / scale, 0.0)
        skewness = np.sum(shares * z**3, axis=0)
        power = np.ones(values.shape[1])
        for j in np.flatnonzero(np.abs(skewness) > SKEWNESS):
            power[j] = yeojohnson_normmax(z[exists[:, j], j])
        transformed = _power(z, power)
        mean = np.sum(shares * np.where(exists, transformed, 0.0), axis=0)
        residual = np.where(exists, transformed - mean, 0.0)
        values_, vectors = np.linalg.eigh((residual * weight[:, None]).T @ residual)
        # a feature that is a linear function of others has eigenvalue zero: it is left at the floor's scale
        values_ = np.maximum(values_, EIGENVALUE_FLOOR * max(values_.max(), 1e-300))
        values_ = np.where(values_.max() > 1e-200, values_, 1.0)
        mixing = (vectors / np.sqrt(values_)) @ vectors.T
        return cls(centre, scale, power, mean, mixing, undefined.astype(np.float64))

    def __call__(self, values: Array) -> Array:
        """Standardised features, float32, shape (n, n_outputs)."""
        z = self.each(values) - self.mean
        marked = self.undefined > 0
        if not marked.any():
            return (z @ self.mixing).astype(np.float32)
        missing = np.isnan(values[:, marked])
        z[:, marked] = np.where(missing, 0.0, z[:, marked])
        # indicators at -1 and 1: about the scale of the features
        return np.column_stack([z @ self.mixing, 2.0 * missing - 1.0]).astype(np.float32)

    def each(self, values: Array) -> Array:
        """Features one by one after their own transforms, before decorrelation; NaN where they do not exist."""
        return _power((values - self.centre) / self.scale, self.power)

    def state(self) -> dict[str, Array]:
        """Arrays from which ``Standardizer(**state)`` gives the same map."""
        return {name: getattr(self, name) for name in STATE}


def _power(z: Array, power: Array) -> Array:
    out = z.copy()
    for j in np.flatnonzero(power != 1.0):
        out[:, j] = yeojohnson(z[:, j], lmbda=power[j])
    return out


def _positive(scale: Array) -> Array:
    return np.where(scale > 0, scale, 1.0)
