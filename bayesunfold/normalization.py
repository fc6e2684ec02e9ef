"""From sums of weights to the numbers of a spectrum: yields, shapes, densities, cross sections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_not_negative, check_positive
from bayesunfold.binning import bin_index, bin_volumes, project
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Normalization, Spectrum

__all__ = ["EXTRA", "Finish", "assign_groups", "contents_like", "read_luminosity"]

Array = NDArray[np.floating]

EXTRA = 3
"""Columns after those of the bins: below them, elsewhere outside, undefined."""


def __dir__() -> list[str]:
    return __all__


def assign_groups(
    values: Sequence[Array], edges: tuple[Array, ...], rows: NDArray[np.bool_]
) -> tuple[NDArray[np.integer], int]:
    """Bin of each event, or one of the ``EXTRA`` groups after the bins; -1 for events not in ``rows``.

    Returns the groups and the number of bins.
    """
    index = bin_index(values, edges, rows)
    n_bins = int(np.prod([len(e) - 1 for e in edges]))
    missing = rows & np.any([np.isnan(v) for v in values], axis=0)
    groups = np.where(index >= 0, index, np.where(missing, n_bins + 2, np.where(rows, n_bins + 1, -1)))
    if len(edges) == 1:
        groups = np.where(rows & (values[0] < edges[0][0]), n_bins, groups)
    return groups, n_bins


class Finish:
    """Turns summed weights, with ``EXTRA`` columns of what is in no bin at the end, into a spectrum's numbers.

    With ``centre="nominal"`` the draws of every number, those of what is in no bin included, have the point estimate as
    their mean. A ``factor``, shape (draws,), on all numbers of a draw is part of what is centred.
    """

    def __init__(
        self, nominal: Array, edges: tuple[Array, ...], normalization: Normalization, centre: str, luminosity: float
    ) -> None:
        self.normalization, self.centre, self.luminosity = normalization, centre, luminosity
        self.volume, self.one_axis = bin_volumes(edges), len(edges) == 1
        self._sums = nominal
        self.nominal = self.nominal_of(nominal)

    def nominal_of(self, sums: Array) -> Array:
        """One spectrum, in the normalisation asked for."""
        return self._inside(self._contents(sums[None]))[0]

    def _contents(self, sums: Array) -> Array:
        """All columns over their sum or over the luminosity."""
        return sums / (sums.sum(axis=1, keepdims=True) if self.normalization == "shape" else self.luminosity)

    def _inside(self, contents: Array) -> Array:
        inside = contents[:, :-EXTRA]
        return inside / self.volume if self.normalization == "density" else inside

    def _centred(self, drawn: Array, nominal: Array) -> Array:
        return drawn - drawn.mean(axis=0) + nominal if self.centre == "nominal" else drawn

    def _drawn(self, sums: Array, factor: Array | None) -> Array:
        drawn = self._contents(sums)
        if factor is not None:
            drawn = drawn * factor[:, None]
        return self._centred(drawn, self._contents(self._sums[None])[0])

    def flow(self, sums: Array, factor: Array | None = None) -> tuple[Array, Array] | None:
        """What lies below and above the bins of one observable, draw by draw; None for several observables."""
        if not self.one_axis:
            return None
        drawn = self._drawn(sums, factor)
        return drawn[:, -EXTRA], drawn[:, -EXTRA + 1]

    def in_no_bin(self, sums: Array) -> tuple[Array, Array]:
        """What lies outside of the bins and where the observable is undefined, draw by draw, in units of the yield."""
        below, above, undefined = self._centred(sums[:, -EXTRA:], self._sums[-EXTRA:]).T
        return below + above, undefined

    def __call__(self, sums: Array, factor: Array | None = None) -> Array:
        """Draws of the spectrum from sums of shape (draws, bins + EXTRA)."""
        return self._inside(self._drawn(sums, factor))


def contents_like(spectrum: Spectrum, values: Array, weight: Array, rows: NDArray[np.bool_]) -> Array:
    """Weighted events in the bins, the normalisation and the luminosity of a spectrum of one observable, (bins,)."""
    groups, n_bins = assign_groups([values], spectrum.edges, rows)
    sums = project(groups, weight, n_bins + EXTRA)
    return Finish(sums, spectrum.edges, spectrum.normalization, "nominal", spectrum.luminosity or 1.0).nominal


def read_luminosity(luminosity: float | tuple[float, float] | None, normalization: str) -> tuple[float, float]:
    """Size and relative uncertainty of the luminosity, for a normalisation that exists."""
    if normalization not in ("yield", "shape", "density"):
        msg = f"normalization is {normalization!r}; it must be 'yield', 'shape' or 'density'."
        raise InputError(msg)
    if luminosity is None:
        return 1.0, 0.0
    if normalization == "shape":
        msg = "a shape has no luminosity; use normalization='yield' or 'density'."
        raise InputError(msg)
    if isinstance(luminosity, tuple | list) and len(luminosity) != 2:
        msg = f"luminosity is {luminosity!r}; give a number, or a pair of it and its relative uncertainty."
        raise InputError(msg)
    size, uncertainty = luminosity if isinstance(luminosity, tuple | list) else (luminosity, 0.0)
    check_positive(size, "luminosity")
    if check_not_negative(uncertainty, "the luminosity's relative uncertainty", ", 0.02 is 2 %") >= 0.5:
        msg = f"the luminosity's relative uncertainty is {uncertainty!r}; it must lie in [0, 0.5), 0.02 is 2 %."
        raise InputError(msg)
    return float(size), float(uncertainty)
