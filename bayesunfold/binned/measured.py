"""Unfolding the bins that are measured, and putting the result back among all bins."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.spectrum import Spectrum

__all__ = ["among_all_bins", "restricted"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def restricted[Method](method: Method, response: ResponseMatrix, gen: tuple[str, ...] = ()) -> Method:
    """A copy of a method whose arrays by particle-level bin have the measured bins only.

    Parameters
    ----------
    method : object
    response : ResponseMatrix
    gen : tuple of str
        Attributes that may be such an array; others, and arrays of another length, stay for the method to judge.
    """
    out = copy.copy(method)
    for name in gen:
        value = getattr(method, name)
        if value is not None and not isinstance(value, str) and np.shape(value) == (response.n_gen,):
            setattr(out, name, np.asarray(value)[response.seen])
    return out


def among_all_bins(response: ResponseMatrix, spectrum: Spectrum) -> Spectrum:
    """A spectrum of the measured bins among all bins of a response: NaN, with infinite variance, elsewhere."""
    seen = response.seen

    def expand(values: Array, fill: float) -> Array:
        out = np.full((*values.shape[:-1], response.n_gen), fill)
        out[..., seen] = values
        return out

    covariance = spectrum.exact_covariance
    if covariance is not None:
        full = np.zeros((response.n_gen, response.n_gen))
        full[np.ix_(seen, seen)] = covariance
        full[~seen, ~seen] = np.inf
        covariance = full
    sources: Mapping[str, Any] = spectrum.exact_sources
    return replace(
        spectrum,
        edges=response.gen_edges,
        names=response.gen_names,
        draw_matrix=expand(spectrum.draw_matrix, np.nan),
        nominal=expand(spectrum.nominal, np.nan),
        exact_covariance=covariance,
        exact_sources={name: expand(np.asarray(std), np.inf) for name, std in sources.items()},
        _cache={},
    )
