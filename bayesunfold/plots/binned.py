"""The response matrix, and several unfolding methods on one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from bayesunfold.plots.spectrum import axis_title, bin_axis, content_title
from bayesunfold.plots.style import COLORS, figure, legend_text, limit, steps, style, write_where_it_fits

if TYPE_CHECKING:
    from bayesunfold.binned.compare import Comparison
    from bayesunfold.binned.response import ResponseMatrix

__all__ = ["plot_comparison", "plot_response"]

METHOD_COLORS = ("#3f90da", "#e76300", "#832db6", "#94a4a2", "#a96b59", "#b9ac70", "#92dadd")

NUMBERED = 400
"""Most cells whose numbers are written into them."""


def __dir__() -> list[str]:
    return __all__


def plot_response(response: ResponseMatrix) -> Figure:
    """Migrations in per cent of each particle-level bin, over efficiency, purity and stability.

    Bins of several axes are numbered in C order. Cells have their numbers in them, but for those that are too small,
    and for more than 400 cells.
    """
    plain = len(response.gen_edges) == 1 and len(response.reco_edges) == 1
    x = response.gen_edges[0] if plain else np.arange(response.n_gen + 1, dtype=float)
    y = response.reco_edges[0] if plain else np.arange(response.n_reco + 1, dtype=float)
    name = " x ".join(response.gen_names)
    with style():
        fig = figure(6.4, 6.8)
        top, bottom = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        shown = np.where(response.probabilities > 0, 100 * response.probabilities, np.nan)
        mesh = top.pcolormesh(x, y, shown, cmap="viridis_r", vmin=0, vmax=np.nanmax(shown))
        fig.colorbar(mesh, ax=top, label="probability [%]")
        top.set_ylabel(f"{name}, detector level")
        steps(bottom, x, response.efficiency, color="black", lw=1.4, label="efficiency")
        if response.n_reco == response.n_gen:
            steps(bottom, x, response.purity, color=COLORS["unfolded"], lw=1.4, ls="--", label="purity")
            steps(bottom, x, response.stability, color=COLORS["truth"], lw=1.4, ls=":", label="stability")
        bottom.set_ylim(0, 1.1)
        bottom.set_xlim(x[0], x[-1])
        bottom.set_xlabel(f"{name}, particle level" if plain else "particle-level bin")
        bottom.legend(ncols=3, fontsize="small")
        if response.n_reco * response.n_gen <= NUMBERED:
            texts = np.array([[f"{v:.0f}" if v >= 0.5 else "" for v in row] for row in shown])
            write_where_it_fits(top, (x, y), texts, shown > 0.55 * np.nanmax(shown), fontsize=6)
    return fig


def plot_comparison(comparison: Comparison, label: str | None = None) -> Figure:
    """Spectra, ratios and pulls of several methods.

    Ratios and pulls are to the truth, or to the first method where there is none; points stand side by side in a bin.
    """
    spectra = comparison.spectra
    first = next(iter(spectra.values()))
    edges = bin_axis(first)
    reference = first.nominal if comparison.truth is None else comparison.truth
    what = "truth" if comparison.truth is not None else next(iter(spectra))
    safe = np.where(reference != 0, reference, np.nan)
    with style():
        fig = figure(6.4, 6.4)
        top, middle, bottom = fig.subplots(3, 1, sharex=True, height_ratios=(3, 1.3, 1.1))
        if comparison.truth is not None:
            steps(top, edges, comparison.truth, color=COLORS["truth"], lw=1.4, label="truth")
        for k, (name, s) in enumerate(spectra.items()):
            place = edges[:-1] + np.diff(edges) * (k + 1) / (len(spectra) + 1)
            options = {"fmt": "o", "ms": 3, "lw": 1.1, "color": METHOD_COLORS[k % len(METHOD_COLORS)]}
            std = np.where(np.isfinite(s.std()), s.std(), np.nan)
            top.errorbar(place, s.nominal, std, label=legend_text(name), **options)
            middle.errorbar(place, s.nominal / safe, std / np.abs(safe), **options)
            pull = np.divide(s.nominal - reference, std, out=np.full(len(std), np.nan), where=std > 0)
            bottom.plot(place, pull, "o", ms=3, color=options["color"])
        middle.axhline(1.0, color=COLORS["truth"], lw=1.0)
        bottom.axhspan(-1, 1, color="0.88", lw=0)
        bottom.axhline(0.0, color=COLORS["truth"], lw=1.0)
        limit(bottom, -4, 4)
        limit(middle, 0.5, 1.5)
        middle.set_ylabel(f"ratio to\n{what}")
        bottom.set_ylabel("pull")
        bottom.set_xlabel(label or axis_title(first))
        bottom.set_xlim(edges[0], edges[-1])
        top.set_ylabel(content_title(first))
        if not any(np.any(s.nominal < 0) for s in spectra.values()):
            top.set_ylim(bottom=0.0)  # inversions may be negative
        top.legend()
        fig.align_ylabels()
    return fig
