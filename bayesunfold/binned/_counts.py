"""Histograms from outside: counts as arrays, ``hist`` objects, or what ``uproot`` reads from ROOT files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import LARGEST_WEIGHT, as_numbers, check_bins
from bayesunfold.binning import same_edges
from bayesunfold.errors import InputError, InputTypeError

__all__ = ["Counts", "Histogram", "as_counts", "as_histogram"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


class Histogram(NamedTuple):
    """Contents of a histogram.

    Attributes
    ----------
    values, variances : array
        One axis a dimension; ``variances`` equals ``values`` where the source has none.
    edges : tuple of array
    names : tuple of str
        Of the axes, "" where they have none.
    flow : array
        Contents with an under- and an overflow bin around every axis; flow bins are zero if the source has none.
    """

    values: Array
    variances: Array
    edges: tuple[Array, ...]
    flow: Array
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counts:
    """Contents and variances of bins, checked before.

    Attributes
    ----------
    values, variances : array, shape (bins,)
    """

    values: Array
    variances: Array


def as_histogram(source: Any, what: str, *, exact: bool = False) -> Histogram:
    """Read a ``hist``/``boost_histogram`` object, an ``uproot`` TH1 or TH2, or ``(contents, edges, ...)``.

    Of ``exact`` contents variances need not be known, and are zero then. The last is what ``numpy.histogram`` and
    ``numpy.histogram2d`` return.
    """
    if isinstance(source, tuple):
        if len(source) < 2:
            msg = f"{what} is a tuple of {len(source)}; give (contents, edges, ...)."
            raise InputError(msg)
        values = as_numbers(source[0], f"contents of {what}")
        given = source[1] if len(source) == 2 and values.ndim > 1 else source[1:]
        if len(given) != values.ndim:
            msg = (
                f"{what} is a tuple of {len(source)} with contents of {values.ndim} axes; give (contents, edges) with "
                "an array of edges per axis. Variances come with a hist object of Weight storage."
            )
            raise InputError(msg)
        edges = tuple(check_bins(e, f"edges of {what}") for e in given)
        flow = np.pad(values, 1)
        variances = values
    elif hasattr(source, "axes") and callable(getattr(source, "values", None)):
        values = np.asarray(source.values(), dtype=np.float64)
        found = source.variances()
        if found is None and not exact:  # of counts they are known
            msg = f"{what} was filled with weights or scaled, and has no variances; use hist.storage.Weight()."
            raise InputError(msg)
        variances = np.zeros_like(values) if found is None else np.asarray(found, dtype=np.float64)
        edges = tuple(_edges(axis) for axis in source.axes)
        flow = _with_flow(source, values)
    else:
        msg = f"{what} has type {type(source).__name__}; pass a hist object, a ROOT histogram, or (contents, edges)."
        raise InputTypeError(msg)
    if values.shape != tuple(len(e) - 1 for e in edges):
        msg = f"{what} has contents of shape {values.shape} and edges for {tuple(len(e) - 1 for e in edges)} bins."
        raise InputError(msg)
    names = tuple(_axis_name(axis) for axis in source.axes) if hasattr(source, "axes") else ("",) * len(edges)
    return Histogram(values, variances, edges, flow, names)


def _axis_name(axis: Any) -> str:
    name = getattr(axis, "name", "") or getattr(axis, "label", "")
    # hist calls axes without a name "Axis 0", ROOT calls them xaxis
    return "" if not isinstance(name, str) or name.startswith(("Axis ", "xaxis", "yaxis", "zaxis")) else name


def _edges(axis: Any) -> Array:
    edges = axis.edges() if callable(axis.edges) else axis.edges
    return np.asarray(edges, dtype=np.float64)


def _with_flow(source: Any, values: Array) -> Array:
    """Contents with flow bins on every side, whatever flow bins the source has."""
    try:
        full = np.asarray(source.values(flow=True), dtype=np.float64)
    except TypeError:
        return np.pad(values, 1)
    pads = []
    for axis, inner, outer in zip(source.axes, values.shape, full.shape, strict=True):
        extra = outer - inner
        traits = getattr(axis, "traits", None)
        has_under = bool(getattr(traits, "underflow", extra == 2)) and extra > 0
        pads.append((0 if has_under else 1, 0 if extra - has_under > 0 else 1))
    return np.pad(full, pads)


def as_counts(
    counts: Any,
    n_bins: int,
    what: str = "data counts",
    known_edges: tuple[Array, ...] | None = None,
    *,
    exact: bool = False,
) -> tuple[Array, Array]:
    """Bin contents and variances of measured counts, flattened.

    An array of counts is Poisson; a histogram with weights brings its own variances.

    Raises
    ------
    InputError
        Negative, NaN or infinite contents (with their bins), a number of bins that is not ``n_bins``, or a histogram
        with edges other than ``known_edges``.
    """
    if isinstance(counts, Counts):
        values, variances = counts.values, counts.variances
    elif hasattr(counts, "axes") or isinstance(counts, tuple):
        read = as_histogram(counts, what, exact=exact)
        values, variances = read.values.ravel(), read.variances.ravel()
        if known_edges is not None:
            check_edges(read.edges, known_edges, what)
    else:
        values = as_numbers(counts, what).ravel()
        variances = values
    if values.shape != (n_bins,):
        msg = f"{what} has {values.size} bins and the response {n_bins} detector-level bins; they must agree."
        raise InputError(msg)
    check_contents(values, what)
    check_contents(variances, f"variances of {what}")
    return values, variances


def filled_variances(values: Array, variances: Array) -> Array:
    """Variances, of empty bins that of one event.

    No event is no estimate of a variance, and one event is the 68 % upper limit. Of weighted events it is the square of
    their mean weight.
    """
    total = values.sum()
    one = (variances.sum() / total) ** 2 if total > 0 and variances.sum() > 0 else 1.0
    return np.where(variances > 0, variances, one)


def check_edges(found: tuple[Array, ...], wanted: tuple[Array, ...], what: str) -> None:
    """Same bins on every axis, to a part in a billion of the range."""
    for axis, edges in enumerate(wanted):
        same = len(found) == len(wanted) and found[axis].shape == edges.shape
        if not same or not same_edges(edges, found[axis]):
            have = " x ".join(str(np.round(e, 6).tolist()) for e in found)
            want = np.round(edges, 6).tolist()
            msg = f"{what} has the bins {have} and the response {want} on axis {axis}; rebin one of them."
            raise InputError(msg)


def check_contents(values: Array, what: str) -> None:
    """Finite and not negative, else an error that lists the bins."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        msg = f"{what} is NaN or infinite in bins {bad.tolist()}; repair or merge them."
        raise InputError(msg)
    if values.size and values.max() > LARGEST_WEIGHT:
        msg = f"{what} reaches {values.max():.3g} in bin {int(np.argmax(values))}; the largest is {LARGEST_WEIGHT:g}."
        raise InputError(msg)
    bad = np.flatnonzero(values < 0)
    if len(bad):
        msg = f"{what} is negative in bins {bad.tolist()} (lowest {values.min():g}); counts must be zero or more."
        raise InputError(msg)
