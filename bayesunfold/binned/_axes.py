"""Axes of a response: edges, contents, and the observables that fill it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, as_numbers, check_bins
from bayesunfold.binned._counts import check_contents
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.events import Simulation

__all__ = ["check_one_axis", "contents_of", "edges_of", "names_only", "observables_of", "size_of", "warn_of_last_edges"]

Array = NDArray[np.floating]
Edges = tuple[Array, ...]


def __dir__() -> list[str]:
    return __all__


def size_of(edges: Sequence[Array]) -> int:
    """Number of bins, all axes together."""
    return int(np.prod([len(e) - 1 for e in edges]))


def contents_of(values: ArrayLike, n: int, what: str) -> Array:
    """One finite number per bin, not negative."""
    array = as_numbers(values, what).ravel()
    if array.shape != (n,):
        msg = f"{what} has {array.size} entries; the response needs {n}."
        raise InputError(msg)
    check_contents(array, what)
    return array


def edges_of(edges: Sequence[ArrayLike] | None, n: int, what: str) -> Edges:
    """Edges of each axis that make ``n`` bins; bin numbers if there are none."""
    if edges is None:
        return (np.arange(n + 1, dtype=np.float64),)
    if len(edges) and np.ndim(edges[0]) == 0:
        edges = (edges,)  # type: ignore[assignment]
    out = tuple(check_bins(e, what) for e in edges)
    if size_of(out) != n:
        msg = f"{what} make {size_of(out)} bins; the response has {n}."
        raise InputError(msg)
    return out


def check_one_axis(edges: Edges, method: str) -> None:
    """Raise :class:`~bayesunfold.errors.InputError` for several particle-level axes, whose bins have no one order."""
    if len(edges) > 1:
        msg = (
            f"the response has {len(edges)} particle-level axes, and {method} bends along one; use Tikhonov, which "
            "takes differences along each axis, or IBU."
        )
        raise InputError(msg)


def names_only(wanted: Any) -> bool:
    """Whether observables are given by name, each of them."""
    return all(isinstance(item, str) for item in (wanted if isinstance(wanted, tuple) else (wanted,)))


def warn_of_last_edges(values: Sequence[Array], edges: Sequence[Array], rows: NDArray[np.bool_]) -> None:
    """Warn of events exactly on a last edge, which half-open bins leave out and ``numpy.histogram`` takes in."""
    for value, edge in zip(values, edges, strict=True):
        n = int(np.sum(value[rows] == edge[-1]))
        if n:
            msg = (
                f"{n} simulated events lie exactly on the last edge, {edge[-1]:g}. Bins of the response are half open "
                "and leave them out, numpy.histogram counts them in its last bin. Move the edge, for integers by 0.5."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=3)


def observables_of(simulation: Simulation, wanted: Any, level: str) -> tuple[tuple[str, ...], list[Array]]:
    """Names and values of the observables of a level; its single feature if none are named."""
    names = simulation.gen_names if level == "gen" else simulation.reco_names
    matrix = simulation.gen if level == "gen" else simulation.reco
    if wanted is None:
        if len(names) > 1:
            msg = f"the {level} level has features {', '.join(names)}; say which with {level}=."
            raise InputError(msg)
        return names, [matrix[:, 0]]
    found: list[Array] = []
    labels: list[str] = []
    for item in wanted if isinstance(wanted, tuple) else (wanted,):
        if isinstance(item, str):
            column = simulation.gen_column(item) if level == "gen" else simulation.reco_column(item)
            found.append(column)
            labels.append(item)
            continue
        array, given = as_features(item, f"values of {level}")
        if array.shape != (len(simulation), 1):
            msg = f"values of {level} have shape {array.shape}; give one value for each of {len(simulation)} events."
            raise InputError(msg)
        found.append(array[:, 0])
        labels.append("observable" if given is None else given[0])
    return tuple(labels), found
