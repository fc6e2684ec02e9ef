"""Colours and axes that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, cast, get_args

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager as font_manager
from numpy.typing import NDArray

from bayesunfold._support.checks import check_choice
from bayesunfold.errors import InputError

__all__ = [
    "COLORS",
    "Experiment",
    "band",
    "figure",
    "legend_text",
    "limit",
    "mark_beyond",
    "steps",
    "style",
    "write_where_it_fits",
]

Array = NDArray[np.floating]
Experiment = Literal["ALICE", "ATLAS", "CMS", "DUNE", "LHCb"]

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
def style(experiment: Experiment | None = None) -> Iterator[Callable[[float, float], Figure]]:
    """Ticks inside and on all sides, as the field draws them, or an experiment's style; restored afterwards.

    Gives what makes figures of a width and a height in inches, for fonts of our size.
    """
    if experiment is None:
        with mpl.rc_context(cast("Any", RC)):
            yield figure
        return
    rules = _rules_of(experiment)
    wide = rules["figure.figsize"][0]
    with mpl.rc_context(cast("Any", rules)):
        yield lambda width, height: figure(wide, wide * height / width)


def _rules_of(experiment: Experiment) -> dict[str, Any]:
    """An experiment's settings of matplotlib, from mplhep."""
    check_choice(experiment, "experiment", get_args(Experiment))
    try:
        from mplhep import style as styles
    except ImportError:
        msg = f'the style of {experiment} comes with mplhep; install it with: pip install "bayesunfold[styles]".'
        raise InputError(msg) from None
    rules: dict[str, Any] = dict(getattr(styles, experiment))
    family = rules.get("font.family", "sans-serif")
    wanted = rules.get(f"font.{family}", family)
    here = set(font_manager.get_font_names())
    # text looks its family up when it is drawn, which is after the settings are restored
    found = [name for name in ([wanted] if isinstance(wanted, str) else wanted) if name in here]
    return rules | {"font.family": found or mpl.rcParams["font.family"]}


def figure(width: float = 6.4, height: float = 5.2) -> Figure:
    """An empty figure that belongs to nobody's global state."""
    return Figure(figsize=(width, height), layout="constrained")


def legend_text(name: str) -> str:
    """A name as legends show it: matplotlib leaves out those that begin with an underscore, but not with a space."""
    return f" {name}" if name.startswith("_") else name


def steps(ax: Axes, edges: Array, values: Array, **style_options: Any) -> None:
    """A histogram's outline without vertical ends."""
    ax.stairs(values, edges, baseline=None, **style_options)


def band(ax: Axes, edges: Array, lower: Array, upper: Array, **style_options: Any) -> None:
    """A filled band that follows the bins."""
    ax.stairs(upper, edges, baseline=lower, fill=True, **style_options)


def mark_beyond(ax: Axes, edges: np.ndarray, values: np.ndarray, low: float, high: float, color: object) -> None:
    """Triangles at the edge where steps lie beyond the vertical limits."""
    _triangles(ax, 0.5 * (edges[1:] + edges[:-1]), values, low, high, color)


def _triangles(ax: Axes, x: np.ndarray, y: np.ndarray, low: float, high: float, color: object) -> None:
    for beyond, marker, edge in ((y > high, "^", high), (y < low, "v", low)):
        if beyond.any():
            at = np.full(int(beyond.sum()), edge)
            ax.plot(x[beyond], at, marker, color=color, ms=6, mec="black", mew=0.5, clip_on=False)


def limit(ax: Axes, low: float, high: float) -> None:
    """Vertical limits; points beyond them are marked by triangles at the edge, so that none is lost."""
    for line in list(ax.lines):
        if line.get_marker() in (None, "None", ""):
            continue
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        _triangles(ax, x, y, low, high, line.get_color())
    ax.set_ylim(low, high)


def write_where_it_fits(
    ax: Axes, edges: tuple[Array, Array], texts: NDArray[np.str_], dark: NDArray[np.bool_], fontsize: float
) -> None:
    """Texts in the cells of a mesh, shape (y, x), white in dark cells; none in a cell that is smaller than its text.

    Call it last: the figure's layout is made for it.
    """
    x, y = edges
    written = [
        (
            ax.text(
                0.5 * (x[i] + x[i + 1]),
                0.5 * (y[j] + y[j + 1]),
                text,
                ha="center",
                va="center",
                fontsize=fontsize,
                color="white" if dark[j, i] else "black",
                in_layout=False,
            ),
            np.array([[x[i], y[j]], [x[i + 1], y[j + 1]]]),
        )
        for (j, i), text in np.ndenumerate(texts)
        if text
    ]
    cast("Figure", ax.get_figure(root=True)).draw_without_rendering()
    for text, corners in written:
        box, cell = text.get_window_extent(), np.abs(np.diff(ax.transData.transform(corners), axis=0))[0]
        if box.width > cell[0] or box.height > cell[1]:
            text.remove()
