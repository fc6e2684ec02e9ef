"""The figures of docs/tutorial.md and docs/gallery.md: ``python scripts/docs_figures.py`` (about three minutes)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

import bayesunfold as bu

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
TOYS, BIN = 40, 9


def unfolded(seed: int) -> tuple[bu.Spectrum, np.ndarray]:
    """The tutorial's spectrum for a seed, and the truth."""
    toy = bu.datasets.gaussian_toy(2000, 10_000, poisson=seed != 1, random_seed=seed)
    result = bu.OmniFold(random_seed=seed, progressbar=False).fit(toy.simulation, toy.measurement)
    bins = np.linspace(-5.0, 6.0, 23)
    return result.spectrum("gen", bins), toy.expected(bins)


def spectrum() -> None:
    """What the tutorial draws."""
    found, truth = unfolded(1)
    figure = found.plot(truth=truth)
    figure.savefig(FIGURES / "tutorial_spectrum.png", dpi=110)


def coverage() -> None:
    """One bin in many pseudo-experiments."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    inside = 0
    for k in range(TOYS):
        found, truth = unfolded(100 + k)
        low, high = (side[BIN] for side in found.interval(0.68))
        holds = low <= truth[BIN] <= high
        inside += holds
        axes.plot([k, k], [low, high], color="#2f7fd0" if holds else "#e8722a", lw=3, solid_capstyle="butt")
        axes.plot(k, found.nominal[BIN], ".", color="#1b1f24", ms=4)
    axes.axhline(truth[BIN], color="#1b1f24", lw=1)
    edges = found.edges[0]
    axes.set(xlabel="pseudo-experiment", ylabel=f"unfolded events, {edges[BIN]:g} to {edges[BIN + 1]:g}")
    axes.set_title(f"68 % intervals: {inside} of {TOYS} hold the truth", fontsize=10)
    figure.savefig(FIGURES / "tutorial_coverage.png", dpi=110)


def gallery() -> None:
    """Each figure of the gallery, made by the lines above it there."""
    names: dict[str, Any] = {}
    page = (FIGURES.parent / "gallery.md").read_text(encoding="utf-8")
    for block, image in re.findall(r"```python\n(.*?)```|!\[[^]]*\]\(figures/(.*?)\)", page, re.DOTALL):
        if block:
            exec(compile(block, "gallery.md", "exec"), names)
        else:
            names["figure"].savefig(FIGURES / image, dpi=100)


if __name__ == "__main__":
    mpl.use("agg")
    gallery()
    spectrum()
    coverage()
