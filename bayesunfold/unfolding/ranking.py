"""Nuisance parameters of a result, and the impact of each source of uncertainty on a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold.impacts import Parameter, ranking_table
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.perturbations import Shift, Variation, alpha_of
from bayesunfold.unfolding.record import NuisanceDraws

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["parameters_of", "rank_expectation"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def parameters_of(members: Members, nuisances: NuisanceDraws | None) -> dict[str, Parameter]:
    """Of the systematics, and of backgrounds that are profiled, by source."""
    out: dict[str, Parameter] = {}
    for name, effect in members.perturbations.effects.items():
        if isinstance(effect, Variation) and effect.is_noise:
            continue
        own = None if isinstance(effect, Shift) else alpha_of(effect, name, name)
        if own is not None and np.isfinite(own).all():
            out[name] = Parameter(own)
    if nuisances is not None:
        drawn = nuisances.draws()
        for k, name in enumerate(nuisances.names):
            own = nuisances.by_source[name][k]
            mean, std = float(drawn[k].mean()), float(drawn[k].std(ddof=1))
            shared = name in members.perturbations.correlated
            out[name] = Parameter(own, mean, std, profiled=True, draws=drawn[k], correlated=shared)
    return out


def rank_expectation(
    members: Members, nuisances: NuisanceDraws | None, values: Array, used: NDArray[np.bool_], label: str
) -> pd.DataFrame:
    """Impacts on the mean of a value over the unfolded events.

    Parameters
    ----------
    members : Members
    nuisances : NuisanceDraws, optional
    values : array, shape (n,)
    used : boolean array, shape (n,)
        Events that count.
    label : str
        What the table calls it.
    """
    groups = np.where(used, 0, -1)

    def mean(source: str | None) -> Array:
        top = members.accumulate(groups, 1, source, values=values)
        return top / members.accumulate(groups, 1, source)

    nominal = members.nominal()
    centre = np.array([np.average(values[used], weights=nominal[used])])
    draws = {source: mean(source) for source in members.sources}
    return ranking_table(draws, parameters_of(members, nuisances), centre, [label], mean(None))
