"""Which bin an event falls into, for one or several observables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_bins
from bayesunfold.errors import InputError

__all__ = [
    "AxisTraits",
    "BinAxis",
    "as_axes",
    "bin_index",
    "bin_volumes",
    "edge_texts",
    "numbered",
    "project",
    "same_edges",
]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


class AxisTraits(NamedTuple):
    """What kind of axis it is, for those who draw it."""

    circular: bool = False
    discrete: bool = False


class BinAxis:
    """Bins of an observable, as the protocol of plottable histograms wants them.

    Parameters
    ----------
    edges : array, shape (bins + 1,)
    label : str
    """

    traits = AxisTraits()

    def __init__(self, edges: Array, label: str) -> None:
        self.edges, self.label, self.name = edges, label, label

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __getitem__(self, index: int) -> tuple[float, float]:
        number = range(len(self))[index]
        return float(self.edges[number]), float(self.edges[number + 1])

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return (self[k] for k in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BinAxis) and self.label == other.label and np.array_equal(self.edges, other.edges)

    def __hash__(self) -> int:
        return hash((self.label, self.edges.tobytes()))


def as_axes(values: Sequence[Array], bins: ArrayLike | Sequence[ArrayLike]) -> tuple[Array, ...]:
    """Checked edges, one array per observable."""
    if isinstance(bins, str) or not isinstance(bins, Sequence | np.ndarray) or len(bins) == 0:
        msg = f"bins is {bins!r}; give the edges, for instance np.linspace(0, 100, 11)."
        raise InputError(msg)
    edges: list[Any] = list(bins)
    if len(values) == 1 and all(np.isscalar(e) for e in edges):
        return (check_bins(edges),)
    if len(edges) != len(values):
        msg = f"{len(values)} observables but {len(edges)} sets of bin edges; give one set per observable."
        raise InputError(msg)
    return tuple(check_bins(e, f"bins of observable {i}") for i, e in enumerate(edges))


def numbered(names: Sequence[str]) -> list[str]:
    """Names of axes, each with its number if two are the same.

    Examples
    --------
    >>> numbered(["pt", "m"]), numbered(["pt", "pt"])
    (['pt', 'm'], ['pt_0', 'pt_1'])
    """
    return list(names) if len(set(names)) == len(names) else [f"{name}_{i}" for i, name in enumerate(names)]


def same_edges(a: Array, b: Array) -> bool:
    """Whether edges agree to a part in a billion of their range."""
    return len(a) == len(b) and bool(np.allclose(a, b, rtol=0.0, atol=1e-9 * np.ptp(a)))


def edge_texts(edges: Array) -> list[str]:
    """Edges with four digits, or with as many more as place them within a hundredth of the narrowest bin.

    Whole parts of up to six digits are written out.

    Examples
    --------
    >>> edge_texts([0, 0.5, 1e5]), edge_texts([1.0, 1.0000001]), edge_texts([0, 1 / 3, 2 / 3])
    (['0', '0.5', '100000'], ['1', '1.0000001'], ['0', '0.3333', '0.6667'])
    """
    values = np.asarray(edges, dtype=np.float64)
    whole = len(str(int(np.abs(values).max())))
    for digits in range(max(4, min(whole, 6)), 16):
        texts = [f"{edge:.{digits}g}" for edge in values]
        if np.all(np.abs(np.array(texts, dtype=np.float64) - values) <= 0.01 * np.diff(values).min()):
            break
    return texts


def bin_volumes(edges: Sequence[Array]) -> Array:
    """Width of each bin, or product of its widths along several axes, flattened in C order."""
    volume = np.ones(1)
    for edge in edges:
        volume = np.multiply.outer(volume, np.diff(edge)).ravel()
    return volume


def bin_index(values: Sequence[Array], edges: Sequence[Array], rows: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Flat bin of each event; -1 outside all bins and for events not in ``rows``.

    Bins are half open, ``[low, high)``, as in ``hist``.
    """
    flat = np.zeros(len(rows), dtype=np.int64)
    inside = rows.copy()
    for value, edge in zip(values, edges, strict=True):
        index = np.searchsorted(edge, np.where(rows, value, edge[0]), side="right") - 1
        inside &= (index >= 0) & (index < len(edge) - 1)
        flat = flat * (len(edge) - 1) + np.clip(index, 0, len(edge) - 2)
    return np.where(inside, flat, -1)


def project(index: NDArray[np.integer], weight: Array, n_bins: int) -> Array:
    """Sum of weights per bin, shape (n_bins,)."""
    used = index >= 0
    return np.bincount(index[used], weight[used], n_bins)
