"""Sums of members' weights per bin, for events that fluctuate in groups: equations (16) and (17).

A member's weight is ``w exp(c) (1 + d) (1 + e)``, with the change ``c`` of the logarithm by systematics and of the log
ratio, linear in the displacement of the networks, the relative change ``d`` by what systematics do not change of the
logarithm, and the fluctuation ``e`` of the event's group.
What is linear in ``c`` and ``d`` is summed over all events; the rest, of second order, over a sample of every bin's
events. Bins of few events are summed event by event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks
from bayesunfold.classifier.part import Part
from bayesunfold.classifier.sums import gradient_sum
from bayesunfold.unfolding.event_groups import GroupedFluctuations
from bayesunfold.unfolding.perturbations import interpolate
from bayesunfold.unfolding.propagation import Displacement

if TYPE_CHECKING:
    from bayesunfold.unfolding.members import Members

__all__ = ["GroupTotals", "sums_by_group"]

Array = NDArray[np.floating]
Rows = NDArray[np.integer]

FEW, SAMPLED = 2_048, 1_024
"""Bins of at most so many events are summed event by event; of others so many events are sampled."""

SAMPLE = 2**62 + 2
"""Number, beyond those of all blocks, of the stream of the samples."""

ROWS, PIECE, BINS = 2_048, 65_536, 64
"""Events at once where members are expanded, events of a gradient, and bins of one table of groups."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class GroupTotals:
    """Sums over bins for one source of uncertainty, or for all.

    Attributes
    ----------
    members : Members
        Whose simulated events fluctuate in groups.
    fluctuations : GroupedFluctuations
        Of the simulated events.
    source : str or None
    sampled : int
        Events that are sampled per bin.
    kept : boolean array, shape (n,), optional
        Events that have their generator weight, whatever the networks say.
    """

    members: Members
    fluctuations: GroupedFluctuations
    source: str | None
    sampled: int = SAMPLED
    kept: NDArray[np.bool_] | None = None

    def __call__(
        self, bins: NDArray[np.integer], n_bins: int, passing: NDArray[np.bool_], values: Array | None = None
    ) -> Array:
        """Sums of value times weight, not normalised, shape (n_bins, n_members).

        Parameters
        ----------
        bins : int array, shape (n,)
            Bin of each event; negative for events that count nowhere.
        passing : boolean array, shape (n,)
            Events that count.
        values : array, shape (n,), optional
            One if omitted. Which events are sampled does not depend on them, so that moments are those of one sample.
        """
        base = self.members.base(self.kept)
        weight = base if values is None else np.where(passing, values, 0.0) * base
        used = np.flatnonzero((bins >= 0) & passing & (base != 0))
        rows_of = _rows_by_bin(used, bins[used], n_bins)
        large = [b for b, rows in enumerate(rows_of) if len(rows) > FEW]
        small = np.concatenate([rows for rows in rows_of if len(rows) <= FEW] or [used[:0]])
        out = np.zeros((n_bins, self.members.n_members))
        for place, part in self._one_by_one(_Sampled.all_of(small, bins, weight)):
            out[place] += part
        if large:
            with np.errstate(invalid="ignore", over="ignore"):  # Members.norm() reports infinite weights
                out[large] = self._of_large([rows_of[b] for b in large], base, weight)
        return out

    def unlearned(self, weight: Array) -> Array:
        """``sum w exp(c) (1 + e + d)`` of weights of shape (n,), whatever the networks say, shape (n_members,)."""
        m, rows = self.members, np.flatnonzero(weight)
        out, growth = np.full(m.n_members, weight.sum()), np.ones(m.n_members)
        for up, down, alpha, _ in m.columns(self.source):
            out += interpolate(np.array(weight @ up), np.array(weight @ down), alpha)
        some = rows[np.linspace(0, len(rows) - 1, min(len(rows), self.sampled)).astype(int)]
        change, relative = m.varied(some, self.source), m.varied(some, self.source, relative=True)
        if change is not None:
            more = np.expm1(change.astype(np.float64))
            growth += (weight[some] @ more) / weight[some].sum()
            more = more - change if relative is None else more * (1.0 + relative) - change
            out += (weight.sum() / weight[some].sum()) * (weight[some] @ more)
        if self.source in (None, "simulation"):
            out += self._fluctuating([rows], weight)[0] * growth
        return out

    def from_part(self, groupings: Sequence[NDArray[np.integer]], n_bins: int) -> list[Array]:
        """Sums over the bins of several groupings from the part that stands for all events, shape (n_bins, n_members).

        Contents are as good as the part, their widths over members as good as they ever are: an event that is missing
        is missing in all members. Event fluctuations are those of all events.
        """
        base = self.members.base(self.kept)
        part = self.fluctuations.part
        size = part.factor * base[part.rows]

        def one(block: slice) -> list[Array]:
            rows = part.rows[block]
            with np.errstate(over="ignore", invalid="ignore"):  # Members.norm() reports infinite weights
                full = np.exp(self._log_change(rows))
                relative = self.members.varied(rows, self.source, relative=True)
                if relative is not None:
                    full *= 1.0 + relative
                full *= size[block, None].astype(full.dtype)
                return [sums_by_group(bins[rows], full, n_bins) for bins in groupings]

        sums: list[Array] = [np.zeros((n_bins, self.members.n_members)) for _ in groupings]
        for found in map_blocks(one, blocks(len(size), ROWS)):
            for total, more in zip(sums, found, strict=True):
                total += more
        for total, bins in zip(sums, groupings, strict=True):
            used = np.flatnonzero((bins >= 0) & (base != 0))
            inside = bins[part.rows] >= 0
            nominal = np.bincount(bins[part.rows][inside], size[inside], n_bins)
            change = np.divide(total, nominal[:, None], out=np.ones_like(total), where=nominal[:, None] != 0)
            total += self._fluctuating(_rows_by_bin(used, bins[used], n_bins), base) * change
        return sums

    def _of_large(self, rows_of: list[Rows], base: Array, weight: Array) -> Array:
        """Sums over bins of many events, shape (bins, n_members)."""
        total, n_bins = self._linear(rows_of, weight), len(rows_of)
        sampled = _Sampled.choose(rows_of, base, weight, self.members.spread, self.sampled, self.fluctuations.seed)
        relative = np.zeros_like(total)
        for place, rest, full in self._second_order(sampled):
            total[place] += rest
            relative[place] += full
        if self.source in (None, "simulation"):
            sizes = np.bincount(sampled.bins, sampled.share, n_bins)
            total += self._fluctuating(rows_of, weight) * (relative / sizes[:, None])
        return total

    def _linear(self, rows_of: list[Rows], weight: Array) -> Array:
        """``sum w (1 + c + d)`` of every bin, shape (bins, n_members)."""
        m = self.members
        out = np.zeros((len(rows_of), m.n_members))
        out += np.array([weight[rows].sum() for rows in rows_of])[:, None]
        fakes = m.events.passes.fakes
        learned = np.ones(len(weight), dtype=bool) if self.kept is None else ~self.kept
        if m.fakes is not None:
            out += self._of_network(m.fakes, m.events.reco, rows_of, weight, fakes)
            learned &= ~fakes
        out += self._of_network(m.step2, m.events.gen, rows_of, weight, learned)
        if self.kept is not None and self.kept.any():
            theirs = np.where(self.kept, weight, 0.0)
            out += np.outer([theirs[rows].sum() for rows in rows_of], m.change_of_kept(self.source))
        for up, down, alpha, _ in m.columns(self.source):
            high, low = (np.array([weight[rows] @ side[rows] for rows in rows_of]) for side in (up, down))
            out += interpolate(high, low, alpha)
        return out

    def _of_network(
        self, displacement: Displacement, x: Array, rows_of: list[Rows], weight: Array, chosen: NDArray[np.bool_]
    ) -> Array:
        """``sum w c`` of the events whose weights a network learns, shape (bins, n_members)."""
        c, moved = displacement.classifier, displacement.of(self.source)
        if moved is None:
            return np.zeros((len(rows_of), self.members.n_members))
        pieces = [(b, rows[part]) for b, rows in enumerate(rows_of) for part in blocks(len(rows), PIECE)]

        def one(piece: tuple[int, Rows]) -> tuple[int, Array]:
            b, rows = piece
            rows = rows[chosen[rows]]
            return b, gradient_sum(c.layout, c.theta, x[rows], weight[rows])[0]

        gradients = np.zeros((len(rows_of), c.layout.n_parameters))
        for b, gradient in map_blocks(one, pieces):
            gradients[b] += gradient
        return gradients @ c.basis @ moved

    def _second_order(self, given: _Sampled) -> Iterator[tuple[slice, Array, Array]]:
        """Per block of sampled events: its bins, what is not linear, and how the networks change the weights."""

        def one(block: slice) -> tuple[slice, Array, Array]:
            rows = given.rows[block]
            place, bins, n_bins = given.place(block)
            change = self._log_change(rows)
            relative = self.members.varied(rows, self.source, relative=True)
            with np.errstate(over="ignore", invalid="ignore"):
                full = np.exp(change)
                rest = full - 1.0 - change
                if relative is not None:
                    rest += (full - 1.0) * relative
                rest *= given.size[block, None].astype(rest.dtype)
                full *= given.share[block, None].astype(full.dtype)
                return place, sums_by_group(bins, rest, n_bins), sums_by_group(bins, full, n_bins)

        return map_blocks(one, blocks(len(given.rows), ROWS))

    def _log_change(self, rows: Rows) -> Array:
        """Change of the logarithm of the weights of some events, shape (events, n_members)."""
        return self.members.log_change(rows, self.source, None if self.kept is None else self.kept[rows])

    def _fluctuating(self, rows_of: list[Rows], weight: Array) -> Array:
        """``sum w e`` of every bin, shape (bins, n_members)."""
        groups, values = self.fluctuations.groups, self.fluctuations.values()
        out = np.zeros((len(rows_of), values.shape[1]))
        for chunk in blocks(len(rows_of), BINS):
            chosen = rows_of[chunk]
            rows, width = np.concatenate(chosen), len(chosen)
            number = np.repeat(np.arange(width), [len(r) for r in chosen])
            place = groups.of_event[rows].astype(np.int64) * width + number
            table = np.bincount(place, weight[rows], len(groups) * width).reshape(-1, width).astype(np.float32)
            for part in map_blocks(partial(_table_sums, table, values), self.fluctuations.group_blocks()):
                out[chunk] += part
        return out

    def _one_by_one(self, given: _Sampled) -> Iterator[tuple[slice, Array]]:
        """Per block of events: its bins, and their sums without approximation."""

        def one(block: slice) -> tuple[slice, Array]:
            place, bins, n_bins = given.place(block)
            with np.errstate(over="ignore", invalid="ignore"):
                full = self._full(given.rows[block])
                full *= given.size[block, None].astype(full.dtype)
                return place, sums_by_group(bins, full, n_bins)

        return map_blocks(one, blocks(len(given.rows), ROWS))

    def moments(self, number: int) -> Iterator[tuple[Array, Array]]:
        """Per block of a sample of the particle-level events: sums of their weights, and of the squares."""
        base = self.members.base(self.kept)
        rows = np.flatnonzero(self.members.events.passes.gen & (base != 0))
        sampled = _Sampled.choose([rows], base, base, self.members.spread, number, self.fluctuations.seed)

        def one(block: slice) -> tuple[Array, Array]:
            rows, size = sampled.rows[block], sampled.size[block]
            full = self._full(rows).astype(np.float64)
            return size @ full, (size * base[rows]) @ full**2

        return map_blocks(one, blocks(len(sampled.rows), ROWS))

    def _full(self, rows: Rows) -> Array:
        """Weights of some events over those of the point estimate, fluctuations included, shape (events, n_members)."""
        change, relative = self._log_change(rows), self.members.varied(rows, self.source, relative=True)
        if self.source in (None, "simulation"):
            moved = self.fluctuations.values()[self.fluctuations.groups.of_event[rows]]
            relative = moved if relative is None else relative + moved
        full = np.exp(change, out=change)
        if relative is not None:
            full *= 1.0 + relative
        return full


def _table_sums(table: Array, values: Array, groups: slice) -> Array:
    """Fluctuations of some groups, summed by the weight that they have in each bin."""
    return table[groups].T @ values[groups]


@dataclass(frozen=True)
class _Sampled:
    """Events in the order of their bins, the bin of each, what it counts there, and its share of the bin's weight."""

    rows: Rows
    bins: NDArray[np.integer]
    size: Array
    share: Array

    def place(self, block: slice) -> tuple[slice, NDArray[np.integer], int]:
        """Bins of a block of events: which they are, that of each event counted from the first, and their number."""
        bins = self.bins[block]
        place = slice(int(bins[0]), int(bins[-1]) + 1)
        return place, bins - place.start, place.stop - place.start

    @classmethod
    def all_of(cls, rows: Rows, bins: NDArray[np.integer], weight: Array) -> _Sampled:
        """Every event, once."""
        return cls(rows, bins[rows], weight[rows], np.abs(weight[rows]))

    @classmethod
    def choose(cls, rows_of: list[Rows], base: Array, weight: Array, spread: Array, number: int, seed: int) -> _Sampled:
        """A sample of every bin's events, weighted up to stand for all; more of those whose weights change much."""
        rng = np.random.Generator(np.random.Philox(key=[seed, SAMPLE]))
        parts = [Part.choose(base[rows], number, rng, spread[rows]) for rows in rows_of]
        rows = np.concatenate([rows[part.rows] for rows, part in zip(rows_of, parts, strict=True)])
        bins = np.repeat(np.arange(len(parts)), [len(part.rows) for part in parts])
        factor = np.concatenate([part.factor for part in parts])
        return cls(rows, bins, factor * weight[rows], factor * np.abs(base[rows]))


def _rows_by_bin(rows: Rows, bins: NDArray[np.integer], n_bins: int) -> list[Rows]:
    """Rows of each bin, in order."""
    small = bins.astype(np.uint16) if n_bins <= 2**16 else bins  # integers of 16 bits are sorted by counting
    order = rows[np.argsort(small, kind="stable")]
    return np.split(order, np.cumsum(np.bincount(bins, minlength=n_bins))[:-1])


def sums_by_group(groups: NDArray[np.integer], weights: Array, n_groups: int) -> Array:
    """Rows of ``weights`` summed by group, shape (n_groups, n_members); negative groups count nowhere."""
    used = np.flatnonzero(groups >= 0)
    out = np.zeros((n_groups, weights.shape[1]))
    if len(used) == 0:
        return out
    order = used[np.argsort(groups[used], kind="stable")]
    sorted_groups = groups[order]
    starts = np.flatnonzero(np.r_[True, np.diff(sorted_groups) > 0])
    out[sorted_groups[starts]] = np.add.reduceat(weights[order], starts, axis=0, dtype=np.float64)
    return out
