"""The PyMC model of fully Bayesian unfolding, compiled once for each shape.

``docs/binned.md`` states the model, equations (B14) to (B16) and (B19).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_instance
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.errors import InputError, WeightWarning

if TYPE_CHECKING:
    import pymc as pm

__all__ = [
    "BinnedBackground",
    "Inputs",
    "background_counts",
    "build",
    "cells",
    "compiled_model",
    "fake_cells",
    "largest_ratio",
    "poisson_counts",
    "relative_effects",
]

Array = NDArray[np.floating]

LARGEST_RATIO = 10.0

NEGLIGIBLE = 0.1
"""Variance of a background's shape over the data's, up to which it is left out without a word."""

ROUNDING = 1e-6
"""Of a histogram's variances, relative to its contents."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class BinnedBackground:
    """A background in detector-level bins.

    Parameters
    ----------
    counts : array, shape (reco,), or histogram
        Expected contents. The shape is exact in the model; a histogram with large variances of its own is warned of.
    relative_uncertainty : float
        Of the normalisation; a log-normal nuisance parameter. Zero keeps it fixed.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> top = bu.BinnedBackground([10.0, 20.0], relative_uncertainty=0.1)
    >>> model = bu.FBU(backgrounds={"top": top}).model(R, [100, 150])
    >>> [variable.name for variable in model.free_RVs]
    ['truth_ratio', 'background_level']
    """

    counts: ArrayLike
    relative_uncertainty: float = 0.0


@dataclass(frozen=True)
class Inputs:
    """Arrays of the model. Only their shapes matter to the compiler."""

    prior: str
    strength: float
    counts: Array
    response: Array
    fakes: Array
    scaled: Array
    background: Array
    background_width: Array
    effects: Array
    row: NDArray[np.integer]
    column: NDArray[np.integer]
    cell: Array
    used: Array
    cell_weight: Array
    fake_counts: Array
    fake_weight: Array

    @property
    def limit(self) -> Array:
        """Largest ratio to the scaled simulated spectrum that a flat prior allows.

        Without a limit the posterior would be improper: a column of few simulated events may have any efficiency.
        """
        return largest_ratio(self.counts, self.response, self.scaled)

    @property
    def column_counts(self) -> Array:
        """Effective simulated counts of each particle-level bin, seen or not."""
        return np.bincount(self.column, self.cell * self.used, len(self.scaled))

    def shape(self) -> tuple[Any, ...]:
        """What the compiled model depends on."""
        n_reco, n_gen = self.response.shape
        return self.prior, n_reco, n_gen, len(self.background), len(self.effects), len(self.cell), len(self.fake_counts)

    def swapped(self) -> dict[str, Any]:
        """Values of the model's ``pm.Data`` containers."""
        values: dict[str, Any] = {
            "data": self.counts.astype(np.int64),
            "scaled_simulation": self.scaled,
        }
        if len(self.fake_counts):
            values |= {
                "fake_counts": np.where(self.fake_counts > 0, self.fake_counts, 1.0),
                "fake_weight": self.fake_weight,
                "cell_weight": self.cell_weight,
            }
        else:
            values["fakes"] = self.fakes
        if self.prior != "lognormal":
            values["limit"] = self.limit
        if self.prior != "flat":
            values["strength"] = np.float64(self.strength)
        if len(self.background):
            values |= {"background": self.background, "background_width": self.background_width}
        if len(self.effects):
            values["effects"] = self.effects
        if len(self.cell):
            values |= {"row": self.row, "column": self.column, "cell_counts": self.cell, "cell_used": self.used}
            if self.prior != "flat":
                values["column_counts"] = self.column_counts
        else:
            values["response"] = self.response
        return values


def largest_ratio(counts: Array, response: Array, scaled: Array) -> Array:
    """Largest ratio of each particle-level bin to a scaled simulated spectrum that data may ask for, shape (gen,).

    All data in one bin, with five standard deviations more, or ten times the simulation.
    """
    data = float(counts.sum())
    most = (data + 5.0 * np.sqrt(data) + 5.0) / response.sum(axis=0)
    return np.maximum(LARGEST_RATIO, most / scaled)


def cells(response: ResponseMatrix, *, floating: bool) -> tuple[NDArray[np.integer], NDArray[np.integer], Array, Array]:
    """Filled elements of the response as effective counts; row ``n_reco`` holds what is not seen.

    Padded to a multiple of 32 with unused cells, so that toys of one problem share a compiled model.
    """
    if not floating:
        empty = np.zeros(0, dtype=np.int64)
        return empty, empty, np.zeros(0), np.zeros(0)
    counts, missed = response.effective_counts()
    table = np.vstack([counts, missed])
    row, column = np.nonzero(table > 0)
    extra = -len(row) % 32
    return (
        np.pad(row, (0, extra)),
        np.pad(column, (0, extra)),
        np.pad(table[row, column], (0, extra), constant_values=1.0),
        np.pad(np.ones(len(row)), (0, extra)),
    )


def fake_cells(response: ResponseMatrix, *, floating: bool) -> tuple[Array, Array, Array]:
    """Weight of one effective count of each particle-level bin; effective counts of the fakes, and one's weight.

    Empty where the shares of fakes are exact: given as numbers, or zero.
    """
    empty = np.zeros(0)
    found = response.cells() if floating else None
    if found is None or found.reco is None or not np.any(response.fakes > 0):
        return empty, empty, empty
    sums = response.fakes * found.reco
    unit = np.divide(found.fakes, sums, out=np.zeros_like(sums), where=sums > 0)
    counts = np.divide(sums, unit, out=np.zeros_like(sums), where=unit > 0)
    return (found.own.sum(axis=0) + found.missed) / found.truth, counts, unit


def poisson_counts(response: ResponseMatrix, data: Any, method: str) -> Array:
    """Contents of all detector-level bins, shape (reco,), which must be numbers of events.

    Raises
    ------
    InputError
        Contents that are not whole, or a histogram with other variances than they have.
    """
    values, variances = response.counts(data)
    fraction = np.flatnonzero(values != np.round(values))
    if len(fraction):
        msg = f"data counts in bins {fraction.tolist()} are not whole numbers; {method}'s likelihood is Poisson."
        raise InputError(msg)
    weighted = np.flatnonzero(np.abs(variances - values) > ROUNDING * np.maximum(values, 1.0))
    if len(weighted):
        msg = (
            f"data counts in bins {weighted.tolist()} have variances that differ from their contents, and {method}'s "
            "likelihood is Poisson. Give numbers of events without weights, or unfold with a method that takes "
            "variances: IBU, Tikhonov, SVDUnfolding or MatrixInversion."
        )
        raise InputError(msg)
    return values


def background_counts(
    backgrounds: Mapping[str, BinnedBackground], response: ResponseMatrix, data: Array
) -> tuple[Array, Array]:
    """Expected contents, shape (backgrounds, reco), and the width of each logarithmic normalisation.

    Warns
    -----
    WeightWarning
        If a histogram's own variances, which the model does not have, are above a tenth of the data's.
    """
    counts = np.zeros((len(backgrounds), response.n_reco))
    widths = np.zeros(len(backgrounds))
    for k, (name, background) in enumerate(backgrounds.items()):
        check_instance(background, BinnedBackground, f"background {name!r}")
        counts[k], variances = response.counts(background.counts, f"background {name!r}", exact=True)
        large = np.flatnonzero((variances > NEGLIGIBLE * np.maximum(data, 1.0)) & response.reached)
        if hasattr(background.counts, "axes") and len(large):
            msg = (
                f"background {name!r} has statistical variances above a tenth of the data's in bins {large.tolist()}, "
                "and its shape is taken as exact; simulate more of it, or merge bins."
            )
            warnings.warn(msg, WeightWarning, stacklevel=5)
        if not 0 <= background.relative_uncertainty < np.inf:
            msg = f"background {name!r} has relative uncertainty {background.relative_uncertainty!r}; it must be >= 0."
            raise InputError(msg)
        widths[k] = np.log1p(background.relative_uncertainty)
    return counts, widths


def relative_effects(systematics: Mapping[str, Array], response: ResponseMatrix) -> Array:
    """Relative changes of the response, shape (systematics, reco, gen)."""
    effects = np.zeros((len(systematics), response.n_reco, response.n_gen))
    for k, (name, effect) in enumerate(systematics.items()):
        full = effect[:, None] if effect.ndim == 1 else effect
        if full.shape not in ((response.n_reco, 1), response.probabilities.shape):
            msg = f"systematic {name!r} has shape {effect.shape}; it must be (reco,) or (reco, gen)."
            raise InputError(msg)
        if not np.all(np.isfinite(full)) or np.any(full <= -1):
            msg = f"systematic {name!r} must be finite and above -1 (a relative change); its lowest is {full.min():g}."
            raise InputError(msg)
        if not np.any(full):
            msg = f"systematic {name!r} is identical to nominal; leave it out."
            raise InputError(msg)
        effects[k] = full
    return effects


@lru_cache(maxsize=16)
def compiled_model(shape: tuple[Any, ...]) -> Any:
    """A compiled model of this shape; data are swapped."""
    import nutpie

    prior, n_reco, n_gen, n_background, n_effects, n_cells, n_fakes = shape
    rows = np.arange(n_cells) % (n_reco + 1)
    dummy = Inputs(
        prior,
        1.0,
        np.ones(n_reco),
        np.full((n_reco, n_gen), 1.0 / n_reco),
        np.zeros(n_reco),
        np.ones(n_gen),
        np.ones((n_background, n_reco)),
        np.ones(n_background),
        np.zeros((n_effects, n_reco, n_gen)),
        rows,
        np.arange(n_cells) % n_gen,
        np.ones(n_cells),
        np.ones(n_cells),
        np.ones(n_gen if n_fakes else 0),
        np.ones(n_fakes),
        np.ones(n_fakes),
    )
    return nutpie.compile_pymc_model(build(dummy), freeze_model=False)


def build(inputs: Inputs) -> pm.Model:
    """The model, equation (B14); one place for everything that is assumed."""
    import pymc as pm
    import pytensor.tensor as pt

    n_reco, n_gen = inputs.response.shape
    with pm.Model(coords={"bin": range(n_gen), "reco_bin": range(n_reco)}) as model:
        observed = pm.Data("data", inputs.counts.astype(np.int64), dims="reco_bin")
        scaled = pm.Data("scaled_simulation", inputs.scaled, dims="bin")
        response, table = _response(inputs)
        ratio = _truth_prior(inputs, table)
        truth = pm.Deterministic("truth", ratio * scaled, dims="bin")
        if len(inputs.effects):
            effects = pm.Data("effects", inputs.effects)
            nuisance = pm.Normal("systematic", 0.0, 1.0, shape=len(inputs.effects))  # named in the result
            response = response * pt.exp(pt.tensordot(nuisance, pt.log1p(effects), axes=1))
        expected = pt.dot(response, truth) / (1 - _fakes(inputs, table))
        if len(inputs.background):
            shapes = pm.Data("background", inputs.background)
            widths = pm.Data("background_width", inputs.background_width)
            level = pm.Normal("background_level", 0.0, 1.0, shape=len(inputs.background))
            expected = expected + pt.dot(pt.exp(level * widths), shapes)
        expected = pm.Deterministic("expected", expected, dims="reco_bin")
        pm.Poisson("counts", expected, observed=observed, dims="reco_bin")
    return model


def _truth_prior(inputs: Inputs, table: Any) -> Any:
    """Prior of the ratio to the scaled simulated spectrum, equation (B16); a flat one does not know the simulation."""
    import pymc as pm
    import pytensor.tensor as pt

    prior = inputs.prior
    strength: Any = None if prior == "flat" else pm.Data("strength", np.float64(inputs.strength))
    simulated: Any = 1.0  # the simulated spectrum over its nominal, with its own statistics
    if table is not None and prior != "flat":
        simulated = table.sum(axis=0) / pm.Data("column_counts", inputs.column_counts, dims="bin")
    if prior == "lognormal":
        return pm.LogNormal("truth_ratio", pt.log(simulated), pt.log1p(strength), dims="bin")
    limit = pm.Data("limit", inputs.limit, dims="bin")
    ratio = pm.Uniform("truth_ratio", 0.0, limit, dims="bin", initval=np.ones(len(inputs.scaled)))
    if prior == "entropy":
        share = ratio / simulated
        share = share / share.sum()
        pm.Potential("entropy", -strength * (share * pt.log(share)).sum() * ratio.shape[0])
    if prior == "curvature":
        smooth = ratio / simulated
        bend = smooth[2:] - 2 * smooth[1:-1] + smooth[:-2]
        pm.Potential("curvature", -0.5 * (strength * bend / smooth.mean()).norm(2) ** 2)
    return ratio


def _response(inputs: Inputs) -> tuple[Any, Any]:
    """The response and the simulated counts behind it, None if fixed.

    Columns fluctuate as (B15): Dirichlet as normalised Gamma variables.
    """
    import pymc as pm
    import pytensor.tensor as pt

    n_reco, n_gen = inputs.response.shape
    if not len(inputs.cell):
        return pm.Data("response", inputs.response), None
    row = pm.Data("row", inputs.row.astype(np.int64))
    column = pm.Data("column", inputs.column.astype(np.int64))
    counts = pm.Data("cell_counts", inputs.cell)
    used = pm.Data("cell_used", inputs.used)
    cells = pm.Gamma("response_cells", counts, 1.0, shape=len(inputs.cell))
    table = pt.inc_subtensor(pt.zeros((n_reco + 1, n_gen))[row, column], cells * used)
    return table[:-1] / table.sum(axis=0), table


def _fakes(inputs: Inputs, table: Any) -> Any:
    """Share of fakes in each detector-level bin, fixed or moved by the same simulated events (B19)."""
    import pymc as pm

    if not len(inputs.fake_counts):
        return pm.Data("fakes", inputs.fakes, dims="reco_bin")
    counts = pm.Data("fake_counts", np.where(inputs.fake_counts > 0, inputs.fake_counts, 1.0), dims="reco_bin")
    fakes = pm.Gamma("fake_cells", counts, 1.0, dims="reco_bin") * pm.Data("fake_weight", inputs.fake_weight)
    seen = (table[:-1] * pm.Data("cell_weight", inputs.cell_weight)).sum(axis=1)
    return fakes / (fakes + seen)
