"""Events of a large sample in random groups that fluctuate together.

A member then needs one random number per group, and its sums run over groups. Random groups leave the variance of
every sum at that of single events, but for what all events have in common: ``m`` events per group would multiply the
variance of the sum of weights by ``m``. The common part of the fluctuations is therefore scaled to the variance that
single events have: equations (13)-(15) of the derivation. For sums relative to the total that is all; absolute sums of
events whose weights differ from the others' would still feel the groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_count
from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks, pass_blocks
from bayesunfold.classifier.part import Part
from bayesunfold.unfolding.perturbations import BLOCK, Block, Fluctuations, exponentials

__all__ = ["GROUPS", "EventGroups", "GroupedFluctuations", "check_event_groups", "in_groups"]

Array = NDArray[np.floating]

GROUPS = 131_072
"""Groups of events. Covariances of sums relative to the total are right to about ``sqrt(2 / GROUPS)``."""

FEWEST = 10_000
"""Fewer groups than this would be felt in the bands."""

ORDER, CHOICE = 2**62, 2**62 + 1
"""Numbers, beyond those of all blocks, of the streams of a sample's order and of the part that stands for it."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class EventGroups:
    """Events of a sample in random groups whose sizes differ by one at most.

    Attributes
    ----------
    order : int array, shape (groups, size)
        Rows of the events, group by group; -1 where a group has an event less.
    n : int
        Number of events.
    """

    order: NDArray[np.int32]
    n: int

    @classmethod
    def of(cls, n: int, most: int, rng: np.random.Generator) -> EventGroups:
        """``n`` events in ``most`` groups, or one by one if there are fewer."""
        groups = min(n, most)
        order = np.full((-(-n // groups), groups), -1, dtype=np.int32)
        order.flat[:n] = rng.permutation(n)  # the last row is of those that have an event more
        return cls(np.ascontiguousarray(order.T), n)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def size(self) -> int:
        """Most events per group."""
        return self.order.shape[1]

    @cached_property
    def of_event(self) -> NDArray[np.int32]:
        """Group of each event, shape (n,)."""
        out = np.empty(self.n, dtype=np.int32)
        number = np.repeat(np.arange(len(self), dtype=np.int32), self.size)
        real = self.order.ravel() >= 0
        out[self.order.ravel()[real]] = number[real]
        return out

    def rows(self, groups: slice) -> tuple[NDArray[np.integer], NDArray[np.bool_]]:
        """Rows of the events of some groups, and which of them are events: the others have row zero."""
        rows = self.order[groups].ravel()
        real = rows >= 0
        return np.where(real, rows, 0), real

    def totals(self, values: Array) -> Array:
        """Sum of each group's values, shape (groups,)."""
        return np.bincount(self.of_event, values, len(self))


class GroupedFluctuations(Fluctuations):
    """Exp(1) - 1 for every group of events, the common part scaled to that of single events.

    Parameters
    ----------
    weight : array, shape (n,)
        Weights of the events, whose sum fluctuates as if events did so one by one.
    n_members : int
    seed : int
    most : int
        Most groups; also about the number of events in :attr:`part`.
    move : callable, optional
        Of a slice of groups: what is added to their fluctuations before the common part is scaled.
    """

    def __init__(
        self,
        weight: Array,
        n_members: int,
        seed: int,
        most: int,
        move: Callable[[slice], Array] | None = None,
    ) -> None:
        super().__init__(len(weight), n_members, seed)
        self.weight, self.most, self.move_groups = weight, most, move
        self._cache = None
        self._values: Array | None = None
        self._lock = Lock()

    @cached_property
    def groups(self) -> EventGroups:
        """Which event is in which group."""
        return EventGroups.of(self.n, self.most, self._stream(ORDER))

    @cached_property
    def part(self) -> Part:
        """Events that stand for all where a rough sum is enough: not in the matrices of refits."""
        return Part.choose(self.weight, self.most, self._stream(CHOICE))

    @cached_property
    def totals(self) -> Array:
        """Weight of each group, shape (groups,)."""
        return self.groups.totals(self.weight)

    @cached_property
    def common(self) -> float:
        """What is taken off, per unit of group weight: ``(1 - lambda) / sum V``, equation (14)."""
        size = np.sqrt((self.weight @ self.weight) / (self.totals @ self.totals))
        return float((1.0 - size) / self.totals.sum())

    def __getstate__(self) -> dict[str, Any]:
        """For workers, with the fluctuations, which take all events to make."""
        self.values()
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()

    def group_blocks(self) -> list[slice]:
        """Slices of groups, a block at a time."""
        return list(blocks(len(self.groups), BLOCK))

    def event_blocks(self) -> list[slice]:
        """Slices of groups that hold as many events as a block."""
        return list(blocks(len(self.groups), max(1, BLOCK // self.groups.size)))

    def values(self) -> Array:
        """Fluctuation of every group in every member, shape (groups, n_members), float32: equation (14)."""
        with self._lock:
            if self._values is None:
                self._values = self._make()
            return self._values

    def _make(self) -> Array:
        out = np.empty((len(self.groups), self.n_members), np.float32)

        making = partial(_group_values, self.seed, self.n_members, self.move_groups)
        mean = np.zeros(self.n_members)
        for groups, part in map_blocks(making, enumerate(self.group_blocks())):
            out[groups] = part
            mean += self.totals[groups] @ part
        out -= (self.common * mean).astype(np.float32)
        return out

    def pass_blocks(self) -> Iterator[Block]:
        """As :meth:`blocks`, of any length, for sums without fluctuations, which do not depend on numbers of blocks."""
        return (Block(number, rows) for number, rows in enumerate(pass_blocks(self.n, BLOCK)))

    def block(self, index: int) -> Array:
        """Fluctuations of a block of events, shape (events in block, n_members)."""
        return self.values()[self.groups.of_event[index * BLOCK : (index + 1) * BLOCK]]

    def of_member(self, s: int) -> Array:
        """Fluctuation of every event in one member, shape (n,)."""
        return self.values()[self.groups.of_event, s].astype(np.float64)

    def weighted(self, weight: Array) -> Array:
        """Sum of weight times fluctuation over the events, shape (n_members,)."""
        return self.groups.totals(weight) @ self.values()

    def negative_share(self, rows: NDArray[np.bool_] | None = None) -> float:
        """Share of the fluctuations below -1, of all events or some."""
        used = np.ones(self.n) if rows is None else rows.astype(float)
        events, values = self.groups.totals(used), self.values()
        below = sum(map_blocks(lambda g: float(events[g] @ (values[g] < -1.0).sum(axis=1)), self.group_blocks()))
        return below / (used.sum() * self.n_members)

    def moved(self, move: Callable[..., Array]) -> GroupedFluctuations:
        """The same fluctuations with something added to those of each slice of groups."""
        self._values = None
        return GroupedFluctuations(self.weight, self.n_members, self.seed, self.most, move)

    def _stream(self, number: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, number]))


def _group_values(
    seed: int, n_members: int, move: Callable[[slice], Array] | None, numbered: tuple[int, slice]
) -> tuple[slice, Array]:
    """Fluctuations of some groups before the common part is scaled."""
    number, groups = numbered
    part = exponentials(seed, number, groups.stop - groups.start, n_members)
    if move is not None:
        part += move(groups)
    return groups, part


def check_event_groups(most: int | None) -> int | None:
    """Raise :class:`~bayesunfold.errors.InputError` for a number of groups that is none or too small."""
    return None if most is None else check_count(most, "event_groups", FEWEST, 2**31)


def in_groups(fluctuations: Fluctuations, weight: Array, most: int | None) -> Fluctuations:
    """Fluctuations of groups where a sample has more events than groups; those of its events otherwise.

    Parameters
    ----------
    fluctuations : Fluctuations
    weight : array, shape (n,)
    most : int, optional
        Most groups; None for events one by one.
    """
    if most is None or fluctuations.n <= most:
        return fluctuations
    return GroupedFluctuations(weight, fluctuations.n_members, fluctuations.seed, most)
