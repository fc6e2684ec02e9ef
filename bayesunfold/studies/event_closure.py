"""Closure of the event posterior: draws for all data together against the unfolded distribution."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_count, check_instance, check_mapping
from bayesunfold._support.streams import part_stream
from bayesunfold._support.threads import block_threads
from bayesunfold.binning import as_axes, bin_index, project
from bayesunfold.errors import OverlapWarning
from bayesunfold.generative.answers import MemberFactors
from bayesunfold.generative.event_posterior import MOST_DRAWS
from bayesunfold.generative.pooling import signal_share
from bayesunfold.unfolding.result import UnfoldingResult

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["event_closure"]

Array = NDArray[np.floating]

STATISTICS = ("data", "simulation", "prior")
"""Sources of the band."""

BINS = 10
"""Quantile bins of a feature where none are given."""


def __dir__() -> list[str]:
    return __all__


def event_closure(
    result: UnfoldingResult, bins: Mapping[str, ArrayLike] | None = None, *, draws: int = 20
) -> pd.DataFrame:
    """Draws for all data together, beside the unfolded spectrum of events that pass both levels.

    At the fixed point of the unfolding the two agree: their difference is what the map of the event posterior gets
    wrong, what an unfinished loop has left, and what one more iteration would follow of the data's fluctuations.

    Parameters
    ----------
    result : UnfoldingResult
    bins : mapping of particle-level feature to edges, optional
        By default ten quantiles of each feature of the simulation.
    draws : int
        Per event.

    Returns
    -------
    pandas.DataFrame
        A row per bin: ``feature``, ``low``, ``high``, ``pooled``, ``unfolded``, ``band`` (one standard deviation from
        the statistics of data and simulation and from the network's prior), and ``difference`` in bands. Systematics
        move both sides and are not in the band.

    Raises
    ------
    InputError, InputTypeError
        For something else than a result, unknown features, edges that do not increase, and a loaded result whose
        functions a file does not keep.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 1000, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, method="direct", draws=50, rounds=0,
    ...                    random_seed=1, progressbar=False)
    >>> found = bu.studies.event_closure(result, {"gen": [-2, 0, 2]}, draws=10)
    >>> found[["feature", "low", "high"]].values.tolist()
    [['gen', -2.0, 0.0], ['gen', 0.0, 2.0]]
    """
    import pandas as pd

    check_instance(result, UnfoldingResult, "result")
    count = check_count(draws, "draws", 1, MOST_DRAWS)
    sim, members = result.simulation, result.members
    wanted = _quantiles(result) if bins is None else dict(check_mapping(bins, "bins"))
    columns = {name: sim.gen_column(name) for name in wanted}
    edges = {name: as_axes([columns[name]], e)[0] for name, e in wanted.items()}
    nominal = MemberFactors.nominal(members)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OverlapWarning)  # the unfolding has warned of such data
        drawn = result.event_map.sample(result.data.features, count, nominal)
    with block_threads():
        layout, rng = result.measurement.step1.layout, part_stream(result.record.seed, "generative", len(sim.gen_names))
        share = signal_share(members.events, layout, rng)
    weight = np.tile(result.data.weight * share / count, (count, 1)).ravel()
    rows = []
    for name, axis in edges.items():
        n_bins = len(axis) - 1
        groups = bin_index([columns[name]], (axis,), sim.both)
        # as the data are: weights of detector level, with its scale factors
        unfolded = project(groups, result.nominal_reco, n_bins)
        alone = [members.accumulate(groups, n_bins, source, reco=True) for source in STATISTICS]
        band = np.sqrt(sum(drawn.var(axis=0) for drawn in alone))
        values = drawn.sel(feature=name).values.ravel()
        pooled = project(bin_index([values], (axis,), ~np.isnan(values)), weight, n_bins)
        with np.errstate(invalid="ignore", divide="ignore"):
            difference = (pooled - unfolded) / band
        columns_of_bins = (axis[:-1], axis[1:], pooled, unfolded, band, difference)
        rows += [(name, *values) for values in zip(*columns_of_bins, strict=True)]
    return pd.DataFrame(rows, columns=["feature", "low", "high", "pooled", "unfolded", "band", "difference"])


def _quantiles(result: UnfoldingResult) -> dict[str, Array]:
    """Edges of equal populations, the last one just beyond the largest value."""
    sim, out = result.simulation, {}
    for name in sim.gen_names:
        x = sim.gen_column(name)[sim.both]
        edges = np.unique(np.quantile(x[np.isfinite(x)], np.linspace(0.0, 1.0, BINS + 1)))
        edges[-1] = np.nextafter(edges[-1], np.inf)
        out[name] = edges if len(edges) > 1 else np.array([edges[0] - 0.5, edges[0] + 0.5])
    return out
