"""Spectra with bands, beside models and other methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from bayesunfold.binning import edge_texts
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.plots.style import COLORS, CYCLE, Experiment, band, legend_text, limit, mark_beyond, steps, style

if TYPE_CHECKING:
    from bayesunfold.spectrum import Spectrum

__all__ = ["axis_title", "bin_axis", "content_title", "mark_slices", "plot_slices", "plot_spectrum"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def bin_axis(spectrum: Spectrum) -> Array:
    """Edges to draw against: bin numbers for several observables."""
    return spectrum.edges[0] if len(spectrum.edges) == 1 else np.arange(spectrum.n_bins + 1.0)


def axis_title(spectrum: Spectrum) -> str:
    """Title of the horizontal axis: what is measured, in what."""
    if len(spectrum.edges) > 1:
        return f"bin of {' x '.join(spectrum.names)}"
    return titles(spectrum)[0]


def titles(spectrum: Spectrum) -> list[str]:
    """Name and unit of each axis."""
    return [f"{name} [{unit}]" if unit else name for name, unit in zip(spectrum.names, _units(spectrum), strict=True)]


def _units(spectrum: Spectrum) -> list[str]:
    """Unit of each axis, "" where none is known."""
    return [*spectrum.units, *[""] * len(spectrum.names)][: len(spectrum.names)]


def content_title(spectrum: Spectrum) -> str:
    """Title of the axis of contents: what is counted, per what."""
    what = "events" if spectrum.luminosity is None else "cross section"
    if spectrum.normalization == "shape":
        return "fraction of events / bin"
    if spectrum.normalization == "yield":
        return f"{what} / bin"
    return " / ".join([what, *(unit or "unit" for unit in _units(spectrum))])


def _contents(values: ArrayLike | None, spectrum: Spectrum, what: str) -> Array | None:
    if values is None:
        return None
    array = np.asarray(values, dtype=np.float64)
    if array.shape not in ((spectrum.n_bins,), spectrum.shape):
        msg = f"{what} has shape {array.shape}; give its {spectrum.n_bins} bin contents."
        raise InputError(msg)
    return array.ravel()


def plot_spectrum(
    spectrum: Spectrum,
    truth: ArrayLike | None = None,
    generator: ArrayLike | None = None,
    data: ArrayLike | None = None,
    label: str | None = None,
    levels: Sequence[float] = (0.68, 0.95),
    ax: Axes | Sequence[Axes] | None = None,
    models: Mapping[str, ArrayLike | Spectrum] | None = None,
    experiment: Experiment | None = None,
) -> Figure:
    """Unfolded spectrum with bands, and a panel of ratios to it.

    Parameters
    ----------
    spectrum : Spectrum
        Bins of several observables stand one after another, slices of the first apart by lines.
    truth, generator, data : array, shape (bins,), optional
        Contents to draw beside it, in the same normalisation; data are at detector level.
    label : str, optional
        Title of the horizontal axis.
    levels : sequence of float
        Credible levels of the bands.
    ax : matplotlib Axes, or two of them, optional
        Where to draw: the spectrum alone, or the spectrum and the ratios. Limits and titles are set; size, layout and
        style stay yours. A new figure if omitted.
    models : mapping of name to array of shape (bins,) or to Spectrum, optional
        Predictions, with their chi-square and p-value in the legend (:meth:`bayesunfold.Spectrum.chi2`), and spectra of
        other methods in the same bins, as markers with their standard deviations.
    experiment : {"ALICE", "ATLAS", "CMS", "DUNE", "LHCb"}, optional
        Style of a new figure, by mplhep (``bayesunfold[styles]``); its label is yours to add.

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
    >>> fig = plot_spectrum(spectrum, models={"Herwig": [11, 19]})
    >>> fig.axes[0].get_legend_handles_labels()[1][-1].startswith("Herwig")
    True
    """
    drawn = _models(spectrum, models or {})
    lines = {
        name: _contents(values, spectrum, name)
        for name, values in (("truth", truth), ("generator", generator), ("data", data))
    }
    title = label or axis_title(spectrum)
    if ax is not None:
        if experiment is not None:
            msg = f"experiment is {experiment!r} and ax is given; the style of your axes is yours. Omit one of the two."
            raise InputError(msg)
        panels = _panels(ax)
        _draw_contents(panels[0], spectrum, lines, levels, drawn)
        _legend(panels[0], "small", many=bool(drawn))
        if len(panels) == 2:
            _draw_ratios(panels[1], spectrum, lines, levels, drawn)
        panels[-1].set_xlabel(title)
        found = panels[0].figure
        return cast("Figure", found)
    with style(experiment) as figure:
        fig = figure(6.4, 5.2)
        top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        _draw_contents(top, spectrum, lines, levels, drawn)
        _draw_ratios(bottom, spectrum, lines, levels, drawn)
        bottom.set_xlabel(title)
        fig.align_ylabels()
        if drawn:
            fig.draw_without_rendering()  # the width that the legend has is known once the layout is made
        _legend(top, SMALL * fig.get_figwidth(), many=bool(drawn))
    return fig


def _panels(ax: Axes | Sequence[Axes]) -> list[Axes]:
    """One or two axes."""
    panels = [ax] if isinstance(ax, Axes) else list(ax)
    if len(panels) not in (1, 2) or not all(isinstance(panel, Axes) for panel in panels):
        msg = f"ax is {ax!r}; give one matplotlib Axes for the spectrum, or two for the spectrum and the ratios."
        raise InputTypeError(msg)
    return panels


DASHES = {"truth": "-", "generator": "--", "data": ":"}
LABELS = {"data": "data, detector level"}

MODEL_COLORS = (*CYCLE[2:5], CYCLE[0], CYCLE[1], *CYCLE[5:])
"""Those first that stand out before the bands."""

SMALL = 1.4
"""Points of small letters per inch of a figure's width: some experiments' letters are too large for two columns."""

MARKERS = "osD^vP"

ROOM, MOST_ROOM, MARGIN = 0.45, 0.75, 0.06
"""Least room for a legend of many lines, in units of the range below it; most and margin, as shares of the panel."""

FARTHEST = 0.6
"""Relative distance of a model up to which the panel of ratios shows it."""

MOST_SLICES = 24
"""Most slices that have panels or names."""

FEW_SLICES = 4
"""Most slices in two columns, which are read on a narrow screen too; more have three."""

_Drawn = list[tuple[Array, Array | None, dict[str, Any]]]
"""Contents, standard deviations of what has them, and how each model looks."""


def _models(spectrum: Spectrum, models: Mapping[str, ArrayLike | Spectrum]) -> _Drawn:
    """What to draw of each model."""
    out: _Drawn = []
    colors, dashes, markers = cycle(MODEL_COLORS), cycle(("-.", (0, (5, 1)), (0, (1, 1)))), cycle(MARKERS)
    for name, model in models.items():
        look: dict[str, Any] = {"color": next(colors)}
        if hasattr(model, "draw_matrix"):
            other = cast("Spectrum", model)
            _check_alike(spectrum, other, name)
            out.append((other.nominal, other.std(), look | {"fmt": next(markers), "label": legend_text(name)}))
            continue
        values = _contents(model, spectrum, name)
        label = legend_text(name) + _agreement(spectrum, values)
        out.append((cast("Array", values), None, look | {"ls": next(dashes), "label": label}))
    return out


def _check_alike(spectrum: Spectrum, other: Spectrum, name: str) -> None:
    """Raise :class:`~bayesunfold.errors.InputError` for a spectrum of other bins or in other units."""
    if not spectrum.same_bins(other):
        msg = f"the bins of {name!r} are not those of the spectrum; make both with the same edges."
        raise InputError(msg)
    theirs, ours = ((s.normalization, s.luminosity) for s in (other, spectrum))
    if theirs != ours:
        msg = (
            f"{name!r} is normalised as {theirs[0]!r}, luminosity {theirs[1]}, and the spectrum as {ours[0]!r}, "
            f"luminosity {ours[1]}; make both alike."
        )
        raise InputError(msg)


def _agreement(spectrum: Spectrum, values: Array | None) -> str:
    """Chi-square and p-value of a model for the legend; nothing where the spectrum has none."""
    bad = np.flatnonzero(~np.isfinite(cast("Array", values)) & np.isfinite(spectrum.nominal))
    if len(bad):
        msg = f"a model is NaN or infinite in bins {bad.tolist()}, where the spectrum is not."
        raise InputError(msg)
    try:
        chi2 = spectrum.chi2(cast("Array", values))
    except InputError:  # without uncertainties, or too few draws for so many bins
        return ""
    return rf" ($\chi^2$ = {chi2.value:.1f} / {chi2.dof}, p = {chi2.p_value:.2g})"


def _draw_models(ax: Axes, edges: Array, drawn: _Drawn, scale: Array | float, *, named: bool) -> None:
    """Steps of predictions, and markers of other methods side by side in the bins."""
    measured = [entry for entry in drawn if entry[1] is not None]
    for values, std, look in drawn:
        options = look if named else {k: v for k, v in look.items() if k != "label"}
        if std is None:
            steps(ax, edges, values / scale, lw=1.4, **options)
            continue
        share = (1 + next(k for k, entry in enumerate(measured) if entry[0] is values)) / (len(measured) + 1)
        place = edges[:-1] + share * np.diff(edges)
        errors = np.where(np.isfinite(std), std, np.nan) / np.abs(scale)
        ax.errorbar(place, values / scale, errors, ms=4, lw=1.2, **options)


def mark_slices(ax: Axes, spectrum: Spectrum, *, named: bool = False) -> None:
    """Lines between the slices of the first axis of a spectrum in several, whose bins stand in a row, and ranges."""
    if len(spectrum.edges) == 1:
        return
    first, size = edge_texts(spectrum.edges[0]), spectrum.n_bins // spectrum.shape[0]
    for k in range(spectrum.shape[0]):
        if k:
            ax.axvline(k * size, color="0.6", lw=0.8, ls=":")
        if named and spectrum.shape[0] <= MOST_SLICES:
            name = f"{spectrum.names[0]}: " if k == 0 else ""
            place: dict[str, Any] = {
                "transform": ax.get_xaxis_transform(),
                "ha": "center",
                "va": "bottom",
                "fontsize": "x-small",
            }
            ax.text((k + 0.5) * size, 1.01, f"{name}{first[k]} to {first[k + 1]}", **place)


def _bands(spectrum: Spectrum, levels: Sequence[float]) -> Iterator[tuple[float, Array, Array, dict[str, Any]]]:
    """Level, ends and style of each band, the widest first."""
    for level, alpha in zip(sorted(levels, reverse=True), np.linspace(0.55, 0.25, len(levels))[::-1], strict=True):
        yield level, *spectrum.interval(level), {"color": COLORS["unfolded"], "alpha": alpha, "lw": 0}


def _draw_contents(
    ax: Axes, spectrum: Spectrum, lines: Mapping[str, Array | None], levels: Sequence[float], drawn: _Drawn
) -> None:
    """Contents with bands."""
    edges = bin_axis(spectrum)
    for level, lower, upper, options in _bands(spectrum, levels):
        band(ax, edges, lower, upper, label=f"{100 * level:g} % band", **options)
    steps(ax, edges, spectrum.nominal, color=COLORS["unfolded"], lw=1.6, label=f"unfolded ({spectrum.method})")
    for name, values in lines.items():
        if values is not None:
            steps(ax, edges, values, color=COLORS[name], lw=1.4, ls=DASHES[name], label=LABELS.get(name, name))
    _draw_models(ax, edges, drawn, 1.0, named=True)
    mark_slices(ax, spectrum, named=True)
    ax.set_xlim(edges[0], edges[-1])
    ax.set_ylabel(content_title(spectrum))
    if not np.any(spectrum.nominal < 0):  # as of an inversion
        ax.set_ylim(bottom=0.0)


def _legend(ax: Axes, size: float | str, *, many: bool) -> None:
    """Where there is room, or for many lines small letters in room of their own, in one column if two are too wide."""
    if not many:
        ax.legend()
        return
    panel = ax.get_window_extent()
    place: dict[str, Any] = {"loc": "upper center", "fontsize": size}
    legend = ax.legend(ncols=2, **place)
    if legend.get_window_extent().width > panel.width:
        legend = ax.legend(ncols=1, **place)
    share = min(MOST_ROOM, legend.get_window_extent().height / panel.height + MARGIN)
    low, high = ax.get_ylim()
    ax.set_ylim(top=high + (high - low) * max(ROOM, share / (1 - share)))


def _draw_ratios(
    ax: Axes, spectrum: Spectrum, lines: Mapping[str, Array | None], levels: Sequence[float], drawn: _Drawn
) -> None:
    """Ratios to the point estimate."""
    edges = bin_axis(spectrum)
    safe = np.where(spectrum.nominal != 0, spectrum.nominal, np.nan)
    for _, lower, upper, options in _bands(spectrum, levels):
        band(ax, edges, lower / safe, upper / safe, **options)
    ax.axhline(1.0, color=COLORS["unfolded"], lw=1.2)
    for name, values in lines.items():
        if values is not None:
            steps(ax, edges, values / safe, color=COLORS[name], lw=1.4, ls=DASHES[name])
    _draw_models(ax, edges, drawn, safe, named=False)
    mark_slices(ax, spectrum)
    if spectrum.bias is not None:
        centres = 0.5 * (edges[1:] + edges[:-1])
        ax.plot(centres, 1 - spectrum.bias / safe, "v", ms=4, color=COLORS["prior"], label="bias removed")
        ax.legend(loc="upper left", fontsize="small")
    lower, upper = spectrum.interval(max(0.95, *levels))
    shown = np.abs(np.array([lower, upper]) / safe - 1.0)[:, _populated(spectrum)]
    largest = np.max(shown[np.isfinite(shown)], initial=0.05)
    beside = [(values, COLORS[name]) for name, values in lines.items() if values is not None]
    beside += [(values, look["color"]) for values, std, look in drawn if std is None]
    every = [values for values, _ in beside] + [values for values, std, _ in drawn if std is not None]
    away = np.array([np.abs(values / safe - 1.0)[_populated(spectrum)] for values in every])
    largest = max(largest, min(FARTHEST, np.max(away[np.isfinite(away)], initial=0.0)))
    low, high = 1 - min(1.0, 1.3 * largest), 1 + min(1.5, 1.3 * largest)
    for values, color in beside:
        mark_beyond(ax, edges, values / safe, low, high, color)
    limit(ax, low, high)
    ax.set_ylabel("ratio to\nunfolded")
    ax.set_xlim(edges[0], edges[-1])


def _populated(spectrum: Spectrum) -> NDArray[np.bool_]:
    """Bins with a content that sets the scale of the ratio panel."""
    return spectrum.nominal > 0.01 * np.nanmax(spectrum.nominal)


def plot_slices(
    spectrum: Spectrum,
    truth: ArrayLike | None = None,
    generator: ArrayLike | None = None,
    levels: Sequence[float] = (0.68, 0.95),
    experiment: Experiment | None = None,
) -> Figure:
    """A spectrum in two observables: a panel for each bin of the first, over the second.

    Parameters
    ----------
    spectrum : Spectrum
        Of two axes; at most 24 bins in the first.
    truth, generator : array, shape (bins,) or the spectrum's shape, optional
        Contents to draw beside it.
    levels, experiment
        As for :func:`plot_spectrum`.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> edges = np.array([0.0, 1.0, 2.0]), np.array([0.0, 5.0, 10.0, 20.0])
    >>> spectrum = bu.Spectrum(edges, rng.normal(10, 1, (400, 6)), np.full(6, 10.0), names=("eta", "pt"))
    >>> [ax.get_title() for ax in plot_slices(spectrum).axes[:2]]
    ['eta: 0 to 1', 'eta: 1 to 2']
    """
    if len(spectrum.edges) != 2 or spectrum.shape[0] > MOST_SLICES:
        msg = (
            f"the spectrum has {' x '.join(map(str, spectrum.shape))} bins; slices are for two axes, "
            f"with at most {MOST_SLICES} bins in the first."
        )
        raise InputError(msg)
    first, second = edge_texts(spectrum.edges[0]), spectrum.edges[1]
    given = {"truth": truth, "generator": generator}
    flat = {name: _contents(values, spectrum, name) for name, values in given.items()}
    n = len(first) - 1
    columns = min(n, 2 if n <= FEW_SLICES else 3)
    rows = -(-n // columns)
    with style(experiment) as figure:
        fig = figure(3.2 * columns, 2.7 * rows)
        panels = fig.subplots(rows, columns, sharex=True, squeeze=False).ravel()
        for k, ax in enumerate(panels[:n]):
            here = slice(k * (len(second) - 1), (k + 1) * (len(second) - 1))
            part = replace(
                spectrum,
                edges=(second,),
                draw_matrix=spectrum.draw_matrix[:, here],
                nominal=spectrum.nominal[here],
                names=spectrum.names[1:],
                units=spectrum.units[1:],
                bias=None,
                exact_covariance=None,
                _cache={},
            )
            _draw_contents(ax, part, {name: v if v is None else v[here] for name, v in flat.items()}, levels, [])
            ax.set_title(f"{titles(spectrum)[0]}: {first[k]} to {first[k + 1]}", fontsize="medium")
            ax.set_xlabel(titles(spectrum)[1] if k + columns >= n else "")
            ax.set_ylabel("" if k % columns else content_title(spectrum))
            ax.tick_params(labelbottom=k + columns >= n)
        for ax in panels[n:]:
            ax.set_axis_off()
        fig.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return fig
