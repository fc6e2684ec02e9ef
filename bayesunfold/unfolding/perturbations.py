"""What fluctuates: event weights of each sample, and systematic variations.

A member is one hypothetical fluctuation of everything, the same in every iteration: one Exp(1) - 1 for every
event (data, simulation, backgrounds) and one N(0, 1) for every systematic variation. Event fluctuations are made from
a counter, block by block, so that they need not be stored.

Only NumPy is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.arithmetic import blocks

__all__ = ["Acceptance", "Fluctuations", "Sample", "Samples", "Shift", "Shifted", "Variation", "interpolate"]

Array = NDArray[np.floating]

BLOCK = 4096
"""Events per block. Part of the random stream: changing it changes the members of a seed."""

CACHE_BYTES = 600_000_000
"""Event fluctuations larger than this are made again from their seed whenever needed."""


def __dir__() -> list[str]:
    return __all__


class Fluctuations:
    """Relative weight fluctuations of events: Exp(1) - 1, the Bayesian bootstrap (Rubin 1981).

    Parameters
    ----------
    n : int
        Number of events.
    members : int
        Number of ensemble members.
    seed : int
        Key of a counter-based generator; a block of events is made from ``(seed, block)``.
    move : callable, optional
        Of a block's number: what is added to its fluctuations, shape (events, members).

    References
    ----------
    D. B. Rubin, "The Bayesian Bootstrap", Ann. Statist. 9 (1981) 130, doi:10.1214/aos/1176345338.
    """

    def __init__(self, n: int, members: int, seed: int, move: Callable[[int], Array] | None = None) -> None:
        self.n, self.members, self.seed, self.move = n, members, seed, move
        self._cache: dict[int, Array] | None = {} if 4 * n * members <= CACHE_BYTES else None

    def block(self, index: int) -> Array:
        """Fluctuations of block ``index``, shape (events in block, members), float32."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        rows = min(BLOCK, self.n - index * BLOCK)
        rng = np.random.Generator(np.random.Philox(key=[self.seed, index]))
        g = rng.standard_exponential((rows, self.members), dtype=np.float32)
        g -= np.float32(1.0)
        if self.move is not None:
            g += self.move(index)
        if self._cache is not None:
            self._cache[index] = g
        return g

    def moved(self, move: Callable[[int], Array]) -> Fluctuations:
        """The same fluctuations with something added to them."""
        return Fluctuations(self.n, self.members, self.seed, move)


@dataclass(frozen=True)
class Variation:
    """A systematic variation of simulated event weights.

    Attributes
    ----------
    alpha : array, shape (members,)
        The nuisance parameter of each member, N(0, 1).
    up, down : array, shape (n,)
        Relative change of each event's weight at ``alpha`` = 1 and -1.
    """

    alpha: Array
    up: Array
    down: Array

    def change(self, rows: slice) -> Array:
        """Relative change of the weights, linear on either side of zero, shape (events, members)."""
        return interpolate(self.up[rows], self.down[rows], self.alpha)


@dataclass(frozen=True)
class Shifted:
    """The detector level of simulated events in a systematic variation.

    Attributes
    ----------
    features : array, shape (n, d), float32
        Standardised; zero in rows that fail.
    passes : boolean array, shape (n,)
        Which events pass detector level in the variation.
    """

    features: Array
    passes: NDArray[np.bool_]


@dataclass(frozen=True)
class Shift:
    """A systematic variation of the detector level of simulated events.

    Attributes
    ----------
    alpha : array, shape (members,)
    up, down : Shifted
        At ``alpha`` = 1 and -1; ``down`` is None for a one-sided variation, taken as linear.
    """

    alpha: Array
    up: Shifted
    down: Shifted | None


@dataclass(frozen=True)
class Acceptance:
    """How a shift of the detector level changes which events pass it.

    Attributes
    ----------
    alpha : array, shape (members,)
    up, down : int8 array, shape (n,), or None
        1 for events that pass only in the variation at ``alpha`` = 1 and -1, -1 for those that pass only without; None
        if all pass as they did.
    outside : (float, float)
        Weight of events that pass neither level and pass detector level in the variation, up and down.
    """

    alpha: Array
    up: NDArray[np.int8] | None = None
    down: NDArray[np.int8] | None = None
    outside: tuple[float, float] = (0.0, 0.0)


def interpolate(up: Array, down: Array, alpha: Array) -> Array:
    """``alpha up`` for positive alpha and ``|alpha| down`` for negative, outer product over members."""
    return np.multiply.outer(up, np.maximum(alpha, 0.0)) + np.multiply.outer(down, np.maximum(-alpha, 0.0))


@dataclass(frozen=True)
class Sample:
    """Events as the propagation sees them: features at one or both levels, and their fluctuations.

    Attributes
    ----------
    name : str
        ``"data"``, ``"simulation"`` or a background's name; also the name of its source of uncertainty.
    features : dict of level to array, shape (n, d)
        ``"gen"`` and ``"reco"`` for simulation, ``"reco"`` for data and backgrounds. Finite in every row.
    fluctuations : Fluctuations
    """

    name: str
    features: dict[str, Array]
    fluctuations: Fluctuations

    def __len__(self) -> int:
        return self.fluctuations.n

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Index and rows of each block."""
        return enumerate(blocks(len(self), BLOCK))

    def silent(self) -> Sample:
        """The sample with no members, for passes that need only the curvature."""
        return replace(self, fluctuations=Fluctuations(len(self), 0, 0))


@dataclass(frozen=True)
class Samples:
    """Everything that fluctuates.

    Attributes
    ----------
    data, simulation : Sample
    backgrounds : tuple of Sample
    variations : dict of str to Variation
    shifts : dict of str to Shift
    acceptances : dict of str to Acceptance
        One for each shift.
    signal : dict of str to array, shape (members,)
        By source: relative change of the signal's total at detector level, which is what the data hold beyond the
        backgrounds.
    scales : dict of str to array, shape (members,)
        By background: relative change of its normalisation.
    """

    data: Sample
    simulation: Sample
    backgrounds: tuple[Sample, ...] = ()
    variations: Mapping[str, Variation] = field(default_factory=dict)
    shifts: Mapping[str, Shift] = field(default_factory=dict)
    acceptances: Mapping[str, Acceptance] = field(default_factory=dict)
    signal: Mapping[str, Array] = field(default_factory=dict)
    scales: Mapping[str, Array] = field(default_factory=dict)

    @property
    def members(self) -> int:
        """Number of ensemble members."""
        return self.simulation.fluctuations.members

    def silent(self) -> Samples:
        """The samples with no members."""
        return Samples(self.data.silent(), self.simulation.silent(), tuple(b.silent() for b in self.backgrounds))
