"""The result of an unfolding: weights of simulated events, and everything binned from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import (
    as_features,
    as_numbers,
    check_count,
    check_finite,
    check_known,
    check_mapping,
    effective_size,
)
from bayesunfold._support.html import facts
from bayesunfold._support.threads import block_threads
from bayesunfold.binning import as_axes, bin_index
from bayesunfold.classifier.linearized import linearize, posterior_axes
from bayesunfold.classifier.sampling import Draws, LinearizedPosterior
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.spectrum import Normalization, Spectra, Spectrum
from bayesunfold.unfolding.binned import binned_spectrum
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.moments import central_moments
from bayesunfold.unfolding.pulls import known_nuisances, pulls_table
from bayesunfold.unfolding.ranking import rank_expectation
from bayesunfold.unfolding.record import Inputs, Look, Measurement, Record
from bayesunfold.unfolding.summary import summary_of

if TYPE_CHECKING:
    import pandas as pd
    import pymc as pm
    from matplotlib.figure import Figure

    from bayesunfold.generative.event_posterior import EventPosterior
    from bayesunfold.omnifold.iteration import Networks
    from bayesunfold.report.checks import Check
    from bayesunfold.studies.bottom_line import BottomLine, Model
    from bayesunfold.studies.goodness import GoodnessOfFit

__all__ = ["UnfoldingResult"]

Array = NDArray[np.floating]
Observable = str | ArrayLike


def __dir__() -> list[str]:
    return __all__


class SpectrumOptions(TypedDict, total=False):
    """Options of :meth:`UnfoldingResult.spectrum`, for editors and type checkers."""

    normalization: Normalization
    luminosity: float | tuple[float, float] | None
    unit: str | tuple[str, ...]
    centre: str


@dataclass(frozen=True)
class UnfoldingResult:
    """Unfolded event weights with their posterior.

    Made by :meth:`OmniFold.fit` or :func:`bayesunfold.load`, not by hand.

    Attributes
    ----------
    inputs : Inputs
        Simulated events, in the order of all weights, data and backgrounds.
    members : Members
        The ensemble, in compact form.
    measurement : Measurement
        Step 1 of the first iteration, and draws of its posterior.
    iterations : tuple of Networks
        Networks of every iteration.
    pull_weights : array, shape (n,)
        Point estimate of step 1 in the last iteration, relative to the generator weight; NaN for events that do
        not pass both levels.
    record : Record
        Settings, seed, versions, history and time.
    closure_weights : array, shape (n,), or None
        Point-estimate weights unfolded from pseudo-data, made by :meth:`estimate_bias`.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=20,
    ...                    random_seed=1, progressbar=False)
    >>> result.weights.dims, result.weights.shape
    (('draw', 'event'), (20, 300))
    >>> result.spectrum("gen", [-5, 0, 5]).interval(0.68)[0].shape
    (2,)
    """

    inputs: Inputs
    members: Members
    measurement: Measurement
    iterations: tuple[Networks, ...]
    pull_weights: Array
    record: Record
    closure_weights: Array | None = None

    def __len__(self) -> int:
        return len(self.simulation)

    @property
    def simulation(self) -> Simulation:
        """The simulated events, in the order of all weights."""
        return self.inputs.simulation

    @property
    def data(self) -> Data:
        """The measured events."""
        return self.inputs.data

    @property
    def backgrounds(self) -> tuple[Background, ...]:
        """The background events."""
        return self.inputs.backgrounds

    @property
    def draws(self) -> Draws:
        """Posterior draws of step 1 of the first iteration, in whitened axes."""
        return self.measurement.draws

    @property
    def nuisances(self) -> pd.DataFrame:
        """Profiled nuisance parameters, one row each: ``mean``, ``std``, ``pull``, ``constraint``, correlations.

        Each is N(0, 1) before the data; see :class:`Systematic`, ``profile=True``.

        Raises
        ------
        InputError
            If none is profiled.
        """
        return pulls_table(known_nuisances(self.measurement.nuisances))

    def plot_pulls(self) -> Figure:
        """Posterior of each profiled nuisance parameter; see ``bayesunfold.plots.plot_pulls``."""
        from bayesunfold.plots import plot_pulls

        return plot_pulls(self.nuisances)

    def ranking(self, f: Callable[[Array], ArrayLike] | ArrayLike, label: str = "expectation") -> pd.DataFrame:
        """Impact of every source on :meth:`expectation`; columns as of :meth:`Spectrum.ranking`.

        Parameters
        ----------
        f : callable or array, shape (n,)
            As for :meth:`expectation`.
        label : str
            What the column ``bin`` says.
        """
        values = self._event_values(f)
        return rank_expectation(self.members, self.measurement.nuisances, values, self.simulation.pass_gen, label)

    @property
    def history(self) -> tuple[Look, ...]:
        """Per iteration: losses, remaining Newton steps, largest change of a reference bin in units of its band."""
        return self.record.history

    @property
    def seconds(self) -> dict[str, float]:
        """Time spent in training, posterior and members."""
        return self.record.seconds

    @property
    def configuration(self) -> dict[str, object]:
        """All settings, the seed, the number of iterations and the versions of the libraries, JSON-ready."""
        made: dict[str, object] = {"random_seed": self.record.seed, "iterations_done": len(self.iterations)}
        return self.record.settings.state() | made | {"versions": self.record.versions}

    def _repr_html_(self) -> str:
        last, settings = self.history[-1], self.record.settings
        rows: dict[str, object] = {
            "simulated events": len(self),
            "data events": len(self.data),
            "observables": ", ".join(self.simulation.gen_names),
            "method": f"{settings.method}, {self.members.n_members} {settings.inference} members",
            "sources of uncertainty": ", ".join(self.members.sources),
            "yield": f"{self.nominal.sum():.6g}",
            "effective size": f"{effective_size(self.nominal):.0f}",
        }
        if settings.iterates:
            moved = f"the last moved a spectrum by {last['change']:.2f} of its band"
            rows["iterations"] = f"{len(self.iterations)}, {moved}"
        rows["random seed"] = self.record.seed
        rows["more"] = "summary(), report(path), spectrum(observable, bins)"
        return facts("UnfoldingResult", rows)

    def __repr__(self) -> str:
        return (
            f"UnfoldingResult({len(self)} simulated and {len(self.data)} data events, "
            f"{len(self.iterations)} iterations, {self.members.n_members} {self.record.settings.inference} members, "
            f"yield {self.nominal.sum():.6g}, "
            f"effective size {effective_size(self.nominal):.0f})"
        )

    @cached_property
    def nominal(self) -> Array:
        """Weights of the point estimate, shape (n,): expected data events each; zero for fakes."""
        return self.members.nominal()

    @property
    def weights(self) -> xr.DataArray:
        """Weights of every member, dimensions ``(draw, event)``, float32.

        Made on demand; takes ``4 x draws x events`` bytes. Spectra do not need it.
        """
        out = np.empty((self.members.n_members, len(self)), dtype=np.float32)
        with block_threads():
            for rows, block in self.members.blocks():
                out[:, rows] = block.T
        return xr.DataArray(out, dims=("draw", "event"), name="weights")

    def weights_for(self, gen_new: ArrayLike) -> xr.DataArray:
        """The learned weight function on other particle-level events.

        Systematics that change generator weights, profiled or not, are in the factors as functions of the particle
        level, learned by least squares; what they change beyond a function of ``gen`` averages out. Of profiled ones
        the factors are on the generator weights at the fitted nuisance parameters. With ``efficiency="prior"`` of a
        direct posterior they are those of events that pass detector level.

        Parameters
        ----------
        gen_new : array or frame, shape (m,) or (m, d_gen)
            Events of the same generator and selection. A frame's columns must be those of ``gen``.

        Returns
        -------
        xarray.DataArray
            Dimensions ``(draw, event)``: factors on the generator weight, with the yield of this
            simulation; multiply by the ratio of the samples' total generator weights. The coordinate
            ``nominal`` holds the point estimate.
        """
        from bayesunfold.unfolding.weight_function import weights_for

        return weights_for(self.simulation, self.members, gen_new)

    @cached_property
    def event_map(self) -> EventPosterior:
        """The simulation's ``q(t | r)``, trained when it is first asked for; see :class:`EventPosterior`."""
        from bayesunfold.generative.event_posterior import EventPosterior

        return EventPosterior(random_seed=self.record.seed, progressbar=False).fit(self.simulation)

    def event_posterior(
        self, reco: ArrayLike | Data, draws: int = 100, *, posterior: EventPosterior | None = None
    ) -> xr.DataArray:
        """Particle-level draws for each detector-level event, ``p(t | r)`` proportional to ``nu(t) q(t | r)``.

        Of an event that passes both levels; a fake or a background event has no particle level. Each draw has the
        weights ``nu`` of one member, so the draws hold the detector's resolution and the uncertainty of the unfolded
        distribution.

        Parameters
        ----------
        reco : Data, array or frame, shape (m, d_reco)
            Detector-level events, measured or others.
        draws : int
            Per event.
        posterior : EventPosterior, optional
            The simulation's map, fitted; by default it is trained at the first call and kept (``event_map``).

        Returns
        -------
        xarray.DataArray
            Dimensions ``(draw, event, feature)``; errors, warnings and coordinates as of
            :meth:`EventPosterior.sample`, and ``member``, the number of each draw's member.

        Notes
        -----
        Systematics that move the detector level change ``nu`` here, not the map. Take
        :meth:`EventPosterior.fit` of a moved simulation to see what that does.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> toy = bu.datasets.gaussian_toy(300, 1000, random_seed=1)
        >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=2, inference="laplace", draws=50,
        ...                    random_seed=1, progressbar=False)
        >>> result.event_posterior([0.0, 1.0], draws=20).shape
        (20, 2, 1)
        """
        from bayesunfold.generative.answers import event_posterior

        return event_posterior(self, reco, draws, posterior)

    def _observable(self, values: Observable, level: str) -> tuple[str, Array]:
        """Name and values of an observable of the simulated events."""
        sim = self.simulation
        if isinstance(values, str):
            column = sim.gen_column(values) if level == "gen" else sim.reco_column(values)
            return values, column
        array, names = as_features(values, "values")
        if array.shape[1] != 1:
            msg = f"values have {array.shape[1]} columns; pass one observable, or a tuple of them."
            raise InputError(msg)
        if len(array) != len(sim):
            msg = f"values have {len(array)} entries; the simulation has {len(sim)} events, and each needs one."
            raise InputError(msg)
        name = names[0] if names is not None else "observable"
        rows = sim.pass_gen if level == "gen" else sim.pass_reco
        checked = np.where(np.isnan(array), 0.0, array) if sim.undefined == "indicator" else array
        check_finite(checked, rows, "values", (name,), f"they must exist in every event that passes {level}.")
        return name, array[:, 0]

    def spectrum(
        self,
        values: Observable | tuple[Observable, ...],
        bins: ArrayLike | Sequence[ArrayLike],
        *,
        normalization: Normalization = "yield",
        luminosity: float | tuple[float, float] | None = None,
        unit: str | tuple[str, ...] = "",
        centre: str = "nominal",
    ) -> Spectrum:
        """Posterior histogram of any particle-level observable, in any binning.

        Parameters
        ----------
        values : str, array of shape (n,), or a tuple of these
            A particle-level feature by name, or the observable's value in every simulated event; a tuple makes a
            histogram in several dimensions. Values of events that fail gen do not matter.
        bins : array of edges, or one array an observable
            Strictly increasing, half open.
        normalization : {"yield", "shape", "density"}
            Events per bin; fraction of all events (outside the bins included); events per unit of the observable.
        luminosity : float or (float, float), optional
            Divides the spectrum: events become a cross section in its inverse unit. A second number is the relative
            uncertainty u, one nuisance parameter per member and a source of its own; that of a systematic named
            ``"luminosity"``, which varies the backgrounds, if there is one: then it is needed. The luminosity is
            log-normal, multiplied by 1 + u per standard deviation. Not for shapes.
        unit : str or tuple of str
            Unit of each observable, for figures and tables.
        centre : {"nominal", "draws"}
            Whether draws are shifted so that their mean is the point estimate.

        Returns
        -------
        Spectrum

        Raises
        ------
        InputError
            Wrong length, NaN in passing events, edges that do not increase.
        """
        observables = [self._observable(v, "gen") for v in (values if isinstance(values, tuple) else (values,))]
        return binned_spectrum(self, observables, bins, "gen", normalization, luminosity, unit, centre)

    def refolded(
        self,
        values: Observable | tuple[Observable, ...],
        bins: ArrayLike | Sequence[ArrayLike],
        **options: Unpack[SpectrumOptions],
    ) -> Spectrum:
        """The unfolded simulation at detector level, fakes included, to be compared with data less backgrounds.

        Arguments as for :meth:`spectrum`, with detector-level features. These are the nominal ones in every member: the
        weights of a member answer a shift of the detector that its features do not have, so what a systematic of the
        detector adds to this band is what the data would need without it, and far more than their disagreement.
        """
        observables = [self._observable(v, "reco") for v in (values if isinstance(values, tuple) else (values,))]
        check_known(dict(options), list(SpectrumOptions.__annotations__), "refolded")
        return binned_spectrum(
            self,
            observables,
            bins,
            "reco",
            options.get("normalization", "yield"),
            options.get("luminosity"),
            options.get("unit", ""),
            options.get("centre", "nominal"),
        )

    @property
    def nominal_reco(self) -> Array:
        """Weights of the point estimate at detector level, shape (n,): fakes included, zero for misses."""
        return self.members.nominal("reco")

    def spectra(self, bins: Mapping[str, ArrayLike], **options: Unpack[SpectrumOptions]) -> Spectra:
        """Several particle-level features at once, member by member.

        Parameters
        ----------
        bins : mapping of feature name to edges

        Returns
        -------
        Spectra
            A dict of spectra by feature. Draw ``s`` is the same member in all of them, so there is a joint
            ``covariance()`` and ``chi2(models)``.
        """
        named = check_mapping(bins, "bins")
        return Spectra({name: self.spectrum(name, edges, **options) for name, edges in named.items()})

    def expectation(self, f: Callable[[Array], ArrayLike] | ArrayLike) -> xr.DataArray:
        """Posterior of a weighted mean over the unfolded events.

        Parameters
        ----------
        f : callable or array, shape (n,)
            Function of the particle-level features (array (n, d_gen) of events that pass gen), or its values.

        Returns
        -------
        xarray.DataArray
            One value a draw, centred on the point estimate, which is the attribute ``nominal``.
        """
        values = self._event_values(f)
        nominal = float(self.nominal @ values / self.nominal.sum())
        everything = np.zeros(len(self), dtype=np.int64)
        top, bottom = (self.members.accumulate(everything, 1, values=v)[:, 0] for v in (values, None))
        drawn = top / bottom
        return xr.DataArray(drawn - drawn.mean() + nominal, dims="draw", attrs={"nominal": nominal})

    def _event_values(self, f: Callable[[Array], ArrayLike] | ArrayLike) -> Array:
        """Of a function of the particle level, or an observable, in every event; zero where gen fails, shape (n,)."""
        gen = self.simulation.pass_gen
        values = np.zeros(len(self))
        if callable(f):
            found = as_numbers(f(self.simulation.gen[gen]), "f").squeeze()
            if found.shape != (int(gen.sum()),):
                msg = f"f gives shape {found.shape} for {int(gen.sum())} events; it must give one number an event."
                raise InputError(msg)
            values[gen] = found
        else:
            values[gen] = self._observable(f, "gen")[1][gen]
        if not np.all(np.isfinite(values)):
            msg = f"f gives NaN or infinity in {int((~np.isfinite(values)).sum())} events; the mean would not exist."
            raise InputError(msg)
        return values

    def profile(self, x: Observable, y: Observable, bins: ArrayLike) -> xr.DataArray:
        """Posterior mean of one observable in bins of another.

        Parameters
        ----------
        x, y : str or array of shape (n,)
            Particle-level observables; ``y`` is averaged in bins of ``x``.
        bins : array of edges

        Returns
        -------
        xarray.DataArray
            Dimensions ``(draw, bin)``, centred on the point estimate, which is the coordinate ``nominal``; NaN in bins
            without events.
        """
        return self.moments(y, 1, by=x, bins=bins)[:, 0].drop_vars("moment").rename(None)

    def moments(
        self, values: Observable, order: int = 2, *, by: Observable | None = None, bins: ArrayLike | None = None
    ) -> xr.DataArray:
        """Posterior of mean, variance, skewness and kurtosis of an unfolded observable, without binning it.

        Parameters
        ----------
        values : str or array of shape (n,)
            A particle-level observable. Events in which it does not exist (NaN) do not count.
        order : int
            1 for the mean to 4 for all.
        by, bins : str or array of shape (n,), and array of edges, optional
            Another particle-level observable, and bins of it in which moments are taken.

        Returns
        -------
        xarray.DataArray
            Dimensions ``(draw, moment)``, with ``by`` ``(draw, moment, bin)``; centred on the point estimate, which is
            the coordinate ``nominal``. The kurtosis of a Gaussian is 3. NaN in bins without events, and skewness and
            kurtosis of a member whose variance is not positive.

        Raises
        ------
        InputError
            For an order outside 1 to 4, ``by`` without ``bins`` or the other way round, and unknown observables.
        """
        check_count(order, "order", 1, 4)
        name, x = self._observable(values, "gen")
        exists = self.simulation.pass_gen & np.isfinite(x)
        if by is None and bins is None:
            groups = np.where(exists, 0, -1)
            return central_moments(self.members, self.nominal, x, groups, 1, order)[:, :, 0].rename(name)
        if by is None or bins is None:
            msg = "by and bins go together: an observable, and the edges of its bins."
            raise InputError(msg)
        _, other = self._observable(by, "gen")
        (edges,) = as_axes([other], bins)
        groups = bin_index([other], (edges,), exists)
        out = central_moments(self.members, self.nominal, x, groups, len(edges) - 1, order)
        return out.assign_coords(bin=0.5 * (edges[1:] + edges[:-1])).rename(name)

    def estimate_bias(self) -> UnfoldingResult:
        """Unfold pseudo-data from the result itself, to see what stopping early and the prior leave behind.

        The pseudo-data are the simulated events at detector level with their unfolded weights, so they have no
        fluctuation of their own; the same number of iterations is run with the same information as the data. What comes
        out minus what went in is the bias that the method has at the result.

        Returns
        -------
        UnfoldingResult
            The same result, whose particle-level spectra carry ``bias``.

        Warns
        -----
        BiasWarning
            Where the bias exceeds half the band in one of ten bins of a feature.
        """
        from bayesunfold.omnifold.bias import estimate_bias

        return estimate_bias(self)

    def prior_dependence(self, factor: ArrayLike | Callable[[Array], ArrayLike]) -> dict[str, Array]:
        """Shift of the result, in units of its band, when unfolding starts from another generator.

        Parameters
        ----------
        factor : array, shape (n,), or callable
            By which generator weights are multiplied; a callable gets the particle-level features (n, d_gen). Fakes
            get the mean factor of the others, unless an array has a number for them; so a constant factor is none.

        Returns
        -------
        dict of str to array
            By particle-level feature: (new - old) / band in ten bins of equal generator population.
        """
        from bayesunfold.omnifold.bias import prior_dependence

        return prior_dependence(self, factor)

    def goodness_of_fit(
        self, experiments: int = 100, *, random_seed: int = 0, workers: int = 0, progressbar: bool = True
    ) -> GoodnessOfFit:
        """Does a direct posterior, refolded, look like the data? Two p-values, with nulls from pseudo-experiments.

        Pseudo-data are drawn from the answer at detector level, the simulation with replacement, and both are unfolded
        with the same settings; profiled nuisance parameters stay at their estimates.

        Parameters
        ----------
        experiments : int
            Pseudo-experiments, each as long as the fit; 0 for the p-values in closed form, (D9) and (D10).
        random_seed : int
        workers : int
            Processes; 0 to stay in this one.
        progressbar : bool

        Raises
        ------
        InputError
            For a result of the loop, and for negative generator weights, which are no probabilities.
        """
        from bayesunfold.studies.goodness import goodness_of_fit

        return goodness_of_fit(self, experiments, random_seed=random_seed, workers=workers, progressbar=progressbar)

    def bottom_line(self, model_a: Model, model_b: Model, bins: Mapping[str, ArrayLike]) -> BottomLine:
        """Whether unfolded bands separate two models better than data at detector level do, which they must not.

        Parameters
        ----------
        model_a, model_b : array, shape (n,), or callable
            Factors on the generator weights of the simulated events, or a function of the particle-level features (m,
            d_gen) of events that pass gen. Both have the yield of the data at detector level. Fakes get the mean factor
            of the others, unless an array has a number for them.
        bins : mapping of particle-level feature to edges

        Returns
        -------
        BottomLine
            Chi-square between the models, by feature and at detector level, where no binning is chosen. Both have the
            covariance of statistics alone: what systematics and backgrounds add to the bands would hide a prior.

        Raises
        ------
        InputError
            Models that are alike, negative, or of the wrong length; no bins.
        """
        from bayesunfold.studies.bottom_line import bottom_line

        return bottom_line(self, model_a, model_b, bins)

    @property
    def model(self) -> pm.Model:
        """The Bayesian neural network as a PyMC model.

        Of the loop: the first step 1, on the events it saw; draws were made with the network linearised about its most
        probable weights, which is ``result.linearized_model``. Of a direct posterior: the linearised particle-level
        network, whose observed variable is the moments. ``pymc.model_to_graphviz(result.model)`` draws it.
        """
        if self.measurement.moments is not None:
            from bayesunfold.direct.model import layer_names, network_model

            moments = self.measurement.moments
            if moments.hyperprior and moments.custom is None:
                msg = (
                    f"the hyperprior was the function {moments.hyperprior!r}, which a file does not keep; unfold again."
                )
                raise InputError(msg)
            layout = self.members.step2.classifier.layout
            names = layer_names(layout, self.simulation.gen_names)
            return network_model(layout, moments, names)
        from bayesunfold.classifier.network import full_model

        step1 = self.measurement.step1
        return full_model(step1.layout, *step1.classes.labelled(), step1.classes.offset)

    @property
    def linearized_model(self) -> pm.Model:
        """The PyMC model that the posterior draws come from."""
        return self.linearized_posterior().model()

    def linearized_posterior(self) -> LinearizedPosterior:
        """Step 1 of the first iteration in its posterior axes."""
        step1 = self.measurement.step1
        return linearize(step1, *posterior_axes(step1))

    def summary(self) -> str:
        """Settings, convergence and effective sizes, as text."""
        return summary_of(self)

    def verdicts(self) -> list[Check]:
        """The checks of the dashboard, as data: name, value, threshold, whether it passes, and what to do if not.

        Takes some seconds: the closure at detector level trains a second classifier. ``str`` of a check is one line.

        Returns
        -------
        list of Check
            ``passed`` is None for a check that does not apply.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> toy = bu.datasets.gaussian_toy(300, 600, random_seed=1)
        >>> result = bu.unfold(toy.gen, toy.reco, toy.data, inference="laplace", draws=50, random_seed=1,
        ...                    progressbar=False)
        >>> [check.name for check in result.verdicts()][:2]
        ['iterations have converged', 'closure at detector level']
        """
        from bayesunfold.report.checks import check_result

        return check_result(self)

    def plot_history(self) -> Figure:
        """Losses and change of the spectrum per iteration."""
        from bayesunfold.plots import plot_history

        return plot_history(self)

    def to_datatree(self, bins: Mapping[str, ArrayLike] | None = None) -> xr.DataTree:
        """ArviZ groups; see ``bayesunfold.io.arviz``."""
        from bayesunfold.io.arviz import to_datatree

        return to_datatree(self, bins)

    def report(
        self,
        path: str | Path,
        bins: Mapping[str, ArrayLike] | None = None,
        spectra: Mapping[str, Spectrum] | None = None,
        tests: BottomLine | GoodnessOfFit | Sequence[BottomLine | GoodnessOfFit] = (),
    ) -> Path:
        """Write the dashboard, one HTML file; see ``bayesunfold.report.write_report``."""
        from bayesunfold.report import write_report

        return write_report(self, path, bins, spectra, tests=tests)

    def save(self, path: str | Path) -> Path:
        """Save to netCDF (``.nc``) or Zarr (``.zarr``), atomically; :func:`bayesunfold.load` reads it back."""
        from bayesunfold.io.storage import save

        if not isinstance(path, str | Path):
            msg = f"path is {path!r}; name a file, for instance 'unfolded.nc'."
            raise InputTypeError(msg)
        return save(self, Path(path))
