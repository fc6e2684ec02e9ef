"""Stress test: data that differ in something the unfolding does not see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers
from bayesunfold._support.files import checksum_of_arrays
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation, as_data
from bayesunfold.studies.coverage import CoverageStudy
from bayesunfold.studies.pseudo_experiments import coverage_study
from bayesunfold.studies.resampled import ResampledToys, unfold_toy

__all__ = ["stress"]

Array = NDArray[np.floating]

STRENGTH = 0.3
"""Change of the log weight per standard deviation of the hidden variable."""


def __dir__() -> list[str]:
    return __all__


def stress(
    simulation: Simulation,
    data: Data | ArrayLike,
    *,
    hidden: ArrayLike,
    bins: Mapping[str, ArrayLike],
    factor: float | Callable[[Array], ArrayLike] = STRENGTH,
    backgrounds: tuple[Background, ...] | list[Background] = (),
    toys: int = 20,
    settings: Mapping[str, Any] | None = None,
    workers: int | None = None,
    checkpoint: str | Path | None = None,
    random_seed: int = 0,
    progressbar: bool = True,
) -> CoverageStudy:
    """What bands hold when the data differ in a variable that the unfolding does not see.

    Pseudo-data are drawn from the simulation, reweighted in the hidden variable; each toy unfolds them with another
    simulation, which is not reweighted. The response given the features then differs where it depends on the variable.

    Parameters
    ----------
    simulation : Simulation
        With weights that are not negative.
    data : Data, array or frame
        Its yield is that of the pseudo-data.
    hidden : array, shape (n,)
        The variable in every simulated event; NaN in fakes, which then have the mean weight.
    bins : mapping of feature name to edges
        Bins of at least 20 expected events are scored.
    factor : float or callable
        Change of the log weight per standard deviation of the variable, or a function of its values that gives factors
        on the weights.
    backgrounds : sequence of Background
    toys : int
    settings : mapping, optional
        ``method`` ("omnifold" if omitted) and arguments of its class.
    workers, checkpoint, random_seed, progressbar
        As for :func:`bayesunfold.coverage_study`.

    Returns
    -------
    CoverageStudy
        Compare its coverage and bias with those for ``factor=0``.

    Raises
    ------
    InputError
        A hidden variable of the wrong length or without a spread, factors that are negative or not finite.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 2000, random_seed=1)
    >>> quick = {"iterations": 1, "inference": "laplace", "draws": 50}
    >>> study = bu.studies.stress(toy.simulation, toy.data, hidden=toy.simulation.gen[:, 0] ** 2,
    ...                           bins={"gen": [-3, 0, 3]}, toys=2, settings=quick, workers=0, progressbar=False)
    >>> study.lower.shape
    (2, 2, 2)
    """
    factors = _factors(simulation, hidden, factor)
    make = ResampledToys(simulation, float(as_data(data).weight.sum()), factors, backgrounds)
    sim = simulation
    drawn_from: list[NDArray[Any]] = [
        factors,
        sim.gen,
        sim.reco,
        sim.weight,
        sim.pass_gen,
        sim.pass_reco,
        sim.reco_weight,
    ]
    for b in backgrounds:
        drawn_from += [b.features, b.weight, np.array(b.relative_uncertainty)]
    return coverage_study(
        make,
        unfold=partial(unfold_toy, settings=dict(settings or {})),
        bins=bins,
        expected=make.expected(bins),
        toys=toys,
        workers=workers,
        checkpoint=checkpoint,
        random_seed=random_seed,
        progressbar=progressbar,
        # a checkpoint of other toys or another unfolding is refused
        settings={
            "unfolding": {k: _said(v) for k, v in (settings or {}).items()},
            "toys": checksum_of_arrays(drawn_from),
        },
    )


def _said(value: Any) -> str:
    """A setting as a text that is the same in another process."""
    if isinstance(value, np.ndarray):
        return checksum_of_arrays([value])
    return str(getattr(value, "__qualname__", None) or repr(value))


def _factors(simulation: Simulation, hidden: ArrayLike, factor: float | Callable[[Array], ArrayLike]) -> Array:
    """Factor on the weight of every event; NaN where the variable does not exist."""
    values = as_numbers(hidden, "hidden").ravel()
    if values.shape != (len(simulation),):
        msg = f"hidden has {values.size} entries; the simulation has {len(simulation)} events, and each needs one."
        raise InputError(msg)
    known = np.isfinite(values) & simulation.used
    spread = float(np.std(values[known])) if known.any() else 0.0
    if spread == 0.0:
        msg = "hidden is the same in every event; give a variable that varies."
        raise InputError(msg)
    out = np.full(len(values), np.nan)
    if callable(factor):
        out[known] = as_numbers(factor(values[known]), "factor")
    else:
        out[known] = np.exp(float(factor) * (values[known] - values[known].mean()) / spread)
    if not np.all(np.isfinite(out[known])) or np.any(out[known] < 0):
        msg = "factor gives negative or infinite weights; give finite factors that are not negative."
        raise InputError(msg)
    return out
