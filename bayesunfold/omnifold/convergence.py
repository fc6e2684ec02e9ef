"""When to stop: the change of reference spectra in units of their band, and the history of a run."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold.errors import ConvergenceWarning
from bayesunfold.omnifold.loop import State
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.record import Look
from bayesunfold.unfolding.reference_bins import REFERENCE_BINS, quantile_groups
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["look", "most_iterations", "settled", "warn_if_moving"]

Array = NDArray[np.floating]

MAX_AUTO_ITERATIONS = 12
AUTO_CHANGE = 0.15
"""``iterations="auto"`` stops when no reference bin moves by more than this part of its band."""

FEW_ITERATIONS, LARGE_CHANGE = 3, 0.5
"""Warn if the last of three or more fixed iterations moves a reference bin by half its band. One or two iterations are
a quick look, which nobody takes for converged."""


def __dir__() -> list[str]:
    return __all__


def look(events: StandardizedEvents, state: State) -> Look:
    """Losses, effective size, and the change of reference spectra since the iteration before."""
    gen, now = events.passes.gen, state.iteration
    v = np.where(gen, events.weight, 0.0)
    old = np.ones(len(v)) if state.before is None else state.before.push
    groupings = [quantile_groups(events.gen[:, j], gen) for j in range(events.gen.shape[1])]
    change, spectra = 0.0, []
    widths = state.members(events).relative_widths(groupings, REFERENCE_BINS)
    for groups, width in zip(groupings, widths, strict=True):
        before, after = (_shares(groups, v * push, gen) for push in (old, now.push))
        spectra.append(after.tolist())
        used = width > 0
        change = max(change, float(np.max(np.abs(after - before)[used] / width[used], initial=0.0)))
    networks = state.networks[-1]
    return {
        "losses": networks.losses,
        "decrements": networks.decrements,
        "change": change,
        "effective_size": effective_size(v * now.push),
        "spectra": spectra,
        "directions": [c.basis.shape[1] for c in (now.step1, now.step2)],
    }


def _shares(groups: NDArray[np.integer], weight: Array, rows: NDArray[np.bool_]) -> Array:
    """Share of the total weight in each reference bin."""
    sums = np.bincount(groups[rows], weight[rows], REFERENCE_BINS)
    return sums / sums.sum()


def most_iterations(settings: Settings) -> int:
    """The number of iterations, or the most that ``"auto"`` takes."""
    return MAX_AUTO_ITERATIONS if settings.iterations == "auto" else int(settings.iterations)


def settled(history: list[Look], settings: Settings) -> bool:
    """Whether no further iteration is wanted."""
    if len(history) >= most_iterations(settings):
        return True
    return settings.iterations == "auto" and len(history) > 1 and history[-1]["change"] < AUTO_CHANGE


def warn_if_moving(history: list[Look], settings: Settings) -> None:
    """Warn if the last iteration changed the spectrum by a large part of its band."""
    automatic, most, change = settings.iterations == "auto", most_iterations(settings), history[-1]["change"]
    msg = None
    if automatic and change >= AUTO_CHANGE:
        msg = (
            f"after {most} iterations the spectrum still moves by {change:.2f} of its band (limit {AUTO_CHANGE}); "
            "the detector resolves too little. Use coarser features or fix iterations."
        )
    elif not automatic and most >= FEW_ITERATIONS and change >= LARGE_CHANGE:
        msg = (
            f"the last of {most} iterations still moves the spectrum by {change:.2f} of its band (limit "
            f"{LARGE_CHANGE}); the result leans to the generator. Use iterations='auto' or more of them, or quote "
            "the bias from result.estimate_bias()."
        )
    if msg is not None:
        warnings.warn(msg, ConvergenceWarning, stacklevel=3)
