"""Functions of the particle level in which a log weight is linear, and their standardisation: equation (G5)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers
from bayesunfold.classifier.standardize import STATE, Standardizer
from bayesunfold.errors import InputError
from bayesunfold.events import Simulation

__all__ = ["FunctionScale", "Functions", "Term", "check_functions", "lost_functions"]

Array = NDArray[np.floating]
Function = Callable[[Array], ArrayLike]

KNOTS = 4
"""Quantiles of the other observable between which coefficients are interpolated."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Term:
    """One function: a power of a feature or a function of the user, times a hat function of another observable.

    Attributes
    ----------
    name : str
    source : str
        A feature, a function of the user, or empty for the hat function alone.
    power : int
    centre, width : float
        Subtracted and divided by before the power.
    hat : int
        Number of the hat function's knot, -1 for none.
    """

    name: str
    source: str
    power: int = 1
    centre: float = 0.0
    width: float = 1.0
    hat: int = -1


@dataclass(frozen=True)
class Functions:
    """Functions ``T_a`` of the particle level.

    Attributes
    ----------
    features : tuple of str
        Names of the columns that functions read.
    terms : tuple of Term
    by : str
        The other observable, empty for none.
    knots : tuple of float
        Its quantiles.
    given : dict of str to callable
        Functions of the user; a file does not keep them.
    kept : pair of array, optional
        Of a loaded result whose functions are lost: particle-level events, and the values there.
    """

    features: tuple[str, ...]
    terms: tuple[Term, ...]
    by: str = ""
    knots: tuple[float, ...] = ()
    given: Mapping[str, Function] = field(default_factory=dict)
    kept: tuple[Array, Array] | None = None

    @classmethod
    def of(cls, simulation: Simulation, moments: int | Mapping[str, Function], by: str | None) -> Functions:
        """Powers of all features or given functions, and their products with hat functions of another observable.

        Raises
        ------
        InputError
            For functions that give the wrong number of values, NaN or infinity, or one value only, or have the name
            of the other observable; for such an observable that does not exist or does not vary.
        """
        gen = simulation.gen[simulation.pass_gen]
        columns = dict(zip(simulation.gen_names, gen.T, strict=True))
        if by is not None:
            simulation.gen_column(by)  # an error names the features
        terms: list[Term] = []
        given: dict[str, Function] = {}
        values: dict[str, Array] = {}
        if isinstance(moments, Mapping):
            given = dict(moments)
            if by in given:
                msg = f"a moment has the name of the feature {by!r}, on which moments depend; give it another name."
                raise InputError(msg)
            for name, function in given.items():
                values[name] = _checked(name, function, gen, undefined=simulation.undefined == "indicator")
                terms.append(Term(name, name))
        else:
            values = {name: x for name, x in columns.items() if name != by}
            for name, x in values.items():
                terms += _powers(name, x, moments)
        if not terms:
            msg = f"there is no moment to unfold beside {by!r}; add a feature, or leave out by=."
            raise InputError(msg)
        if by is None:
            return cls(simulation.gen_names, tuple(terms), given=given)
        knots = _knots(by, columns[by])
        return cls(simulation.gen_names, _depending(terms, values, by, knots), by, knots, given)

    def __call__(self, gen: Array) -> Array:
        """Values at particle-level events, shape (n, terms)."""
        if self.kept is not None:
            return self._kept(gen)
        columns = dict(zip(self.features, gen.T, strict=True))
        own = {
            name: as_numbers(function(gen), f"moment {name!r}").reshape(len(gen))
            for name, function in self.given.items()
        }
        sources = columns | own
        hats = self._hats(columns[self.by]) if self.by else None
        out = np.empty((len(gen), len(self.terms)))
        for k, term in enumerate(self.terms):
            value = ((sources[term.source] - term.centre) / term.width) ** term.power if term.source else 1.0
            out[:, k] = value if hats is None or term.hat < 0 else value * hats[term.hat]
        return out

    def _hats(self, x: Array) -> list[Array]:
        inside = np.where(np.isfinite(x), x, self.knots[0])
        return [np.interp(inside, self.knots, row) for row in np.eye(len(self.knots))]

    def _kept(self, gen: Array) -> Array:
        events, values = self.kept if self.kept is not None else (gen, gen)
        if np.array_equal(events, gen, equal_nan=True):
            return values
        raise InputError(_lost_message(self.given))

    def state(self) -> str:
        """As text; functions of the user by name."""
        plain: dict[str, Any] = {"features": self.features, "by": self.by, "knots": self.knots}
        return json.dumps(plain | {"terms": [asdict(term) for term in self.terms], "given": list(self.given)})

    @classmethod
    def from_state(cls, text: str, kept: tuple[Array, Array] | None) -> Functions:
        """Inverse of :meth:`state`; lost functions are replaced by their kept values."""
        state = json.loads(text)
        terms = tuple(Term(**term) for term in state["terms"])
        given: dict[str, Function] = dict.fromkeys(state["given"], _lost)
        lost = kept if given else None
        return cls(tuple(state["features"]), terms, state["by"], tuple(state["knots"]), given, lost)


def lost_functions(scale: Standardizer) -> tuple[str, ...]:
    """Names of the user's functions that a loaded result has no longer; empty for any other scale."""
    functions = scale.functions if isinstance(scale, FunctionScale) else None
    return () if functions is None or functions.kept is None else tuple(functions.given)


def check_functions(scale: Standardizer) -> None:
    """Whether particle-level events other than those of the unfolding can have weights.

    Raises
    ------
    InputError
        If functions of the user are needed that a file does not keep.
    """
    lost = lost_functions(scale)
    if lost:
        raise InputError(_lost_message(lost))


def _lost_message(names: Iterable[str]) -> str:
    listed = ", ".join(repr(name) for name in names)
    return f"a file does not keep the functions {listed}; unfold again to have weights of other events."


def _lost(gen: Array) -> Array:
    msg = f"a function that a file does not keep was asked for {len(gen)} events"
    raise InputError(msg)


def _powers(name: str, x: Array, most: int) -> list[Term]:
    """A feature, and powers of it about its mean in units of its width, which keeps them apart numerically."""
    centre, width = float(np.nanmean(x)), float(np.nanstd(x)) or 1.0
    higher = [Term(f"{name} to power {k}", name, k, centre, width) for k in range(2, most + 1)]
    return [Term(name, name), *higher]


def _checked(name: str, function: Function, gen: Array, *, undefined: bool) -> Array:
    """Values of a function of the user."""
    found = as_numbers(function(gen), f"moment {name!r}").squeeze()
    if found.shape != (len(gen),):
        msg = f"moment {name!r} gives shape {found.shape} for {len(gen)} events; give one number per event."
        raise InputError(msg)
    if np.isinf(found).any() or (np.isnan(found).any() and not undefined):
        msg = f"moment {name!r} is NaN or infinite in {int((~np.isfinite(found)).sum())} events; it needs a number."
        raise InputError(msg)
    if np.isnan(found).all() or np.nanmin(found) == np.nanmax(found):
        msg = f"moment {name!r} is {found[0]:g} in every event; weights cannot change its mean. Leave it out."
        raise InputError(msg)
    return found


def _knots(by: str, x: Array) -> tuple[float, ...]:
    knots = np.unique(np.quantile(x[np.isfinite(x)], np.linspace(0.0, 1.0, KNOTS)))
    if len(knots) < 2:
        msg = f"{by!r} is {knots[0]:g} in every event; moments cannot depend on it. Leave out by=."
        raise InputError(msg)
    return tuple(float(knot) for knot in knots)


def _depending(terms: list[Term], values: Mapping[str, Array], by: str, knots: tuple[float, ...]) -> tuple[Term, ...]:
    """Hat functions of an observable, terms, and their products."""
    out = [Term(by, by)] + [Term(f"{by} near {knot:.4g}", "", hat=k) for k, knot in enumerate(knots[:-1]) if k]
    for term in terms:
        x = values[term.source]
        if term.power == 1:
            centre, width = float(np.nanmean(x)), float(np.nanstd(x)) or 1.0
        else:
            centre, width = term.centre, term.width
        out.append(term)
        for k, knot in enumerate(knots):
            if k:
                out.append(Term(f"{term.name}, {by} near {knot:.4g}", term.source, term.power, centre, width, k))
    return tuple(out)


@dataclass(frozen=True)
class FunctionScale(Standardizer):
    """Standardisation of the functions of particle-level features: shifted, scaled, decorrelated.

    Attributes
    ----------
    functions : Functions
    """

    functions: Functions = field(default_factory=lambda: Functions((), ()))

    @classmethod
    def of(cls, functions: Functions, gen: Array, weight: Array) -> FunctionScale:
        """Chosen from simulated events that pass gen."""
        linear = Standardizer.fit(functions(gen), weight, linear=True)
        return cls(**linear.state(), functions=functions)

    @cached_property
    def plain(self) -> Standardizer:
        """Of the functions' values."""
        return Standardizer(**{name: getattr(self, name) for name in STATE})

    def __call__(self, values: Array) -> Array:
        """Standardised functions, float32, shape (n, n_outputs)."""
        return self.plain(self.functions(values))

    def where(self, passing: NDArray[np.bool_], values: Array) -> Array:
        """Standardised functions of the events that pass, zero for others; all at once, since files know no others."""
        out = np.zeros((len(values), self.n_outputs), dtype=np.float32)
        out[passing] = self(values[passing])
        return out

    def each(self, values: Array) -> Array:
        """Functions one by one, before decorrelation."""
        return self.plain.each(self.functions(values))
