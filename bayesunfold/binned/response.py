"""The response matrix: how often an event of a particle-level bin ends in a detector-level bin.

``p_detector = R p_particle``: element ``R[j, i]`` is the probability that an event of particle-level bin ``i`` is
reconstructed in detector-level bin ``j``. A column sums to the efficiency of its bin.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers, check_instance
from bayesunfold.binned._axes import (
    contents_of,
    edges_of,
    names_only,
    observables_of,
    size_of,
    warn_of_last_edges,
)
from bayesunfold.binned._counts import Counts, as_counts, as_histogram, check_contents
from bayesunfold.binning import as_axes, bin_index
from bayesunfold.errors import InputError, OverlapWarning, WeightWarning
from bayesunfold.events import Simulation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ResponseMatrix"]

Array = NDArray[np.floating]
Edges = tuple[Array, ...]

Grid = tuple[tuple[int, ...], NDArray[np.bool_] | None]

NO_COUNTS = "the response has no simulated counts behind it; give truth=, or build it from events."


def __dir__() -> list[str]:
    return __all__


class Cells(NamedTuple):
    """Sums over the simulated events behind a response.

    Attributes
    ----------
    truth : array, shape (gen,)
        Weight of each particle-level bin.
    squares : array, shape (reco, gen)
        Squared weights, at detector level, of the events seen.
    own, cross : array, shape (reco, gen)
        Squares of their weights at particle level, and products of the two; scale factors make these differ.
    missed : array, shape (gen,)
        Squared weights of the events not seen.
    reco : array, shape (reco,), or None
        Weight of each detector-level bin, fakes included; None if the shares of fakes are exact.
    fakes : array, shape (reco,)
        Squared weights of the fakes.
    """

    truth: Array
    squares: Array
    own: Array
    cross: Array
    missed: Array
    reco: Array | None
    fakes: Array


class ResponseMatrix:
    """Probabilities from particle-level bins to detector-level bins, with their simulation statistics.

    Parameters
    ----------
    probabilities : array, shape (reco, gen)
        Probability of each detector-level bin given the particle-level bin; columns sum to the efficiency.
    truth : array, shape (gen,), optional
        Simulated particle-level counts, of which all passed or failed the detector. They are the default prior, and
        set the simulation's statistical uncertainty; without them the prior is flat and the response exact. A bin
        without counts is never seen.
    fakes : array, shape (reco,), optional
        Share of each detector-level bin that comes from outside the particle-level bins.
    efficiency : array, shape (gen,), optional
        For :class:`IBU` only: by which unfolded bins are divided, where it is not the columns' sum. Some tools fold
        with columns that sum to one and keep the efficiency apart, and their numbers can be had so. With an efficiency
        that differs between bins that is not the likelihood's answer; multiply the columns by it for that.
    gen_edges, reco_edges : tuple of arrays, optional
        Bin edges of each axis; bins of several axes are flattened in C order. Bin numbers if omitted.
    gen_names : tuple of str
        Observable of each particle-level axis.
    sums, squares : array, shape (reco, gen), optional
        Sum of weights and of squared weights behind each element; Poisson counts ``probabilities x truth`` if omitted.
    own_squares, cross_squares : array, shape (reco, gen), optional
        The same events' squared weights at particle level, and products of their weights at both, where scale factors
        make these differ; ``squares`` if omitted.
    truth_squares : array, shape (gen,), optional
        Sum of squared weights of ``truth``.
    fakes_sums, fakes_squares : array, shape (reco,), optional
        Sum of weights and of squared weights of the fakes; without them the shares of fakes are exact.

    Attributes
    ----------
    seen : boolean array, shape (gen,)
        Particle-level bins of which simulated events pass detector level.
    reached : boolean array, shape (reco,)
        Detector-level bins in which simulated events of these are found.
    gen_grid : tuple of int, and boolean array or None
        Bins of each particle-level axis, and which of them this response has, in C order; None for all.

    Raises
    ------
    InputError
        Negative or NaN probabilities, columns that sum to more than one, nothing but zeros, shapes that disagree;
        always with the bins' numbers.

    Warns
    -----
    OverlapWarning
        Once, for bins that are not seen or not reached. A particle-level bin that is not seen is unfolded to NaN with
        an infinite uncertainty; a detector-level bin that is not reached is left out, with the data in it.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.1], [0.1, 0.7]], truth=[1000, 2000])
    >>> R
    ResponseMatrix(2 reco x 2 gen bins, efficiency 0.8 to 0.9, condition number 1.35)
    >>> R.fold([100, 200])
    array([100., 150.])
    """

    def __init__(
        self,
        probabilities: ArrayLike,
        truth: ArrayLike | None = None,
        *,
        fakes: ArrayLike | None = None,
        efficiency: ArrayLike | None = None,
        gen_edges: Sequence[ArrayLike] | None = None,
        reco_edges: Sequence[ArrayLike] | None = None,
        gen_names: tuple[str, ...] = ("observable",),
        sums: Array | None = None,
        squares: Array | None = None,
        own_squares: Array | None = None,
        cross_squares: Array | None = None,
        truth_squares: Array | None = None,
        fakes_sums: Array | None = None,
        fakes_squares: Array | None = None,
    ) -> None:
        self.probabilities = as_numbers(probabilities, "the response")
        if self.probabilities.ndim != 2 or 0 in self.probabilities.shape:
            msg = f"the response has shape {self.probabilities.shape}; it must be (reco bins, gen bins)."
            raise InputError(msg)
        n_reco, n_gen = self.probabilities.shape
        self.truth = None if truth is None else contents_of(truth, n_gen, "truth of the response")
        self.seen = self.probabilities.sum(axis=0) > 0
        if self.truth is not None:
            self.seen &= self.truth > 0
        self.reached = self.probabilities[:, self.seen].sum(axis=1) > 0
        self.fakes = np.zeros(n_reco) if fakes is None else contents_of(fakes, n_reco, "fakes of the response")
        self._check_probabilities()
        columns = self.probabilities.sum(axis=0)
        self.efficiency = columns if efficiency is None else contents_of(efficiency, n_gen, "efficiency")
        self._efficiency_apart = not np.allclose(self.efficiency[self.seen], columns[self.seen], rtol=1e-4, atol=0.0)
        high = np.flatnonzero(self.efficiency > 1 + 1e-9)
        if len(high):
            msg = f"the efficiency in particle-level bins {high.tolist()} is above one; it is a probability."
            raise InputError(msg)
        low = np.flatnonzero((self.efficiency <= 0) & self.seen)
        if len(low):
            msg = f"the efficiency is zero in particle-level bins {low.tolist()}; nothing is measured there. Drop them."
            raise InputError(msg)
        self.gen_edges = edges_of(gen_edges, n_gen, "gen_edges")
        self.reco_edges = edges_of(reco_edges, n_reco, "reco_edges")
        self._reco_known = reco_edges is not None
        self.gen_names = gen_names
        self.gen_grid: Grid = tuple(len(e) - 1 for e in self.gen_edges), None
        counts = None if self.truth is None else self.probabilities * self.truth
        self._sums = counts if sums is None else sums
        self._squares = counts if squares is None else squares
        self._own_squares = self._squares if own_squares is None else own_squares
        self._cross_squares = self._squares if cross_squares is None else cross_squares
        self._truth_squares = self.truth if truth_squares is None else truth_squares
        self._fakes = None if fakes_sums is None or fakes_squares is None else (fakes_sums, fakes_squares)
        self._warn_of_unseen()

    def _warn_of_unseen(self) -> None:
        parts = []
        if not self.seen.all():
            bins = np.flatnonzero(~self.seen).tolist()
            parts.append(
                f"particle-level bins {bins} are never seen and are unfolded to NaN with an infinite uncertainty"
            )
        if not self.reached.all():
            bins = np.flatnonzero(~self.reached).tolist()
            parts.append(f"no event of a seen bin reaches detector-level bins {bins}, which are left out")
        if parts:
            msg = f"of the response, {'; '.join(parts)}. Merge them with their neighbours to keep them."
            warnings.warn(msg, OverlapWarning, stacklevel=3)

    @cached_property
    def measured(self) -> ResponseMatrix:
        """The response of the bins that are seen and reached, with bin numbers for edges; itself if all are."""
        if self.seen.all() and self.reached.all():
            return self
        inside = np.ix_(self.reached, self.seen)
        reco, gen = self.reached, self.seen

        def part(array: Array | None, *rows: Any) -> Array | None:
            return None if array is None else array[rows[0] if len(rows) == 1 else np.ix_(*rows)]

        out = ResponseMatrix(
            self.probabilities[inside],
            part(self.truth, gen),
            fakes=self.fakes[reco],
            efficiency=self.efficiency[gen],
            sums=part(self._sums, reco, gen),
            squares=part(self._squares, reco, gen),
            own_squares=part(self._own_squares, reco, gen),
            cross_squares=part(self._cross_squares, reco, gen),
            truth_squares=part(self._truth_squares, gen),
            fakes_sums=None if self._fakes is None else self._fakes[0][reco],
            fakes_squares=None if self._fakes is None else self._fakes[1][reco],
        )
        out.gen_grid = self.gen_grid[0], self.seen
        return out

    def measured_counts(self, data: Any) -> Counts:
        """Contents of a detector-level histogram in the bins of :attr:`measured`; warns of data in the others."""
        values, variances = self.counts(data)
        lost = values[~self.reached].sum()
        if lost > 0:
            msg = (
                f"{lost:g} of {values.sum():g} data events lie in detector-level bins "
                f"{np.flatnonzero(~self.reached & (values > 0)).tolist()}, which no simulated event reaches; they are "
                "left out. Merge the bins, or extend the simulation."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=4)
        return Counts(values[self.reached], variances[self.reached])

    def check_efficiency(self, method: str) -> None:
        """Raise :class:`~bayesunfold.errors.InputError` if the efficiency is kept apart, which only IBU can use."""
        if self._efficiency_apart:
            msg = (
                f"the response has an efficiency= that is not the sum of its columns, which {method} does not use; "
                "leave it out, after multiplying the columns by it if they sum to one."
            )
            raise InputError(msg)

    def _check_probabilities(self) -> None:
        p = self.probabilities
        check_contents(p.ravel(), "the response (flat index reco x gen)")
        columns = p.sum(axis=0)
        high = np.flatnonzero(columns > 1 + 1e-9)
        if len(high):
            msg = (
                f"columns {high.tolist()} of the response sum to more than one ({columns.max():g}); a column holds the "
                "probabilities of one particle-level bin. Divide counts by the particle-level totals, or use from_hist."
            )
            raise InputError(msg)
        if not self.seen.any():
            msg = "the response is empty: no event of any bin is seen. Check the bins' edges and the pass flags."
            raise InputError(msg)
        if np.any(self.fakes >= 1):
            bins = np.flatnonzero(self.fakes >= 1).tolist()
            msg = f"fakes reach 1 in detector-level bins {bins}; drop those bins."
            raise InputError(msg)

    @classmethod
    def from_events(
        cls,
        simulation: Simulation,
        gen_bins: ArrayLike | Sequence[ArrayLike],
        reco_bins: ArrayLike | Sequence[ArrayLike] | None = None,
        gen: Any = None,
        reco: Any = None,
    ) -> ResponseMatrix:
        """Fill the response with simulated events.

        Parameters
        ----------
        simulation : Simulation
        gen_bins, reco_bins : array of edges, or a sequence of them
            ``reco_bins`` equals ``gen_bins`` if omitted.
        gen, reco : str, array of shape (n,), or a tuple of these, optional
            Observables; the single feature of the level if omitted. A tuple makes bins in several dimensions. Names of
            ``gen`` that detector level has too are taken there if ``reco`` is omitted.

        Notes
        -----
        Events in a gen bin that miss all reco bins count as inefficiency, events in a reco bin that come from no gen
        bin (fakes, under- and overflow) as fakes. Scale factors of the detector level (``reco_factor``) are part of the
        efficiency.

        Bins are half open, ``[low, high)``, as those of ``hist`` and ROOT. ``numpy.histogram`` closes the last one,
        which matters for integers and for values that stop at the last edge.

        Warns
        -----
        OverlapWarning
            Simulated events exactly on the last edge of detector level, which data of ``numpy.histogram`` would hold.
        """
        check_instance(simulation, Simulation, "simulation")
        reco_bins = gen_bins if reco_bins is None else reco_bins
        gen_names, gen_values = observables_of(simulation, gen, "gen")
        shared = set(gen_names) <= set(simulation.reco_names) and names_only(gen)
        _, reco_values = observables_of(simulation, gen if reco is None and shared else reco, "reco")
        gen_edges, reco_edges = as_axes(gen_values, gen_bins), as_axes(reco_values, reco_bins)
        warn_of_last_edges(reco_values, reco_edges, simulation.pass_reco)
        g = bin_index(gen_values, gen_edges, simulation.pass_gen)
        r = bin_index(reco_values, reco_edges, simulation.pass_reco)
        n_gen, n_reco = size_of(gen_edges), size_of(reco_edges)
        weight, at_reco = simulation.weight, simulation.reco_weight
        both = (g >= 0) & (r >= 0)
        flat = r[both] * n_gen + g[both]

        def cells(values: Array) -> Array:
            return np.bincount(flat, values[both], n_gen * n_reco).reshape(n_reco, n_gen)

        truth = np.bincount(g[g >= 0], weight[g >= 0], n_gen)
        truth_squares = np.bincount(g[g >= 0], weight[g >= 0] ** 2, n_gen)
        outside = (r >= 0) & (g < 0)
        fakes = np.bincount(r[outside], at_reco[outside], n_reco)
        fakes_squares = np.bincount(r[outside], at_reco[outside] ** 2, n_reco)
        sums, squares = cells(at_reco), cells(at_reco**2)
        others = (squares, squares) if at_reco is weight else (cells(weight**2), cells(weight * at_reco))
        return cls._from_sums(
            sums, squares, truth, truth_squares, fakes, fakes_squares, gen_edges, reco_edges, gen_names, others
        )

    @classmethod
    def from_hist(
        cls, migration: Any, truth: Any = None, fakes: Any = None, *, gen_axes: int | None = None
    ) -> ResponseMatrix:
        """From a migration histogram.

        Parameters
        ----------
        migration : hist object, ROOT histogram, or (contents, edges, edges, ...)
            Events by detector-level axes first, particle-level axes last, flattened in C order for several axes. Its
            detector-level under- and overflow count as inefficiency, its particle-level ones as fakes.
        truth : histogram, optional
            All particle-level events; an array has weights of the migration's size. If omitted, all that ``migration``
            holds, flow included: events that are reconstructed nowhere are then missing.
        fakes : histogram or array, optional
            Detector-level events of no particle-level bin, added to those in the flow bins; an array has weights of
            the migration's size.
        gen_axes : int, optional
            Number of particle-level axes; half of all if omitted.
        """
        read = as_histogram(migration, "the migration histogram")
        axes = read.values.ndim
        n_axes = axes // 2 if gen_axes is None else gen_axes
        if axes < 2 or (gen_axes is None and axes % 2) or not 0 < n_axes < axes:
            msg = f"the migration histogram has {axes} axes; it needs detector-level and particle-level ones."
            raise InputError(msg)
        split = axes - n_axes
        reco_edges, gen_edges = read.edges[:split], read.edges[split:]
        shape = (size_of(reco_edges), size_of(gen_edges))
        sums, squares = read.values.reshape(shape), read.variances.reshape(shape)
        gen_axis, reco_axis = tuple(range(split)), tuple(range(split, axes))
        inner_gen = (slice(None),) * split + (slice(1, -1),) * n_axes
        inner_reco = (slice(1, -1),) * split
        everything = read.flow[inner_gen].sum(axis=gen_axis).ravel()
        outside = read.flow.copy()
        outside[(slice(1, -1),) * axes] = 0.0  # a difference of totals would leave rounding
        extra = outside[inner_reco].sum(axis=reco_axis).ravel()
        # squared weight per weight, for events of the migration's kind whose squares are not given
        scale = np.divide(squares.sum(axis=0), sums.sum(axis=0), out=np.ones(shape[1]), where=sums.sum(axis=0) > 0)
        truth_squares = everything * scale
        if truth is not None:
            everything, variances = as_counts(truth, shape[1], "the truth histogram", gen_edges)
            truth_squares = variances if hasattr(truth, "axes") else everything * scale
        seen, seen_squares = sums.sum(axis=1), squares.sum(axis=1)
        fake_scale = np.divide(seen_squares, seen, out=np.ones(shape[0]), where=seen > 0)
        extra_squares = extra * fake_scale
        if fakes is not None:
            more, variances = as_counts(fakes, shape[0], "fakes", reco_edges)
            extra = extra + more
            extra_squares = extra_squares + (variances if hasattr(fakes, "axes") else more * fake_scale)
        given = [
            name or ("observable" if n_axes == 1 else f"observable {i}") for i, name in enumerate(read.names[split:])
        ]
        names = tuple(given)
        return cls._from_sums(
            sums, squares, everything, truth_squares, extra, extra_squares, gen_edges, reco_edges, names
        )

    @classmethod
    def _from_sums(
        cls,
        sums: Array,
        squares: Array,
        truth: Array,
        truth_squares: Array,
        fakes: Array,
        fakes_squares: Array,
        gen_edges: Edges,
        reco_edges: Edges,
        names: tuple[str, ...],
        others: tuple[Array, Array] | None = None,
    ) -> ResponseMatrix:
        low = np.flatnonzero(truth < 0)
        if len(low):
            msg = f"the simulation has negative weight in particle-level bins {low.tolist()}; merge or drop those bins."
            raise InputError(msg)
        negative = np.argwhere(sums < 0)
        if len(negative):
            msg = (
                f"{len(negative)} (reco, gen) bins have a negative weight sum, the first at {negative[0].tolist()}; "
                "merge bins until negative weights cancel."
            )
            raise InputError(msg)
        reco_total = sums.sum(axis=1) + fakes
        low = np.flatnonzero(reco_total < 0)
        if len(low):
            msg = f"the simulation has negative weight in detector-level bins {low.tolist()}; merge or drop those bins."
            raise InputError(msg)
        only = np.flatnonzero((sums.sum(axis=1) == 0) & (fakes > 0))
        share = np.divide(fakes, reco_total, out=np.zeros(len(fakes)), where=reco_total > 0)
        share[only] = 0.0  # the bin is not reached, and left out
        return cls(
            np.divide(sums, truth, out=np.zeros(sums.shape), where=truth > 0),
            truth,
            fakes=share,
            gen_edges=gen_edges,
            reco_edges=reco_edges,
            gen_names=names,
            sums=sums,
            squares=squares,
            own_squares=None if others is None else others[0],
            cross_squares=None if others is None else others[1],
            truth_squares=truth_squares,
            fakes_sums=fakes,
            fakes_squares=fakes_squares,
        )

    def counts(self, data: Any, what: str = "data counts", *, exact: bool = False) -> tuple[Array, Array]:
        """Contents and variances of a detector-level histogram in the response's bins, flattened; checked.

        Of ``exact`` ones variances need not be known.
        """
        return as_counts(data, self.n_reco, what, self.reco_edges if self._reco_known else None, exact=exact)

    @property
    def n_reco(self) -> int:
        """Number of detector-level bins."""
        return self.probabilities.shape[0]

    @property
    def n_gen(self) -> int:
        """Number of particle-level bins."""
        return self.probabilities.shape[1]

    @property
    def prior(self) -> Array:
        """Simulated particle-level spectrum, or ones: the default prior, shape (gen,)."""
        return np.ones(self.n_gen) if self.truth is None else self.truth

    @cached_property
    def condition_number(self) -> float:
        """Ratio of the largest to the smallest singular value, of the bins that are measured."""
        return float(np.linalg.cond(self.measured.probabilities))

    @property
    def purity(self) -> Array:
        """Share of each detector-level bin that comes from the particle-level bin of the same number, shape (reco,).

        Fakes count as impure. Needs as many bins at both levels.
        """
        seen = self.probabilities * self.prior
        with np.errstate(invalid="ignore"):  # NaN in bins that are not reached
            return self._diagonal(seen) / seen.sum(axis=1) * (1 - self.fakes)

    @property
    def stability(self) -> Array:
        """Share of each particle-level bin's reconstructed events that stay in their bin, shape (gen,)."""
        with np.errstate(invalid="ignore"):  # NaN in bins that are not seen
            return self._diagonal(self.probabilities) / self.probabilities.sum(axis=0)

    def _diagonal(self, matrix: Array) -> Array:
        if self.n_reco != self.n_gen:
            msg = f"the response has {self.n_reco} x {self.n_gen} bins; purity and stability need the same bins."
            raise InputError(msg)
        return np.diag(matrix)

    def fold(self, truth: ArrayLike, *, fakes: bool = False) -> Array:
        """Expected detector-level counts of a particle-level spectrum.

        Parameters
        ----------
        truth : array, shape (gen,) or (..., gen)
        fakes : bool
            Add fakes, in proportion to each bin's expectation.
        """
        spectrum = as_numbers(truth, "the spectrum")
        if spectrum.shape[-1:] != (self.n_gen,):
            msg = f"the spectrum has shape {spectrum.shape}; its last axis must hold {self.n_gen} particle-level bins."
            raise InputError(msg)
        if not np.all(np.isfinite(spectrum)):
            msg = f"the spectrum is NaN or infinite in {int((~np.isfinite(spectrum)).sum())} bins; repair it first."
            raise InputError(msg)
        folded = spectrum @ self.probabilities.T
        return folded / (1 - self.fakes) if fakes else folded

    def signal(self, counts: Array) -> Array:
        """Counts without fakes: multiplied by one minus the fakes' share of each bin."""
        return counts * (1 - self.fakes)

    @property
    def has_statistics(self) -> bool:
        """Whether the simulation's statistics are known."""
        return self._sums is not None

    def cells(self) -> Cells:
        """Squared weights of the simulated events behind the response, by where they were made and seen.

        Raises
        ------
        InputError
            A response without ``truth``.
        """
        own, cross = self._own_squares, self._cross_squares
        if self.truth is None or self._sums is None or self._squares is None or self._truth_squares is None:
            raise InputError(NO_COUNTS)
        if own is None or cross is None:
            raise InputError(NO_COUNTS)
        total = self._sums.sum(axis=1)
        sums, squares = (np.zeros(self.n_reco),) * 2 if self._fakes is None else self._fakes
        return Cells(
            self.truth,
            self._squares,
            own,
            cross,
            self._truth_squares - own.sum(axis=0),
            None if self._fakes is None else total + sums,
            squares,
        )

    def column_covariance(self, gen_bin: int) -> Array:
        """Covariance of one column from simulation statistics, shape (reco, reco).

        Multinomial for unit weights, ``(diag(p) - p p') / N``; for weighted events the general form of a ratio of
        weight sums, equation (B1). Zero for a response without ``truth``.
        """
        if self._squares is None or self._cross_squares is None or self.truth is None or self._truth_squares is None:
            return np.zeros((self.n_reco, self.n_reco))
        p, total = self.probabilities[:, gen_bin], self.truth[gen_bin]
        s2 = self._squares[:, gen_bin]
        cross = np.outer(p, self._cross_squares[:, gen_bin])
        out = np.diag(s2) - cross - cross.T + np.outer(p, p) * self._truth_squares[gen_bin]
        return out / total**2

    def effective_counts(self) -> tuple[Array, Array]:
        """Each column as if from unweighted events: counts per element (reco, gen), and of events not seen (gen,).

        Weighted columns keep their probabilities and their Kish effective size.
        """
        if self.truth is None or self._truth_squares is None:
            raise InputError(NO_COUNTS)
        size = self.truth**2 / self._truth_squares
        counts = self.probabilities * size
        return counts, np.maximum(size - counts.sum(axis=0), 0.0)

    def warn_if_ill_conditioned(self, limit: float = 1e8) -> None:
        """Warn before an unregularised inversion that would only amplify noise."""
        if self.condition_number > limit:
            msg = (
                f"the response has condition number {self.condition_number:.3g} (limit {limit:.0e}); inverting it "
                "amplifies fluctuations beyond use. Use wider bins, IBU, Tikhonov or FBU."
            )
            warnings.warn(msg, WeightWarning, stacklevel=3)

    def plot(self) -> Figure:
        """Migration matrix in per cent, with efficiency, purity and stability beside it."""
        from bayesunfold.plots.binned import plot_response

        return plot_response(self)

    def __repr__(self) -> str:
        efficiency = self.efficiency[self.seen]
        return (
            f"ResponseMatrix({self.n_reco} reco x {self.n_gen} gen bins, efficiency {efficiency.min():.3g} to "
            f"{efficiency.max():.3g}, condition number {self.condition_number:.3g})"
        )
