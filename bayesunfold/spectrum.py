"""A binned posterior: draws of a histogram, and what one reads from it.

Everything that unfolds returns a :class:`Spectrum`, so bands, covariance, chi-square, plots and
exports are the same for all methods.
"""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from bayesunfold._support.checks import as_numbers, check_bins, check_covariance, check_level
from bayesunfold._support.html import facts
from bayesunfold._support.statistics import draws_factor
from bayesunfold._support.tables import as_table
from bayesunfold.binning import BinAxis, bin_volumes, edge_texts, numbered, same_edges
from bayesunfold.errors import InputError, OverlapWarning
from bayesunfold.impacts import Parameter, correlation_table, ranking_table
from bayesunfold.source_groups import (
    check_names_of_groups,
    check_pairs_of_groups,
    grouped_draws,
    grouped_parameters,
    match_groups,
)

if TYPE_CHECKING:
    import hist
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bayesunfold.plots.style import Experiment

__all__ = ["Chi2", "Spectra", "Spectrum"]

Array = NDArray[np.floating]
Normalization = Literal["yield", "shape", "density"]


def __dir__() -> list[str]:
    return __all__


class Chi2(NamedTuple):
    """Agreement of a spectrum with a model.

    Attributes
    ----------
    value : float
        Chi-square with the covariance of the draws, corrected for their finite number.
    dof : int
        Rank of the covariance: what the spectrum can tell apart.
    p_value : float
        Probability of a larger value.
    """

    value: float
    dof: int
    p_value: float


@dataclass(frozen=True)
class Spectrum:
    """Posterior of a histogram.

    Parameters
    ----------
    edges : tuple of array
        Bin edges of each axis, in the observable's units.
    draw_matrix : array, shape (draws, bins)
        Draws, bins of several axes flattened in C order. :attr:`draws` has them with named axes.
    nominal : array, shape (bins,)
        Point estimate.
    names : tuple of str
        Observable of each axis.
    outside : array, shape (draws,)
        What falls into no bin (under- and overflow together), draw by draw, in units of the yield.
    flow : pair of arrays, shape (draws,), optional
        Of one observable: what lies below the first and above the last edge, in the spectrum's normalisation (for a
        density the content, not divided by a width). ``to_hist`` puts them into the flow bins.
    undefined : array, shape (draws,)
        Events in which the observable does not exist, draw by draw, in units of the yield.
    normalization : {"yield", "shape", "density"}
        Events per bin; fraction of all events, outside included; events per unit of the observable.
    luminosity : float, optional
        What the contents were divided by.
    units : tuple of str
        Unit of each axis, "" where it has none or none is known.
    sources : mapping of str to callable, optional
        For each source of uncertainty, what makes draws in which only it fluctuates.
    bias : array, shape (bins,), optional
        Estimated bias of the point estimate.
    exact_covariance : array, shape (bins, bins), optional
        Covariance of methods that know it; otherwise that of the draws is used.
    exact_sources : mapping of str to array, shape (bins,)
        Standard deviation from each source, of methods that know it.
    parameters : mapping of str to Parameter
        Nuisance parameters of those sources that have one.
    seconds : float, optional
        Time the method took.
    settings : dict
        What the method chose by itself.

    Raises
    ------
    InputError
        Shapes or names that disagree with the axes, edges that do not increase, fewer than two draws.

    Notes
    -----
    A particle-level bin that no simulated event reaches has no point estimate: it is NaN there, with an infinite
    standard deviation. :meth:`chi2` leaves such bins out.

    A spectrum can be pickled: it then carries the draws of each source instead of what makes them.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(1)
    >>> s = Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (4000, 2)), np.array([10.0, 20.0]))
    >>> low, high = s.interval(0.68)
    >>> np.round(high - low)
    array([2., 2.])
    """

    edges: tuple[Array, ...]
    draw_matrix: Array
    nominal: Array
    names: tuple[str, ...] = ("observable",)
    outside: Array | None = None
    undefined: Array | None = None
    flow: tuple[Array, Array] | None = None
    normalization: Normalization = "yield"
    luminosity: float | None = None
    units: tuple[str, ...] = ()
    method: str = "OmniFold"
    sources: Mapping[str, Callable[[], Array]] = field(default_factory=dict, repr=False, compare=False)
    bias: Array | None = None
    exact_covariance: Array | None = None
    exact_sources: Mapping[str, Array] = field(default_factory=dict, repr=False, compare=False)
    parameters: Mapping[str, Parameter] = field(default_factory=dict, repr=False, compare=False)
    seconds: float | None = None
    settings: dict[str, Any] = field(default_factory=dict, compare=False)
    _cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        edges: Any = (self.edges,) if np.ndim(self.edges[0]) == 0 else self.edges
        put = partial(object.__setattr__, self)
        put("edges", tuple(check_bins(e, f"edges of axis {axis}") for axis, e in enumerate(edges)))
        put("draw_matrix", as_numbers(self.draw_matrix, "draws of a spectrum"))
        put("nominal", as_numbers(self.nominal, "the point estimate of a spectrum"))
        if self.names == ("observable",) and len(self.edges) > 1:
            put("names", tuple(f"observable {axis + 1}" for axis in range(len(self.edges))))
        if len(self.names) != len(self.edges):
            msg = f"there are {len(self.names)} names and {len(self.edges)} axes; name every axis."
            raise InputError(msg)
        bins = int(np.prod([len(e) - 1 for e in self.edges]))
        drawn = self.draw_matrix
        if drawn.ndim != 2 or drawn.shape[1] != bins or self.nominal.shape != (bins,):
            msg = (
                f"draws have shape {drawn.shape} and the point estimate {self.nominal.shape}; "
                f"the edges make {bins} bins, so they must be (draws, {bins}) and ({bins},)."
            )
            raise InputError(msg)
        if len(drawn) < 2:
            msg = f"the spectrum has {len(drawn)} draws; give at least two, or it has no width."
            raise InputError(msg)

    def __getstate__(self) -> dict[str, Any]:
        drawn = {name: partial(_same, np.asarray(make())) for name, make in self.sources.items()}
        return self.__dict__ | {"sources": drawn}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of bins of each axis."""
        return tuple(len(e) - 1 for e in self.edges)

    @property
    def n_bins(self) -> int:
        """Number of bins, all axes together."""
        return self.draw_matrix.shape[1]

    @property
    def draws(self) -> xr.DataArray:
        """Draws with named axes: ``(draw, bin)``, or ``(draw, bin_0, bin_1, ...)``."""
        names = ["bin"] if len(self.edges) == 1 else [f"bin_{i}" for i in range(len(self.edges))]
        coords = {n: 0.5 * (e[1:] + e[:-1]) for n, e in zip(names, self.edges, strict=True)}
        values = self.draw_matrix.reshape(len(self.draw_matrix), *self.shape)
        return xr.DataArray(values, dims=("draw", *names), coords=coords, name="_".join(self.names))

    def values(self) -> Array:
        """Point estimate with one axis per observable, as a ``hist`` histogram has it; :attr:`draws` has the draws."""
        return self.nominal.reshape(self.shape)

    def variances(self) -> Array:
        """Variance of each bin, shaped like :meth:`values`."""
        return (self.std() ** 2).reshape(self.shape)

    @property
    def kind(self) -> str:
        """``"COUNT"``: bins hold contents, in the protocol of plottable histograms."""
        return "COUNT"

    @property
    def axes(self) -> tuple[BinAxis, ...]:
        """One per observable, in the protocol of plottable histograms; mplhep draws a spectrum as it is.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> spectrum = bu.IBU(4).fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]]), [100, 150])
        >>> list(spectrum.axes[0]), spectrum.kind
        ([(0.0, 1.0), (1.0, 2.0)], 'COUNT')
        """
        titles = (f"{name} [{unit}]" if unit else name for name, unit in itertools.zip_longest(self.names, self.units))
        return tuple(BinAxis(edges, title) for edges, title in zip(self.edges, titles, strict=False))

    def counts(self) -> Array:
        """Effective number of events, contents squared over variance, shaped like :meth:`values`."""
        values, variances = self.values(), self.variances()
        return np.divide(values**2, variances, out=np.zeros(values.shape), where=variances > 0)

    def mean(self) -> Array:
        """Posterior mean per bin, shape (bins,)."""
        return self.draw_matrix.mean(axis=0)

    def median(self) -> Array:
        """Posterior median per bin, shape (bins,)."""
        return np.median(self.draw_matrix, axis=0)

    def std(self) -> Array:
        """Posterior standard deviation per bin, shape (bins,); infinite where there is no point estimate."""
        if self.exact_covariance is not None:
            return np.sqrt(np.diag(self.exact_covariance))
        return np.where(np.isnan(self.nominal), np.inf, self.draw_matrix.std(axis=0, ddof=1))

    def interval(self, level: float = 0.68) -> tuple[Array, Array]:
        """Central credible interval per bin.

        Parameters
        ----------
        level : float
            Probability inside, between 0 and 1.

        Returns
        -------
        lower, upper : array, shape (bins,)
        """
        check_level(level)
        tail = 50.0 * (1.0 - level)
        lower, upper = np.percentile(self.draw_matrix, [tail, 100.0 - tail], axis=0)
        return lower, upper

    def covariance(self) -> Array:
        """Covariance of the bins, shape (bins, bins); infinite on the diagonal where there is no point estimate."""
        if self.exact_covariance is not None:
            return self.exact_covariance.copy()
        unseen = np.isnan(self.nominal)
        cov = np.atleast_2d(np.cov(np.where(unseen, 0.0, self.draw_matrix), rowvar=False))
        cov[unseen, unseen] = np.inf
        return cov

    def correlation(self) -> Array:
        """Correlation of the bins; zero where a bin never varies or has no point estimate (one on the diagonal)."""
        cov = self.covariance()
        scale = np.sqrt(np.diag(cov))
        measured = (scale > 0) & (scale < np.inf)
        scale = np.where(measured, scale, 1.0)
        out = np.where(np.outer(measured, measured), cov, 0.0) / np.outer(scale, scale)
        np.fill_diagonal(out, 1.0)
        return out

    @property
    def knows_sources(self) -> bool:
        """Whether :meth:`by_source` can split the uncertainty."""
        return bool(self.sources or self.exact_sources)

    def by_source(self) -> dict[str, Array]:
        """Standard deviation per bin from each source of uncertainty alone, and in total.

        Squares add up to the square of the total, within sampling error, where sources are independent. Systematics
        with a ``correlation`` are not, and after conditioning on ADVI or NUTS draws sources are so only approximately.
        """
        if self.exact_sources:
            return {name: np.array(std) for name, std in self.exact_sources.items()} | {"total": self.std()}
        if not self.sources:
            msg = f"this {self.method} spectrum does not know its sources of uncertainty."
            raise InputError(msg)
        if "by_source" not in self._cache:
            split = {name: np.asarray(make()).std(axis=0, ddof=1) for name, make in self.sources.items()}
            self._cache["by_source"] = split | {"total": self.std()}
        return dict(self._cache["by_source"])

    def grouped(self, groups: Mapping[str, str | Sequence[str]]) -> Spectrum:
        """The same spectrum with sources of uncertainty in groups, for tables, figures and files.

        The sources of a group fluctuate together, correlations of their nuisance parameters included.

        Parameters
        ----------
        groups : mapping of str to str or sequence of str
            By the group's name: names of sources, or patterns of them, such as ``"jes*"``. Sources in no group stay.

        Raises
        ------
        InputError, InputTypeError
            If the spectrum does not know its sources, a pattern matches none, or a source is in two groups.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
        >>> list(bu.MatrixInversion().fit(R, [100, 150]).grouped({"statistics": ["data", "sim*"]}).by_source())
        ['statistics', 'total']
        """
        if not self.knows_sources:
            msg = f"this {self.method} spectrum does not know its sources of uncertainty; there is nothing to group."
            raise InputError(msg)
        found = match_groups(groups, list(self.sources or self.exact_sources))
        check_names_of_groups(found, [name for name, p in self.parameters.items() if p.profiled])
        check_pairs_of_groups(found, self.parameters)
        drawn, exact = self.sources, self.exact_sources
        return replace(
            self,
            sources={
                group: drawn[group]
                if names == (group,)
                else partial(grouped_draws, [drawn[name] for name in names], np.nan_to_num(self.nominal))
                for group, names in found.items()
                if drawn
            },
            exact_sources={
                group: np.sqrt(np.sum([np.square(exact[name]) for name in names], axis=0))
                for group, names in found.items()
                if exact
            },
            parameters=grouped_parameters(found, self.parameters),
            _cache={},
        )

    def ranking(self) -> pd.DataFrame:
        """Impact of every source on every bin, the largest of a bin first.

        Returns
        -------
        pandas.DataFrame
            ``bin``, ``source``, ``kind`` (``"statistics"``, ``"systematic"``, ``"profiled"`` or ``"group"``), ``up``
            and ``down`` in the units of the spectrum, ``relative up`` and ``relative down``, and ``mean`` and ``std``
            of profiled nuisance parameters. The impact of one of these is the change that goes with its posterior
            standard deviation, the other parameters following.

        Raises
        ------
        InputError
            If the spectrum does not know its sources.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
        >>> list(bu.MatrixInversion().fit(R, [100, 150]).ranking()["source"])
        ['data', 'simulation', 'data', 'simulation']
        """
        if not self.sources:
            stds = self.by_source()
            draws = {name: np.outer([1.0, -1.0], std / np.sqrt(2.0)) for name, std in stds.items() if name != "total"}
        else:
            draws = {name: np.asarray(make()) for name, make in self.sources.items()}
        return ranking_table(draws, self.parameters, self.nominal, self.bin_labels, self.draw_matrix)

    def nuisance_correlations(self) -> pd.DataFrame:
        """Correlation of every bin with the profiled nuisance parameters, a row per bin and a column per parameter.

        NaN for bins that do not vary.

        Raises
        ------
        InputError
            If no nuisance parameter is profiled.
        """
        if not any(parameter.draws is not None for parameter in self.parameters.values()):
            msg = f"this {self.method} spectrum has no profiled nuisance parameters; unfold with profile=True."
            raise InputError(msg)
        return correlation_table(self.draw_matrix, self.parameters, self.bin_labels)

    def plot_ranking(self, bin: str | None = None, top: int = 20) -> Figure:
        """The largest impacts on a bin, by its label in :meth:`ranking`; see ``bayesunfold.plots.plot_ranking``."""
        from bayesunfold.plots import plot_ranking

        return plot_ranking(self.ranking(), bin, top)

    def same_bins(self, other: Spectrum) -> bool:
        """Whether another spectrum has the same axes and edges, to a part in a billion of the range."""
        return self.shape == other.shape and all(map(same_edges, self.edges, other.edges))

    @property
    def bin_labels(self) -> list[str]:
        """Ranges of the bins, in the order of the draws: the labels of :meth:`ranking`."""
        axes = []
        for name, edges in zip(self.names, self.edges, strict=True):
            axes.append([f"{name} [{low}, {high})" for low, high in itertools.pairwise(edge_texts(edges))])
        return [", ".join(parts) for parts in itertools.product(*axes)]

    def chi2(self, model: ArrayLike, model_covariance: ArrayLike | None = None) -> Chi2:
        """Chi-square of a model with the full covariance.

        Parameters
        ----------
        model : array, shape (bins,)
            Expected content of each bin, in the spectrum's normalisation.
        model_covariance : array, shape (bins, bins), optional
            The model's own uncertainty, added.

        Returns
        -------
        Chi2

        Raises
        ------
        InputError
            A model of the wrong length or NaN in a measured bin, a covariance that is none, no bin with an uncertainty.

        Warns
        -----
        OverlapWarning
            For bins without an uncertainty that differ from the model: no simulated event is in them. They are left
            out, as are bins without a point estimate.

        Notes
        -----
        Directions with less than 1e-8 of the largest relative variance count as unmeasured; the rank of the rest is
        ``dof``. The inverse of a covariance estimated from ``S`` draws is too large by ``(S-1)/(S-dof-2)``
        (Hartlap, Simon, Schneider, A&A 464 (2007) 399, doi:10.1051/0004-6361:20066170, eq. 17), which is undone.
        """
        target = as_numbers(model, "the model").ravel()
        if target.shape != (self.n_bins,):
            msg = f"the model has {target.size} bins and the spectrum {self.n_bins}; they must agree."
            raise InputError(msg)
        cov = self.covariance()
        measured = ~np.isnan(self.nominal)
        if not np.all(np.isfinite(cov[np.ix_(measured, measured)])):
            msg = f"this {self.method} spectrum was made without uncertainties; unfold with errors=True."
            raise InputError(msg)
        bad = np.flatnonzero(~np.isfinite(target) & measured)
        if len(bad):
            msg = f"the model is NaN or infinite in bins {bad.tolist()}."
            raise InputError(msg)
        if model_covariance is not None:
            cov = cov + check_covariance(model_covariance, self.n_bins, "the model's covariance")
        scale = np.sqrt(np.diag(cov))
        used = measured & (scale > 0)
        _warn_of_empty(
            np.flatnonzero(measured & ~used & (np.abs(self.nominal - target) > 0)), any_used=bool(used.any())
        )
        residual = (self.nominal - target)[used] / scale[used]
        values, vectors = np.linalg.eigh(cov[np.ix_(used, used)] / np.outer(scale[used], scale[used]))
        kept = values > 1e-8 * values.max(initial=0.0)
        dof = int(kept.sum())
        projected = vectors.T[kept] @ residual
        value = float(np.sum(projected**2 / values[kept]))
        if self.exact_covariance is not None:
            return Chi2(value, dof, float(stats.chi2.sf(value, dof)))
        n = len(self.draw_matrix)
        if n <= dof + 2:
            msg = f"{n} draws cannot give a chi-square with {dof} degrees of freedom; take more than {dof + 2}."
            raise InputError(msg)
        value *= draws_factor(n, dof)
        return Chi2(value, dof, float(stats.chi2.sf(value, dof)))

    def to_hist(self) -> hist.Hist:
        """The point estimate and variances as a ``hist.Hist`` with Weight storage, flow bins where they are known."""
        import hist

        axes = [hist.axis.Variable(e, label=n) for e, n in zip(self.edges, numbered(self.names), strict=True)]
        out = hist.Hist(*axes, storage=hist.storage.Weight())
        view = out.view(flow=False)
        view["value"] = self.nominal.reshape(self.shape)
        view["variance"] = (self.std() ** 2).reshape(self.shape)
        if self.flow is not None:
            full = out.view(flow=True)
            for place, draws in zip((0, -1), self.flow, strict=True):
                full["value"][place], full["variance"][place] = draws.mean(), draws.var(ddof=1)
        return out

    def to_dataframe(self, truth: ArrayLike | None = None) -> pd.DataFrame:
        """A row per bin: edges, point estimate, width, bands, and the estimated bias if it is known.

        Parameters
        ----------
        truth : array, shape (bins,), optional
            In the same normalisation; adds the truth and the pull of the point estimate.

        Returns
        -------
        pandas.DataFrame
            ``low`` and ``high`` are the edges of the only axis; of several axes each has its own,
            ``low_NAME`` and ``high_NAME``.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> spectrum = bu.IBU(4).fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]]), [100, 150])
        >>> list(spectrum.to_dataframe(truth=[85, 165]))
        ['low', 'high', 'unfolded', 'std', '68 % low', '68 % high', '95 % low', '95 % high', 'truth', 'pull']
        """
        import pandas as pd

        columns: dict[str, Array] = {}
        lows = np.meshgrid(*(e[:-1] for e in self.edges), indexing="ij")
        highs = np.meshgrid(*(e[1:] for e in self.edges), indexing="ij")
        for k, (name, low, high) in enumerate(zip(self.names, lows, highs, strict=True)):
            unique = name if self.names.count(name) == 1 else f"{name}_{k}"
            suffix = "" if len(self.edges) == 1 else f"_{unique}"
            columns |= {f"low{suffix}": low.ravel(), f"high{suffix}": high.ravel()}
        std = self.std()
        columns |= {"unfolded": self.nominal, "std": std}
        for level in (0.68, 0.95):
            lower, upper = self.interval(level)
            columns |= {f"{100 * level:.0f} % low": lower, f"{100 * level:.0f} % high": upper}
        if truth is not None:
            true = as_numbers(truth, "the truth").ravel()
            if true.shape != (self.n_bins,):
                msg = f"the truth has {true.size} bins and the spectrum {self.n_bins}; they must agree."
                raise InputError(msg)
            columns["truth"] = true
            columns["pull"] = np.divide(self.nominal - true, std, out=np.full(len(true), np.nan), where=std > 0)
        if self.bias is not None:
            columns["bias"] = self.bias
        return pd.DataFrame(columns)

    def table(self, truth: ArrayLike | None = None, form: Literal["text", "markdown", "latex", "csv"] = "text") -> str:
        """Bins, point estimate and 68 % band, beside the truth and the estimated bias if these are known.

        Parameters
        ----------
        truth : array, shape (bins,), optional
        form : {"text", "markdown", "latex", "csv"}
            Plain columns, a Markdown table, a ``tabular`` of LaTeX, or comma-separated values.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> spectrum = bu.IBU(4).fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]]), [100, 150])
        >>> print(spectrum.table(form="markdown").splitlines()[0])
        |    bin | unfolded | 68 % low | 68 % high |
        """
        frame = self.to_dataframe(truth)
        if len(self.edges) == 1:
            bins = [f"[{low}, {high})" for low, high in itertools.pairwise(edge_texts(self.edges[0]))]
        else:
            bins = [str(tuple(int(i) for i in np.unravel_index(b, self.shape))) for b in range(self.n_bins)]
        formats = {
            "unfolded": ".5g",
            "68 % low": ".5g",
            "68 % high": ".5g",
            "truth": ".5g",
            "pull": "+.2f",
            "bias": "+.4g",
        }
        shown = [name for name in formats if name in frame]
        columns = {"bin": bins} | {name: [format(v, formats[name]) for v in frame[name]] for name in shown}
        return as_table(columns, form)

    def plot(
        self,
        truth: ArrayLike | None = None,
        generator: ArrayLike | None = None,
        data: ArrayLike | None = None,
        label: str | None = None,
        ax: Axes | Sequence[Axes] | None = None,
        models: Mapping[str, ArrayLike | Spectrum] | None = None,
        experiment: Experiment | None = None,
    ) -> Figure:
        """Spectrum with 68 and 95 % bands and a ratio panel; see ``bayesunfold.plots.plot_spectrum``."""
        from bayesunfold.plots import plot_spectrum

        given: dict[str, Any] = {"truth": truth, "generator": generator, "data": data, "models": models}
        return plot_spectrum(self, label=label, ax=ax, experiment=experiment, **given)

    def report(self, path: str | Path) -> Path:
        """Write a page of this spectrum, one HTML file; see ``bayesunfold.report.write_report``."""
        from bayesunfold.report import write_report

        return write_report(self, path)

    def _in_range(self) -> tuple[str, str]:
        """What the contents of all bins are, and their sum."""
        contents = self.nominal * bin_volumes(self.edges) if self.normalization == "density" else self.nominal
        what = "yield" if self.luminosity is None else "cross section"
        return "fraction" if self.normalization == "shape" else what, f"{np.nansum(contents):.6g}"

    def _repr_html_(self) -> str:
        """The figure, small, for notebooks."""
        picture = io.StringIO()
        self.plot().savefig(picture, format="svg", metadata={"Date": None})
        svg = picture.getvalue()
        what, total = self._in_range()
        rows = {
            "observable": " x ".join(self.names),
            "bins": " x ".join(map(str, self.shape)),
            "draws": len(self.draw_matrix),
            "method": self.method,
            f"{what} in range": total,
        }
        return facts("Spectrum", rows, f'<div style="max-width:420px">{svg[svg.index("<svg") :]}</div>')

    def __repr__(self) -> str:
        return (
            f"Spectrum({' x '.join(self.names)}: {' x '.join(map(str, self.shape))} bins, "
            f"{len(self.draw_matrix)} draws, {' '.join(self._in_range())} in range, {self.method})"
        )


def _same(array: Array) -> Array:
    return array


def _warn_of_empty(bins: NDArray[np.integer], *, any_used: bool) -> None:
    if not any_used:
        msg = "the bins have no uncertainty; there is nothing to compare the model with. Take bins with events."
        raise InputError(msg)
    if len(bins):
        msg = (
            f"bins {bins.tolist()} have no uncertainty, since no simulated event has weight there, and differ from the "
            "model; they are left out of the chi-square. Merge them with their neighbours."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)


class Spectra(dict[str, Spectrum]):
    """Spectra of several observables whose draws are the same members, by name.

    Examples
    --------
    >>> import numpy as np
    >>> one = Spectrum((np.array([0.0, 1.0, 2.0]),), np.random.default_rng(1).normal(5, 1, (50, 2)), np.full(2, 5.0))
    >>> Spectra({"a": one, "b": one}).covariance().shape
    (4, 4)
    """

    def joint(self) -> Spectrum:
        """All bins in a row as one spectrum, with bin numbers for edges."""
        if not self:
            msg = "there are no spectra; ask for at least one observable."
            raise InputError(msg)
        values = np.concatenate([s.draw_matrix for s in self.values()], axis=1)
        nominal = np.concatenate([s.nominal for s in self.values()])
        return Spectrum((np.arange(len(nominal) + 1.0),), values, nominal, names=("bin",))

    def covariance(self) -> Array:
        """Joint covariance, bins of the spectra one after another in their order."""
        return self.joint().covariance()

    def chi2(self, models: Mapping[str, ArrayLike]) -> Chi2:
        """Chi-square of models of all spectra with the joint covariance; see :meth:`Spectrum.chi2`."""
        missing = [name for name in self if name not in models]
        if missing:
            msg = f"there is no model of {', '.join(missing)}; give the contents of every spectrum."
            raise InputError(msg)
        return self.joint().chi2(np.concatenate([np.asarray(models[name], dtype=np.float64).ravel() for name in self]))
