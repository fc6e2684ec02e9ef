"""Pulls and impacts of nuisance parameters, as experiments draw them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesunfold.errors import InputError
from bayesunfold.plots.style import COLORS, figure, style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["plot_pulls", "plot_ranking"]


def __dir__() -> list[str]:
    return __all__


def plot_pulls(nuisances: pd.DataFrame) -> Figure:
    """Posterior of each nuisance parameter over the bands of its prior, one and two standard deviations.

    Parameters
    ----------
    nuisances : pandas.DataFrame
        ``result.nuisances``.

    Examples
    --------
    >>> import pandas as pd
    >>> fig = plot_pulls(pd.DataFrame({"mean": [0.4], "std": [0.3]}, index=["scale"]))
    >>> [label.get_text() for label in fig.axes[0].get_yticklabels()]
    ['scale']
    """
    names = [str(name) for name in nuisances.index]
    y = np.arange(len(names))[::-1]
    mean, std = nuisances["mean"].to_numpy(), nuisances["std"].to_numpy()
    with style():
        fig = figure(6.4, 1.5 + 0.32 * len(names))
        ax = fig.subplots()
        for width, alpha in ((2.0, 0.15), (1.0, 0.3)):
            ax.axvspan(-width, width, color=COLORS["generator"], alpha=alpha, lw=0)
        ax.errorbar(mean, y, xerr=std, fmt="o", ms=4, color="black", capsize=2)
        ax.axvline(0.0, color="black", lw=0.8)
        ax.set_yticks(y, names)
        ax.tick_params(axis="y", which="both", left=False, right=False)
        ax.set_ylim(-0.7, len(names) - 0.3)
        ax.set_xlim(-max(2.6, *(np.abs(mean) + std + 0.3)), max(2.6, *(np.abs(mean) + std + 0.3)))
        ax.set_xlabel("nuisance parameter [standard deviations of its prior]")
    return fig


def plot_ranking(ranking: pd.DataFrame, bin: str | None = None, top: int = 20) -> Figure:
    """Impacts of the sources on one bin, the largest on top, with the pulls of profiled nuisance parameters.

    Parameters
    ----------
    ranking : pandas.DataFrame
        ``spectrum.ranking()`` or ``result.ranking(f)``.
    bin : str, optional
        By its label in the table; the first that is measured if omitted.
    top : int
        Most sources shown.

    Raises
    ------
    InputError
        If there is no such bin, or it has no content.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    >>> fig = plot_ranking(bu.MatrixInversion().fit(R, [100, 150]).ranking())
    >>> [label.get_text() for label in fig.axes[0].get_yticklabels()]
    ['data', 'simulation']
    """
    labels = list(dict.fromkeys(ranking["bin"]))
    measured = ranking[np.isfinite(ranking[["relative up", "relative down"]]).all(axis=1)]
    if measured.empty:
        msg = "no bin has a content and an impact, so there is nothing to rank."
        raise InputError(msg)
    chosen = measured["bin"].iloc[0] if bin is None else bin
    if chosen not in labels:
        msg = f"bin is {bin!r}; there are {', '.join(map(repr, labels))}."
        raise InputError(msg)
    rows = measured[measured["bin"] == chosen].head(top)
    if rows.empty:
        msg = f"bin {bin!r} has no content, or is not measured; relative impacts do not exist there."
        raise InputError(msg)
    y = np.arange(len(rows))[::-1]
    with style():
        fig = figure(6.4, 2.0 + 0.34 * len(rows))
        ax = fig.subplots()
        for side, color in (("up", COLORS["unfolded"]), ("down", COLORS["simulation"])):
            label = f"one standard deviation {side}"
            ax.barh(y, 100 * rows[f"relative {side}"], height=0.7, color=color, alpha=0.8, label=label)
        ax.axvline(0.0, color="black", lw=0.8)
        most = 100 * float(np.nanmax(np.abs(rows[["relative up", "relative down"]].to_numpy())))
        ax.set_xlim(-1.15 * most, 1.15 * most)
        ax.set_yticks(y, list(rows["source"]))
        ax.tick_params(axis="y", which="both", left=False, right=False)
        ax.set_ylim(-0.7, len(rows) - 0.3)
        ax.set_xlabel(f"impact on {chosen} [%]")
        profiled = rows["std"].notna().to_numpy()
        if profiled.any():
            pulls = ax.twiny()
            pulls.errorbar(
                rows["mean"][profiled], y[profiled], xerr=rows["std"][profiled], fmt="o", ms=4, color="black"
            )
            for value in (-1.0, 1.0):
                pulls.axvline(value, color=COLORS["generator"], lw=0.8, ls=":")
            reach = max(2.0, float(np.nanmax(np.abs(rows["mean"]) + rows["std"])) + 0.2)
            pulls.set_xlim(-reach, reach)
            pulls.set_xlabel("profiled nuisance parameter [standard deviations of its prior]")
            ax.tick_params(axis="x", which="both", top=False)
        fig.legend(loc="outside lower center", ncols=2)
    return fig
