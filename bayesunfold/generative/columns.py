"""Features as a density network sees them: normal scores, integers, and values with a probability of their own.

A continuous feature is mapped to its normal score, the quantile of N(0, 1) at the feature's distribution function in
the simulation. Edges of a range and long tails are then far out, where a smooth density has nothing to place. Scores of
an integer are anywhere between those of its neighbours. Values that many events share, and "does not exist", are atoms:
classes of their own.
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

MOST_LEVELS = 10_000
"""More different integers than this are as good as continuous."""

FARTHEST_SCORE = 6.0
"""Integers at the ends of a range have scores within this of zero."""


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
        The map to normal scores, linear between knots; empty if there are atoms only. Of integers, all that exist, and
        the middle of their scores.
    edges : array, shape (knots + 1,)
        Of integers: where the scores of each begin and end. Empty for other features.
    low, high : float
        Range of the simulated values, NaN aside.
    """

    name: str
    atoms: Array
    values: Array
    scores: Array
    edges: Array
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
        undefined = np.zeros(0) if exists.all() else np.array([np.nan])
        known, size = x[exists], size[exists]
        none = np.zeros(0)
        if len(known) == 0:
            return cls(name, undefined, none, none, none, np.nan, np.nan)
        found, index, counts = np.unique(known, return_inverse=True, return_counts=True)
        low, high = float(found[0]), float(found[-1])
        repeated = len(found) <= 0.5 * len(known)
        if len(found) <= MOST_ATOMS and repeated:
            return cls(name, np.r_[found, undefined], none, none, none, low, high)
        total = np.bincount(index, weights=size)
        share = total / max(size.sum(), 1e-300)
        if len(found) <= MOST_LEVELS and repeated and np.all(found == np.round(found)):
            edges, scores = _levels(share)
            return cls(name, undefined, found, scores, edges, low, high)
        atom = (share > ATOM_SHARE) & (counts >= ATOM_EVENTS)
        if (~atom).sum() == 1:  # a single other value
            atom[:] = True
        rest = ~atom[index]
        knots: tuple[Array, Array] = (none, none)
        if rest.any():
            order = np.argsort(known[rest], kind="stable")
            rising, w = known[rest][order], size[rest][order]
            knots = _knots(rising, (np.cumsum(w) - 0.5 * w) / max(w.sum(), 1e-300), len(rising))
        return cls(name, np.r_[found[atom], undefined], knots[0], knots[1], none, low, high)

    @property
    def continuous(self) -> bool:
        """Whether values beside the atoms exist."""
        return len(self.values) > 0

    @property
    def whole(self) -> bool:
        """Whether these are integers."""
        return len(self.edges) > 0

    @property
    def n_classes(self) -> int:
        """Atoms, and one for all other values."""
        return len(self.atoms) + int(self.continuous)

    @property
    def n_inputs(self) -> int:
        """Numbers that a network reads of the feature: one per class."""
        return self.n_classes

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
        return np.where(np.isnan(x), 0.0, np.interp(x, self.values, self.scores))

    def level(self, x: Array) -> Integers:
        """Number of each integer among those that exist, shape (n,), -1 for others."""
        place = np.clip(np.searchsorted(self.values, x), 0, len(self.values) - 1)
        return np.where(self.values[place] == x, place, -1)

    def spread_score(self, x: Array, rng: np.random.Generator) -> Array:
        """Normal scores; those of an integer anywhere between its edges, as N(0, 1) has them, shape (n,)."""
        if not self.whole:
            return self.score(x)
        level = np.maximum(self.level(x), 0)
        low, high = ndtr(self.edges[level]), ndtr(self.edges[level + 1])
        score = ndtri(low + rng.random(len(x)) * (high - low))
        return np.clip(score, -FARTHEST_SCORE, FARTHEST_SCORE)

    def slope(self, x: Array) -> Array:
        """Derivative of the normal score, shape (n,); zero outside the range."""
        place = np.searchsorted(self.values, x, side="right") - 1
        inside = (place >= 0) & (x <= self.values[-1])
        place = np.clip(place, 0, len(self.values) - 2)
        return np.where(inside, (np.diff(self.scores) / np.diff(self.values))[place], 0.0)

    def value(self, classes: Integers, score: Array) -> Array:
        """Values of classes and scores: the inverse of both, shape (n,)."""
        out = np.full(len(classes), np.nan)
        if self.whole:
            out[:] = self.values[np.searchsorted(self.edges[1:-1], score, side="right")]
        elif self.continuous:
            out[:] = np.interp(score, self.scores, self.values)
        for k, atom in enumerate(self.atoms):
            out[classes == k] = atom
        return out

    def inputs(self, x: Array) -> Array:
        """What a network reads, float32, shape (n, n_inputs): the score, and an indicator per atom."""
        out = np.zeros((len(x), self.n_inputs), dtype=np.float32)
        classes = self.classes(x)
        if self.continuous:
            out[:, 0] = self.score(x)
        for k in range(len(self.atoms)):
            out[:, k + int(self.continuous)] = classes == k
        return out

    def outside(self, x: Array) -> NDArray[np.bool_]:
        """Values that no simulated event has: beyond the range, or an unknown kind."""
        beyond = ~((x >= self.low) & (x <= self.high))
        return np.where(np.isnan(x), not np.isnan(self.atoms).any(), beyond)


def _levels(share: Array) -> tuple[Array, Array]:
    """Edges and middles of the scores of integers with given shares of the weight."""
    heights = np.clip(np.r_[0.0, np.cumsum(share)], 0.0, 1.0)
    heights[-1] = 1.0
    edges = ndtri(heights)
    middles = np.clip(ndtri(0.5 * (heights[1:] + heights[:-1])), -FARTHEST_SCORE, FARTHEST_SCORE)
    return edges, middles


def _knots(x: Array, shares: Array, n: int) -> tuple[Array, Array]:
    """Values and scores of the map, from sorted values and the distribution function there."""
    most = ndtri(1.0 - 0.5 / max(n, 2))
    count = int(np.clip(n // EVENTS_PER_KNOT, 2, MOST_KNOTS))
    scores = np.linspace(-most, most, count)
    values = np.interp(ndtr(scores), shares, x)
    values[0], values[-1] = x[0], x[-1]
    kept = np.r_[True, np.diff(values) > 0]
    values, scores = values[kept], scores[kept]
    scores[-1] = most  # the last value may begin earlier
    if len(values) < 2:
        return np.array([x[0], np.nextafter(x[0], np.inf)]), np.array([-most, most])
    return values, scores


def fit_columns(x: Array, weight: Array, names: Sequence[str]) -> tuple[Column, ...]:
    """A column per feature of events x, shape (n, d)."""
    return tuple(Column.fit(name, x[:, j], weight) for j, name in enumerate(names))


def encode(columns: Sequence[Column], x: Array) -> Array:
    """What networks read of events, float32, shape (n, inputs)."""
    if not columns:
        return np.zeros((len(x), 0), dtype=np.float32)
    return np.hstack([column.inputs(x[:, j]) for j, column in enumerate(columns)])
