"""Two weighted samples with the same columns, and a fingerprint of each event."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, as_weight, check_finite
from bayesunfold.errors import InputError

__all__ = ["event_folds", "event_hash", "read_events", "read_pair"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def read_events(x: ArrayLike, what: str, like: tuple[str, ...] | None = None, n_features: int | None = None) -> Array:
    """Finite features, shape (n, d), with the columns of the training samples."""
    values, names = as_features(x, what)
    if n_features is not None and values.shape[1] != n_features:
        msg = f"{what} has {values.shape[1]} features; the training samples have {n_features}."
        raise InputError(msg)
    if names is not None and like is not None and names != like:
        msg = f"{what} has columns {names}; the training samples have {like}, in this order."
        raise InputError(msg)
    check_finite(values, None, what, names or tuple(str(j) for j in range(values.shape[1])), "repair or remove them.")
    return values


def read_pair(
    source: ArrayLike, target: ArrayLike, source_weight: ArrayLike | None, target_weight: ArrayLike | None
) -> tuple[Array, Array, Array, Array, tuple[str, ...] | None]:
    """Both samples and their weights, checked; names of the columns of frames.

    Raises
    ------
    InputError
        Different columns, empty samples, NaN, weights that sum to zero or less, or no common range in a feature.
    """
    a, names = as_features(source, "source")
    b, other = as_features(target, "target")
    if a.shape[1] != b.shape[1]:
        msg = f"source has {a.shape[1]} features and target {b.shape[1]}; they must be the same quantities."
        raise InputError(msg)
    if names is not None and other is not None and names != other:
        msg = f"source has columns {names} and target {other}; give the same columns in the same order."
        raise InputError(msg)
    labels = names or other or tuple(f"feature {j}" for j in range(a.shape[1]))
    for values, what in ((a, "source"), (b, "target")):
        check_finite(values, None, what, labels, "repair or remove them.")
    wa = as_weight(source_weight, len(a), "source_weight")
    wb = as_weight(target_weight, len(b), "target_weight")
    for j, label in enumerate(labels):
        if a[:, j].max() < b[:, j].min() or b[:, j].max() < a[:, j].min():
            msg = (
                f"source and target do not overlap in {label}: [{a[:, j].min():.4g}, {a[:, j].max():.4g}] and "
                f"[{b[:, j].min():.4g}, {b[:, j].max():.4g}]; no weights can turn one into the other."
            )
            raise InputError(msg)
    return a, b, wa, wb, names or other


def event_hash(values: Array) -> NDArray[np.uint64]:
    """A number that depends on an event's own features and nothing else, shape (n,).

    Columns are mixed in by the finaliser of SplitMix64 (Steele, Lea, Flood, doi:10.1145/2714064.2660195).
    """
    bits = np.ascontiguousarray(values, dtype=np.float64).view(np.uint64).reshape(values.shape)
    out = np.full(len(values), 0x9E3779B97F4A7C15, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in bits.T:
            out = (out ^ column) + np.uint64(0x9E3779B97F4A7C15)
            out = (out ^ (out >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            out = (out ^ (out >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            out = out ^ (out >> np.uint64(31))
    return out


def event_folds(values: Array, folds: int) -> NDArray[np.int64]:
    """Fold of each event from a hash of its features, whatever the order of rows.

    Events with the same features (integers, categories) are dealt out over the folds one after another, so that every
    fold's training sees the values that it is asked about.
    """
    keys = event_hash(values)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    position = np.arange(len(keys))
    number = np.empty(len(keys), dtype=np.int64)
    number[order] = position - np.maximum.accumulate(np.where(first, position, 0))
    return ((keys % np.uint64(folds)).astype(np.int64) + number) % folds
