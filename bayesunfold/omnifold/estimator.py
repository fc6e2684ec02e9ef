"""OmniFold with Bayesian neural networks: the loop from events to an ensemble of weights."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_choice, check_count, check_flag, check_not_negative, check_seed
from bayesunfold._support.cluster import on_client
from bayesunfold._support.progress import Phases
from bayesunfold._support.streams import training_stream
from bayesunfold._support.threads import block_threads
from bayesunfold._support.versions import installed_versions
from bayesunfold.classifier.backend import Backend, check_backend, on_backend
from bayesunfold.classifier.inference import check_chains, check_inference
from bayesunfold.classifier.network import Network
from bayesunfold.errors import InputError, InputTypeError, WeightWarning
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.omnifold.checkpoint import (
    check_checkpoint,
    choose_seed,
    claim_checkpoint,
    fingerprint,
    release_checkpoint,
    write_checkpoint,
)
from bayesunfold.omnifold.convergence import look, most_iterations, settled, warn_if_moving
from bayesunfold.omnifold.costs import PHASES, iteration_costs
from bayesunfold.omnifold.iteration import Learn, Networks, recall, told, train
from bayesunfold.omnifold.loop import State, iterations, start_perturbations
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.correlations import given_correlations
from bayesunfold.unfolding.event_groups import GROUPS, check_event_groups
from bayesunfold.unfolding.members import Members
from bayesunfold.unfolding.overlap import check_learned
from bayesunfold.unfolding.perturbations import Perturbations
from bayesunfold.unfolding.reading import check_inputs, check_not_profiled, read_inputs
from bayesunfold.unfolding.record import Inputs, Look, Measurement, Record
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import StandardizedEvents
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["OmniFold"]

Array = NDArray[np.floating]

logger = logging.getLogger("bayesunfold")

LIKELY = 5
"""Iterations that ``"auto"`` is expected to take."""

LARGE_NEGATIVE = 0.1
"""Share of event fluctuations below -1 that is warned of."""

MOST_DRAWS, MOST_ITERATIONS = 100_000, 1000
"""Larger numbers are mistakes: they take days and no band is better for them."""


def __dir__() -> list[str]:
    return __all__


class OmniFold:
    """Unbinned unfolding with Bayesian neural networks and members coherent over iterations.

    Parameters
    ----------
    iterations : int or "auto"
        Number of iterations. ``"auto"`` stops where the next step changes the spectrum by a
        small part of its own band, after at most 12. It goes on longer where the data fluctuate, which bands do not
        know of: up to 4 % of their width in the coverage study. A number fixed beforehand on pseudo-data avoids it.
    network : Network, optional
        Shape and priors of the classifiers.
    inference : {"advi", "nuts", "laplace"}
        Where the posterior draws of step 1 come from.
    draws : int
        Members of the ensemble.
    efficiency : {"learned", "prior"}
        Weight of simulated events that fail detector level: ``"learned"`` gives them what step 2 learned from similar
        events that pass; ``"prior"`` keeps their generator weight in the training of step 2.
    generator_prior : float
        Uncertainty of the generator itself: every member starts from a generator of its own, reweighted by a smooth
        random function of the particle-level features whose logarithm has this standard deviation (0.1 is 10 %). It
        gives directions that the detector cannot see the width they deserve; its row among the sources is
        ``generator``. Zero, the default, leaves them at the generator's values.
    linearize : bool
        False draws all weights of the full network (ADVI and NUTS only), which was measured unreliable.
    restarts : int
        Random starts of the first iteration's networks; the best objective is kept.
    event_groups : int, optional
        Data and simulation of more events than this are put in so many random groups, whose events fluctuate
        together: bands are the same, and members and spectra cheaper. None lets every event fluctuate by itself.
    random_seed : int, optional
        The same seed gives the same result.
    progressbar : bool
        Whether to report progress on standard error.

    Notes
    -----
    Time is about 1 s for 1000 + 1000 events and minutes for a million; ``docs/studies/scale.md`` has a table. Memory
    holds the standardised features and up to ``4 draws`` bytes per group of data and of simulation.

    References
    ----------
    A. Andreassen et al., "OmniFold: A Method to Simultaneously Unfold All Observables",
    Phys. Rev. Lett. 124 (2020) 182001, arXiv:1911.09107.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> unfolder = bu.OmniFold(iterations=2, inference="laplace", draws=50, random_seed=1, progressbar=False)
    >>> result = unfolder.fit(toy.simulation, toy.data)
    >>> result.weights.dims
    ('draw', 'event')
    """

    def __init__(
        self,
        iterations: int | Literal["auto"] = "auto",
        network: Network | None = None,
        inference: str = "advi",
        draws: int = 500,
        *,
        efficiency: Literal["learned", "prior"] = "learned",
        generator_prior: float = 0.0,
        linearize: bool = True,
        restarts: int = 1,
        event_groups: int | None = GROUPS,
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> None:
        if not isinstance(iterations, str) or iterations != "auto":
            iterations = check_count(iterations, "iterations", 1, MOST_ITERATIONS)
        if network is not None and not isinstance(network, Network):
            msg = f"network has type {type(network).__name__}; pass a bayesunfold.Network."
            raise InputTypeError(msg)
        if network is not None and network.learns_scales:
            msg = 'prior_scale="evidence" is for BayesianClassifier and Reweighter; give an unfolding fixed scales.'
            raise InputError(msg)
        check_choice(efficiency, "efficiency", ("learned", "prior"))
        draws = check_count(draws, "draws", 2, MOST_DRAWS)
        linearize = check_flag(linearize, "linearize")
        check_chains(check_inference(inference, linearize=linearize), draws)
        self.settings = Settings(
            iterations,
            network or Network(),
            inference,
            draws,
            efficiency,
            check_not_negative(generator_prior, "generator_prior", ", a relative uncertainty"),
            linearize,
            check_count(restarts, "restarts", 1, MOST_ITERATIONS),
            check_event_groups(event_groups),
        )
        self.random_seed = None if random_seed is None else check_seed(random_seed)
        self.progressbar = check_flag(progressbar, "progressbar")

    def configuration(self) -> dict[str, object]:
        """All arguments, as JSON-ready values."""
        return self.settings.state() | {"random_seed": self.random_seed}

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
        """Unfold.

        Parameters
        ----------
        simulation : Simulation
        data : Data, array or frame
        backgrounds : sequence of Background
            Expected at detector level beside the signal; part of class 0 of step 1.
        systematics : sequence of Systematic
            Each is a source of uncertainty of the result.
        checkpoint : path, optional
            Written after every iteration. If it exists and belongs to the same events and
            arguments, the run goes on from it; if it belongs to others, that is an error. After an interrupt
            (Ctrl-C) the finished iterations are in it.
        client : dask.distributed.Client, optional
            Workers that share the sums over events, as inside :func:`bayesunfold.cluster`, which says what they need.
        backend : {"numpy", "jax"}
            What computes sums over many events: NumPy on threads, or JAX on its default device, for a GPU
            (``bayesunfold[jax]``). Both give the same up to rounding in single precision. Not with a client.

        Returns
        -------
        UnfoldingResult

        Raises
        ------
        InputError, InputTypeError
            Before any training, for anything that cannot be unfolded.
        ClusterError
            If the cluster goes away.

        Warns
        -----
        OverlapWarning
            Data outside the simulation's detector-level range.
        ConvergenceWarning
            If the last iteration still moves the spectrum: by 0.15 of its band for ``"auto"``, by half of it for a
            fixed number of three and more.
        """
        intervals = (self.settings.network.additive,) * 2
        check_backend(backend, client)
        data, events, covered = read_inputs(simulation, data, backgrounds, systematics, intervals, checkpoint)
        check_not_profiled(backgrounds, systematics, "OmniFold")
        seed = choose_seed(self.random_seed, checkpoint)
        check_checkpoint(checkpoint, events, self.settings, seed)
        with on_client(client), on_backend(backend), block_threads():
            perturbations = start_perturbations(events, simulation, systematics, self.settings, seed)
            state, history, seconds = self._loop(events, perturbations, seed, checkpoint)
            warn_if_moving(history, self.settings)
            members = state.members(events)
            members.norm()  # members without a positive total are an error now, not at the first spectrum
            if state.first.conditioning is not None:
                members.negative_data = state.perturbations.events["data"].negative_share()
            _warn_if_negative(members)
            check_learned(events, state.first.classifier, members.push, simulation.reco_names, covered)
        return UnfoldingResult(
            inputs=Inputs(simulation, data, tuple(backgrounds), given_correlations(systematics)),
            members=members,
            measurement=Measurement(state.first.classifier, state.first.draws),
            iterations=state.networks,
            pull_weights=state.iteration.pull,
            record=Record(self.settings, seed, installed_versions(), tuple(history), seconds),
        )

    def _loop(
        self, events: StandardizedEvents, perturbations: Perturbations, seed: int, checkpoint: str | Path | None
    ) -> tuple[State, list[Look], dict[str, float]]:
        """Iterations until nothing moves, with their history and time; each is written to the checkpoint."""
        key = fingerprint(events, self.settings, seed)
        path = None if checkpoint is None else Path(checkpoint)
        done = [] if path is None else claim_checkpoint(path, key, seed)
        most = most_iterations(self.settings)
        costs = [self._costs(k, events, trained=k < len(done)) for k in range(most)]
        planned = costs[: LIKELY if self.settings.iterations == "auto" else most]
        phases = Phases("unfolding", {name: c for each in planned for name, c in each.items()}, show=self.progressbar)
        seen = ""

        def learners(k: int) -> Learn:
            phases.add(costs[k])
            learn = recall(done[k]) if k < len(done) else train(training_stream(seed, k))
            return told(learn, lambda name: phases.begin(f"iteration {k + 1}, {PHASES[name]}", seen))

        def trained(networks: tuple[Networks, ...]) -> None:
            phases.begin(f"iteration {len(networks)}, members", seen)
            if path is not None and len(networks) > len(done):
                write_checkpoint(path, key, networks, seed)

        history: list[Look] = []
        seconds = {"training": 0.0, "posterior": 0.0, "members": 0.0}
        try:
            with phases.active():
                for state in iterations(events, self.settings, perturbations, seed, learners, trained):
                    n = len(state.networks)
                    start = time.perf_counter()
                    history.append(look(events, state))
                    seconds = {name: seconds[name] + spent for name, spent in state.seconds.items()}
                    seconds["members"] += time.perf_counter() - start
                    seen = f"largest change {history[-1]['change']:.2f} of the band"
                    logger.info("iteration %d: %s", n, seen)
                    if settled(history, self.settings):
                        phases.close(f"{n} iterations, {self.settings.draws} members, {seen}")
                        return state, history, seconds
        finally:
            if path is not None and not history:
                release_checkpoint(path, key)
        msg = "the loop ended by itself"
        raise AssertionError(msg)

    def _costs(self, k: int, events: StandardizedEvents, *, trained: bool) -> dict[str, float]:
        """About how long the phases of an iteration take, of which a checkpoint may hold the training."""
        costs = iteration_costs(
            k, self.settings.layouts(events), events, self.settings.draws, self.settings.event_groups
        )
        return {name: cost for name, cost in costs.items() if not trained or "members" in name}

    def check(
        self,
        simulation: Simulation,
        data: Data | ArrayLike,
        backgrounds: Sequence[Background] = (),
        systematics: Sequence[Systematic] = (),
        *,
        checkpoint: str | Path | None = None,
    ) -> None:
        """Everything that :meth:`fit` checks before it trains, and nothing else; arguments and errors as there.

        Examples
        --------
        >>> import bayesunfold as bu
        >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
        >>> bu.OmniFold().check(toy.simulation, toy.data)
        """
        intervals = (self.settings.network.additive,) * 2
        events = check_inputs(simulation, data, backgrounds, systematics, intervals, checkpoint)
        check_not_profiled(backgrounds, systematics, "OmniFold")
        check_checkpoint(checkpoint, events, self.settings, choose_seed(self.random_seed, checkpoint))


def _warn_if_negative(members: Members) -> None:
    """Warn if conditioning drove many event weights negative."""
    negative = max(members.negative_fraction(), members.negative_data)
    if negative > LARGE_NEGATIVE:
        msg = (
            f"{100 * negative:.1f} % of the members' event fluctuations are below -1 after conditioning on "
            "posterior draws; the sample is small for its network. Compare with inference='laplace'."
        )
        warnings.warn(msg, WeightWarning, stacklevel=3)
