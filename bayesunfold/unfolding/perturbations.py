"""What fluctuates: event weights of each sample, and systematic variations.

A member is one hypothetical fluctuation of everything, the same in every iteration: one Exp(1) - 1 for every
event (data, simulation, backgrounds) and one N(0, 1) for every systematic variation. Event fluctuations are made from
a counter, block by block, so that they need not be stored.

Only NumPy is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import event_key
from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import blocks

if TYPE_CHECKING:
    from bayesunfold.unfolding.background_changes import BackgroundChange

__all__ = [
    "Acceptance",
    "Block",
    "Fluctuations",
    "Perturbations",
    "Shift",
    "Shifted",
    "Source",
    "Variation",
    "alpha_of",
    "event_fluctuations",
    "exponentials",
    "interpolate",
    "list_sources",
]

Array = NDArray[np.floating]

BLOCK = 4096
"""Events per block. Part of the random stream: changing it changes the members of a seed."""

CACHE_BYTES = 600_000_000
"""Event fluctuations larger than this are made again from their seed whenever needed."""


def __dir__() -> list[str]:
    return __all__


class Block(NamedTuple):
    """A block of events: its number, which is part of the random stream, and its rows."""

    number: int
    rows: slice


class Fluctuations:
    """Relative weight fluctuations of events: Exp(1) - 1, the Bayesian bootstrap (Rubin 1981).

    Parameters
    ----------
    n : int
        Number of events.
    n_members : int
        Number of ensemble members.
    seed : int
        Key of a counter-based generator; a block of events is made from ``(seed, block)``.
    move : callable, optional
        Of a block's number: what is added to its fluctuations, shape (events, n_members).

    References
    ----------
    D. B. Rubin, "The Bayesian Bootstrap", Ann. Statist. 9 (1981) 130, doi:10.1214/aos/1176345338.
    """

    workers_keep = True

    def __init__(self, n: int, n_members: int, seed: int, move: Callable[[int], Array] | None = None) -> None:
        self.n, self.n_members, self.seed, self.move = n, n_members, seed, move
        self._cache: dict[int, Array] | None = {} if 4 * n * n_members <= CACHE_BYTES else None

    def __len__(self) -> int:
        return self.n

    def __getstate__(self) -> dict[str, Any]:
        """For workers, each of which makes the fluctuations of its own blocks."""
        return self.__dict__ | {"_cache": None if self._cache is None else {}}

    def blocks(self) -> Iterator[Block]:
        """Number and rows of each block."""
        return (Block(number, rows) for number, rows in enumerate(blocks(self.n, BLOCK)))

    def of_member(self, s: int) -> Array:
        """Fluctuation of every event in one member, shape (n,)."""
        return np.concatenate([self.block(b.number)[:, s] for b in self.blocks()]).astype(np.float64)

    def weighted(self, weight: Array) -> Array:
        """Sum of weight times fluctuation over the events, shape (n_members,)."""
        out = np.zeros(self.n_members)
        for part in map_blocks(lambda b: weight[b.rows] @ self.block(b.number), self.blocks()):
            out += part
        return out

    def negative_share(self, rows: NDArray[np.bool_] | None = None) -> float:
        """Share of the fluctuations below -1, which are negative weights, of all events or some."""
        used = np.ones(self.n, dtype=bool) if rows is None else rows

        def one(block: Block) -> int:
            return int((self.block(block.number) < -1.0)[used[block.rows]].sum())

        return sum(map_blocks(one, self.blocks())) / (int(used.sum()) * self.n_members)

    def block(self, index: int) -> Array:
        """Fluctuations of block ``index``, shape (events in block, n_members), float32."""
        if self._cache is not None and index in self._cache:
            return self._cache[index]
        g = exponentials(self.seed, index, min(BLOCK, self.n - index * BLOCK), self.n_members)
        if self.move is not None:
            g += self.move(index)
        if self._cache is not None:
            self._cache[index] = g
        return g

    def moved(self, move: Callable[[int], Array]) -> Fluctuations:
        """The same fluctuations with something added to them.

        What these ones keep in memory is dropped: they make it again if somebody asks, which nobody does.
        """
        if self._cache is not None:
            self._cache = {}
        return Fluctuations(self.n, self.n_members, self.seed, move)


def exponentials(seed: int, number: int, rows: int, n_members: int) -> Array:
    """Exp(1) - 1 of a block, shape (rows, n_members), float32."""
    rng = np.random.Generator(np.random.Philox(key=[seed, number]))
    g = rng.standard_exponential((rows, n_members), dtype=np.float32)
    g -= np.float32(1.0)
    return g


class Column(NamedTuple):
    """What one parameter changes of all events' weights, linear on either side of zero.

    Attributes
    ----------
    up, down : array, shape (n,)
        At ``alpha`` = 1 and -1.
    alpha : array, shape (n_members,)
    relative : bool
        Whether it is the relative change of the weights that is linear; otherwise that of their logarithm.
    """

    up: Array
    down: Array
    alpha: Array
    relative: bool


@dataclass(frozen=True)
class Variation:
    """A systematic variation of simulated event weights.

    Attributes
    ----------
    alpha : array, shape (n_members,)
        The nuisance parameter of each member, N(0, 1).
    up, down : array, shape (n,)
        Change of the logarithm of each event's weight at ``alpha`` = 1 and -1.
    parts : dict of source to array, shape (n_members,), optional
        Of a profiled one: what each source moves of ``alpha``, which is their sum.
    draws : array, shape (n, M), float32, optional
        Of a ratio that was learned from other events: posterior draws of ``up`` less ``up``, the same with the other
        sign for ``down``. Member ``k`` has draw ``k`` modulo ``M``.
    rest : pair of arrays, shape (n,), optional
        Relative change of the weights beside that, at 1 and -1.
    relative : bool
        Whether ``up``, ``down`` and ``draws`` are relative changes of the weights: in files of earlier versions, of
        what is not profiled.
    """

    alpha: Array
    up: Array
    down: Array
    parts: Mapping[str, Array] | None = None
    draws: Array | None = None
    rest: tuple[Array, Array] | None = None
    relative: bool = False

    def change(self, rows: slice | NDArray[np.integer], alpha: Array, *, relative: bool = False) -> Array | None:
        """Change of the logarithm of some events' weights, or their relative change beside that; None for none.

        Linear on either side of zero, shape (events, n_members).
        """
        if relative == self.relative:
            change = interpolate(self.up[rows], self.down[rows], alpha)
            return change if self.draws is None else change + self.draws[rows] @ self.turns()
        if relative and self.rest is not None:
            return interpolate(self.rest[0][rows], self.rest[1][rows], alpha)
        return None

    def largest(self) -> float:
        """Largest relative change of a weight at one standard deviation."""
        if self.relative:
            return float(max(np.abs(self.up).max(), np.abs(self.down).max()))
        rest = np.zeros((2, 1)) if self.rest is None else self.rest
        factors = (np.exp(log) * (1.0 + more) for log, more in zip((self.up, self.down), rest, strict=True))
        return float(max(np.abs(factor - 1.0).max() for factor in factors))

    @property
    def is_noise(self) -> bool:
        """Whether it is what is unknown of a ratio and nothing else: draws without a parameter."""
        return self.parts is None and self.draws is not None and not self.up.any()

    def turns(self) -> Array:
        """The parameter of the members that have a draw, zero for the others, shape (M, n_members)."""
        m = 0 if self.draws is None else self.draws.shape[1]
        mine = np.arange(len(self.alpha)) % max(m, 1) == np.arange(m)[:, None]
        return np.where(mine, self.alpha, 0.0)

    def columns(self, alpha: Array | None = None) -> list[Column]:
        """Columns that add up to it, for the members' parameters or others of one without draws."""
        alpha = self.alpha if alpha is None else alpha
        out = [Column(self.up, self.down, alpha, self.relative)]
        if self.draws is not None:
            out += [Column(c, -c, a, self.relative) for c, a in zip(self.draws.T, self.turns(), strict=True)]
        return out if self.rest is None else [*out, Column(*self.rest, alpha, relative=True)]


@dataclass(frozen=True)
class Shifted:
    """The detector level of simulated events in a systematic variation.

    Attributes
    ----------
    features : array, shape (n, d), float32
        Standardised; zero in rows that fail.
    passes : boolean array, shape (n,)
        Which events pass detector level in the variation.
    factor : array, shape (n,), optional
        Scale factors of the events there; the nominal ones if None.
    """

    features: Array
    passes: NDArray[np.bool_]
    factor: Array | None = None


@dataclass(frozen=True)
class Shift:
    """A systematic variation of the detector level of simulated events.

    Attributes
    ----------
    alpha : array, shape (n_members,)
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
    alpha : array, shape (n_members,)
    up, down : int8 or float array, shape (n,), or None
        Change of what each event counts at detector level at ``alpha`` = 1 and -1, in units of its weight at particle
        level: 1 for events that pass only in the variation, -1 for those that pass only without, the difference of
        scale factors; None if all count as they did.
    outside : (float, float)
        Weight of events that pass neither level and pass detector level in the variation, up and down.
    parts : dict of source to array, shape (n_members,), optional
        Of a profiled one: what each source moves of ``alpha``, which is their sum; ``up`` and ``down`` are shares then.
    """

    alpha: Array
    up: NDArray[np.int8] | Array | None = None
    down: NDArray[np.int8] | Array | None = None
    outside: tuple[float, float] = (0.0, 0.0)
    parts: Mapping[str, Array] | None = None


def interpolate(up: Array, down: Array, alpha: Array) -> Array:
    """``alpha up`` for positive alpha and ``|alpha| down`` for negative, outer product over members."""
    return np.multiply.outer(up, np.maximum(alpha, 0.0)) + np.multiply.outer(down, np.maximum(-alpha, 0.0))


def alpha_of(effect: Variation | Acceptance, name: str, source: str | None) -> Array | None:
    """What a source moves of a nuisance parameter, shape (n_members,); all of it for None, None for nothing."""
    if source is None:
        return effect.alpha
    if effect.parts is not None:
        return effect.parts.get(source)
    return effect.alpha if source == name else None


Kind = Literal["data", "simulation", "prior", "background", "weights", "detector", "ratio", "generator"]


@dataclass(frozen=True)
class Source:
    """A source of uncertainty.

    Attributes
    ----------
    name : str
    kind : str
        ``"data"`` and ``"simulation"``: events of finite number; ``"prior"``: of the networks; ``"background"``;
        ``"weights"`` and ``"detector"``: systematics of event weights and of the detector level; ``"ratio"``:
        statistics of a profiled two-point uncertainty; ``"generator"``: prior of the particle-level spectrum.
    """

    name: str
    kind: Kind

    @property
    def is_systematic(self) -> bool:
        """Whether it is a systematic uncertainty with a nuisance parameter."""
        return self.kind in ("weights", "detector")


Effect = Variation | Shift | Acceptance


class StackedVariations(NamedTuple):
    """Systematics of event weights as columns, of which one systematic may have several.

    Attributes
    ----------
    names : tuple of str
        Of the systematics, shape (K,).
    up, down : array, shape (n, K), float32
        Changes of the weights' logarithms, or relative changes of the weights, at one and minus one.
    alpha : array, shape (K, n_members)
    relative : boolean array, shape (K,)
        Which are relative changes.
    """

    names: tuple[str, ...]
    up: Array
    down: Array
    alpha: Array
    relative: NDArray[np.bool_]


@dataclass(frozen=True)
class Perturbations:
    """Everything that fluctuates, member by member.

    Attributes
    ----------
    sources : tuple of Source
        Each once, in the order of all tables.
    events : dict of str to Fluctuations
        Event fluctuations of ``"data"``, ``"simulation"`` and every background.
    prior : array, shape (P, n_members)
        Prior noise ``xi`` of the detector-level network.
    effects : dict of str to Variation, Shift or Acceptance
        What each systematic changes. A shift of the detector level leaves an acceptance when the loop has ended.
    signal : dict of str to array, shape (n_members,)
        By source: relative change of the signal's total at detector level, which is what the data hold beyond the
        backgrounds.
    scales : dict of str to array, shape (n_members,)
        By background: relative change of its normalisation.
    backgrounds : dict of str to sequence of BackgroundChange
        By systematic: what it changes of the backgrounds.
    correlated : set of str
        Profiled parameters that are correlated with others before the data.
    """

    sources: tuple[Source, ...]
    events: Mapping[str, Fluctuations]
    prior: Array
    effects: Mapping[str, Effect] = field(default_factory=dict)
    signal: Mapping[str, Array] = field(default_factory=dict)
    scales: Mapping[str, Array] = field(default_factory=dict)
    backgrounds: Mapping[str, Sequence[BackgroundChange]] = field(default_factory=dict)
    correlated: frozenset[str] = frozenset()

    @property
    def n_members(self) -> int:
        """Number of ensemble members."""
        return self.simulation.n_members

    @property
    def simulation(self) -> Fluctuations:
        """Fluctuations of the simulated events."""
        return self.events["simulation"]

    @property
    def variations(self) -> dict[str, Variation]:
        """Systematics of event weights."""
        return {name: effect for name, effect in self.effects.items() if isinstance(effect, Variation)}

    @property
    def shifts(self) -> dict[str, Shift]:
        """Systematics of the detector level, as the loop sees them."""
        return {name: effect for name, effect in self.effects.items() if isinstance(effect, Shift)}

    @property
    def acceptances(self) -> dict[str, Acceptance]:
        """Systematics of the detector level, as the ensemble keeps them."""
        return {name: effect for name, effect in self.effects.items() if isinstance(effect, Acceptance)}

    @cached_property
    def stacked_variations(self) -> StackedVariations:
        """All systematics of event weights."""
        every = [(name, *column) for name, v in self.variations.items() for column in v.columns()]
        if not every:
            none = np.zeros((0, 0), np.float32)
            return StackedVariations((), none, none, np.zeros((0, self.n_members)), np.zeros(0, dtype=bool))
        names, up, down, alpha, relative = zip(*every, strict=True)
        high, low = (np.column_stack([c.astype(np.float32, copy=False) for c in side]) for side in (up, down))
        return StackedVariations(names, high, low, np.stack(alpha), np.array(relative))

    def named(self, *kinds: Kind) -> tuple[str, ...]:
        """Names of the sources of some kinds."""
        return tuple(source.name for source in self.sources if source.kind in kinds)


def event_fluctuations(sizes: Mapping[str, int], n_members: int, seed: int) -> dict[str, Fluctuations]:
    """Fluctuations of every sample: data, simulation, and the backgrounds in their order."""
    backgrounds = [name for name in sizes if name not in ("data", "simulation")]
    keys = {"data": event_key(seed, "data"), "simulation": event_key(seed, "simulation")}
    keys |= {name: event_key(seed, k) for k, name in enumerate(backgrounds)}
    return {name: Fluctuations(size, n_members, keys[name]) for name, size in sizes.items()}


def list_sources(backgrounds: Iterable[str], effects: Mapping[str, Effect], *, generator: bool) -> tuple[Source, ...]:
    """All sources of uncertainty, in the order of all tables."""
    sources = [Source("data", "data"), Source("simulation", "simulation"), Source("prior", "prior")]
    sources += [Source(name, "background") for name in backgrounds]
    weights = {name: effect for name, effect in effects.items() if isinstance(effect, Variation)}
    sources += [Source(name, "weights") for name, effect in weights.items() if not effect.is_noise]
    sources += [Source(name, "ratio") for name, effect in weights.items() if effect.is_noise]
    sources += [Source(name, "detector") for name, effect in effects.items() if not isinstance(effect, Variation)]
    return (*sources, Source("generator", "generator")) if generator else tuple(sources)
