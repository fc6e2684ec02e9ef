"""The inputs of an unfolding, checked and standardised before any training."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.files import check_writable
from bayesunfold.errors import InputError, InputTypeError, WeightWarning
from bayesunfold.events import Background, Data, Simulation, as_data
from bayesunfold.unfolding.background_changes import check_background_changes
from bayesunfold.unfolding.correlations import check_correlations
from bayesunfold.unfolding.nuisances import Nuisances
from bayesunfold.unfolding.overlap import FAR_EVENTS, check_samples, warn_of_far_background, warn_without_overlap
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents, standardize
from bayesunfold.unfolding.systematics import Systematic, draw_alphas, prepare_systematics
from bayesunfold.unfolding.two_point import check_alternative, statistics_name

__all__ = ["check_inputs", "check_names_of_sources", "check_not_profiled", "check_simulation", "read_inputs"]

SAME_FACTORS = 0.01
"""Relative difference of mean or spread from which on scale factors of two samples are called different."""


def __dir__() -> list[str]:
    return __all__


def read_inputs(
    simulation: Simulation,
    data: Data | ArrayLike,
    backgrounds: Sequence[Background],
    systematics: Sequence[Systematic],
    intervals: tuple[int, int],
    checkpoint: str | Path | None,
    scales: Scales | None = None,
    *,
    direct: bool = False,
) -> tuple[Data, StandardizedEvents, NDArray[np.bool_]]:
    """Data and standardised events, checked, and which features the simulation covers.

    ``scales`` are chosen from the simulation if omitted, with ``intervals`` for the networks' additive part. ``direct``
    says that no loop unfolds them.

    Raises
    ------
    InputError, InputTypeError
        For anything that cannot be unfolded, and for a checkpoint that cannot be written.
    """
    check_simulation(simulation)
    _check_list(backgrounds, Background, "backgrounds")
    _check_list(systematics, Systematic, "systematics")
    names = [b.name for b in backgrounds] + [s.name for s in systematics]
    names += [statistics_name(s.name) for s in systematics if s.profile and s.alternative is not None]
    check_names_of_sources(names)
    check_correlations(systematics)
    for systematic in systematics:
        if systematic.alternative is not None:
            check_alternative(systematic.name, systematic.alternative, simulation)
            _warn_of_factors(systematic.name, systematic.alternative, simulation)
    if checkpoint is not None:
        if not isinstance(checkpoint, str | Path):
            msg = f"checkpoint is {checkpoint!r}; name a file, for instance 'run.npz'."
            raise InputTypeError(msg)
        check_writable(Path(checkpoint))
    data = as_data(data).matched_to(simulation)
    covered = warn_without_overlap(simulation, data)
    events = standardize(simulation, data, backgrounds, scales, intervals)
    check_samples(simulation, data, backgrounds, events, direct=direct)
    varied = {s.name: s.backgrounds for s in systematics if s.backgrounds}
    check_background_changes(varied, backgrounds, simulation, events.scales.reco)
    sides = [
        (f"background {b!r} in {name!r}", side)
        for name, changes in varied.items()
        for b, pair in changes.items()
        for side in pair
        if side
    ]
    for samples, most in (([(f"background {b.name!r}", b) for b in backgrounds], FAR_EVENTS), (sides, np.inf)):
        found = [(what, b.columns_for(simulation), b.weight) for what, b in samples]
        warn_of_far_background(simulation, data, found, most)
    return data, events, covered


def check_names_of_sources(names: Sequence[str]) -> None:
    """Whether backgrounds and systematics have different names.

    Raises
    ------
    InputError
    """
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        msg = f"several of the backgrounds and systematics are named {', '.join(twice)}; give each its own name."
        raise InputError(msg)


def check_not_profiled(backgrounds: Sequence[Background], systematics: Sequence[Systematic], method: str) -> None:
    """Whether a method that cannot profile is asked to.

    Raises
    ------
    InputError
    """
    every: list[Background | Systematic] = [*backgrounds, *systematics]
    for source in every:
        if source.profile:
            msg = (
                f"{source.name!r} has profile=True; {method} does not constrain nuisance parameters. Take "
                'method="direct" (bayesunfold.UnbinnedFBU), or profile=False.'
            )
            raise InputError(msg)


def check_simulation(simulation: Simulation) -> None:
    """Whether it is one.

    Raises
    ------
    InputTypeError
        If it is something else.
    """
    if not isinstance(simulation, Simulation):
        msg = f"simulation has type {type(simulation).__name__}; pass a bayesunfold.Simulation(gen, reco)."
        raise InputTypeError(msg)


def check_inputs(
    simulation: Simulation,
    data: Data | ArrayLike,
    backgrounds: Sequence[Background],
    systematics: Sequence[Systematic],
    intervals: tuple[int, int],
    checkpoint: str | Path | None,
    scales: Scales | None = None,
    *,
    direct: bool = False,
) -> StandardizedEvents:
    """Every check that needs no training, systematic variations included; arguments as for :func:`read_inputs`."""
    _, events, _ = read_inputs(simulation, data, backgrounds, systematics, intervals, checkpoint, scales, direct=direct)
    known = [s for s in systematics if s.alternative is None]
    Nuisances.of(simulation, backgrounds, [s for s in known if s.profile], events.scales, 0)
    prepare_systematics(known, simulation, events, draw_alphas(known, 2, 0), 0)
    return events


def _warn_of_factors(name: str, other: Simulation, simulation: Simulation) -> None:
    """Warn if an alternative's scale factors are not those of the simulation: its events stand for the model alone."""
    if other.reco_factor is None or simulation.reco_factor is None:
        return
    mean, spread, theirs, more = (*_moments(simulation, simulation.reco_factor), *_moments(other, other.reco_factor))
    if max(abs(theirs - mean), abs(more - spread)) > SAME_FACTORS * mean:
        msg = (
            f"the scale factors of the alternative of {name!r} have mean {theirs:.4g} and spread {more:.3f}, those of "
            f"the simulation {mean:.4g} and {spread:.3f}; the alternative's are not used, since only its events "
            "describe the other model. If factors differ between the models, add a systematic with reco_factor_up."
        )
        warnings.warn(msg, WeightWarning, stacklevel=4)


def _moments(simulation: Simulation, factor: NDArray[np.floating]) -> tuple[float, float]:
    """Weighted mean and standard deviation over events that pass detector level."""
    rows = simulation.pass_reco
    weight = simulation.weight[rows] / simulation.weight[rows].sum()
    mean = float(weight @ factor[rows])
    return mean, float(np.sqrt(max(0.0, float(weight @ (factor[rows] - mean) ** 2))))


def _check_list(values: Sequence[object], kind: type, name: str) -> None:
    if isinstance(values, kind) or not isinstance(values, Sequence):
        msg = f"{name} is {values!r}; pass a list of bayesunfold.{kind.__name__} objects, empty for none."
        raise InputTypeError(msg)
    for value in values:
        if not isinstance(value, kind):
            msg = f"{name} holds an object of type {type(value).__name__}; pass bayesunfold.{kind.__name__} objects."
            raise InputTypeError(msg)
