"""Coverage of a study, bin by bin."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from bayesunfold.plots.style import COLORS, CYCLE, figure, limit, style

if TYPE_CHECKING:
    from bayesunfold.studies.coverage import CoverageStudy

__all__ = ["plot_coverage"]


def __dir__() -> list[str]:
    return __all__


def plot_coverage(study: CoverageStudy) -> Figure:
    """Coverage with Clopper-Pearson errors, and bias and width over spread, for core bins.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesunfold import CoverageStudy
    >>> rng = np.random.default_rng(1)
    >>> found = rng.normal(100, 10, (400, 1))  # 400 toys, each with a band of plus and minus 10
    >>> none = np.zeros((400, 1))
    >>> study = CoverageStudy({"x": np.array([0.0, 1.0])}, np.array([100.0]), (0.68,), found, none + 10.0,
    ...                       found[:, None] - 10, found[:, None] + 10, none, none, none, none[:, 0], np.arange(400))
    >>> len(plot_coverage(study).axes)
    2
    """
    from bayesunfold._support.statistics import clopper_pearson

    core = np.flatnonzero(study.core)
    x = np.arange(len(core))
    with style():
        fig = figure(7.2, 5.0)
        top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for color, level in zip(cycle((COLORS["unfolded"], *CYCLE)), study.levels, strict=False):
            hits = study.hits(level).sum(axis=0)[core]
            low, high = clopper_pearson(hits, study.n_toys)
            value = hits / study.n_toys
            errors = np.array([value - low, high - value])
            top.errorbar(x, value, yerr=errors, fmt="o", ms=4, color=color, label=f"{100 * level:g} % band")
            top.axhline(level, color=color, ls="--", lw=1)
        top.set_ylabel("coverage of the expected truth")
        limit(top, 0.3, 1.02)
        top.legend(loc="lower right")
        bottom.plot(x, study.bias()[core], "v", color="#832db6", label="bias / spread")
        bottom.plot(x, study.width_ratio()[core], "s", color="#717581", label="band width / spread")
        bottom.axhline(0.0, color="black", lw=0.8)
        bottom.axhline(1.0, color="black", lw=0.8, ls=":")
        limit(bottom, -1.2, 1.6)
        bottom.set_xlabel(f"core bin ({study.n_toys} toys)")
        bottom.legend(loc="lower right", ncols=2)
    return fig
