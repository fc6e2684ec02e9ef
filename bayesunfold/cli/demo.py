"""The Gaussian toy from start to end: table, figures, saved result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bayesunfold._support.checks import check_seed
from bayesunfold._support.files import atomic_write, check_writable
from bayesunfold.datasets import gaussian_toy
from bayesunfold.errors import InputError
from bayesunfold.omnifold.estimator import OmniFold
from bayesunfold.plots import plot_correlation, plot_sources

__all__ = ["run_demo"]


def __dir__() -> list[str]:
    return __all__


def run_demo(out: Path, *, n_data: int = 1000, n_simulation: int = 1000, random_seed: int = 1, **settings: Any) -> str:
    """Unfold the toy and write what came out into a folder.

    Parameters
    ----------
    out : path
        Folder, made if it is missing; files of an earlier demo are overwritten.
    n_data, n_simulation : int
        Size of the toy.
    random_seed : int
    **settings
        Arguments of :class:`OmniFold`.

    Returns
    -------
    str
        Summary table and the places of all files.
    """
    if out.exists() and not out.is_dir():
        msg = f"{out} is a file; name a folder for the demo."
        raise InputError(msg)
    unfolder = OmniFold(random_seed=check_seed(random_seed), **settings)
    check_writable(out, folder=True)
    out.mkdir(parents=True, exist_ok=True)
    toy = gaussian_toy(n_data, n_simulation, random_seed=random_seed)
    result = unfolder.fit(toy.simulation, toy.measurement)
    edges = toy.bins()
    spectrum = result.spectrum("gen", edges)
    truth = toy.expected(edges)
    import numpy as np

    generator = np.histogram(toy.gen, edges)[0] * n_data / n_simulation
    figures = {
        "spectrum.png": spectrum.plot(truth=truth, generator=generator, label="x (particle level)"),
        "correlation.png": plot_correlation(spectrum),
        "sources.png": plot_sources(spectrum, label="x (particle level)"),
        "history.png": result.plot_history(),
    }
    for name, figure in figures.items():
        atomic_write(out / name, figure.savefig)
    result.save(out / "unfolded.nc")
    lower, upper = spectrum.interval(0.68)
    inside = int(((lower <= truth) & (truth <= upper)).sum())
    files = "\n".join(f"  {out / name}" for name in (*figures, "unfolded.nc"))
    return (
        f"Gaussian toy: {n_data} data events, {n_simulation} simulated, {len(result.iterations)} iterations, "
        f"{spectrum.draw_matrix.shape[0]} {result.configuration['inference']} draws\n\n"
        f"{spectrum.table(truth)}\n\n"
        f"the expected truth lies inside the 68 % band in {inside} of {len(truth)} bins; "
        f"neighbouring bins are correlated\n\nwritten:\n{files}"
    )
