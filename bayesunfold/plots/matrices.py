"""Correlations of bins, and spectra in two observables as maps."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesunfold.binning import edge_texts
from bayesunfold.errors import InputError
from bayesunfold.plots.spectrum import content_title, titles
from bayesunfold.plots.style import Experiment, style, write_where_it_fits

if TYPE_CHECKING:
    from bayesunfold.spectrum import Spectra, Spectrum

__all__ = ["plot_correlation", "plot_map"]

Array = NDArray[np.floating]

FAR = 30.0
"""Largest over smallest content from which on colours are logarithmic."""

NUMBERED = 120
"""Most cells whose numbers are written into them."""

LONGEST = 60
"""Letters of the longest title of a side."""

TICKS = 9
"""Most edges named on one side of a block."""


def __dir__() -> list[str]:
    return __all__


def plot_correlation(spectrum: Spectrum | Spectra, experiment: Experiment | None = None) -> Figure:
    """Correlation matrix of the bins, with their edges on both sides.

    Parameters
    ----------
    spectrum : Spectrum or Spectra
        Spectra of several observables make one matrix, a block for each pair. Of a spectrum in several axes, blocks are
        slices of the first.
    experiment : str, optional
        As for :func:`bayesunfold.plots.plot_spectrum`.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> fig = plot_correlation(spectrum)
    >>> [tick.get_text() for tick in fig.axes[0].get_xticklabels()]
    ['0', '1', '2']
    """
    from bayesunfold.spectrum import Spectra

    blocks = _blocks(spectrum)
    matrix = (Spectra(spectrum).joint() if isinstance(spectrum, Mapping) else spectrum).correlation()
    with style(experiment) as figure:
        fig = figure(5.8, 5.0)
        ax = fig.subplots()
        mesh = ax.pcolormesh(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_aspect("equal")
        title = _sides(spectrum, blocks)
        ax.set_xlabel(title)
        ax.set_ylabel(title)
        _name_edges(ax, blocks)
        fig.colorbar(mesh, ax=ax, label="correlation")
    return fig


def _blocks(spectrum: Spectrum | Spectra) -> list[tuple[str, Array, int]]:
    """Title, edges of the last axis and number of bins of each block."""
    if isinstance(spectrum, Mapping):
        if not spectrum:
            msg = "there are no spectra; ask for at least one observable."
            raise InputError(msg)
        return [block for one in spectrum.values() for block in _blocks(one)]
    *_, last = spectrum.edges
    if len(spectrum.edges) == 1:
        return [(titles(spectrum)[0], last, spectrum.n_bins)]
    if len(spectrum.edges) > 2:
        return [(f"bin of {' x '.join(spectrum.names)}", np.arange(spectrum.n_bins + 1.0), spectrum.n_bins)]
    first, (outer, inner) = edge_texts(spectrum.edges[0]), titles(spectrum)
    return [(f"{inner}, {outer} {low} to {high}", last, len(last) - 1) for low, high in pairwise(first)]


def _sides(spectrum: Spectrum | Spectra, blocks: list[tuple[str, Array, int]]) -> str:
    """Title of both sides."""
    if not isinstance(spectrum, Mapping) and len(spectrum.edges) == 2:
        outer, inner = titles(spectrum)
        return f"{inner}, in slices of {outer}"
    named = ", then ".join(name for name, *_ in blocks)
    return named if len(named) < LONGEST else f"{len(blocks)} blocks"


def _name_edges(ax: Axes, blocks: list[tuple[str, Array, int]]) -> None:
    """Edges of the bins as ticks, and lines between blocks."""
    places: list[float] = []
    names: list[str] = []
    start, end = 0, sum(n for *_, n in blocks)
    for _, edges, n in blocks:
        step = -(-(n + 1) // max(2, TICKS // len(blocks)))
        shown = [*range(0, n, step), *([n] if start + n == end and (len(blocks) > 1 or n % step == 0) else [])]
        texts = edge_texts(edges)
        places += [start + k for k in shown]
        names += [texts[k] for k in shown]
        start += n
        if start < end:
            ax.axhline(start, color="black", lw=0.8)
            ax.axvline(start, color="black", lw=0.8)
    ax.minorticks_off()
    crowded = len(places) > 5 or max(map(len, names)) > 7
    ax.set_xticks(places, names, rotation=90 if crowded else 0, fontsize="small")
    ax.set_yticks(places, names, fontsize="small")


def plot_map(spectrum: Spectrum, level: float = 0.68, experiment: Experiment | None = None) -> Figure:
    """A spectrum in two observables as a map, and the relative half width of its band below it.

    Cells have their numbers in them, but for those that are too small, and for more than 120 cells.

    Parameters
    ----------
    spectrum : Spectrum
        Of two axes.
    level : float
        Credible level of the band.
    experiment : str, optional
        As for :func:`bayesunfold.plots.plot_spectrum`.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> edges = np.array([0.0, 1.0, 2.0]), np.array([0.0, 5.0, 10.0, 20.0])
    >>> spectrum = bu.Spectrum(edges, rng.normal(10, 1, (400, 6)), np.full(6, 10.0), names=("eta", "pt"))
    >>> len(plot_map(spectrum).axes)  # two maps and their scales
    4
    """
    if len(spectrum.edges) != 2:
        msg = f"the spectrum has {len(spectrum.edges)} axes; a map is for two. Take plot() or project it first."
        raise InputError(msg)
    low, high = spectrum.interval(level)
    relative = np.divide(
        100 * (high - low) / 2, spectrum.nominal, out=np.full(spectrum.n_bins, np.nan), where=spectrum.nominal > 0
    )
    x, y = spectrum.edges
    with style(experiment) as figure:
        fig = figure(6.4, 7.6)
        axes = fig.subplots(2, 1, sharex=True)
        shown = (
            (spectrum.nominal, "viridis", ".4g", content_title(spectrum)),
            (relative, "magma_r", ".2g", f"half width of the {100 * level:g} % band [%]"),
        )
        drawn = []
        for ax, (values, colors, form, title) in zip(axes, shown, strict=True):
            cells = values.reshape(spectrum.shape).T
            least, most = (np.nanmin(cells), np.nanmax(cells)) if np.isfinite(cells).any() else (0.0, 0.0)
            wide = least > 0 and most > FAR * least
            mesh = ax.pcolormesh(x, y, cells, cmap=colors, norm="log" if wide else None)
            fig.colorbar(mesh, ax=ax, label=title)
            ax.set_ylabel(titles(spectrum)[1])
            texts = [[f"{value:{form}}" if np.isfinite(value) else "" for value in row] for row in cells]
            low_half = np.ma.filled(mesh.norm(cells) < 0.5, False)
            drawn.append((ax, np.array(texts), low_half == (colors == "viridis")))  # whose low colours are dark
        axes[1].set_xlabel(titles(spectrum)[0])
        for ax, numbers, dark in drawn if spectrum.n_bins <= NUMBERED else ():
            write_where_it_fits(ax, (x, y), numbers, dark, fontsize=8)
    return fig
