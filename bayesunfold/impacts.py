"""Impacts: what one standard deviation of each source of uncertainty moves.

The impact of a nuisance parameter is the change of a number when the parameter moves by its posterior standard
deviation, the others following as the fit makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Parameter", "correlation_table", "impact_of", "ranking_table"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Parameter:
    """The nuisance parameter of a source of uncertainty.

    Attributes
    ----------
    own : array, shape (draws,)
        What the source itself moves of it in every draw.
    mean, std : float
        Of the posterior, in standard deviations of the prior.
    profiled : bool
        Whether data constrain it.
    group : bool
        Whether it stands for several sources, which have no single parameter.
    draws : array, shape (draws,), optional
        Of the posterior, of a profiled parameter.
    correlated : bool
        Of a profiled one: whether it is correlated with others before the data; what goes with it is then not what its
        own source moves.
    partners : set of str
        Sources with whose parameters it is correlated before the data, profiled or not.
    """

    own: Array
    mean: float = 0.0
    std: float = 1.0
    profiled: bool = False
    group: bool = False
    draws: Array | None = None
    correlated: bool = False
    partners: frozenset[str] = frozenset()


def impact_of(draws: Array, parameter: Parameter | None) -> tuple[Array, Array]:
    """Impact up and down on each bin, shape (bins,).

    Parameters
    ----------
    draws : array, shape (draws, bins)
        In which only the source fluctuates.
    parameter : Parameter, optional
        Without one, or of a group of sources, the impact is the standard deviation, up and down alike.

    Examples
    --------
    >>> alpha = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    >>> up, down = impact_of(np.where(alpha > 0, 3 * alpha, alpha)[:, None], Parameter(alpha))
    >>> np.round(up, 6), np.round(down, 6)
    (array([3.]), array([-1.]))
    """
    if parameter is None or parameter.group:
        std = draws.std(axis=0, ddof=1)
        return std, -std
    own = parameter.own
    if parameter.profiled:
        centred = own - own.mean()
        up = parameter.std * (centred @ draws) / (centred @ centred)
        return up, -up
    sides = np.column_stack([np.ones(len(own)), np.maximum(own, 0.0), np.maximum(-own, 0.0)])
    _, up, down = np.linalg.lstsq(sides, draws, rcond=None)[0]
    return up, down


def shared_impact(total: Array, parameter: Array) -> tuple[Array, Array]:
    """Impact of a profiled parameter that is correlated with others before the data, shape (bins,), up and down.

    The covariance of the bins with the parameter over its width, to the sampling error of the draws.

    Parameters
    ----------
    total : array, shape (draws, bins)
        In which all sources fluctuate.
    parameter : array, shape (draws,)
        Of the posterior.
    """
    centred = parameter - parameter.mean()
    up = centred @ total / ((len(centred) - 1) * parameter.std(ddof=1))
    return up, -up


def correlation_table(draws: Array, parameters: Mapping[str, Parameter], labels: Sequence[str]) -> pd.DataFrame:
    """Correlation of profiled nuisance parameters with bins, a row per bin and a column per parameter.

    Parameters
    ----------
    draws : array, shape (draws, bins)
    parameters : mapping of source to Parameter
    labels : sequence of str
        Of the bins.

    Examples
    --------
    >>> alpha = np.array([-1.0, 0.0, 1.0])
    >>> parameters = {"jes": Parameter(alpha, profiled=True, draws=alpha)}
    >>> correlation_table(np.column_stack([2 * alpha, -alpha]), parameters, ["low", "high"])["jes"].round(3).tolist()
    [1.0, -1.0]
    """
    import pandas as pd

    centred = draws - draws.mean(axis=0)
    table = {}
    for name, parameter in parameters.items():
        if parameter.profiled and parameter.draws is not None:
            own = parameter.draws - parameter.draws.mean()
            with np.errstate(invalid="ignore", divide="ignore"):
                table[name] = (own @ centred) / np.sqrt((own @ own) * (centred**2).sum(axis=0))
    return pd.DataFrame(table, index=pd.Index(labels, name="bin"))


def ranking_table(
    draws: Mapping[str, Array],
    parameters: Mapping[str, Parameter],
    nominal: Array,
    labels: Sequence[str],
    total: Array,
) -> pd.DataFrame:
    """Impacts of all sources on all bins, the largest of a bin first.

    Parameters
    ----------
    draws : mapping of source to array, shape (draws, bins)
    parameters : mapping of source to Parameter
        Of those that have one.
    nominal : array, shape (bins,)
    labels : sequence of str
        Of the bins.
    total : array, shape (draws, bins)
        Draws in which all sources fluctuate.

    Returns
    -------
    pandas.DataFrame
        Columns ``bin``, ``source``, ``kind``, ``up``, ``down``, the same relative to the point estimate, and ``mean``
        and ``std`` of profiled nuisance parameters.
    """
    import pandas as pd

    def kind_of(parameter: Parameter | None) -> str:
        if parameter is None:
            return "statistics"
        return "group" if parameter.group else "profiled" if parameter.profiled else "systematic"

    frames = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for source, drawn in draws.items():
            parameter = parameters.get(source)
            if parameter is not None and parameter.correlated and parameter.draws is not None:
                up, down = shared_impact(total, parameter.draws)
            else:
                up, down = impact_of(drawn, parameter)
            known = parameter is not None and parameter.profiled
            frames.append(
                pd.DataFrame(
                    {
                        "bin": labels,
                        "source": source,
                        "kind": kind_of(parameter),
                        "up": up,
                        "down": down,
                        "relative up": up / nominal,
                        "relative down": down / nominal,
                        "mean": parameter.mean if parameter is not None and known else np.nan,
                        "std": parameter.std if parameter is not None and known else np.nan,
                        "size": np.maximum(np.abs(up), np.abs(down)),
                        "place": np.arange(len(labels)),
                    }
                )
            )
    table = pd.concat(frames).sort_values(["place", "size"], ascending=[True, False], kind="stable")
    return table.drop(columns=["size", "place"]).reset_index(drop=True)
