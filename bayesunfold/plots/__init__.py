"""Figures: one function a figure, results in, ``matplotlib.figure.Figure`` out.

Nothing here touches pyplot's global state; call ``figure.savefig(path)`` or let a notebook show it.
"""

from __future__ import annotations

from bayesunfold.plots.coverage import plot_coverage
from bayesunfold.plots.history import plot_history
from bayesunfold.plots.matrices import plot_correlation, plot_map
from bayesunfold.plots.nuisances import plot_pulls, plot_ranking
from bayesunfold.plots.sources import plot_sources
from bayesunfold.plots.spectrum import plot_slices, plot_spectrum

__all__ = [
    "plot_correlation",
    "plot_coverage",
    "plot_history",
    "plot_map",
    "plot_pulls",
    "plot_ranking",
    "plot_slices",
    "plot_sources",
    "plot_spectrum",
]


def __dir__() -> list[str]:
    return __all__
