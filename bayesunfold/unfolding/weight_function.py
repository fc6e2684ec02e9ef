"""The learned weight function on particle-level events that are not those of the unfolding."""

from __future__ import annotations

import warnings

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, check_finite
from bayesunfold._support.threads import block_threads
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.events import Simulation
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.overlap import FARTHEST
from bayesunfold.unfolding.standardized import to_yield

__all__ = ["learned_factors", "weights_for"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def weights_for(simulation: Simulation, members: Members, gen_new: ArrayLike) -> xr.DataArray:
    """See :meth:`bayesunfold.UnfoldingResult.weights_for`."""
    x, names = as_features(gen_new, "gen_new")
    if x.shape[1] != simulation.gen.shape[1]:
        msg = f"gen_new has {x.shape[1]} features; the unfolding used {simulation.gen.shape[1]}."
        raise InputError(msg)
    if names is not None and names != simulation.gen_names:
        msg = f"gen_new has columns {names}; the unfolding used {simulation.gen_names}, in this order."
        raise InputError(msg)
    may_miss = np.isnan(simulation.gen[simulation.pass_gen]).any(axis=0)
    checked = np.where(may_miss & np.isnan(x), 0.0, x)
    check_finite(checked, None, "gen_new", simulation.gen_names, "remove those rows.")
    _warn_of_extrapolation(simulation, members, x)
    return learned_factors(simulation, members, x)


def learned_factors(simulation: Simulation, members: Members, x: Array) -> xr.DataArray:
    """What all members make of generator weights at particle-level events, shape (draw, event).

    Systematics that change generator weights are in them as functions of the particle level.
    """
    events, network = members.events, members.step2.classifier
    z = events.scales.gen(x)
    both = events.passes.both
    with block_threads():
        # push weights are those of the network up to a factor, which any event has
        one = np.flatnonzero(both)[:1]
        level = float((np.log(members.push[one]) - network.log_ratio(events.gen[one]))[0])
        push = np.exp(network.log_ratio(z) + level)
        change = members.step2.log_ratio_change(z)
        norm = members.norm()
        drawn = np.exp(change) * push[:, None]
        if members.learned_changes:
            drawn *= members.learned_changes.factors(network.tangent(z))
    unit = events.weight[both].sum() / simulation.weight[both].sum()
    nominal_norm = to_yield(events.reco_weight * members.push, events.passes.reco, events.signal_yield)
    return xr.DataArray(
        (drawn * unit * norm).T,
        dims=("draw", "event"),
        coords={"nominal": ("event", push * unit * nominal_norm)},
        name="weight_factor",
    )


def _warn_of_extrapolation(simulation: Simulation, members: Members, gen_new: Array) -> None:
    """Warn of events beyond the range of the simulated ones; beyond any sense they are an error."""
    gen = simulation.gen[simulation.pass_gen]
    low, high = np.nanmin(gen, axis=0), np.nanmax(gen, axis=0)
    far = np.abs(members.events.scales.gen.each(gen_new)) > FARTHEST
    if far.any():
        row = int(np.argmax(far.any(axis=1)))
        msg = f"{int(far.any(axis=1).sum())} events of gen_new lie far outside the simulation (first at row {row})."
        raise InputError(msg)
    beyond = ((gen_new < low) | (gen_new > high)).any(axis=1)
    if beyond.mean() > 0.05:
        msg = (
            f"{100 * beyond.mean():.1f} % of gen_new lie outside the simulated range of a feature; the networks "
            "extrapolate there. Use events of the same generator and selection."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=4)
