"""Checks of one result by unfolding again: bias at the unfolded spectrum, dependence on the generator."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers
from bayesunfold._support.threads import block_threads
from bayesunfold.errors import BiasWarning, InputError
from bayesunfold.events import with_factors_of_fakes
from bayesunfold.omnifold.loop import point_estimates
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.reference_bins import REFERENCE_BINS, quantile_groups
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import StandardizedEvents, to_yield

__all__ = ["estimate_bias", "prior_dependence", "reference_bias"]

Array = NDArray[np.floating]

LARGE_BIAS = 0.5
"""Part of the band above which a bias is reported."""


def __dir__() -> list[str]:
    return __all__


def estimate_bias(result: UnfoldingResult, *, warn: bool = True) -> UnfoldingResult:
    """See :meth:`bayesunfold.UnfoldingResult.estimate_bias`."""
    events = result.members.events
    closed = retrain(result, events.closed_with(result.members.nominal("reco")))
    checked = replace(result, closure_weights=_normalised(closed, events))
    if warn:
        _warn_if_large(checked)
    return checked


def prior_dependence(result: UnfoldingResult, factor: ArrayLike | Callable[[Array], ArrayLike]) -> dict[str, Array]:
    """See :meth:`bayesunfold.UnfoldingResult.prior_dependence`."""
    sim = result.simulation
    values = as_numbers(factor(sim.gen) if callable(factor) else factor, "factor")
    if values.shape != (len(sim),):
        msg = f"factor has shape {values.shape}; it must be ({len(sim)},), one factor an event."
        raise InputError(msg)
    if callable(factor):
        values = np.where(sim.pass_gen, values, np.nan)
    values = with_factors_of_fakes(values, sim)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        msg = f"factor ranges from {values.min():g} to {values.max():g}; it must be finite and not negative."
        raise InputError(msg)
    events = result.members.events
    both = events.passes.both
    weight = events.weight * values
    other = replace(events, weight=weight * (both.sum() / weight[both].sum()))
    new = _normalised(retrain(result, other), other)
    widths, old_sums, new_sums = _reference(result, new)
    return {
        name: np.divide(b - a, w, out=np.zeros_like(w), where=w > 0)
        for name, w, a, b in zip(sim.gen_names, widths, old_sums, new_sums, strict=True)
    }


def retrain(result: UnfoldingResult, events: StandardizedEvents) -> Array:
    """Push weights of the point estimate on other events, with the settings, seed and iterations of the result."""
    settings = result.record.settings
    if not isinstance(settings, Settings):
        msg = (
            "only results of OmniFold can be unfolded again: the direct posterior has no loop whose stopping biases "
            "it, and generative unfolding has the loop's, whose bias OmniFold estimates."
        )
        raise InputError(msg)
    loop = point_estimates(events, settings, result.record.seed, near=result.iterations)
    with block_threads():
        return next(islice(loop, len(result.iterations) - 1, None)).push


def _normalised(push: Array, events: StandardizedEvents) -> Array:
    """Event weights with the signal's yield at detector level; zero for fakes."""
    v = events.weight * push
    norm = to_yield(events.at_reco(v), events.passes.reco, events.signal_yield)
    return np.where(events.passes.gen, v * norm, 0.0)


def _reference(result: UnfoldingResult, other: Array) -> tuple[list[Array], list[Array], list[Array]]:
    """Bands, and contents of the result and of other weights, in ten bins of each feature."""
    events, sim = result.members.events, result.simulation
    groupings = [quantile_groups(sim.gen[:, j], events.passes.gen) for j in range(len(sim.gen_names))]
    widths = [result.members.accumulate(g, REFERENCE_BINS).std(axis=0, ddof=1) for g in groupings]

    def contents(weight: Array) -> list[Array]:
        return [np.bincount(g[g >= 0], weight[g >= 0], REFERENCE_BINS) for g in groupings]

    return widths, contents(result.nominal), contents(other)


def reference_bias(result: UnfoldingResult) -> dict[str, float]:
    """Largest estimated bias of each feature in ten bins, in units of the band; empty if it was not estimated."""
    if result.closure_weights is None:
        return {}
    widths, found, closed = _reference(result, result.closure_weights)
    return {
        name: float(np.max(np.abs(b - a) / np.where(width > 0, width, np.inf)))
        for name, width, a, b in zip(result.simulation.gen_names, widths, found, closed, strict=True)
    }


def _warn_if_large(result: UnfoldingResult) -> None:
    for name, largest in reference_bias(result).items():
        if largest > LARGE_BIAS:
            msg = (
                f"the estimated bias of {name} reaches {largest:.2f} of its 68 % band (limit {LARGE_BIAS}); the "
                "result still leans to the generator or the network's prior. Take more iterations, or quote the bias: "
                "spectrum.bias has it bin by bin."
            )
            warnings.warn(msg, BiasWarning, stacklevel=4)
