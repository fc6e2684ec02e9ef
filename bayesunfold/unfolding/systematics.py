"""Systematic uncertainties of the simulation: what a nuisance parameter of one standard deviation changes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import (
    as_features,
    as_flag,
    as_reco_factor,
    as_weight,
    check_finite,
    check_flag,
    check_source_name,
)
from bayesunfold._support.streams import LUMINOSITY, stream
from bayesunfold.classifier.standardize import Standardizer
from bayesunfold.errors import InputError, InputTypeError, ProfilingWarning
from bayesunfold.events import Background, Simulation
from bayesunfold.unfolding.background_changes import as_background_sides
from bayesunfold.unfolding.correlations import as_correlation, given_correlations, prior_correlation
from bayesunfold.unfolding.matching import Absent, matched_variation
from bayesunfold.unfolding.mean_changes import MeanChanges
from bayesunfold.unfolding.perturbations import Effect, Shift, Shifted, Variation
from bayesunfold.unfolding.standardized import StandardizedEvents
from bayesunfold.unfolding.two_point import two_point_change
from bayesunfold.unfolding.varied_features import warn_of_cut, warn_of_other_features, warn_of_selection

__all__ = [
    "Systematic",
    "draw_alphas",
    "prepare_systematics",
    "relative_change",
    "scale_factors",
    "shifted_detector_level",
]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


class Systematic:
    """One systematic uncertainty, with one N(0, 1) nuisance parameter per member.

    Give either weights, or what changes at detector level (features, pass flags, scale factors), and only one direction
    for a one-sided uncertainty, which is then taken as symmetric; or another simulation for a two-point model
    uncertainty. ``backgrounds`` says what the same parameter changes of these, beside that or alone.

    Parameters
    ----------
    name : str
        Its row among the sources of uncertainty. One named ``"luminosity"``, of backgrounds alone and not profiled,
        shares its parameter with that of ``result.spectrum(luminosity=(size, uncertainty))``; its backgrounds have to
        vary by the same uncertainty.
    weight_up, weight_down : array, shape (n,), optional
        The events' full generator weights (not factors on them) at plus and minus one standard deviation. Between and
        beyond, the logarithm of the mean factor at the particle-level features is linear on either side, and so is
        each event's relative change beside that; with ``profile`` the fit follows a parabola in the logarithm of each
        event's factor, and members are split in this way around the fit. They vary both levels: for theory
        uncertainties. What varies the detector level alone (triggers, identification, tagging) is ``reco_factor_up``.
    reco_up, reco_down : array or frame, shape (n,) or (n, d_reco), optional
        Detector-level features at plus and minus one standard deviation (an energy scale). Rows that fail detector
        level in the variation do not matter.
    pass_reco_up, pass_reco_down : boolean array, shape (n,), optional
        Which events pass the detector-level selection in the variation. Give them whenever the selection cuts on what
        the variation changes: events then migrate in and out. Events that fail nominally and pass when shifted need
        rows in the simulation. Flags without ``reco_up`` keep the features (a trigger efficiency). The nominal flags if
        omitted.
    reco_factor_up, reco_factor_down : array, shape (n,), optional
        Scale factors of the detector level at plus and minus one standard deviation: what stands in the place of the
        simulation's ``reco_factor`` there.
    alternative : Simulation, optional
        Events of another model with the same features. A classifier of both levels together learns their ratio to the
        nominal events, whose weights then vary by it. The members have different draws from the posterior of the ratio,
        so that its own statistics are part of the uncertainty; profiled, they are a source of their own. Its
        ``reco_factor`` is needed where the simulation has one, and not used: events keep the simulation's.
    correlation : mapping of str to float, optional
        By the name of another systematic: the correlation of its nuisance parameter with this one before the data, as
        between parts of one calibration in two periods. Given once, by either of the two; both are profiled, or
        neither. Independent if omitted.
    backgrounds : mapping of str to Background, or to a pair of these, optional
        By the name of a background: the background as it is at plus one standard deviation, or at plus and at minus
        one. It may have other events than the nominal one (those that pass the selection in the variation), or other
        weights of the same events. Between and beyond, its spectrum at detector level changes linearly on either side.
        Name and normalisation uncertainty are those of the nominal background.
    profile : bool
        Whether data constrain the nuisance parameter: it becomes a parameter of the fit (:class:`UnbinnedFBU` only).
        Weights and scale factors then change log-linearly and must keep their sign; pass flags are needed in both
        directions.

    Raises
    ------
    InputError
        Nothing or too much given, wrong lengths, non-positive totals, a variation identical to nominal, correlations
        that cannot all be. Most is known only when the simulation is: :meth:`OmniFold.fit` raises it before any
        training.

    Warns
    -----
    OverlapWarning
        If shifted features cross a hard edge of the simulated distribution, which a cut leaves, and no flags are given;
        if they are in another unit or order than the simulation's.
    ProfilingWarning
        If the difference of two models is profiled: data that prefer one of them make the uncertainty look smaller than
        it is (Ghosh, Nachman, arXiv:2109.08159).

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
        pass_reco_up: ArrayLike | None = None,
        pass_reco_down: ArrayLike | None = None,
        reco_factor_up: ArrayLike | None = None,
        reco_factor_down: ArrayLike | None = None,
        alternative: Simulation | None = None,
        correlation: Mapping[str, float] | None = None,
        backgrounds: Mapping[str, Background | tuple[Background, Background | None]] | None = None,
        profile: bool = False,
    ) -> None:
        check_source_name(name, "systematic", LUMINOSITY)
        up = {"weight": weight_up, "reco": reco_up, "pass_reco": pass_reco_up, "reco_factor": reco_factor_up}
        down = {
            "weight": weight_down,
            "reco": reco_down,
            "pass_reco": pass_reco_down,
            "reco_factor": reco_factor_down,
        }
        _check_sides(name, {k for k, v in up.items() if v is not None}, {k for k, v in down.items() if v is not None})
        moves = any(value is not None for value in (reco_up, pass_reco_up, reco_factor_up))
        self.backgrounds = as_background_sides(backgrounds, name)
        given = [weight_up is not None, moves, alternative is not None]
        if sum(given) != 1 and not (sum(given) == 0 and self.backgrounds):
            msg = (
                f"systematic {name!r} needs one of weight_up, a change of the detector level (reco_up, pass_reco_up, "
                f"reco_factor_up) and alternative, or backgrounds; {sum(given)} are given."
            )
            raise InputError(msg)
        if alternative is not None and not isinstance(alternative, Simulation):
            msg = f"alternative of {name!r} is a {type(alternative).__name__}; pass a bayesunfold.Simulation."
            raise InputTypeError(msg)
        if name == LUMINOSITY and (any(given) or not self.backgrounds or profile):
            msg = (
                f"{name!r} is already a source, of what spectrum(luminosity=...) divides by; a systematic of this name "
                "holds the backgrounds' part of it and nothing else, and is not profiled. Give it backgrounds alone, "
                "or another name."
            )
            raise InputError(msg)
        self.name = name
        self.weight_up, self.weight_down = weight_up, weight_down
        self.reco_up, self.reco_down = reco_up, reco_down
        self.pass_reco_up, self.pass_reco_down = pass_reco_up, pass_reco_down
        self.reco_factor_up, self.reco_factor_down = reco_factor_up, reco_factor_down
        self.alternative = alternative
        self.ratio_draws: Array | None = None  # of the logarithm of ``weight_up`` that was learned, less its mean
        self.correlation = as_correlation(correlation, name)
        self.profile = check_flag(profile, "profile")
        if self.profile and alternative is not None:
            msg = (
                f"the two-point uncertainty {name!r} is profiled; data that prefer one of two models make the "
                "difference of both look better known than it is (arXiv:2109.08159). Compare with profile=False."
            )
            warnings.warn(msg, ProfilingWarning, stacklevel=2)

    @classmethod
    def from_events(
        cls,
        name: str,
        simulation: Simulation,
        *,
        key: ArrayLike,
        up: Mapping[str, ArrayLike],
        down: Mapping[str, ArrayLike] | None = None,
        absent: Absent = "error",
        most_lost: float = 0.01,
        correlation: Mapping[str, float] | None = None,
        backgrounds: Mapping[str, Background | tuple[Background, Background | None]] | None = None,
        profile: bool = False,
    ) -> Systematic:
        """A variation with events of its own, in another order, matched by identifiers.

        Parameters
        ----------
        name : str
        simulation : Simulation
        key : array, shape (n,) or (n, k)
            Identifier of every simulated event: a number or text, or several columns (run, event).
        up, down : mapping of str to array
            ``key``, and ``weight``, or one or more of ``reco``, ``pass_reco`` and ``reco_factor``, of the events of the
            variation.
        absent : {"error", "fails"}
            What a simulated event means that is not in the variation: a mistake, or that it fails the detector-level
            selection there, as in files that hold passing events only. With ``weight`` every event has to be there.
        most_lost : float
            Largest share of the variation's events that the simulation may have no row for; they are counted in a
            warning.
        correlation, backgrounds, profile
            As for the class.

        Raises
        ------
        InputError
            Identifiers that are not unique, events without a partner beyond what is allowed, lengths that disagree.

        Warns
        -----
        OverlapWarning
            If some events of the variation are not in the simulation; with ``absent="fails"`` and no ``pass_reco``, if
            events pass in the variation that the simulation's selection seems to cut.

        Examples
        --------
        >>> import numpy as np
        >>> import bayesunfold as bu
        >>> simulation = bu.Simulation([1.0, 2.0, 3.0], [1.1, 2.1, 2.9])
        >>> s = bu.Systematic.from_events(
        ...     "scale", simulation, key=[7, 8, 9], up={"key": [9, 7, 8], "reco": [3.0, 1.2, 2.2]}
        ... )
        >>> s.reco_up[:, 0]
        array([1.2, 2.2, 3. ])
        """
        if absent not in ("error", "fails"):
            msg = f"absent is {absent!r}; it must be 'error' or 'fails'."
            raise InputError(msg)
        if not 0 <= most_lost < 1:
            msg = f"most_lost is {most_lost!r}; it is a share, from 0 to below 1."
            raise InputError(msg)
        sides: dict[str, Any] = {}
        for side, given in (("up", up), ("down", down)):
            if given is not None:
                sides |= matched_variation(name, simulation, key, given, side, absent, most_lost)
        if down is not None and len({k.rsplit("_", 1)[0] for k in sides}) * 2 != len(sides):
            for side in ("up", "down"):  # flags that did not change on one side
                sides.setdefault(f"pass_reco_{side}", simulation.pass_reco)
        if absent == "fails" and not any("pass_reco" in given for given in (up, down or {})):
            warn_of_selection(name, simulation, sides)
        return cls(name, **sides, correlation=correlation, backgrounds=backgrounds, profile=profile)

    def changed(self, **changes: Any) -> Systematic:
        """The same with some arguments replaced.

        Examples
        --------
        >>> import numpy as np
        >>> Systematic("fsr", weight_up=np.ones(3)).changed(name="isr").name
        'isr'
        """
        names = ("name", "alternative", "correlation", "backgrounds", "profile")
        sides = [f"{kind}_{side}" for kind in ("weight", "reco", "pass_reco", "reco_factor") for side in ("up", "down")]
        given = {name: getattr(self, name) for name in (*names, *sides)}
        out = Systematic(**given | changes)
        out.ratio_draws = self.ratio_draws
        return out

    @property
    def two_sided(self) -> bool:
        """Whether a down variation was given."""
        downs = (self.weight_down, self.reco_down, self.pass_reco_down, self.reco_factor_down)
        return any(v is not None for v in downs)

    def __repr__(self) -> str:
        kind = "weights" if self.weight_up is not None else "detector level"
        more = f", backgrounds {', '.join(self.backgrounds)}" if self.backgrounds else ""
        more += f", correlated with {', '.join(self.correlation)}" if self.correlation else ""
        more += ", profiled" if self.profile else ""
        if self.alternative is not None:
            return f"Systematic({self.name}: two-point, {len(self.alternative)} alternative events{more})"
        if not self.changes_simulation:
            return f"Systematic({self.name}{more.replace(',', ':', 1)})"
        return f"Systematic({self.name}: {'two' if self.two_sided else 'one'}-sided {kind}{more})"

    @property
    def changes_simulation(self) -> bool:
        """Whether it changes the simulation, not the backgrounds alone."""
        ups = (self.weight_up, self.reco_up, self.pass_reco_up, self.reco_factor_up, self.alternative)
        return any(value is not None for value in ups)


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
    _check_like_nominal(varied, nominal, what)
    change = np.divide(varied, nominal, out=np.ones(len(nominal)), where=nominal != 0) - 1.0
    if not np.any(change):
        msg = f"{what} is identical to the nominal weights; leave the systematic out."
        raise InputError(msg)
    return change


FACTOR = 3.0
"""Varied weights whose total differs by more than this factor from the nominal one are taken for something else."""


def _check_like_nominal(varied: Array, nominal: Array, what: str) -> None:
    """Full weights have about the nominal total; factors on them and differences do not."""
    ratio = float(varied.sum() / nominal.sum())
    if 1 / FACTOR < ratio < FACTOR:
        return
    guess = "differences from" if ratio < 1 / FACTOR and abs(nominal.mean() - 1) < 0.5 else "factors on"
    cure = "weight + difference" if guess.startswith("diff") else "weight * factor"
    msg = (
        f"{what} sums to {ratio:.3g} times the nominal weights; it must hold the full weights in the variation. "
        f"If these are {guess} the nominal weights, pass {cure}."
    )
    raise InputError(msg)


def shifted_detector_level(
    systematic: Systematic, simulation: Simulation, scale: Standardizer, direction: str
) -> Shifted | None:
    """Standardised features and pass flags of one side of a variation, checked; None if that side was not given."""
    given = getattr(systematic, f"reco_{direction}"), getattr(systematic, f"pass_reco_{direction}")
    factor = getattr(systematic, f"reco_factor_{direction}")
    if given[0] is None and given[1] is None and factor is None:
        return None
    kind = "reco" if given[0] is not None else "pass_reco" if given[1] is not None else "reco_factor"
    what = f"{kind}_{direction} of {systematic.name}"
    passes = simulation.pass_reco
    if given[1] is not None:
        flags = f"pass_reco_{direction} of {systematic.name}"
        found = as_flag(given[1], len(simulation), flags)
        passes = passes if np.array_equal(found, passes) else found
        _check_passing(simulation, passes, simulation.reco_weight, flags)
    if factor is not None:
        name = f"reco_factor_{direction} of {systematic.name}"
        factor = as_reco_factor(factor, passes, name)
        _check_passing(simulation, passes, simulation.weight * factor, name)
        _check_full_factor(simulation, passes, factor, name)
        factor = _changed_factor(simulation, passes, factor)
    values = simulation.reco if given[0] is None else _features(given[0], simulation, what)
    nominal, both = simulation.reco, passes & simulation.pass_reco
    if simulation.undefined == "indicator":
        other = (np.isnan(values) != np.isnan(nominal))[both].any(axis=1)
        if other.any():
            msg = f"{what} makes features appear or vanish in {int(other.sum())} events; keep them."
            raise InputError(msg)
        always = ~np.isnan(nominal[simulation.pass_reco]).any(axis=0)
        known = np.where(np.isnan(values) & ~always, 0.0, values)  # a feature may be missing where it is elsewhere
        check_finite(known, passes, what, simulation.reco_names, "give finite features to passing events.")
        enter = passes & ~simulation.pass_reco
        if given[0] is None and np.isnan(values[enter]).any():
            msg = (
                f"{what} lets {int(np.isnan(values[enter]).any(axis=1).sum())} events pass whose nominal features are "
                f"NaN; give reco_{direction}, with NaN only where a feature does not exist."
            )
            raise InputError(msg)
    else:
        check_finite(values, passes, what, simulation.reco_names, "give finite features to passing events.")
    same = passes is simulation.pass_reco and factor is None
    if same and np.array_equal(values[passes], nominal[passes], equal_nan=True):
        words = {"reco": "features", "pass_reco": "pass flags", "reco_factor": "scale factors"}[kind]
        msg = f"{what} is identical to the nominal {words}; leave the systematic out."
        raise InputError(msg)
    if given[0] is not None and given[1] is None:
        warn_of_cut(simulation, values, what)
    if given[0] is not None:
        warn_of_other_features(simulation, values, passes, what)
    out = np.zeros((len(values), scale.n_outputs), dtype=np.float32)
    out[passes] = scale(values[passes])
    return Shifted(out, passes, factor)


def _check_full_factor(simulation: Simulation, passes: NDArray[np.bool_], factor: Array, what: str) -> None:
    """Full scale factors have about the nominal mean; uncertainties of them do not."""
    rows = passes & simulation.pass_reco
    weight, nominal = simulation.weight[rows], simulation.reco_weight[rows]
    if not len(weight) or not nominal.sum() > 0:
        return
    ratio = float((weight * factor[rows]).sum() / nominal.sum())
    if not 1 / FACTOR < ratio < FACTOR:
        msg = (
            f"{what} is on average {ratio:.3g} times the nominal scale factor; it must hold the full factors in the "
            "variation. If these are differences, pass reco_factor + difference; if relative ones, reco_factor * (1 + "
            "difference)."
        )
        raise InputError(msg)


def scale_factors(simulation: Simulation) -> Array:
    """Of all events; one without any."""
    return np.ones(len(simulation)) if simulation.reco_factor is None else simulation.reco_factor


def _changed_factor(simulation: Simulation, passes: NDArray[np.bool_], factor: Array) -> Array | None:
    """Scale factors of a variation; None if those of passing events are the nominal ones."""
    nominal = scale_factors(simulation)
    return None if np.array_equal(factor[passes], nominal[passes]) else factor


def _features(features: ArrayLike, simulation: Simulation, what: str) -> Array:
    values, names = as_features(features, what)
    if values.shape != simulation.reco.shape:
        msg = f"{what} has shape {values.shape} and reco has {simulation.reco.shape}; they must be the same events."
        raise InputError(msg)
    known = simulation.reco_named or set(names or ()) == set(simulation.reco_names)
    if names is not None and known and names != simulation.reco_names:
        msg = f"{what} has columns {names} and reco has {simulation.reco_names}; give the same, in the same order."
        raise InputError(msg)
    return values


def _check_passing(simulation: Simulation, passes: NDArray[np.bool_], weight: Array, what: str) -> None:
    for rows, events in ((passes, "passing events"), (passes & simulation.pass_gen, "events passing both levels")):
        total = weight[rows].sum()
        if total <= 0:
            msg = f"the weights of {events} sum to {total:g} with {what}; the sum must be positive."
            raise InputError(msg)


def _check_sides(name: str, up: set[str], down: set[str]) -> None:
    missing = down - up
    if missing:
        msg = (
            f"systematic {name!r} has a down variation of a kind without an up variation "
            f"({', '.join(f'{k}_down' for k in sorted(missing))}); give both, or a variation in one direction as up."
        )
        raise InputError(msg)
    forgotten = sorted((up - down) & {"reco", "reco_factor"}) if down else []
    if forgotten:
        lacks = ", ".join(f"{k}_down" for k in forgotten)
        msg = (
            f"systematic {name!r} has {', '.join(f'{k}_down' for k in sorted(down))} and not {lacks}, so half of the "
            f"variation would be nominal; give {lacks} too (the nominal values if nothing changes there)."
        )
        raise InputError(msg)


def prepare_systematics(
    systematics: list[Systematic], simulation: Simulation, events: StandardizedEvents, alphas: Array, seed: int
) -> dict[str, Effect]:
    """What each systematic changes, checked; row ``k`` of ``alphas`` belongs to systematic ``k``."""
    effects: dict[str, Effect] = {}
    means, scale_reco = MeanChanges(events), events.scales.reco
    # what trains comes last: an error of another one is known before
    for k, systematic in sorted(enumerate(systematics), key=lambda each: each[1].alternative is not None):
        alpha = alphas[k]
        if systematic.alternative is not None:
            log_ratio, draws = two_point_change(systematic, simulation, seed)
            effects[systematic.name] = means.variation(alpha, np.expm1(log_ratio), None, draws)
        elif systematic.weight_up is not None:
            up, down = relative_change(systematic, systematic.weight_up, simulation, "up"), None
            if systematic.weight_down is not None:
                down = relative_change(systematic, systematic.weight_down, simulation, "down")
            effects[systematic.name] = means.variation(alpha, up, down, systematic.ratio_draws)
        elif not systematic.changes_simulation:
            effects[systematic.name] = Variation(alpha, *np.zeros((2, len(simulation))))
        else:
            high = shifted_detector_level(systematic, simulation, scale_reco, "up")
            low = shifted_detector_level(systematic, simulation, scale_reco, "down")
            if high is not None:
                effects[systematic.name] = Shift(alpha, high, low)
    return {s.name: effects[s.name] for s in systematics if s.name in effects}


def draw_alphas(systematics: Sequence[Systematic], members: int, seed: int) -> Array:
    """Nuisance parameters of systematics, with their correlations, shape (systematics, members)."""
    drawn = stream(seed, "systematics").standard_normal((len(systematics), members))
    correlation = prior_correlation(given_correlations(systematics), [s.name for s in systematics])
    return np.asarray(np.linalg.cholesky(correlation) @ drawn)
