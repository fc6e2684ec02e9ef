"""Simulated, measured and background events: checked arrays with weights and pass flags.

``Simulation`` holds both levels of the same events; ``Data`` holds the detector level of the
measurement. They may differ in number of events, and particle level and detector level may differ
in number of features.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._validate import (
    as_features,
    as_flag,
    as_weight,
    check_finite,
    check_names,
    effective_size,
)
from bayesunfold.errors import InputError

__all__ = ["Data", "Simulation"]

Array = NDArray[np.floating]
Undefined = Literal["error"]


def __dir__() -> list[str]:
    return __all__


def _check_undefined(undefined: str) -> None:
    if undefined != "error":
        msg = f'undefined={undefined!r} is not supported yet; only "error" is. Replace undefined values by a number.'
        raise InputError(msg)


def _default_names(names: tuple[str, ...] | None, prefix: str, n_features: int) -> tuple[str, ...]:
    if names is not None:
        return names
    return (prefix,) if n_features == 1 else tuple(f"{prefix}_{i}" for i in range(n_features))


def _check_varies(array: Array, rows: NDArray[np.bool_], what: str, names: tuple[str, ...]) -> None:
    passing = array[rows]
    if len(passing) > 1 and np.all(np.ptp(passing, axis=0) == 0):
        msg = f"all features of {what} ({', '.join(names)}) are the same in every event; nothing can be learned."
        raise InputError(msg)


class Simulation:
    """Simulated events at particle level (gen) and detector level (reco).

    Parameters
    ----------
    gen : array or frame, shape (n,) or (n, d_gen)
        Particle-level features, in the user's units. Column names of a frame are kept.
    reco : array or frame, shape (n,) or (n, d_reco)
        Detector-level features of the same events, row by row.
    weight : array, shape (n,), optional
        Generator weights, dimensionless. Negative weights are allowed as long as the sums over
        passing events are positive. All one if omitted.
    pass_gen, pass_reco : boolean array, shape (n,), optional
        Whether the event passes the particle-level and the detector-level selection. Events that
        pass only gen are misses, events that pass only reco are fakes. All true if omitted.
        Rows that fail a level may hold NaN there; elsewhere NaN is an error.
    undefined : {"error"}
        What NaN in a passing event means.

    Attributes
    ----------
    gen, reco, weight, pass_gen, pass_reco : arrays as above, with two-dimensional features
    gen_names, reco_names : tuple of str

    Raises
    ------
    InputError, InputTypeError
        Lengths that disagree, empty input, NaN or infinity in passing rows, flags that are not
        boolean, weights that are not finite or do not sum to something positive.

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
    ) -> None:
        _check_undefined(undefined)
        self.gen, gen_names = as_features(gen, "gen")
        self.reco, reco_names = as_features(reco, "reco")
        n = len(self.gen)
        if len(self.reco) != n:
            msg = f"gen has {n} events and reco has {len(self.reco)}; they must be the same events, row by row."
            raise InputError(msg)
        self.gen_named, self.reco_named = gen_names is not None, reco_names is not None
        self.gen_names = _default_names(gen_names, "gen", self.gen.shape[1])
        self.reco_names = _default_names(reco_names, "reco", self.reco.shape[1])
        self.weight = as_weight(weight, n, "weight of the simulation")
        self.pass_gen = as_flag(pass_gen, n, "pass_gen")
        self.pass_reco = as_flag(pass_reco, n, "pass_reco")
        self._check_rows()

    def _check_rows(self) -> None:
        if not (self.pass_gen & self.pass_reco).any():
            msg = "no simulated event passes both levels; the response cannot be learned. Check the flags."
            raise InputError(msg)
        neither = int((~self.pass_gen & ~self.pass_reco).sum())
        if neither:
            msg = f"{neither} simulated events pass neither level; they carry no information. Remove them first."
            raise InputError(msg)
        for values, flag, level, names in (
            (self.gen, self.pass_gen, "gen", self.gen_names),
            (self.reco, self.pass_reco, "reco", self.reco_names),
        ):
            cure = f"repair or remove them, or set pass_{level} to False where the {level} level is absent."
            check_finite(values, flag, level, names, cure)
            _check_varies(values, flag, level, names)
        for rows, what in (
            (self.pass_gen, "events passing gen"),
            (self.pass_reco, "events passing reco"),
            (self.pass_gen & self.pass_reco, "events passing both levels"),
        ):
            total = self.weight[rows].sum()
            if total <= 0:
                msg = f"the weights of simulated {what} sum to {total:g}; the sum must be positive."
                raise InputError(msg)

    def __len__(self) -> int:
        return len(self.gen)

    @property
    def both(self) -> NDArray[np.bool_]:
        """Events that pass both levels."""
        return self.pass_gen & self.pass_reco

    @property
    def fakes(self) -> NDArray[np.bool_]:
        """Events that pass only the detector level."""
        return self.pass_reco & ~self.pass_gen

    @property
    def misses(self) -> NDArray[np.bool_]:
        """Events that pass only the particle level."""
        return self.pass_gen & ~self.pass_reco

    def gen_column(self, name: str) -> Array:
        """One particle-level feature by name."""
        return _column(self.gen, self.gen_names, name, "particle-level")

    def reco_column(self, name: str) -> Array:
        """One detector-level feature by name."""
        return _column(self.reco, self.reco_names, name, "detector-level")

    def __repr__(self) -> str:
        return (
            f"Simulation({len(self)} events, gen: {', '.join(self.gen_names)}, reco: {', '.join(self.reco_names)}, "
            f"misses: {int(self.misses.sum())}, fakes: {int(self.fakes.sum())}, "
            f"effective size: {effective_size(self.weight):.1f})"
        )


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
    undefined : {"error"}
        What NaN means.

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

    def __init__(self, features: ArrayLike, weight: ArrayLike | None = None, undefined: Undefined = "error") -> None:
        _check_undefined(undefined)
        self.features, names = as_features(features, "data")
        self.named = names is not None
        self.names = _default_names(names, "reco", self.features.shape[1])
        check_finite(self.features, None, "data", self.names, "repair or remove them.")
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
        if self.features.shape[1] != simulation.reco.shape[1]:
            msg = (
                f"data has {self.features.shape[1]} features and reco has {simulation.reco.shape[1]}; "
                "both must hold the same detector-level features."
            )
            raise InputError(msg)
        wanted = simulation.reco_names
        if not (self.named and simulation.reco_named) or self.names == wanted:
            return self
        if set(self.names) != set(wanted):
            msg = f"data has columns {self.names} and reco has {wanted}; rename them so that they agree."
            raise InputError(msg)
        order = [self.names.index(name) for name in wanted]
        matched = Data(self.features[:, order], weight=self.weight)
        matched.names = check_names(wanted, len(wanted), "data")
        return matched

    def __repr__(self) -> str:
        return (
            f"Data({len(self)} events, features: {', '.join(self.names)}, "
            f"effective size: {effective_size(self.weight):.1f})"
        )


def as_data(data: Any) -> Data:
    """``data`` itself if it is a :class:`Data`, otherwise one made of it."""
    return data if isinstance(data, Data) else Data(data)
