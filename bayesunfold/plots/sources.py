"""The uncertainty of each bin by source."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesunfold.plots.spectrum import axis_title, bin_axis, mark_slices
from bayesunfold.plots.style import CYCLE, Experiment, band, legend_text, steps, style

if TYPE_CHECKING:
    from bayesunfold.spectrum import Spectrum

__all__ = ["plot_sources"]

Array = NDArray[np.floating]

SEEN = 0.03
"""Share of the total from which on a gap to the stacked sources is explained."""


def __dir__() -> list[str]:
    return __all__


def plot_sources(spectrum: Spectrum, label: str | None = None, experiment: Experiment | None = None) -> Figure:
    """Relative uncertainty per bin by source, stacked in squares, and in total.

    Sources act together, and draws are finite, so the total is not the stack: a line says what the gap is, where one is
    seen.

    Parameters
    ----------
    spectrum : Spectrum
    label : str, optional
        Title of the horizontal axis.
    experiment : str, optional
        As for :func:`bayesunfold.plots.plot_spectrum`.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    >>> fig = plot_sources(bu.MatrixInversion().fit(R, [100, 150]))
    >>> fig.axes[0].get_legend_handles_labels()[1]
    ['data', 'simulation', 'total']
    """
    edges = bin_axis(spectrum)
    split = spectrum.by_source()
    total = split.pop("total")
    safe = np.where(spectrum.nominal > 0, spectrum.nominal, np.nan)
    with style(experiment) as figure:
        fig = figure(6.4, 4.4)
        ax = fig.subplots()
        below = np.zeros(spectrum.n_bins)
        for color, (name, std) in zip(cycle(CYCLE), split.items(), strict=False):
            above = np.hypot(below, std)
            band(ax, edges, 100 * below / safe, 100 * above / safe, color=color, alpha=0.8, label=legend_text(name))
            below = above
        steps(ax, edges, 100 * total / safe, color="black", lw=1.4, label="total")
        mark_slices(ax, spectrum)
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(bottom=0.0, top=1.35 * ax.get_ylim()[1])  # room for the legend
        ax.set_xlabel(label or axis_title(spectrum))
        ax.set_ylabel("uncertainty [%], stacked in squares")
        ax.legend(loc="upper center", ncols=2, fontsize="small")
        text = _gap(total[spectrum.nominal > 0], below[spectrum.nominal > 0])
        if text:
            fig.supxlabel(text, fontsize="x-small", color="0.35")
    return fig


def _gap(total: Array, stacked: Array) -> str:
    """What lies between the total and the stacked sources."""
    known = np.isfinite(total) & np.isfinite(stacked) & (total > 0)
    gap = (total[known] - stacked[known]) / total[known]
    if not len(gap) or np.abs(gap).max() < SEEN:
        return ""
    return (
        f"Of the total, {100 * gap.min():+.0f} to {100 * gap.max():+.0f} % lie outside the stack: "
        "sources that act together, and the finite number of draws."
    )
