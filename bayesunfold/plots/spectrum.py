"""Spectra with bands, correlations, and the sources of uncertainty."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.plots.style import COLORS, CYCLE, band, figure, limit, steps, style

if TYPE_CHECKING:
    from bayesunfold.spectrum import Spectrum

__all__ = ["plot_correlation", "plot_sources", "plot_spectrum"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def _one_axis(spectrum: Spectrum) -> Array:
    """Edges to draw against: bin numbers for several observables."""
    return spectrum.edges[0] if len(spectrum.edges) == 1 else np.arange(spectrum.n_bins + 1.0)


def _axis_title(spectrum: Spectrum) -> str:
    if len(spectrum.edges) > 1:
        return f"bin of {' x '.join(spectrum.names)}"
    unit = spectrum.units[0] if spectrum.units else ""
    return f"{spectrum.names[0]} [{unit}]" if unit else spectrum.names[0]


def content_title(spectrum: Spectrum) -> str:
    """Title of the axis of contents: what is counted, per what."""
    what = "events" if spectrum.luminosity is None else "cross section"
    if spectrum.normalization == "shape":
        return "fraction of events / bin"
    if spectrum.normalization == "yield":
        return f"{what} / bin"
    known = list(spectrum.units) + [""] * len(spectrum.names)
    return " / ".join([what, *(known[i] or "unit" for i in range(len(spectrum.names)))])


def _contents(values: ArrayLike | None, n: int, what: str) -> Array | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (n,):
        msg = f"{what} has shape {array.shape}; give its {n} bin contents."
        raise InputError(msg)
    return array


def plot_spectrum(
    spectrum: Spectrum,
    truth: ArrayLike | None = None,
    generator: ArrayLike | None = None,
    data: ArrayLike | None = None,
    label: str | None = None,
    levels: Sequence[float] = (0.68, 0.95),
    ax: Axes | Sequence[Axes] | None = None,
) -> Figure:
    """Unfolded spectrum with bands, and a panel of ratios to it.

    Parameters
    ----------
    spectrum : Spectrum
        Bins of several observables stand one after another.
    truth, generator, data : array, shape (bins,), optional
        Contents to draw beside it, in the same normalisation.
    label : str, optional
        Title of the horizontal axis.
    levels : sequence of float
        Credible levels of the bands.
    ax : matplotlib Axes, or two of them, optional
        Where to draw: the spectrum alone, or the spectrum and the ratios. Limits and titles are set; size, layout and
        style stay yours. A new figure if omitted.

    Returns
    -------
    matplotlib.figure.Figure
        Where the estimated bias of the spectrum is known, the ratio panel shows it too.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> fig = plot_spectrum(spectrum, truth=[11, 19])
    >>> len(fig.axes)
    2
    >>> from matplotlib.figure import Figure
    >>> mine = Figure().subplots()
    >>> plot_spectrum(spectrum, ax=mine) is mine.figure
    True
    """
    lines = {
        name: _contents(values, spectrum.n_bins, name)
        for name, values in (("truth", truth), ("generator", generator), ("data", data))
    }
    title = label or _axis_title(spectrum)
    if ax is not None:
        panels = _panels(ax)
        _draw_contents(panels[0], spectrum, lines, levels)
        if len(panels) == 2:
            _draw_ratios(panels[1], spectrum, lines, levels)
        panels[-1].set_xlabel(title)
        found = panels[0].figure
        return cast("Figure", found)
    with style():
        fig = figure()
        top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        _draw_contents(top, spectrum, lines, levels)
        _draw_ratios(bottom, spectrum, lines, levels)
        bottom.set_xlabel(title)
        fig.align_ylabels()
    return fig


def _panels(ax: Axes | Sequence[Axes]) -> list[Axes]:
    """One or two axes."""
    panels = [ax] if isinstance(ax, Axes) else list(ax)
    if len(panels) not in (1, 2) or not all(isinstance(panel, Axes) for panel in panels):
        msg = f"ax is {ax!r}; give one matplotlib Axes for the spectrum, or two for the spectrum and the ratios."
        raise InputTypeError(msg)
    return panels


DASHES = {"truth": "-", "generator": "--", "data": ":"}


def _bands(spectrum: Spectrum, levels: Sequence[float]) -> Iterator[tuple[float, Array, Array, dict[str, Any]]]:
    """Level, ends and style of each band, the widest first."""
    for level, alpha in zip(sorted(levels, reverse=True), np.linspace(0.55, 0.25, len(levels))[::-1], strict=True):
        yield level, *spectrum.interval(level), {"color": COLORS["unfolded"], "alpha": alpha, "lw": 0}


def _draw_contents(ax: Axes, spectrum: Spectrum, lines: Mapping[str, Array | None], levels: Sequence[float]) -> None:
    """Contents with bands."""
    edges = _one_axis(spectrum)
    for level, lower, upper, options in _bands(spectrum, levels):
        band(ax, edges, lower, upper, label=f"{100 * level:.0f} % band", **options)
    steps(ax, edges, spectrum.nominal, color=COLORS["unfolded"], lw=1.6, label=f"unfolded ({spectrum.method})")
    for name, values in lines.items():
        if values is not None:
            steps(ax, edges, values, color=COLORS[name], lw=1.4, ls=DASHES[name], label=name)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylabel(content_title(spectrum))
    ax.set_ylim(bottom=0.0)
    ax.legend()


def _draw_ratios(ax: Axes, spectrum: Spectrum, lines: Mapping[str, Array | None], levels: Sequence[float]) -> None:
    """Ratios to the point estimate."""
    edges = _one_axis(spectrum)
    safe = np.where(spectrum.nominal != 0, spectrum.nominal, np.nan)
    for _, lower, upper, options in _bands(spectrum, levels):
        band(ax, edges, lower / safe, upper / safe, **options)
    ax.axhline(1.0, color=COLORS["unfolded"], lw=1.2)
    for name, values in lines.items():
        if values is not None:
            steps(ax, edges, values / safe, color=COLORS[name], lw=1.4, ls=DASHES[name])
    if spectrum.bias is not None:
        centres = 0.5 * (edges[1:] + edges[:-1])
        ax.plot(centres, 1 - spectrum.bias / safe, "v", ms=4, color=COLORS["prior"], label="bias removed")
        ax.legend(loc="upper left", fontsize="small")
    lower, upper = spectrum.interval(max(0.95, *levels))
    shown = np.abs(np.array([lower, upper]) / safe - 1.0)[:, _populated(spectrum)]
    largest = np.max(shown[np.isfinite(shown)], initial=0.05)
    limit(ax, 1 - min(1.0, 1.3 * largest), 1 + min(1.5, 1.3 * largest))
    ax.set_ylabel("ratio to\nunfolded")
    ax.set_xlim(edges[0], edges[-1])


def _populated(spectrum: Spectrum) -> NDArray[np.bool_]:
    """Bins with a content that sets the scale of the ratio panel."""
    return spectrum.nominal > 0.01 * np.nanmax(spectrum.nominal)


def plot_correlation(spectrum: Spectrum) -> Figure:
    """Correlation matrix of the bins.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> fig = plot_correlation(spectrum)
    >>> fig.axes[0].get_ylabel()
    'bin'
    """
    with style():
        fig = figure(5.6, 4.8)
        ax = fig.subplots()
        mesh = ax.pcolormesh(spectrum.correlation(), cmap="RdBu_r", vmin=-1, vmax=1)
        ax.set_aspect("equal")
        ax.set_xlabel(f"bin of {' x '.join(spectrum.names)}")
        ax.set_ylabel("bin")
        fig.colorbar(mesh, ax=ax, label="correlation")
    return fig


def plot_sources(spectrum: Spectrum, label: str | None = None) -> Figure:
    """Relative uncertainty per bin by source, stacked in squares, and in total.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    >>> fig = plot_sources(bu.MatrixInversion().fit(R, [100, 150]))
    >>> fig.axes[0].get_legend_handles_labels()[1]
    ['data', 'simulation', 'total']
    """
    edges = _one_axis(spectrum)
    split = spectrum.by_source()
    total = split.pop("total")
    safe = np.where(spectrum.nominal > 0, spectrum.nominal, np.nan)
    with style():
        fig = figure(6.4, 4.2)
        ax = fig.subplots()
        below = np.zeros(spectrum.n_bins)
        for color, (name, std) in zip(CYCLE * 4, split.items(), strict=False):
            above = np.hypot(below, std)
            band(ax, edges, 100 * below / safe, 100 * above / safe, color=color, alpha=0.8, label=name)
            below = above
        steps(ax, edges, 100 * total / safe, color="black", lw=1.4, label="total")
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(bottom=0.0)
        ax.set_xlabel(label or _axis_title(spectrum))
        ax.set_ylabel("uncertainty [%], stacked in squares")
        ax.legend(loc="upper center")
    return fig
