"""Unbinned fully Bayesian unfolding: the unfolded distribution as one posterior, without a loop that stops early."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from bayesunfold._support.checks import check_choice, check_count, check_flag, check_positive, check_seed
from bayesunfold._support.cluster import on_client
from bayesunfold._support.progress import Phases
from bayesunfold._support.streams import stream, training_stream
from bayesunfold._support.threads import block_threads
from bayesunfold._support.versions import installed_versions
from bayesunfold.classifier.backend import Backend, check_backend, on_backend
from bayesunfold.classifier.inference import check_chains
from bayesunfold.classifier.linearized import posterior_axes
from bayesunfold.classifier.network import Network
from bayesunfold.direct.fit import SETTLED
from bayesunfold.direct.model import (
    PrecisionDraws,
    PrecisionModel,
    check_hyperprior,
    layer_names,
    sample_precisions,
)
from bayesunfold.direct.posterior import DirectPosterior, at_precisions, find_nuisances, find_posterior, members_of
from bayesunfold.direct.precision import precision_posterior
from bayesunfold.direct.profile import Profile, warn_of_nuisances
from bayesunfold.direct.settings import SAMPLED, DirectSettings, default_hyperprior, default_networks
from bayesunfold.errors import ConvergenceWarning, InputError, InputTypeError, UnreliableDrawsWarning
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.omnifold.checkpoint import (
    check_checkpoint,
    choose_seed,
    claim_checkpoint,
    fingerprint,
    release_checkpoint,
    write_checkpoint,
)
from bayesunfold.omnifold.costs import PHASES, direct_costs
from bayesunfold.omnifold.iteration import Iteration, iterate, recall, told, train
from bayesunfold.omnifold.loop import own_draws, start_perturbations, yield_changes
from bayesunfold.unfolding.correlations import given_correlations
from bayesunfold.unfolding.event_groups import GROUPS, check_event_groups
from bayesunfold.unfolding.nuisances import Nuisances
from bayesunfold.unfolding.reading import check_inputs, check_simulation, read_inputs
from bayesunfold.unfolding.record import Inputs, LinearMoments, Look, Measurement, NuisanceDraws, Record
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import Scales, StandardizedEvents
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["UnbinnedFBU"]

logger = logging.getLogger("bayesunfold")

METHODS = ("marginal", "laplace", "advi", "nuts")
MOST_DRAWS, MOST_RESTARTS, MOST_ROUNDS = 100_000, 1000, 20

FIRST_STEPS = {"step1": 150, "step2": 60}
"""Most Gauss-Newton steps of the first iteration's networks. Step 1 gives the moments and weighs fakes: wide networks
creep along flat valleys after so many, and the moments' chi-square no longer falls. Step 2 is where the fit starts."""

FEW_POINTS = 30
"""Effective number of importance samples of the precisions below which a fit warns."""

MOST_REPEATS = 2
"""Most times that the network is found again at the precisions of a user's hyperprior."""

LARGE_STEP = 1.0
"""Remaining step of the fit, in posterior standard deviations, that is warned of."""


def __dir__() -> list[str]:
    return __all__


class UnbinnedFBU:
    """Unbinned fully Bayesian unfolding.

    One particle-level network with Normal priors gives every simulated event its weight. Its posterior is that of the
    moments of data and refolded simulation at detector level, sums of the tangent features of a network.
    Where the detector sees nothing the prior decides; nothing stops early.

    Parameters
    ----------
    network : Network, optional
        At particle level: its priors are those of the unfolded distribution. By default smoother than the loop's for
        one feature, and with an additive part of 12 intervals for several.
    moments : Network, optional
        At detector level; its tangent features are the moments. By default with an additive part, of 6 intervals
        for one particle-level feature and of 12 for more.
    inference : {"marginal", "laplace", "advi", "nuts"}
        Where the prior precisions of draws come from: their posterior by importance sampling, the most probable ones
        for all, or their posterior by ADVI or NUTS in PyMC. The network's weights are drawn exactly in any case.
    draws : int
        Members of the ensemble: posterior draws of the network.
    prior : float, optional
        Width of the Normal hyperprior of the logarithm of each prior precision: one for every layer, and one for every
        feature of the additive part. By default 3 for two and three particle-level features and 1 otherwise.
    restarts : int
        Random starts of the first classifiers.
    rounds : int
        Most second classifiers of data and refolded simulation whose tangent features may join the moments, one after
        the other, while they find a difference (p-value below 0.01). With 0 there is no second classifier.
    efficiency : {"learned", "prior"}
        What simulated events that fail detector level weigh: what the network says, or their generator weight as far as
        the events that pass leave the yield alone. The latter takes the generator's word for what is not measured.
    model : callable, optional
        Another hyperprior, for ``inference="advi"`` and ``"nuts"``: called with the layers' names in the context of a
        PyMC model, it returns the logarithms of their precisions (``docs/extending.md``).
    event_groups : int, optional
        Data and simulation of more events than this are put in so many random groups, whose events fluctuate
        together: bands are the same, and members and spectra cheaper. None lets every event fluctuate by itself.
    random_seed : int, optional
        The same seed gives the same result.
    progressbar : bool

    Raises
    ------
    InputError, InputTypeError
        For arguments of the wrong kind or range.

    Notes
    -----
    New, and an approximation: the network is linearised about its most probable weights, and moments are Gaussian.
    ``docs/statistics.md`` derives it, equations (D1) to (D10); ``docs/studies/coverage.md`` says where it was tested.

    References
    ----------
    G. Choudalakis, "Fully Bayesian Unfolding", arXiv:1201.4612, with bins.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(500, 500, random_seed=1)
    >>> unfolder = bu.UnbinnedFBU(draws=100, random_seed=1, progressbar=False)
    >>> result = unfolder.fit(toy.simulation, toy.data)
    >>> result.weights.shape, round(float(result.nominal.sum()))
    ((100, 500), 500)
    """

    _linear = False
    """Whether the log weight is linear in functions, as of :class:`LinearFBU`."""

    def __init__(
        self,
        network: Network | None = None,
        *,
        moments: Network | None = None,
        inference: str = "marginal",
        draws: int = 500,
        prior: float | None = None,
        restarts: int = 1,
        rounds: int = 1,
        efficiency: Literal["learned", "prior"] = "learned",
        model: PrecisionModel | None = None,
        event_groups: int | None = GROUPS,
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> None:
        for name, given in (("network", network), ("moments", moments)):
            if given is not None and not isinstance(given, Network):
                msg = f"{name} has type {type(given).__name__}; pass a bayesunfold.Network."
                raise InputTypeError(msg)
            if given is not None and given.learns_scales:
                msg = f'{name} has prior_scale="evidence"; give fixed scales, whose precisions are learned in any case.'
                raise InputError(msg)
        check_choice(inference, "inference", METHODS)
        check_choice(efficiency, "efficiency", ("learned", "prior"))
        self.efficiency: Literal["learned", "prior"] = efficiency
        if model is not None and not callable(model):
            msg = f"model has type {type(model).__name__}; pass a function of the layers' names."
            raise InputTypeError(msg)
        if model is not None and inference not in SAMPLED:
            msg = f'model needs a sampler; inference is {inference!r}, pass "nuts" or "advi".'
            raise InputError(msg)
        self.network, self.moments, self.inference, self.model = network, moments, inference, model
        self.draws = check_count(draws, "draws", 2, MOST_DRAWS)
        check_chains(DirectSettings(inference=inference).sampling, self.draws)
        self.prior = None if prior is None else check_positive(prior, "prior")
        self.rounds = check_count(rounds, "rounds", 0, MOST_ROUNDS)
        self.restarts = check_count(restarts, "restarts", 1, MOST_RESTARTS)
        self.event_groups = check_event_groups(event_groups)
        self.random_seed = None if random_seed is None else check_seed(random_seed)
        self.progressbar = check_flag(progressbar, "progressbar")

    def settings(self, simulation: Simulation) -> DirectSettings:
        """All settings, with the default networks for the simulation's features."""
        levels = simulation.reco if self._linear else simulation.gen
        network, moments = default_networks(levels.shape[1])
        prior = default_hyperprior(simulation.gen.shape[1])
        return DirectSettings(
            network if self.network is None else self.network,
            moments if self.moments is None else self.moments,
            self.inference,
            self.draws,
            prior if self.prior is None else self.prior,
            self.restarts,
            self.rounds,
            self.efficiency,
            self._linear,
            self.event_groups,
        )

    def _scales(self, simulation: Simulation, intervals: tuple[int, int]) -> Scales:
        """Standardisation of both levels."""
        return Scales.fit(simulation, intervals)

    def _check_model(self, settings: DirectSettings, events: StandardizedEvents, features: Sequence[str]) -> None:
        """Whether a user's hyperprior fits the network."""
        if self.model is not None:
            check_hyperprior(self.model, layer_names(settings.layouts(events)[1], features))

    def check(
        self,
        simulation: Simulation,
        data: Data | ArrayLike,
        backgrounds: Sequence[Background] = (),
        systematics: Sequence[Systematic] = (),
        *,
        checkpoint: str | Path | None = None,
    ) -> None:
        """Everything that :meth:`fit` checks before it trains, and nothing else; arguments and errors as there."""
        check_simulation(simulation)
        settings = self.settings(simulation)
        intervals = settings.moments.additive, settings.network.additive
        scales = self._scales(simulation, intervals)
        inputs = simulation, data, backgrounds, systematics, intervals, checkpoint, scales
        events = check_inputs(*inputs, direct=True)
        _check_factors(simulation, systematics, settings.efficiency)
        self._check_model(settings, events, simulation.gen_names)
        check_checkpoint(checkpoint, events, settings, choose_seed(self.random_seed, checkpoint))

    def fit(
        self,
        simulation: Simulation,
        data: Data | ArrayLike,
        backgrounds: Sequence[Background] = (),
        systematics: Sequence[Systematic] = (),
        *,
        checkpoint: str | Path | None = None,
        client: Any = None,
        backend: Backend = "numpy",
    ) -> UnfoldingResult:
        """Unfold; arguments, errors and result as for :meth:`bayesunfold.OmniFold.fit`.

        Systematics and backgrounds with ``profile=True`` are parameters of the fit: see ``result.nuisances``. The
        simulation and the backgrounds of the result are those at their fitted values. A checkpoint holds the first
        training; where the parameters move the simulation far, later ones are made again.

        Warns
        -----
        ProfilingWarning
            If profiled parameters cannot be told apart, change nothing that the data see, or are pulled by more than
            five standard deviations.

        The history of the result has one entry: the chi-square of the moments is among its losses, and the remaining
        Newton step of the fit is its change.
        """
        check_backend(backend, client)
        check_simulation(simulation)
        settings = self.settings(simulation)
        intervals = settings.moments.additive, settings.network.additive
        scales = self._scales(simulation, intervals)
        given = simulation, data, backgrounds, systematics, intervals, checkpoint, scales
        data, events, _ = read_inputs(*given, direct=True)
        _check_factors(simulation, systematics, settings.efficiency)
        self._check_model(settings, events, simulation.gen_names)
        seed = choose_seed(self.random_seed, checkpoint)
        check_checkpoint(checkpoint, events, settings, seed)
        clock = [time.perf_counter()]
        inputs = Inputs(simulation, data, tuple(backgrounds), given_correlations(systematics))
        costs = direct_costs(
            settings.layouts(events), events, settings.draws, settings.event_groups, tested=bool(settings.rounds)
        )
        phases = Phases("unfolding", costs, show=self.progressbar)
        with on_client(client), on_backend(backend), block_threads(), phases.active():
            profile, others = self._profile(inputs, events, systematics, seed)
            perturbations = start_perturbations(events, simulation, others, settings, seed)
            first = self._first(events, settings, seed, checkpoint, phases)
            phases.begin("particle-level network")
            clock.append(time.perf_counter())
            if profile is None:
                found = find_posterior(events, settings, first, seed)
            else:
                found = _profiled(events, settings, first, seed, profile)
            found, precisions = self._sampled(found, settings, simulation.gen_names, seed)
            events = found.events
            if found.profile is not None:
                warn_of_nuisances(found.profile, found.mode.columns)
                moved = found.profile.now
                inputs = replace(inputs, simulation=moved.simulation, backgrounds=moved.backgrounds)
                perturbations = start_perturbations(events, moved.simulation, moved.systematics, settings, seed)
                size = np.hypot(found.profile.alpha, found.profile.std)
                learned = found.profile.nuisances.ratio_statistics(size, settings.draws)
                perturbations = replace(perturbations, effects={**perturbations.effects, **learned})
            signal, normalizations = yield_changes(events, perturbations, seed)
            perturbations = replace(perturbations, signal=signal, scales=normalizations)
            clock.append(time.perf_counter())
            phases.begin("members")
            free = settings.efficiency == "learned"
            members, one, alphas = members_of(found, perturbations, precisions.log_tau, seed, free_misses=free)
            members.norm()
            clock.append(time.perf_counter())
            first = found.fit.setup.first
            phases.close(f"{len(found.problem.moments)} moments, {settings.draws} members")
            axes, _ = posterior_axes(first.step1)
        draws = replace(
            own_draws(one, axes, perturbations),
            chains=precisions.chains,
            elbo=precisions.elbo,
            sample_stats=precisions.sample_stats,
        )
        mode, problem = found.mode, found.problem
        hyperprior = "" if self.model is None else getattr(self.model, "__qualname__", repr(self.model))
        linear = LinearMoments(
            found.evidence.y,
            mode.derivative,
            problem.centre,
            precisions.log_tau,
            settings.prior,
            hyperprior,
            self.model,
            () if found.profile is None else found.profile.nuisances.names,
            *(() if found.profile is None else (mode.columns, mode.free, mode.correlation)),
        )
        nuisances = None
        if found.profile is not None:
            nuisances = NuisanceDraws(found.profile.nuisances.names, found.profile.alpha, alphas)
        if found.mode.decrement > LARGE_STEP:
            msg = (
                f"the particle-level network stopped {found.mode.decrement:.2f} posterior standard deviations short of "
                f"its most probable weights (limit {LARGE_STEP}); bands are unreliable by about as much."
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=2)
        spent = dict(zip(("training", "posterior", "members"), np.diff(clock).tolist(), strict=True))
        logger.info("chi-square of %d moments: %.1f", len(found.problem.moments), found.mode.chi2)
        return UnfoldingResult(
            inputs=inputs,
            members=members,
            measurement=Measurement(first.step1, draws, linear, nuisances),
            iterations=(first.networks(),),
            pull_weights=first.pull,
            record=Record(settings, seed, installed_versions(), (_entry(found, first, members.nominal()),), spent),
        )

    def _profile(
        self, inputs: Inputs, events: StandardizedEvents, systematics: Sequence[Systematic], seed: int
    ) -> tuple[Profile | None, Sequence[Systematic]]:
        """The nuisance parameters that are profiled, None for none, and the other systematics."""
        if not any(s.profile for s in systematics) and not any(b.profile for b in inputs.backgrounds):
            return None, systematics
        nuisances = Nuisances.of(inputs.simulation, inputs.backgrounds, systematics, events.scales, seed)
        return Profile.start(nuisances, inputs.data, events.scales), nuisances.systematics

    def _sampled(
        self, found: DirectPosterior, settings: DirectSettings, features: Sequence[str], seed: int
    ) -> tuple[DirectPosterior, PrecisionDraws]:
        """Precisions of every member, and the posterior near them: the most probable network and all that is linear.

        The most probable precisions are those of the default hyperprior. A user's own may be far from them; the network
        is then found again at the mean of its draws.
        """
        precisions = self._precisions(found, settings, features, seed)
        if self.model is None:
            return found, precisions
        for _ in range(MOST_REPEATS):
            mean = precisions.log_tau.mean(axis=0)
            if np.all(np.abs(mean - found.fit.log_tau) < SETTLED):
                break
            found = at_precisions(found, settings, seed, mean)
            if found.profile is not None:
                found = _with_networks(found, settings)
            precisions = self._precisions(found, settings, features, seed)
        return found, precisions

    def _precisions(
        self, found: DirectPosterior, settings: DirectSettings, features: Sequence[str], seed: int
    ) -> PrecisionDraws:
        """Precisions of every member."""
        rng, draws, start = stream(seed, "posterior"), settings.draws, found.fit.log_tau
        if settings.inference == "laplace":
            return PrecisionDraws(np.tile(np.log(found.mode.tau), (draws, 1)))
        if settings.inference in SAMPLED:
            names = layer_names(found.problem.layout, features)
            return sample_precisions(settings.inference, found.evidence, start, names, draws, rng, self.model)
        posterior = precision_posterior(found.evidence, start, stream(seed, "precisions"))
        if posterior.effective_size < FEW_POINTS:
            msg = (
                f"the prior precisions are drawn from a sample that is worth {posterior.effective_size:.0f} points "
                f'(limit {FEW_POINTS}); take inference="nuts", which needs no such sample.'
            )
            warnings.warn(msg, UnreliableDrawsWarning, stacklevel=3)
        return PrecisionDraws(posterior.log_tau[posterior.sample(draws, rng)])

    def _first(
        self,
        events: StandardizedEvents,
        settings: DirectSettings,
        seed: int,
        checkpoint: str | Path | None,
        phases: Phases,
    ) -> Iteration:
        """The first OmniFold iteration, from the checkpoint if it holds it."""
        path = None if checkpoint is None else Path(checkpoint)
        key = fingerprint(events, settings, seed)
        done = [] if path is None else claim_checkpoint(path, key, seed)
        try:
            learn = recall(done[0]) if done else train(training_stream(seed, 0), FIRST_STEPS)
            learn = told(learn, lambda name: phases.begin(PHASES[name]))
            first = iterate(events, settings, None, None, learn, weigh_fakes=False)
            if path is not None and not done:
                write_checkpoint(path, key, (first.networks(),), seed)
        except BaseException:
            if path is not None:
                release_checkpoint(path, key)
            raise
        return first


def _check_factors(simulation: Simulation, systematics: Sequence[Systematic], efficiency: str) -> None:
    """Scale factors say that part of an event is missed; that part would keep another weight than the rest."""
    given = simulation.reco_factor is not None
    given |= any(s.reco_factor_up is not None for s in systematics)
    if efficiency == "prior" and given:
        msg = (
            'efficiency="prior" keeps the generator weight of misses, and scale factors make every event a miss in '
            'part; the direct posterior cannot do both. Take efficiency="learned", or OmniFold.'
        )
        raise InputError(msg)


def _profiled(
    events: StandardizedEvents, settings: DirectSettings, first: Iteration, seed: int, profile: Profile
) -> DirectPosterior:
    """The posterior of network and nuisance parameters."""

    def retrain(k: int, moved: StandardizedEvents) -> Iteration:
        learn = train(training_stream(seed, k), FIRST_STEPS)
        return iterate(moved, settings, None, None, learn, weigh_fakes=False)

    trained, first, nuisances = find_nuisances(events, settings, first, seed, profile, retrain)
    return _with_networks(find_posterior(trained, settings, first, seed, nuisances), settings)


def _with_networks(found: DirectPosterior, settings: DirectSettings) -> DirectPosterior:
    """Its networks at the events where the nuisance parameters are, as a saved result has them."""
    known = recall(found.fit.setup.first.networks())
    here = iterate(found.events, settings, None, None, known, weigh_fakes=False)
    return replace(found, fit=replace(found.fit, setup=replace(found.fit.setup, first=here)))


def _entry(found: DirectPosterior, first: Iteration, nominal: np.ndarray) -> Look:
    """What the history keeps."""
    networks = first.networks()
    return {
        "losses": networks.losses | {"moments": found.mode.chi2},
        "decrements": networks.decrements | {"moments": found.mode.decrement},
        "change": found.mode.decrement,
        "effective_size": float(nominal.sum() ** 2 / (nominal**2).sum()),
        "spectra": [],
        "directions": [len(found.problem.moments), found.problem.layout.n_parameters],
        "criticism": found.criticism.state(),
    }
