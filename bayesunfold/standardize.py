"""Feature scaling for the networks, chosen from the simulation and never from data or truth.

Each feature is shifted by its median and divided by its standard deviation. A feature with
long tails, |skewness| above ``SKEWNESS``, goes through a Yeo-Johnson power transform in between
(Biometrika 87 (2000) 954, doi:10.1093/biomet/87.4.954), which for positive steeply falling spectra acts like a
logarithm. The transform is monotone and defined everywhere, so data outside the simulation's
range are neither clipped nor lost. Several features are then decorrelated by the symmetric square root of
their inverse covariance (ZCA, Kessy, Lewin, Strimmer, arXiv:1512.00809), which keeps each output close to its own
feature and gives directions in which features nearly determine each other the same scale as all others.
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
    """

    centre: Array
    scale: Array
    power: Array
    mean: Array
    mixing: Array

    @classmethod
    def fit(cls, values: Array, weight: Array) -> Standardizer:
        """Choose the transform from simulated events.

        Parameters
        ----------
        values : array, shape (n, d)
            Finite features. A feature that never varies is centred and left at unit scale.
        weight : array, shape (n,)
            Event weights; their absolute values are used.
        """
        step = max(1, len(values) // FIT_ROWS)
        sample, weight = values[::step], np.abs(weight[::step])
        if weight.sum() == 0:
            weight = np.ones(len(sample))
        weight = weight / weight.sum()
        centre = weight @ sample
        scale = _positive(np.sqrt(weight @ (sample - centre) ** 2))
        z = (sample - centre) / scale
        skewness = weight @ z**3
        power = np.ones(values.shape[1])
        for j in np.flatnonzero(np.abs(skewness) > SKEWNESS):
            power[j] = yeojohnson_normmax(z[:, j])
        transformed = _power(z, power)
        mean = weight @ transformed
        residual = transformed - mean
        values_, vectors = np.linalg.eigh((residual * weight[:, None]).T @ residual)
        # a feature that is a linear function of others has eigenvalue zero: it is left at the floor's scale
        values_ = np.maximum(values_, EIGENVALUE_FLOOR * max(values_.max(), 1e-300))
        values_ = np.where(values_.max() > 1e-200, values_, 1.0)
        return cls(centre, scale, power, mean, (vectors / np.sqrt(values_)) @ vectors.T)

    def __call__(self, values: Array) -> Array:
        """Standardised features, float32, same shape; NaN stays NaN."""
        z = _power((values - self.centre) / self.scale, self.power)
        return ((z - self.mean) @ self.mixing).astype(np.float32)

    def state(self) -> dict[str, Array]:
        """Arrays from which ``Standardizer(**state)`` gives the same map."""
        return {name: getattr(self, name) for name in ("centre", "scale", "power", "mean", "mixing")}


def _power(z: Array, power: Array) -> Array:
    out = z.copy()
    for j in np.flatnonzero(power != 1.0):
        out[:, j] = yeojohnson(z[:, j], lmbda=power[j])
    return out


def _positive(scale: Array) -> Array:
    return np.where(scale > 0, scale, 1.0)
