"""Simulated, measured and background events: checked arrays with weights and pass flags.

``Simulation`` holds both levels of the same events; ``Data`` holds the detector level of the
measurement. They may differ in number of events, and particle level and detector level may differ
in number of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import (
    as_features,
    as_flag,
    as_reco_factor,
    as_weight,
    check_finite,
    check_flag,
    check_names,
    check_not_negative,
    check_source_name,
    effective_size,
)
from bayesunfold._support.html import facts
from bayesunfold._support.threads import row_blocks
from bayesunfold.errors import InputError

__all__ = ["Background", "Data", "Passes", "Simulation", "as_data", "with_factors_of_fakes"]

Array = NDArray[np.floating]
Undefined = Literal["error", "indicator"]


def __dir__() -> list[str]:
    return __all__


def _check_undefined(undefined: str) -> None:
    if undefined not in ("error", "indicator"):
        msg = f"undefined is {undefined!r}; it must be 'error' or 'indicator'."
        raise InputError(msg)


BLOCK = 100_000
"""Events that are checked at a time."""

LARGEST_VALUE = 1e300
"""Differences of larger numbers are infinite."""


def _check_size(values: Array, rows: NDArray[np.bool_] | None, what: str, names: tuple[str, ...]) -> None:
    """No value whose differences overflow."""
    sizes = np.abs(values if rows is None else np.where(rows[:, None], values, 0.0))
    large = np.nan_to_num(sizes, nan=0.0) > LARGEST_VALUE
    if large.any():
        row, column = np.argwhere(large)[0]
        msg = (
            f"{names[column]} of {what} is {values[row, column]:.3g} at row {row}; such numbers overflow. "
            'Change its unit, or mark the value as NaN with undefined="indicator" if it means "does not exist".'
        )
        raise InputError(msg)


def _check_rows(
    values: Array, rows: NDArray[np.bool_] | None, what: str, names: tuple[str, ...], cure: str, undefined: str
) -> None:
    """No NaN or infinity in passing rows; with ``"indicator"`` NaN is allowed, infinity is not."""
    sound, exists = True, np.zeros(values.shape[1], dtype=bool)
    for block in row_blocks(len(values), BLOCK):  # a block at a time: events may be larger than memory
        part = values[block] if rows is None else values[block][rows[block]]
        with np.errstate(invalid="ignore"):
            small = np.abs(part) <= min(LARGEST_VALUE, float(np.finfo(part.dtype).max))
        missing = np.isnan(part)
        exists |= ~missing.all(axis=0) if len(part) else False
        sound &= bool((small | missing if undefined == "indicator" else small).all())
    if not sound:
        _report_rows(values, rows, what, names, cure, undefined)
    never = np.flatnonzero(~exists)
    if len(never):
        msg = f"{what}: {[names[j] for j in never]} exist in no event; leave them out."
        raise InputError(msg)


def _report_rows(
    values: Array, rows: NDArray[np.bool_] | None, what: str, names: tuple[str, ...], cure: str, undefined: str
) -> None:
    """Say which values cannot be used, and why."""
    _check_size(np.where(np.isinf(values), np.nan, values), rows, what, names)
    if undefined == "indicator":
        check_finite(np.where(np.isnan(values), 0.0, values), rows, what, names, "repair or remove infinite values.")
        return
    check_finite(values, rows, what, names, f'{cure} Pass undefined="indicator" if NaN means "does not exist".')


def _named(
    names: Sequence[str] | None, columns: tuple[str, ...] | None, prefix: str, n_features: int, what: str
) -> tuple[tuple[str, ...], bool]:
    """Names of features, and whether the user gave them: as an argument, else as column names, else by number."""
    if names is not None:
        return check_names(names, n_features, what), True
    if columns is not None:
        return columns, True
    return (prefix,) if n_features == 1 else tuple(f"{prefix}_{i}" for i in range(n_features)), False


def _check_varies(array: Array, rows: NDArray[np.bool_], what: str, names: tuple[str, ...]) -> None:
    n_features = array.shape[1]
    high, low, missing = np.full(n_features, -np.inf), np.full(n_features, np.inf), np.zeros(n_features, dtype=bool)
    for block in row_blocks(len(array), BLOCK):
        part = array[block][rows[block]]
        missing |= np.isnan(part).any(axis=0)
        high = np.fmax(high, np.fmax.reduce(part, initial=-np.inf))
        low = np.fmin(low, np.fmin.reduce(part, initial=np.inf))
    if rows.sum() > 1 and np.all(~missing & (high == low)):
        msg = f"all features of {what} ({', '.join(names)}) are the same in every event; nothing can be learned."
        raise InputError(msg)


@dataclass(frozen=True)
class Passes:
    """Which simulated events pass which level.

    Attributes
    ----------
    gen, reco : boolean array, shape (n,)
    """

    gen: NDArray[np.bool_]
    reco: NDArray[np.bool_]

    @property
    def both(self) -> NDArray[np.bool_]:
        """Events that pass both levels."""
        return self.gen & self.reco

    @property
    def fakes(self) -> NDArray[np.bool_]:
        """Events that pass only the detector level."""
        return self.reco & ~self.gen

    @property
    def misses(self) -> NDArray[np.bool_]:
        """Events that pass only the particle level."""
        return self.gen & ~self.reco


class Simulation:
    """Simulated events at particle level (gen) and detector level (reco).

    Parameters
    ----------
    gen : array or frame, shape (n,) or (n, d_gen)
        Particle-level features, in the user's units. A frame may be of pandas or polars, a dict of columns or a
        structured array; its column names are kept. What a masked array masks is NaN.
    reco : array or frame, shape (n,) or (n, d_reco)
        Detector-level features of the same events, row by row.
    weight : array, shape (n,), optional
        Generator weights, dimensionless. Negative weights are allowed as long as the sums over
        passing events are positive. All one if omitted. An event has this weight at particle level, and this weight
        times ``reco_factor`` at detector level.
    pass_gen, pass_reco : boolean array, shape (n,), optional
        Whether the event passes the particle-level and the detector-level selection. Events that
        pass only gen are misses, events that pass only reco are fakes. All true if omitted.
        Rows that fail a level may hold NaN there; elsewhere NaN is an error.
    undefined : {"error", "indicator"}
        What NaN in a passing event means: an error, or that the feature does not exist in the event (no second jet).
        The networks then see an indicator and a neutral value, at both levels; spectra count such events apart.
    names : sequence of str, optional
        Names of the particle-level features; those of a frame's columns if omitted. Where reco has as many features
        and no names of its own, they are named alike.
    reco_names : sequence of str, optional
        Names of the detector-level features.
    reco_factor : array, shape (n,), optional
        Scale factors of the detector level alone: of triggers, identification, isolation, tagging. They correct the
        efficiency, so they change the weight of an event at detector level and not at particle level. Finite and not
        negative; rows that fail detector level may hold NaN, which is one. All one if omitted.

    Attributes
    ----------
    gen, reco, weight, pass_gen, pass_reco : arrays as above, with two-dimensional features
    reco_factor : array, shape (n,), or None
    gen_names, reco_names : tuple of str
    unused : int
        Number of events that pass neither level. They keep their rows, so that arrays of observables still fit, and
        take no part in anything.

    Raises
    ------
    InputError, InputTypeError
        Lengths that disagree, empty input, NaN or infinity in passing rows, values beyond 1e300, flags that are not
        boolean, weights that are not finite or do not sum to something positive, names that files cannot hold.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> gen = np.array([0.1, 1.2, 2.3])
    >>> simulation = bu.Simulation(gen, gen + 0.1, weight=[1.0, 2.0, 1.0])
    >>> simulation
    Simulation(3 events, gen: gen, reco: reco, misses: 0, fakes: 0, effective size: 2.7)
    """

    def __init__(
        self,
        gen: ArrayLike,
        reco: ArrayLike,
        weight: ArrayLike | None = None,
        pass_gen: ArrayLike | None = None,
        pass_reco: ArrayLike | None = None,
        undefined: Undefined = "error",
        names: Sequence[str] | None = None,
        reco_names: Sequence[str] | None = None,
        reco_factor: ArrayLike | None = None,
    ) -> None:
        _check_undefined(undefined)
        self.undefined = undefined
        self.gen, gen_columns = as_features(gen, "gen")
        self.reco, reco_columns = as_features(reco, "reco")
        n = len(self.gen)
        if len(self.reco) != n:
            msg = f"gen has {n} events and reco has {len(self.reco)}; they must be the same events, row by row."
            raise InputError(msg)
        n_gen, n_reco = self.gen.shape[1], self.reco.shape[1]
        self.gen_names, self.gen_named = _named(names, gen_columns, "gen", n_gen, "gen")
        self.reco_names, self.reco_named = _named(reco_names, reco_columns, "reco", n_reco, "reco")
        if names is not None and not self.reco_named and n_gen == n_reco:
            self.reco_names = self.gen_names
        self.weight = as_weight(weight, n, "weight of the simulation")
        self.pass_gen = as_flag(pass_gen, n, "pass_gen")
        self.pass_reco = as_flag(pass_reco, n, "pass_reco")
        self.reco_factor = None if reco_factor is None else as_reco_factor(reco_factor, self.pass_reco, "reco_factor")
        self._check_rows()

    def _check_rows(self) -> None:
        if not (self.pass_gen & self.pass_reco).any():
            msg = "no simulated event passes both levels; the response cannot be learned. Check the flags."
            raise InputError(msg)
        for values, flag, level, names in (
            (self.gen, self.pass_gen, "gen", self.gen_names),
            (self.reco, self.pass_reco, "reco", self.reco_names),
        ):
            cure = f"repair or remove them, or set pass_{level} to False where the {level} level is absent."
            _check_rows(values, flag, level, names, cure, self.undefined)
            _check_varies(values, flag, level, names)
        for rows, weight, what in (
            (self.pass_gen, self.weight, "events passing gen"),
            (self.pass_reco, self.reco_weight, "events passing reco"),
            (self.both, self.weight, "events passing both levels"),
            (self.both, self.reco_weight, "events passing both levels"),
        ):
            total = weight[rows].sum()
            if total <= 0:
                times = "" if weight is self.weight else ", times reco_factor,"
                msg = f"the weights of simulated {what}{times} sum to {total:g}; the sum must be positive."
                raise InputError(msg)

    def __len__(self) -> int:
        return len(self.gen)

    @property
    def reco_weight(self) -> Array:
        """Weights at detector level, shape (n,): generator weights times the scale factors."""
        return self.weight if self.reco_factor is None else self.weight * self.reco_factor

    @property
    def used(self) -> NDArray[np.bool_]:
        """Events that pass at least one level."""
        return self.pass_gen | self.pass_reco

    @property
    def unused(self) -> int:
        """Number of events that pass neither level."""
        return int((~self.used).sum())

    @property
    def passes(self) -> Passes:
        """Pass flags of both levels."""
        return Passes(self.pass_gen, self.pass_reco)

    @property
    def both(self) -> NDArray[np.bool_]:
        """Events that pass both levels."""
        return self.passes.both

    @property
    def fakes(self) -> NDArray[np.bool_]:
        """Events that pass only the detector level."""
        return self.passes.fakes

    @property
    def misses(self) -> NDArray[np.bool_]:
        """Events that pass only the particle level."""
        return self.passes.misses

    def gen_column(self, name: str) -> Array:
        """One particle-level feature by name."""
        return _column(self.gen, self.gen_names, name, "particle-level")

    def reco_column(self, name: str) -> Array:
        """One detector-level feature by name."""
        return _column(self.reco, self.reco_names, name, "detector-level")

    def __repr__(self) -> str:
        unused = f"pass neither level: {self.unused}, " if self.unused else ""
        return (
            f"Simulation({len(self)} events, gen: {', '.join(self.gen_names)}, reco: {', '.join(self.reco_names)}, "
            f"misses: {int(self.misses.sum())}, fakes: {int(self.fakes.sum())}, {unused}{self._mean_factor()}"
            f"effective size: {effective_size(self.weight[self.used]):.1f})"
        )

    @property
    def mean_reco_factor(self) -> float:
        """Mean scale factor of the events that pass detector level, with their generator weights."""
        rows = self.pass_reco
        return float(self.reco_weight[rows].sum() / self.weight[rows].sum())

    def _mean_factor(self) -> str:
        return "" if self.reco_factor is None else f"mean scale factor: {self.mean_reco_factor:.4g}, "

    def _repr_html_(self) -> str:
        rows: dict[str, object] = {
            "events": len(self),
            "particle level": ", ".join(self.gen_names),
            "detector level": ", ".join(self.reco_names),
            "pass both levels": int(self.both.sum()),
            "misses": int(self.misses.sum()),
            "fakes": int(self.fakes.sum()),
        }
        if self.unused:
            rows["pass neither level"] = self.unused
        if self.reco_factor is not None:
            rows["mean scale factor"] = f"{self.mean_reco_factor:.4g}"
        rows["effective size"] = f"{effective_size(self.weight[self.used]):.1f}"
        return facts("Simulation", rows)


def with_factors_of_fakes(values: Array, simulation: Simulation) -> Array:
    """Factors on the weights of all events, shape (n,): events that fail particle level and have none get the mean.

    That is the weighted mean of the events that pass particle level. A constant in all factors then changes no share of
    fakes.

    Parameters
    ----------
    values : array, shape (n,)
        NaN where the factor is a function of a particle level that does not exist.
    simulation : Simulation

    Examples
    --------
    >>> import numpy as np
    >>> simulation = Simulation([0.1, 1.2, 2.3], [0.2, 1.0, 2.0], pass_gen=[True, True, False])
    >>> with_factors_of_fakes(np.array([1.0, 3.0, np.nan]), simulation).tolist()
    [1.0, 3.0, 2.0]
    """
    gen = simulation.pass_gen
    mean = np.average(values[gen], weights=simulation.weight[gen])
    return np.where(~gen & ~np.isfinite(values), mean, values)


def _column(values: Array, names: tuple[str, ...], name: str, level: str) -> Array:
    if name not in names:
        msg = f"{name!r} is not a {level} feature; there are {', '.join(names)}."
        raise InputError(msg)
    return values[:, names.index(name)]


class Data:
    """Measured events at detector level.

    Parameters
    ----------
    features : array or frame, shape (m,) or (m, d_reco)
        The same features as ``reco`` of the simulation, in the same order and units.
    weight : array, shape (m,), optional
        Data weights (prescales, for instance); non-negative. All one if omitted.
    undefined : {"error", "indicator"}
        What NaN means, as for :class:`Simulation`.
    names : sequence of str, optional
        Names of the features; those of a frame's columns if omitted. Named columns are matched to named ones of the
        simulation, in any order.

    Raises
    ------
    InputError, InputTypeError
        As for :class:`Simulation`.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> bu.Data([0.2, 1.1, 2.5])
    Data(3 events, features: reco, effective size: 3.0)
    """

    def __init__(
        self,
        features: ArrayLike,
        weight: ArrayLike | None = None,
        undefined: Undefined = "error",
        names: Sequence[str] | None = None,
    ) -> None:
        _check_undefined(undefined)
        self.undefined = undefined
        self.features, columns = as_features(features, "data")
        self.names, self.named = _named(names, columns, "reco", self.features.shape[1], "data")
        _check_rows(self.features, None, "data", self.names, "repair or remove them.", undefined)
        _check_varies(self.features, np.ones(len(self.features), bool), "data", self.names)
        self.weight = as_weight(weight, len(self.features), "weight of the data", allow_negative=False)

    def __len__(self) -> int:
        return len(self.features)

    def matched_to(self, simulation: Simulation) -> Data:
        """The data with columns in the order of the simulation's detector level.

        Raises
        ------
        InputError
            If the number of features, or the names of two frames, differ.
        """
        order = matching_columns(self.features, self.names, self.named, simulation, "data")
        _check_defined(self.features, order, simulation, "data")
        if order == list(range(len(order))):
            return self
        return Data(self.features[:, order], self.weight, self.undefined, names=simulation.reco_names)

    def __repr__(self) -> str:
        return (
            f"Data({len(self)} events, features: {', '.join(self.names)}, "
            f"effective size: {effective_size(self.weight):.1f})"
        )

    def _repr_html_(self) -> str:
        size = f"{effective_size(self.weight):.1f}"
        return facts("Data", {"events": len(self), "features": ", ".join(self.names), "effective size": size})


class Background:
    """Simulated background events at detector level.

    Parameters
    ----------
    features : array or frame, shape (b,) or (b, d_reco)
        The same features as ``reco`` of the simulation.
    weight : array, shape (b,), optional
        Event weights, in units of expected data events: their sum is the background's expected yield. Negative weights
        are allowed while the sum is positive. All one if omitted.
    name : str
        Its row among the sources of uncertainty.
    relative_uncertainty : float
        Of the normalisation: one standard deviation. The background's own simulation statistics come on top.
    undefined : {"error", "indicator"}
        What NaN means, as for :class:`Simulation`.
    names : sequence of str, optional
        Names of the features, as for :class:`Data`.
    profile : bool
        Whether data constrain the normalisation: it becomes a parameter of the fit (:class:`UnbinnedFBU` only).

    Raises
    ------
    InputError, InputTypeError
        As for :class:`Data`; an uncertainty that is negative or above one; ``profile`` without an uncertainty.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> bu.Background([0.1, 0.4, 0.2], weight=[0.5, 0.5, 0.5], name="top", relative_uncertainty=0.1)
    Background(top: 3 events, yield 1.5 +- 10 %)
    """

    def __init__(
        self,
        features: ArrayLike,
        weight: ArrayLike | None = None,
        name: str = "background",
        relative_uncertainty: float = 0.0,
        undefined: Undefined = "error",
        names: Sequence[str] | None = None,
        *,
        profile: bool = False,
    ) -> None:
        _check_undefined(undefined)
        self.name, self.undefined = check_source_name(name, "background"), undefined
        self.relative_uncertainty = check_not_negative(
            relative_uncertainty, f"relative_uncertainty of {name}", ", 0.1 is 10 %"
        )
        if self.relative_uncertainty > 1:
            msg = (
                f"relative_uncertainty of {name} is {relative_uncertainty!r}, {100 * relative_uncertainty:g} % of it; "
                "0.1 is 10 %. Above one a normalisation would often be negative."
            )
            raise InputError(msg)
        self.profile = check_flag(profile, "profile")
        if self.profile and self.relative_uncertainty == 0:
            msg = (
                f"background {name!r} has profile=True and no uncertainty to constrain; give relative_uncertainty, "
                "0.3 for 30 %."
            )
            raise InputError(msg)
        self.features, columns = as_features(features, name)
        self.names, self.named = _named(names, columns, "reco", self.features.shape[1], name)
        _check_rows(self.features, None, name, self.names, "repair or remove them.", undefined)
        self.weight = as_weight(weight, len(self.features), f"weight of {name}")

    def __len__(self) -> int:
        return len(self.features)

    def columns_for(self, simulation: Simulation) -> Array:
        """Features in the order of the simulation's detector level."""
        order = matching_columns(self.features, self.names, self.named, simulation, self.name)
        _check_defined(self.features, order, simulation, self.name)
        return self.features[:, order]

    def __repr__(self) -> str:
        uncertainty = f" +- {100 * self.relative_uncertainty:.3g} %" if self.relative_uncertainty else ""
        uncertainty += ", profiled" if self.profile else ""
        return f"Background({self.name}: {len(self)} events, yield {self.weight.sum():.6g}{uncertainty})"

    def _repr_html_(self) -> str:
        known = f"{100 * self.relative_uncertainty:.3g} %" + (", profiled" if self.profile else "")
        rows = {"events": len(self), "yield": f"{self.weight.sum():.6g}", "uncertainty of the yield": known}
        return facts(f"Background {self.name}", rows)


def matching_columns(
    features: Array, names: tuple[str, ...], named: bool, simulation: Simulation, what: str
) -> list[int]:
    """Columns of detector-level events in the order of the simulation."""
    if features.shape[1] != simulation.reco.shape[1]:
        msg = (
            f"{what} has {features.shape[1]} features and reco has {simulation.reco.shape[1]}; "
            "both must hold the same detector-level features."
        )
        raise InputError(msg)
    wanted = simulation.reco_names
    if named and set(names) == set(wanted):  # also where reco has its names from the particle level
        return [names.index(name) for name in wanted]
    if named and simulation.reco_named:
        msg = f"{what} has columns {names} and reco has {wanted}; rename them so that they agree."
        raise InputError(msg)
    return list(range(len(wanted)))


def _check_defined(features: Array, order: list[int], simulation: Simulation, what: str) -> None:
    """A feature may be undefined only where it is in simulated events too."""
    missing = _ever_undefined(features, np.ones(len(features), dtype=bool))[order]
    if not missing.any():
        return
    missing &= ~_ever_undefined(simulation.reco, simulation.pass_reco)
    if missing.any():
        names = [simulation.reco_names[j] for j in np.flatnonzero(missing)]
        msg = f"{names} do not exist in some events of {what}, but in every simulated one; the samples do not overlap."
        raise InputError(msg)


def _ever_undefined(values: Array, rows: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Features that are NaN in any of some rows, shape (d,)."""
    found = np.zeros(values.shape[1], dtype=bool)
    for block in row_blocks(len(values), BLOCK):
        found |= np.isnan(values[block][rows[block]]).any(axis=0)
    return found


def as_data(data: Any) -> Data:
    """``data`` itself if it is a :class:`Data`, otherwise one made of it."""
    return data if isinstance(data, Data) else Data(data)
