"""Members against a loop that is really trained again on their own fluctuations.

Members are displaced linearly (one Gauss-Newton refit each); this study shows, bin by bin, what that leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_bins, check_count, check_positive
from bayesunfold._support.progress import Progress
from bayesunfold._support.tables import as_text
from bayesunfold._support.threads import block_threads
from bayesunfold.binning import bin_index, project
from bayesunfold.errors import InputError
from bayesunfold.omnifold.bias import retrain

if TYPE_CHECKING:
    import pandas as pd

    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["RefitComparison", "compare_with_refits"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class RefitComparison:
    """Shapes of a spectrum from members and from refits, without the prior's noise in either.

    Attributes
    ----------
    edges : array, shape (bins + 1,)
    members, refits : array, shape (refits, bins)
        Deviations from the point estimate, row by row of the same fluctuation.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> moved = rng.normal(size=(50, 2))
    >>> RefitComparison(np.array([0.0, 1.0, 2.0]), 0.9 * moved, moved).width_ratio
    array([0.9, 0.9])
    """

    edges: Array
    members: Array
    refits: Array

    @property
    def width_ratio(self) -> Array:
        """Width of the members over width of the refits, shape (bins,); NaN in bins that never move."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.members.std(axis=0) / self.refits.std(axis=0)

    @property
    def correlation(self) -> Array:
        """Correlation between a member and its refit, shape (bins,)."""
        a, b = (x - x.mean(axis=0) for x in (self.members, self.refits))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (a * b).mean(axis=0) / (a.std(axis=0) * b.std(axis=0))

    @property
    def shift(self) -> Array:
        """Mean deviation of the refits in units of their width: what is not linear, shape (bins,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.refits.mean(axis=0) / self.refits.std(axis=0)

    def to_dataframe(self) -> pd.DataFrame:
        """A row per bin: edges, width of the members over that of the refits, correlation, and shift."""
        import pandas as pd

        return pd.DataFrame(
            {
                "low": self.edges[:-1],
                "high": self.edges[1:],
                "members/refits": self.width_ratio,
                "correlation": self.correlation,
                "shift/width": self.shift,
            }
        )

    def table(self) -> str:
        """All of it, bin by bin."""
        frame = self.to_dataframe()
        bins = [f"[{low:.3g}, {high:.3g})" for low, high in zip(frame["low"], frame["high"], strict=True)]
        formats = {"members/refits": ".3f", "correlation": ".3f", "shift/width": ".2f"}
        return as_text({"bin": bins} | {name: [format(v, f) for v in frame[name]] for name, f in formats.items()})


def compare_with_refits(
    result: UnfoldingResult,
    observable: str,
    bins: ArrayLike,
    refits: int = 50,
    size: float = 1.0,
    *,
    progressbar: bool = True,
) -> RefitComparison:
    """Train the loop again for some members and compare.

    Parameters
    ----------
    result : UnfoldingResult
        Without backgrounds and systematic variations.
    observable : str
        A particle-level feature.
    bins : array of edges
    refits : int
        How many; each takes about the training time of the result. At most the number of draws.
    size : float
        Scale of the refits' fluctuations: 1 is the Bayesian bootstrap; smaller ones come closer to the linear response.

    Returns
    -------
    RefitComparison

    Raises
    ------
    InputError
        More refits than draws, or a result with backgrounds or systematic variations.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 600, random_seed=1)
    >>> unfolder = bu.OmniFold(2, inference="laplace", draws=20, progressbar=False, random_seed=1)
    >>> result = unfolder.fit(toy.simulation, toy.measurement)
    >>> found = bu.studies.compare_with_refits(result, "gen", [-3, 0, 3], refits=5, progressbar=False)
    >>> found.width_ratio.shape
    (2,)
    """
    edges = check_bins(bins)
    check_count(refits, "refits", 2)
    check_positive(size, "size")
    m = result.members
    if refits > m.n_members:
        msg = f"refits is {refits} and the result has {m.n_members} members; refits must not be more."
        raise InputError(msg)
    if set(m.sources) - {"data", "simulation", "prior"}:
        msg = "the comparison knows data and simulation statistics only; unfold without backgrounds and systematics."
        raise InputError(msg)
    spectrum = result.spectrum(observable, edges, normalization="shape")
    members = np.sum([spectrum.sources[s]() - spectrum.nominal for s in ("data", "simulation")], axis=0)
    progress = Progress(refits, "refits", show=progressbar)
    moved = []
    with block_threads():
        for k, shape in enumerate(_refitted(result, observable, edges, refits, size)):
            moved.append((shape - spectrum.nominal) / size)
            progress.update(k + 1, "")
    progress.close(f"{refits} refits")
    return RefitComparison(edges, members[:refits], np.array(moved))


def _refitted(result: UnfoldingResult, observable: str, edges: Array, refits: int, size: float) -> Iterator[Array]:
    """Shapes after training on the events with each member's weights."""
    m, events = result.members, result.members.events
    index = bin_index([result.simulation.gen_column(observable)], [edges], result.simulation.pass_gen)
    both, measured = events.passes.both, events.data
    for s in range(refits):
        weight = events.weight * (1.0 + size * m.perturbations.simulation.of_member(s))
        data_weight = measured.weight * (1.0 + size * m.perturbations.events["data"].of_member(s))
        scaled = data_weight * (measured.weight.sum() / data_weight.sum())
        changed = replace(
            events,
            weight=weight * (both.sum() / weight[both].sum()),
            sizing=events.weight,
            data=replace(measured, weight=scaled),
        )
        total = weight * retrain(result, changed)
        yield project(index, total, len(edges) - 1) / total[events.passes.gen].sum()
