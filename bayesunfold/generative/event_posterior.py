"""Particle-level draws for each detector-level event: a generative map, and its prior changed by weights."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_features, as_numbers, check_count, check_flag, check_instance, check_seed
from bayesunfold._support.progress import Progress
from bayesunfold._support.streams import part_stream
from bayesunfold._support.threads import block_threads, map_here
from bayesunfold.errors import BayesUnfoldError, InputError, InputTypeError, OverlapWarning, SmallSampleWarning
from bayesunfold.events import Data, Simulation
from bayesunfold.generative.density import EventDensity, row_blocks
from bayesunfold.generative.resample import choose, proposal_size
from bayesunfold.generative.training import TrainingPlan
from bayesunfold.omnifold.checkpoint import choose_seed

__all__ = ["EventPosterior", "NotFittedEventPosteriorError", "read_reco"]

Array = NDArray[np.floating]
Factor = Callable[[Array], ArrayLike]

LEAST_PROPOSALS = 100
"""Proposals of an event whose draws are chosen by weights; as many as draws if these are more."""

FEW_PROPOSALS = 10.0
"""Effective number of proposals below which the draws of an event repeat few values."""

FEW_EVENTS = 1000
"""Simulated events below which the map is known to be coarse."""

MOST_DRAWS = 100_000

LOOKS = 10
"""How often progress is shown."""


def __dir__() -> list[str]:
    return __all__


class NotFittedEventPosteriorError(BayesUnfoldError, ValueError, AttributeError):
    """An :class:`EventPosterior` was asked for draws before it was fitted."""


class EventPosterior:
    """Particle level given detector level, event by event.

    Learns ``q(t | r)``, the conditional density of the simulation, from events that pass both levels. Weights ``nu(t)``
    of an unfolding change its prior, ``p(t | r)`` proportional to ``nu(t) q(t | r)``, without another training:
    :meth:`UnfoldingResult.event_posterior` does so.

    Parameters
    ----------
    random_seed : int, optional
        The same seed gives the same map and the same draws.
    progressbar : bool

    Notes
    -----
    One small network per particle-level feature gives a mixture of Gaussians, conditional on detector level and on the
    features before it. Features are mapped to normal scores; integers are rounded; values that many events share, and
    features that do not exist, have probabilities of their own. ``docs/statistics.md`` derives it, equations (G1) to
    (G4). A finite simulation and training leave errors that the draws do not contain; ``docs/methods.md`` says how
    large they were.

    References
    ----------
    M. Bellagente et al., arXiv:2006.06685, and A. Shmakov et al., arXiv:2305.10399, for generative unfolding with other
    networks.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(10, 1000, random_seed=1)
    >>> posterior = bu.EventPosterior(random_seed=1, progressbar=False).fit(toy.simulation)
    >>> draws = posterior.sample(toy.data, draws=50)
    >>> draws.dims, draws.shape
    (('draw', 'event', 'feature'), (50, 10, 1))
    """

    def __init__(self, *, random_seed: int | None = None, progressbar: bool = True) -> None:
        self.random_seed = None if random_seed is None else check_seed(random_seed)
        self.progressbar = check_flag(progressbar, "progressbar")
        self._plan = TrainingPlan()

    def fit(self, simulation: Simulation) -> EventPosterior:
        """Train on the simulated events that pass both levels, with their weights.

        Parameters
        ----------
        simulation : Simulation

        Returns
        -------
        EventPosterior
            Itself.

        Raises
        ------
        InputTypeError
            If ``simulation`` is none.

        Warns
        -----
        SmallSampleWarning
            For fewer than 1000 events.
        """
        check_instance(simulation, Simulation, "simulation")
        both = simulation.both
        n = int(both.sum())
        if n < FEW_EVENTS:
            msg = f"{n} simulated events pass both levels (limit {FEW_EVENTS}); the event posterior will be coarse."
            warnings.warn(msg, SmallSampleWarning, stacklevel=2)
        self._seed = choose_seed(self.random_seed, None)
        self._names = simulation.gen_names, simulation.reco_names
        self._named = simulation.gen_named, simulation.reco_named
        self._may_miss = _may_miss(simulation)
        progress = Progress(simulation.gen.shape[1], "event posterior", show=self.progressbar)
        self.density_ = EventDensity.fit(
            simulation.gen[both],
            simulation.reco[both],
            simulation.reco_weight[both],
            self._names,
            self._plan,
            self._seed,
            progress,
        )
        progress.close(f"{n} events learned")
        return self

    def sample(self, reco: ArrayLike | Data, draws: int = 100, weight: Factor | None = None) -> xr.DataArray:
        """Draws of the particle level for detector-level events.

        Parameters
        ----------
        reco : Data, array or frame, shape (m, d_reco)
            Detector-level events with the features of the simulation.
        draws : int
            Per event.
        weight : callable, optional
            Changes the prior: a function of particle-level events (k, d_gen) that gives factors on the generator
            weight, shape (k,), or (members, k): then draw ``s`` has the factors of member ``s`` modulo their number.
            :meth:`UnfoldingResult.weights_for` is one.

        Returns
        -------
        xarray.DataArray
            Dimensions ``(draw, event, feature)``, with the names of the features, in the user's units; NaN where a
            feature does not exist. Coordinates by event: ``effective_size``, the effective number of proposals behind
            the draws, and ``outside``, whether a detector-level feature lies beyond the simulated range.

        Raises
        ------
        NotFittedEventPosteriorError
            Before :meth:`fit`.
        InputError, InputTypeError
            Fewer than one draw; other features than the simulation's; infinite values; NaN in a feature that every
            simulated event has; factors that are negative, infinite or of the wrong shape, or all zero in an event.

        Warns
        -----
        OverlapWarning
            If events lie outside the simulated range, whose draws are those of the range's end; if an event has fewer
            than ten effective proposals.
        """
        density = self._fitted()
        count = check_count(draws, "draws", 1, MOST_DRAWS)
        if weight is not None and not callable(weight):
            msg = (
                f"weight has type {type(weight).__name__}; pass a function of particle-level events, for instance "
                "result.weights_for. To change the weights of simulated events, give them to Simulation(weight=)."
            )
            raise InputTypeError(msg)
        x = self._read_reco(reco)
        outside = density.outside(x)
        _warn_outside(outside)
        proposals = count if weight is None else max(count, LEAST_PROPOSALS)
        out = np.empty((count, len(x), len(density.gen)))
        sizes = np.full(len(x), float(count))
        progress = Progress(len(x), "events", show=self.progressbar)

        def one(numbered: tuple[int, slice]) -> slice:
            number, rows = numbered
            # other events have other draws, the same events the same
            rng = part_stream(self._seed, "proposals", (zlib.crc32(x[rows].tobytes()) << 24) + number)
            n = rows.stop - rows.start
            proposed = density.propose(np.repeat(x[rows], proposals, axis=0), rng)
            shaped = proposed.reshape(n, proposals, -1)
            if weight is None:
                out[:, rows] = np.swapaxes(shaped, 0, 1)
                return rows
            factor = _factors(weight, proposed).T.reshape(n, proposals, -1)
            _check_totals(factor, rows)
            chosen = choose(factor, count, rng)
            out[:, rows] = np.swapaxes(np.take_along_axis(shaped, chosen[:, :, None], axis=1), 0, 1)
            sizes[rows] = proposal_size(factor)
            return rows

        with block_threads():
            for rows in map_here(one, enumerate(row_blocks(len(x), proposals))):
                if rows.stop * LOOKS // len(x) > rows.start * LOOKS // len(x):
                    progress.update(rows.stop)
        progress.close(f"{count} draws for each of {len(x)} events")
        if weight is not None:
            _warn_few(sizes)
        return xr.DataArray(
            out,
            dims=("draw", "event", "feature"),
            coords={
                "feature": list(self._names[0]),
                "effective_size": ("event", sizes),
                "outside": ("event", outside),
            },
            name="particle_level",
        )

    def log_prob(self, gen: ArrayLike, reco: ArrayLike | Data) -> Array:
        """Log of ``q(t | r)`` at pairs of events, shape (m,).

        Parameters
        ----------
        gen : array or frame, shape (m, d_gen)
        reco : Data, array or frame, shape (m, d_reco)

        Returns
        -------
        array
            Density per unit of the continuous features; of integers, shared values and NaN it is a probability. Minus
            infinity outside the simulated range.

        Raises
        ------
        NotFittedEventPosteriorError, InputError
            As for :meth:`sample`; arrays of different lengths.
        """
        density = self._fitted()
        t = _ordered(gen, self._names[0], "gen", named=self._named[0])
        x = self._read_reco(reco)
        if len(t) != len(x):
            msg = f"gen has {len(t)} events and reco {len(x)}; they must be pairs."
            raise InputError(msg)
        return density.log_prob(t, x)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the particle-level features."""
        self._fitted()
        return self._names[0]

    def _fitted(self) -> EventDensity:
        if not hasattr(self, "density_"):
            msg = "this EventPosterior is not fitted; call fit(simulation) first."
            raise NotFittedEventPosteriorError(msg)
        return self.density_

    def _read_reco(self, reco: ArrayLike | Data) -> Array:
        return _reco_features(reco, self._names[1], self._may_miss, named=self._named[1])


def read_reco(reco: ArrayLike | Data, simulation: Simulation) -> Array:
    """Detector-level events in the order of the simulation's features; errors as of :meth:`EventPosterior.sample`."""
    return _reco_features(reco, simulation.reco_names, _may_miss(simulation), named=simulation.reco_named)


def _may_miss(simulation: Simulation) -> NDArray[np.bool_]:
    """Features that do not exist in every simulated event."""
    return np.asarray(np.isnan(simulation.reco[simulation.pass_reco]).any(axis=0))


def _reco_features(
    reco: ArrayLike | Data, names: tuple[str, ...], may_miss: NDArray[np.bool_], *, named: bool
) -> Array:
    if isinstance(reco, Data) and reco.named and named:
        x = _in_order(reco.features, reco.names, names, "reco")
    else:
        x = _ordered(reco.features if isinstance(reco, Data) else reco, names, "reco", named=named)
    missing = np.isnan(x).any(axis=0) & ~may_miss
    if missing.any():
        absent = [names[j] for j in np.flatnonzero(missing)]
        msg = f"{absent} are NaN in some events of reco, but exist in every simulated one; remove those events."
        raise InputError(msg)
    return x


def _ordered(values: ArrayLike, names: Sequence[str], what: str, *, named: bool) -> Array:
    """Features as an array with the columns of the simulation."""
    x, columns = as_features(values, what)
    if np.isinf(x).any():
        row, column = np.argwhere(np.isinf(x))[0]
        msg = f"{names[column] if column < len(names) else column} of {what} is infinite at row {row}; remove it."
        raise InputError(msg)
    if columns is not None and named:
        return _in_order(x, columns, names, what)
    if x.shape[1] != len(names):
        msg = f"{what} has {x.shape[1]} features; the simulation has {len(names)}: {', '.join(names)}."
        raise InputError(msg)
    return x


def _in_order(x: Array, columns: Sequence[str], names: Sequence[str], what: str) -> Array:
    missing = [name for name in names if name not in columns]
    if missing:
        msg = f"{what} has columns {tuple(columns)} and lacks {missing}; it needs the simulation's features."
        raise InputError(msg)
    return x[:, [list(columns).index(name) for name in names]]


def _factors(weight: Factor, proposed: Array) -> Array:
    """Checked factors of proposals, shape (members, k)."""
    given = as_numbers(weight(proposed), "weight(gen)")
    factor = given[None] if given.ndim == 1 else given
    if factor.ndim != 2 or factor.shape[1] != len(proposed):
        msg = f"weight gives shape {given.shape} for {len(proposed)} events; it must be (events,) or (members, events)."
        raise InputError(msg)
    wrong = ~np.isfinite(factor) | (factor < 0)
    if wrong.any():
        msg = f"weight gives {factor[wrong][0]} for an event; factors must be finite and not negative."
        raise InputError(msg)
    return factor


def _check_totals(factor: Array, rows: slice) -> None:
    empty = ~(factor.sum(axis=1) > 0).all(axis=1)
    if empty.any():
        msg = f"weight is zero for all proposals of event {rows.start + int(np.argmax(empty))}; there is no answer."
        raise InputError(msg)


def _warn_outside(outside: NDArray[np.bool_]) -> None:
    if outside.any():
        msg = (
            f"{int(outside.sum())} of {len(outside)} events lie outside the simulated detector-level range (first at "
            f"row {int(np.argmax(outside))}); their draws are those of the range's end. See the coordinate 'outside'."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)


def _warn_few(sizes: Array) -> None:
    few = sizes < FEW_PROPOSALS
    if few.any():
        msg = (
            f"{int(few.sum())} of {len(few)} events have fewer than {FEW_PROPOSALS:g} effective proposals (least "
            f"{sizes.min():.1f}): the weights move the prior far from the simulation there. Take more draws, or a "
            "simulation closer to the data. See the coordinate 'effective_size'."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)
