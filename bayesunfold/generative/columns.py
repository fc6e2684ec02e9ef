"""Features as a density network sees them: normal scores, spaced values, and values with a probability of their own.

A continuous feature is mapped to its normal score, the quantile of N(0, 1) at the feature's distribution function in
the simulation. Edges of a range and long tails are then far out, where a smooth density has nothing to place. Integers
are spread over their unit first. Values that many events share, and "does not exist", are atoms: classes of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

__all__ = ["Column", "encode", "fit_columns"]

Array = NDArray[np.floating]
Integers = NDArray[np.integer]

MOST_KNOTS, EVENTS_PER_KNOT = 201, 20
"""Of the map to normal scores."""

ATOM_SHARE, ATOM_EVENTS, MOST_ATOMS = 0.002, 20, 20
"""A value is an atom if it has this share of the weight and as many events; a feature of few values has only atoms."""

MOST_SPACED = 10_000
"""More different integers than this are as good as continuous."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Column:
    """One feature.

    Attributes
    ----------
    name : str
    atoms : array, shape (a,)
        Values with a probability of their own; NaN, "does not exist", comes last.
    values, scores : array, shape (knots,)
        The map to normal scores, linear between knots; empty if there are atoms only.
    spacing : float
        Of a feature with spaced values such as integers, else zero.
    low, high : float
        Range of the simulated values, NaN aside.
    """

    name: str
    atoms: Array
    values: Array
    scores: Array
    spacing: float
    low: float
    high: float

    @classmethod
    def fit(cls, name: str, x: Array, weight: Array) -> Column:
        """From simulated events.

        Parameters
        ----------
        name : str
        x : array, shape (n,)
        weight : array, shape (n,)
            Their absolute values are used.
        """
        size = np.abs(weight)
        exists = ~np.isnan(x)
        undefined = np.array([np.nan]) if not exists.all() else np.zeros(0)
        known, size = x[exists], size[exists]
        none = np.zeros(0)
        found, index, counts = np.unique(known, return_inverse=True, return_counts=True)
        low, high = float(found[0]), float(found[-1])
        if len(found) <= MOST_ATOMS and counts.min() > 1:
            return cls(name, np.r_[found, undefined], none, none, 0.0, low, high)
        if len(found) <= MOST_SPACED and np.all(found == np.round(found)) and len(found) < 0.5 * len(known):
            spread, shares = _spread(found, np.bincount(index, weights=size))
            values, scores = _knots(spread, shares, int(counts.sum()))
            return cls(name, undefined, values, scores, 1.0, low, high)
        share = np.bincount(index, weights=size) / max(size.sum(), 1e-300)
        atom = (share > ATOM_SHARE) & (counts >= ATOM_EVENTS)
        rest = ~atom[index]
        knots: tuple[Array, Array] = (none, none)
        if rest.any():
            order = np.argsort(known[rest], kind="stable")
            rising, w = known[rest][order], size[rest][order]
            knots = _knots(rising, (np.cumsum(w) - 0.5 * w) / w.sum(), len(rising))
        return cls(name, np.r_[found[atom], undefined], *knots, 0.0, low, high)

    @property
    def continuous(self) -> bool:
        """Whether values beside the atoms exist."""
        return len(self.values) > 0

    @property
    def n_classes(self) -> int:
        """Atoms, and one for all other values."""
        return len(self.atoms) + int(self.continuous)

    @property
    def n_inputs(self) -> int:
        """Numbers that a network reads of the feature."""
        return len(self.atoms) + int(self.continuous)

    def classes(self, x: Array) -> Integers:
        """Class of each value, shape (n,): the number of its atom, or that of all other values; -1 for none."""
        out = np.full(len(x), len(self.atoms) if self.continuous else -1)
        for k, atom in enumerate(self.atoms):
            out[np.isnan(x) if np.isnan(atom) else x == atom] = k
        out[np.isnan(x) & ~np.isnan(self.atoms).any()] = -1
        return out

    def score(self, x: Array) -> Array:
        """Normal scores, shape (n,); those at the end of the range beyond it, zero for NaN."""
        if not self.continuous:
            return np.zeros(len(x))
        return np.interp(np.where(np.isnan(x), self._middle, x), self.values, self.scores)

    @property
    def _middle(self) -> float:
        return float(np.interp(0.0, self.scores, self.values))

    def spread_score(self, x: Array, rng: np.random.Generator) -> Array:
        """Normal scores of values spread over their spacing, shape (n,)."""
        return self.score(x + self.spacing * (rng.random(len(x)) - 0.5) if self.spacing else x)

    def slope(self, x: Array) -> Array:
        """Derivative of the normal score, shape (n,); zero outside the range."""
        place = np.searchsorted(self.values, x, side="right") - 1
        inside = (place >= 0) & (x <= self.values[-1])
        place = np.clip(place, 0, len(self.values) - 2)
        return np.where(inside, (np.diff(self.scores) / np.diff(self.values))[place], 0.0)

    def value(self, classes: Integers, score: Array) -> Array:
        """Values of classes and scores: the inverse of both, shape (n,)."""
        out = np.empty(len(classes))
        if self.continuous:
            out[:] = np.interp(score, self.scores, self.values)
            if self.spacing:
                out = np.clip(self.spacing * np.round(out / self.spacing), self.low, self.high)
        if len(self.atoms):
            for k, atom in enumerate(self.atoms):
                out[classes == k] = atom
        return out

    def inputs(self, x: Array) -> Array:
        """What a network reads, float32, shape (n, n_inputs): the score, and an indicator per atom."""
        out = np.zeros((len(x), self.n_inputs), dtype=np.float32)
        classes = self.classes(x)
        if self.continuous:
            out[:, 0] = np.where(np.isnan(x), 0.0, self.score(x))
        for k in range(len(self.atoms)):
            out[:, k + int(self.continuous)] = classes == k
        return out

    def outside(self, x: Array) -> NDArray[np.bool_]:
        """Values that no simulated event has: beyond the range, or an unknown kind."""
        beyond = (x < self.low) | (x > self.high)
        return np.where(np.isnan(x), not np.isnan(self.atoms).any(), beyond)

    def state(self) -> dict[str, object]:
        """What makes the column again."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _spread(found: Array, size: Array) -> tuple[Array, Array]:
    """Edges of spaced values and the distribution function there."""
    edges = np.r_[found - 0.5, found + 0.5]
    shares = np.cumsum(size) / size.sum()
    heights = np.r_[np.r_[0.0, shares[:-1]], shares]
    order = np.lexsort((heights, edges))
    return edges[order], heights[order]


def _knots(x: Array, shares: Array, n: int) -> tuple[Array, Array]:
    """Values and scores of the map, from sorted values and the distribution function there."""
    most = ndtri(1.0 - 0.5 / max(n, 2))
    count = int(np.clip(n // EVENTS_PER_KNOT, 2, MOST_KNOTS))
    scores = np.linspace(-most, most, count)
    values = np.interp(ndtr(scores), shares, x)
    values[0], values[-1] = x[0], x[-1]
    kept = np.r_[True, np.diff(values) > 0]
    kept[-1] |= values[-1] > values[kept][-1]
    values, scores = values[kept], scores[kept]
    if scores[-1] < most:  # the last value begins earlier
        scores = scores.copy()
        scores[-1] = most
    if len(values) < 2:
        return np.array([x[0], x[0] + 1.0]), np.array([-most, most])
    return values, scores


def fit_columns(x: Array, weight: Array, names: Sequence[str]) -> tuple[Column, ...]:
    """A column per feature of events x, shape (n, d)."""
    return tuple(Column.fit(name, x[:, j], weight) for j, name in enumerate(names))


def encode(columns: Sequence[Column], x: Array) -> Array:
    """What networks read of events, float32, shape (n, inputs)."""
    if not columns:
        return np.zeros((len(x), 0), dtype=np.float32)
    return np.hstack([column.inputs(x[:, j]) for j, column in enumerate(columns)])
