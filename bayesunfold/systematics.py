"""Systematic uncertainties of the simulation: what a nuisance parameter of one standard deviation changes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._validate import as_features, as_weight, check_finite, check_source_name
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.events import Simulation
from bayesunfold.fluctuations import Shift, Variation
from bayesunfold.standardize import Standardizer

__all__ = ["Systematic", "draw_alphas", "prepare_systematics"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


class Systematic:
    """One systematic uncertainty, with one N(0, 1) nuisance parameter a member.

    Give either weights or detector-level features, and only one direction for a one-sided uncertainty, which is
    then taken as symmetric; or another simulation for a two-point model uncertainty.

    Parameters
    ----------
    name : str
        Its row among the sources of uncertainty.
    weight_up, weight_down : array, shape (n,), optional
        The events' full generator weights (not factors on them) at plus and minus one standard deviation. Between and
        beyond, the relative change is linear on either side.
    reco_up, reco_down : array or frame, shape (n,) or (n, d_reco), optional
        Detector-level features at plus and minus one standard deviation (an energy scale). Rows that fail ``pass_reco``
        do not matter. Events keep their pass flag: migrations in and out of the selection need ``weight_up`` as well.
    alternative : Simulation, optional
        Events of another model with the same features. A classifier of both levels together learns their ratio to the
        nominal events, whose weights then vary by it.

    Raises
    ------
    InputError
        Nothing or too much given, wrong lengths, non-positive totals, a variation identical to nominal.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> bu.Systematic("fsr", weight_up=np.array([1.1, 0.9, 1.0]))
    Systematic(fsr: one-sided weights)
    """

    def __init__(
        self,
        name: str,
        *,
        weight_up: ArrayLike | None = None,
        weight_down: ArrayLike | None = None,
        reco_up: ArrayLike | None = None,
        reco_down: ArrayLike | None = None,
        alternative: Simulation | None = None,
    ) -> None:
        check_source_name(name, "systematic")
        given = [weight_up is not None, reco_up is not None, alternative is not None]
        if sum(given) != 1:
            msg = f"systematic {name!r} needs one of weight_up, reco_up and alternative; {sum(given)} are given."
            raise InputError(msg)
        if (weight_down is not None and weight_up is None) or (reco_down is not None and reco_up is None):
            msg = f"systematic {name!r} has a down variation of a kind without an up variation; give both of one kind."
            raise InputError(msg)
        if alternative is not None and not isinstance(alternative, Simulation):
            msg = f"alternative of {name!r} is a {type(alternative).__name__}; pass a bayesunfold.Simulation."
            raise InputTypeError(msg)
        self.name = name
        self.weight_up, self.weight_down = weight_up, weight_down
        self.reco_up, self.reco_down = reco_up, reco_down
        self.alternative = alternative

    @property
    def two_sided(self) -> bool:
        """Whether a down variation was given."""
        return self.weight_down is not None or self.reco_down is not None

    def __repr__(self) -> str:
        kind = "weights" if self.weight_up is not None else "detector-level features"
        if self.alternative is not None:
            return f"Systematic({self.name}: two-point, {len(self.alternative)} alternative events)"
        return f"Systematic({self.name}: {'two' if self.two_sided else 'one'}-sided {kind})"


def relative_change(systematic: Systematic, weight: ArrayLike, simulation: Simulation, direction: str) -> Array:
    """``v_varied / v - 1`` per event; zero where both are zero."""
    what = f"weight_{direction} of {systematic.name}"
    varied = as_weight(weight, len(simulation), what)
    for rows, level in ((simulation.pass_gen, "gen"), (simulation.pass_reco, "reco")):
        if varied[rows].sum() <= 0:
            msg = f"{what} sums to {varied[rows].sum():g} over events passing {level}; the sum must be positive."
            raise InputError(msg)
    nominal = simulation.weight
    appears = (nominal == 0) & (varied != 0)
    if appears.any():
        msg = (
            f"{what} gives weight to {int(appears.sum())} events whose nominal weight is zero (first at row "
            f"{int(np.argmax(appears))}); their relative change is infinite. Give them a small nominal weight."
        )
        raise InputError(msg)
    change = np.divide(varied, nominal, out=np.ones(len(nominal)), where=nominal != 0) - 1.0
    if not np.any(change):
        msg = f"{what} is identical to the nominal weights; leave the systematic out."
        raise InputError(msg)
    return change


def shifted_features(
    systematic: Systematic, features: ArrayLike, simulation: Simulation, scale: Standardizer, direction: str
) -> Array:
    """Standardised features of a shifted detector level; zero in rows that fail it."""
    what = f"reco_{direction} of {systematic.name}"
    values, names = as_features(features, what)
    if values.shape != simulation.reco.shape:
        msg = f"{what} has shape {values.shape} and reco has {simulation.reco.shape}; they must be the same events."
        raise InputError(msg)
    if names is not None and simulation.reco_named and names != simulation.reco_names:
        msg = f"{what} has columns {names} and reco has {simulation.reco_names}; give the same, in the same order."
        raise InputError(msg)
    rows = simulation.pass_reco
    nominal = simulation.reco
    if simulation.undefined == "indicator":
        other = np.isnan(values) != np.isnan(nominal)
        if other[rows].any():
            msg = f"{what} makes features appear or vanish in {int(other[rows].any(axis=1).sum())} events; keep them."
            raise InputError(msg)
    else:
        check_finite(values, rows, what, simulation.reco_names, "give finite features to passing events.")
    if np.array_equal(values[rows], nominal[rows], equal_nan=True):
        msg = f"{what} is identical to the nominal features; leave the systematic out."
        raise InputError(msg)
    out = np.zeros((len(values), scale.n_outputs), dtype=np.float32)
    out[rows] = scale(values[rows])
    return out


def prepare_systematics(
    systematics: list[Systematic], simulation: Simulation, scale_reco: Standardizer, alphas: Array, seed: int
) -> tuple[dict[str, Variation], dict[str, Shift]]:
    """Variations and shifts by name, checked; row ``k`` of ``alphas`` belongs to systematic ``k``."""
    variations: dict[str, Variation] = {}
    shifts: dict[str, Shift] = {}
    for k, systematic in enumerate(systematics):
        alpha = alphas[k]
        if systematic.alternative is not None:
            up = two_point_change(systematic, simulation, seed)
            variations[systematic.name] = Variation(alpha, up, -up)
        elif systematic.weight_up is not None:
            up = relative_change(systematic, systematic.weight_up, simulation, "up")
            down = -up
            if systematic.weight_down is not None:
                down = relative_change(systematic, systematic.weight_down, simulation, "down")
            variations[systematic.name] = Variation(alpha, up, down)
        elif systematic.reco_up is not None:
            high = shifted_features(systematic, systematic.reco_up, simulation, scale_reco, "up")
            low = None
            if systematic.reco_down is not None:
                low = shifted_features(systematic, systematic.reco_down, simulation, scale_reco, "down")
            shifts[systematic.name] = Shift(alpha, high, low)
    return variations, shifts


def draw_alphas(n: int, members: int, seed: int) -> Array:
    """Nuisance parameters of ``n`` systematics, shape (n, members)."""
    return np.random.Generator(np.random.Philox(key=[seed, 10_004])).standard_normal((n, members))


def two_point_change(systematic: Systematic, simulation: Simulation, seed: int) -> Array:
    """Relative weight that turns the nominal simulation into the alternative one, minus one.

    A classifier sees both levels and both pass flags of every event, with neutral values where a level is absent.
    """
    from bayesunfold.classifier import BayesianClassifier

    other = systematic.alternative
    if other is None:
        msg = f"{systematic.name!r} has no alternative simulation."
        raise InputError(msg)
    _check_alternative(systematic.name, other, simulation)
    x = _joint(simulation, other)
    y = np.repeat([0, 1], [len(simulation), len(other)])
    weight = np.concatenate([simulation.weight, other.weight])
    classifier = BayesianClassifier(inference="laplace", draws=2, random_state=seed % 2**31)
    classifier.fit(x, y, sample_weight=weight)
    return np.exp(classifier.log_ratio(x[: len(simulation)])) - 1.0


def _check_alternative(name: str, other: Simulation, simulation: Simulation) -> None:
    for level in ("gen", "reco"):
        mine, theirs = getattr(simulation, level), getattr(other, level)
        named = getattr(simulation, f"{level}_named") and getattr(other, f"{level}_named")
        names = getattr(simulation, f"{level}_names"), getattr(other, f"{level}_names")
        if mine.shape[1] != theirs.shape[1] or (named and names[0] != names[1]):
            msg = (
                f"the alternative of {name!r} has the {level} features {names[1]} and the simulation {names[0]}; "
                "give the same, in the same order."
            )
            raise InputError(msg)
        if getattr(simulation, f"pass_{level}").all() and not getattr(other, f"pass_{level}").all():
            failing = int((~getattr(other, f"pass_{level}")).sum())
            msg = (
                f"{failing} events of the alternative of {name!r} fail {level} and no event of the simulation does; "
                f"weights of its events cannot express that. Keep events that fail {level} in the simulation too."
            )
            raise InputError(msg)
    same = len(other) == len(simulation) and np.array_equal(other.weight, simulation.weight)
    if same and all(np.array_equal(getattr(other, k), getattr(simulation, k), equal_nan=True) for k in ("gen", "reco")):
        msg = f"the alternative of {name!r} is identical to the simulation; leave the systematic out."
        raise InputError(msg)


def _joint(simulation: Simulation, other: Simulation) -> Array:
    """Features of both levels of both samples, one after the other, without NaN.

    Where a level is absent or a feature does not exist, the simulation's mean stands; flags and indicators that vary in
    either sample are columns of their own.
    """
    columns = []
    for level in ("gen", "reco"):
        values = np.concatenate([getattr(simulation, level), getattr(other, level)])
        passing = np.concatenate([getattr(simulation, f"pass_{level}"), getattr(other, f"pass_{level}")])
        mean = np.nanmean(getattr(simulation, level)[getattr(simulation, f"pass_{level}")], axis=0)
        exists = passing[:, None] & np.isfinite(values)
        columns.append(np.where(exists, values, mean))
        indicators = np.column_stack([passing, exists | ~passing[:, None]])
        columns.append(indicators[:, ~indicators.all(axis=0)].astype(np.float64))
    return np.column_stack(columns)
