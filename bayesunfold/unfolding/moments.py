"""Moments of an unfolded observable, in every member."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from bayesunfold.binning import project
from bayesunfold.unfolding.members import Members

__all__ = ["central_moments"]

Array = NDArray[np.floating]

ROUNDING = 1e-12
"""A variance below this, in units of the whole observable's, is none."""

NAMES = ("mean", "variance", "skewness", "kurtosis")


def __dir__() -> list[str]:
    return __all__


def central_moments(
    members: Members, nominal: Array, values: Array, groups: NDArray[np.integer], n_groups: int, order: int
) -> xr.DataArray:
    """Moments by group of events, dimensions (draw, moment, bin).

    Parameters
    ----------
    members : Members
    nominal : array, shape (n,)
        Weights of the point estimate.
    values : array, shape (n,)
        The observable, finite where ``groups`` is not negative.
    groups : int array, shape (n,)
    n_groups : int
    order : int
        1 for the mean, 2 with the variance, 3 with the skewness, 4 with the kurtosis (3 for a Gaussian).
    """
    used = groups >= 0
    filled = np.where(used, values, 0.0)
    weight = np.where(used, nominal, 0.0)
    # about a value near the mean: powers of large numbers lose digits
    total = weight.sum() or 1.0
    origin = float(weight @ filled / total)
    width = float(np.sqrt(np.abs(weight @ (filled - origin) ** 2 / total))) or 1.0
    z = np.where(used, (filled - origin) / width, 0.0)
    drawn = np.stack([members.accumulate(groups, n_groups, values=z**k) for k in range(order + 1)])
    best = np.stack([project(groups, nominal * z**k, n_groups) for k in range(order + 1)])
    found = _from_raw(drawn, origin, width)
    at = _from_raw(best[:, None, :], origin, width)[0]
    known = np.isfinite(found)
    mean = np.where(known, found, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return xr.DataArray(
        found - mean + at,
        dims=("draw", "moment", "bin"),
        coords={"moment": list(NAMES[:order]), "nominal": (("moment", "bin"), at)},
        name="moments",
    )


def _from_raw(sums: Array, origin: float, width: float) -> Array:
    """Central moments from sums of powers, shape (members, order, groups)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        raw = sums[1:] / sums[0]
        mean = raw[0]
        out = [origin + width * mean]
        if len(raw) > 1:
            variance = raw[1] - mean**2
            out.append(width**2 * variance)
            variance = np.where(variance > ROUNDING, variance, np.nan)  # negative weights may win
        if len(raw) > 2:
            third = raw[2] - 3 * mean * raw[1] + 2 * mean**3
            out.append(third / variance**1.5)
        if len(raw) > 3:
            fourth = raw[3] - 4 * mean * raw[2] + 6 * mean**2 * raw[1] - 3 * mean**4
            out.append(fourth / variance**2)
    return np.stack(out, axis=1)
