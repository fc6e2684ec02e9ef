"""A spectrum from a point estimate and covariances, for methods that have no posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import checksum_of_arrays
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.spectrum import Spectrum

__all__ = ["gaussian_draws", "gaussian_spectrum", "statistics_covariance"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def gaussian_draws(covariance: Array, draws: int, seed: int, data: Array) -> Array:
    """Draws of N(0, covariance), shape (draws, bins); a singular covariance gives draws in its range.

    Other data have other random numbers: with the same ones, spectra of independent data would move together.
    """
    values, vectors = np.linalg.eigh(covariance)
    rng = np.random.default_rng((seed, int(checksum_of_arrays([data.astype(np.float64)]), 16)))
    z = rng.standard_normal((draws, len(values)))
    return (z * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def gaussian_spectrum(
    response: ResponseMatrix,
    nominal: Array,
    covariances: Mapping[str, Array],
    method: str,
    draws: int,
    random_seed: tuple[int, Array],
    seconds: float,
) -> Spectrum:
    """Gaussian draws around the point estimate; the data stand beside the seed.

    Without covariances (``errors=False``) bands and covariance are NaN. The exact covariance travels with the spectrum,
    so chi-squares do not suffer from the finite number of draws.
    """
    if covariances:
        total = np.sum(list(covariances.values()), axis=0)
        values = nominal + gaussian_draws(total, draws, *random_seed)
    else:  # not computed: NaN, which no one takes for an uncertainty of zero
        total = np.full((len(nominal), len(nominal)), np.nan)
        values = np.full((2, len(nominal)), np.nan)
    return Spectrum(
        edges=response.gen_edges,
        draw_matrix=values,
        nominal=nominal,
        names=response.gen_names,
        method=method,
        exact_covariance=total,
        exact_sources={name: np.sqrt(np.maximum(np.diag(cov), 0.0)) for name, cov in covariances.items()},
        seconds=seconds,
    )


def statistics_covariance(
    response: ResponseMatrix,
    derivative: Callable[[int], Array],
    prior: Array | None = None,
    fakes: Array | None = None,
) -> Array:
    """Covariance of an unfolded spectrum from the simulation's statistics, particle-level bin by bin.

    Parameters
    ----------
    response : ResponseMatrix
    derivative : callable
        Of a particle-level bin ``c``: derivative of the spectrum with respect to column ``c``, shape (gen, reco).
    prior : array, shape (gen, gen), optional
        Derivative with respect to the simulated spectrum, where the method starts from it or compares with it.
    fakes : array, shape (gen, reco), optional
        Derivative with respect to the shares of fakes.

    Notes
    -----
    Every simulated event moves the response of its particle-level bin, the simulated spectrum, and the share of fakes
    of its detector-level bin, all at once; events are independent (B2). Without the last two this is
    ``sum_c G_c V_c G_c'`` with the column covariance (B1). Memory is that of a few (gen, reco) matrices, time
    ``2 gen^3 reco`` operations.
    """
    cells = response.cells()
    total = np.zeros((response.n_gen, response.n_gen))
    seen: Array | float = 0.0
    if fakes is not None and cells.reco is not None:
        own = fakes * (1 - response.fakes) / cells.reco
        total += (own * cells.fakes) @ own.T
        seen = -fakes * response.fakes / cells.reco
    for c in range(response.n_gen):
        d = derivative(c)
        missed = -d @ response.probabilities[:, c] / cells.truth[c]
        if prior is not None:
            missed = missed + prior[:, c]
        moved = d / cells.truth[c] + seen
        cross = np.outer(missed, moved @ cells.cross[:, c])
        total += (moved * cells.squares[:, c]) @ moved.T + cross + cross.T
        total += (cells.own[:, c].sum() + cells.missed[c]) * np.outer(missed, missed)
    return total
