"""Colours and axes that all figures share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

__all__ = ["COLORS", "band", "figure", "limit", "steps", "style"]

Array = NDArray[np.floating]

# the colour-blind-safe palette of Petroff (arXiv:2107.02270)
COLORS = {
    "unfolded": "#3f90da",
    "truth": "#bd1f01",
    "generator": "#717581",
    "data": "#000000",
    "simulation": "#ffa90e",
    "prior": "#832db6",
    "total": "#3f90da",
}
CYCLE = ("#ffa90e", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#92dadd")

RC = {
    "font.size": 11,
    "axes.linewidth": 1.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "figure.dpi": 100,
}


def __dir__() -> list[str]:
    return __all__


@contextmanager
def style() -> Iterator[None]:
    """Ticks inside and on all sides, as the field draws them; restored afterwards."""
    with mpl.rc_context(cast("Any", RC)):
        yield


def figure(width: float = 6.4, height: float = 5.2) -> Figure:
    """An empty figure that belongs to nobody's global state."""
    return Figure(figsize=(width, height), layout="constrained")


def steps(ax: Axes, edges: Array, values: Array, **style_options: Any) -> None:
    """A histogram's outline without vertical ends."""
    ax.stairs(values, edges, baseline=None, **style_options)


def band(ax: Axes, edges: Array, lower: Array, upper: Array, **style_options: Any) -> None:
    """A filled band that follows the bins."""
    ax.stairs(upper, edges, baseline=lower, fill=True, **style_options)


def limit(ax: Axes, low: float, high: float) -> None:
    """Vertical limits; points beyond them are marked by triangles at the edge, so that none is lost."""
    for line in list(ax.lines):
        if line.get_marker() in (None, "None", ""):
            continue
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        for beyond, marker, edge in ((y > high, "^", high), (y < low, "v", low)):
            if beyond.any():
                at = np.full(int(beyond.sum()), edge)
                ax.plot(x[beyond], at, marker, color=line.get_color(), ms=6, mec="black", mew=0.5, clip_on=False)
    ax.set_ylim(low, high)
