"""The posterior histogram of an observable: event weights of all members, summed by bin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.streams import LUMINOSITY
from bayesunfold.binning import as_axes, project
from bayesunfold.errors import InputError
from bayesunfold.impacts import Parameter
from bayesunfold.normalization import EXTRA, Finish, assign_groups, read_luminosity
from bayesunfold.spectrum import Normalization, Spectrum
from bayesunfold.unfolding.correlations import partners_of, prior_correlation
from bayesunfold.unfolding.luminosity import Luminosity
from bayesunfold.unfolding.ranking import parameters_of

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["binned_spectrum"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def binned_spectrum(
    result: UnfoldingResult,
    observables: list[tuple[str, Array]],
    bins: ArrayLike | Sequence[ArrayLike],
    level: str,
    normalization: Normalization,
    luminosity: float | tuple[float, float] | None,
    unit: str | tuple[str, ...],
    centre: str,
) -> Spectrum:
    """See :meth:`bayesunfold.UnfoldingResult.spectrum`.

    Parameters
    ----------
    observables : list of (str, array)
        Names and values in every simulated event.
    level : {"gen", "reco"}
    """
    size, uncertainty = read_luminosity(luminosity, normalization)
    if centre not in ("nominal", "draws"):
        msg = f"centre is {centre!r}; it must be 'nominal' or 'draws'."
        raise InputError(msg)
    names = tuple(name for name, _ in observables)
    units: tuple[str, ...] = ("",) * len(names)
    if unit:
        units = (unit,) if isinstance(unit, str) else tuple(unit)
    if len(units) != len(names) or not all(isinstance(u, str) for u in units):
        msg = f"unit is {unit!r}; give a text for each of {len(names)} observables."
        raise InputError(msg)
    values = [v for _, v in observables]
    edges = as_axes(values, bins)
    rows = result.simulation.pass_gen if level == "gen" else result.simulation.pass_reco
    groups, n_bins = assign_groups(values, edges, rows)
    n_groups = n_bins + EXTRA
    weight = result.nominal if level == "gen" else result.nominal_reco
    divisor = Luminosity.of(result, uncertainty, given=luminosity is not None)
    finish = Finish(project(groups, weight, n_groups), edges, normalization, centre, size)

    def make(source: str) -> Callable[[], Array]:
        def drawn() -> Array:
            sums = result.members.accumulate(groups, n_groups, source, reco=level == "reco")
            return finish(sums, divisor.factor(source))

        return drawn

    drawn = result.members.accumulate(groups, n_groups, reco=level == "reco")
    sources = {name: make(name) for name in result.members.sources}
    factor = divisor.factor()
    parameters = parameters_of(result.members, result.measurement.nuisances)
    partners = partners_of(list(parameters), prior_correlation(result.inputs.correlations, list(parameters)))
    parameters |= {name: replace(parameters[name], partners=frozenset(others)) for name, others in partners.items()}
    if uncertainty > 0 and not divisor.shared:
        sources[LUMINOSITY] = lambda: np.outer(factor, finish.nominal)
        parameters[LUMINOSITY] = Parameter(divisor.pulls)
    bias = None
    if result.closure_weights is not None and level == "gen":
        bias = finish.nominal_of(project(groups, result.closure_weights, n_groups)) - finish.nominal
    outside, undefined = finish.in_no_bin(drawn)
    return Spectrum(
        edges=edges,
        flow=finish.flow(drawn, factor),
        draw_matrix=finish(drawn, factor),
        nominal=finish.nominal,
        names=names,
        outside=outside,
        undefined=undefined,
        normalization=normalization,
        method=result.record.settings.method,
        luminosity=None if luminosity is None else size,
        units=units,
        sources=sources,
        bias=bias,
        parameters=parameters,
        seconds=float(sum(result.seconds.values())) or None,
    )
