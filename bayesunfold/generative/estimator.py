"""Generative unfolding: pooled particle-level draws of all measured events, iterated until the prior is forgotten."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_flag
from bayesunfold._support.progress import Progress
from bayesunfold._support.streams import training_stream
from bayesunfold._support.threads import block_threads
from bayesunfold.classifier.network import Network
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.generative.event_posterior import EventPosterior
from bayesunfold.generative.pooling import MOST_CHOSEN, Pool, next_ratio, signal_share
from bayesunfold.generative.settings import GenerativeSettings
from bayesunfold.omnifold.estimator import OmniFold
from bayesunfold.omnifold.iteration import push_of_fakes
from bayesunfold.omnifold.problems import bounded_ratio
from bayesunfold.unfolding.event_groups import GROUPS
from bayesunfold.unfolding.propagation import Displacement
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import StandardizedEvents
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["GenerativeUnfolding"]

Array = NDArray[np.floating]

MATCHED_EVENTS = 20_000
"""Events on which the displacements of one network are expressed in the directions of another."""

ROUNDING = 1e-6
"""Directions that change the log ratio by less than this part of the largest change are rounding."""

TRAINING = 1000
"""Number of the first training stream, beyond those of the loop's iterations."""


def __dir__() -> list[str]:
    return __all__


class GenerativeUnfolding:
    """Generative unfolding, for comparisons.

    A map from detector level to particle level (:class:`EventPosterior`) is trained on simulation, once. Draws for all
    measured events are pooled, their density is compared with the simulation's, which gives weights, which change the
    map's prior, and so on. With a perfect map this is the OmniFold iteration, reached without a detector-level
    classifier: what differs between the two is what networks get wrong.

    Parameters
    ----------
    iterations : int or "auto"
        As of :class:`OmniFold`, whose loop is run first: its number of iterations is taken, and its bands. To first
        order an iteration answers to fluctuations as the loop does; the map's own training error is not in the bands.
    network : Network, optional
        As of :class:`OmniFold`; the particle-level network is the same.
    inference, draws, event_groups, random_seed, progressbar
        As of :class:`OmniFold`.

    Raises
    ------
    InputError, InputTypeError
        For arguments of the wrong kind or range.

    References
    ----------
    M. Bellagente et al., arXiv:2006.06685; M. Backes et al., arXiv:2212.08674, for the iteration.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(1000, 1000, random_seed=1)
    >>> unfolder = bu.GenerativeUnfolding(iterations=2, draws=20, random_seed=1, progressbar=False)
    >>> unfolder.fit(toy.simulation, toy.data).spectrum("gen", [-5, 0, 5]).method
    'GenerativeUnfolding'
    """

    def __init__(
        self,
        iterations: int | Literal["auto"] = "auto",
        *,
        network: Network | None = None,
        inference: str = "laplace",
        draws: int = 500,
        event_groups: int | None = GROUPS,
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> None:
        self._loop = OmniFold(
            iterations,
            network=network,
            inference=inference,
            draws=draws,
            event_groups=event_groups,
            random_seed=random_seed,
            progressbar=progressbar,
        )
        self.progressbar = check_flag(progressbar, "progressbar")

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
        self._loop.check(simulation, data, backgrounds, systematics, checkpoint=checkpoint)

    def fit(
        self,
        simulation: Simulation,
        data: Data | ArrayLike,
        backgrounds: Sequence[Background] = (),
        systematics: Sequence[Systematic] = (),
        *,
        checkpoint: str | Path | None = None,
    ) -> UnfoldingResult:
        """Unfold; arguments, errors and warnings as of :meth:`OmniFold.fit`.

        Pooled draws take up to 1.5 GB; beyond a million data events of four features the proposals per event become
        fewer than 100, and the answer leans towards the simulation by one part in their number. A checkpoint holds the
        loop's iterations. ``result.history`` and ``result.iterations`` are the loop's.

        Returns
        -------
        UnfoldingResult
        """
        loop = self._loop.fit(simulation, data, backgrounds, systematics, checkpoint=checkpoint)
        start = time.perf_counter()
        seed, events = loop.record.seed, loop.members.events
        posterior = EventPosterior(random_seed=seed, progressbar=self.progressbar).fit(simulation)
        count = len(loop.iterations)
        progress = Progress(count, "pooled draws", show=self.progressbar)
        with block_threads():
            detector, layout = self._loop.settings.layouts(events)
            share = signal_share(events, detector, training_stream(seed, TRAINING - 1))
            make = partial(Pool.of, posterior.density_, events.scales.gen)
            pool = make(loop.data.features, events.data.weight * share, seed, 1)
            both = events.passes.both
            simulated = make(simulation.reco[both], events.reco_weight[both], seed, 2, most=MOST_CHOSEN)
            found: Classifier | None = None
            for k in range(count):
                found = next_ratio(pool, simulated, found, layout, training_stream(seed, TRAINING + k), seed)
                progress.update(k + 1)
            progress.close(f"{count} iterations")
            if found is None:
                msg = "the loop has at least one iteration"
                raise AssertionError(msg)
            push = pooled_push(events, found, loop.members.fakes)
            step2 = as_seen_by(found, loop.members.step2, events.gen, events.weight * push, events.passes.gen)
        members = replace(loop.members, push=push, step2=step2, _norms={})
        spent = loop.record.seconds | {"map": time.perf_counter() - start}
        settings = GenerativeSettings(self._loop.settings)
        result = replace(loop, members=members, record=replace(loop.record, settings=settings, seconds=spent))
        result.__dict__["event_map"] = posterior
        return result


def pooled_push(events: StandardizedEvents, classifier: Classifier, fakes: Displacement | None) -> Array:
    """Push weights of events that pass gen, and of fakes with the loop's classifier, shape (n,)."""
    gen = events.passes.gen
    push = np.zeros(len(events))
    push[gen] = bounded_ratio(classifier.log_ratio(events.gen[gen]), "the classifier of pooled draws")
    if fakes is not None:
        push[events.passes.fakes] = push_of_fakes(events, fakes.classifier, push)
    return push


def as_seen_by(
    network: Classifier, displacement: Displacement, gen: Array, weight: Array, passing: NDArray[np.bool_]
) -> Displacement:
    """The displacement of another network that changes the log ratio of events by as much.

    Parameters
    ----------
    network : Classifier
        The other network.
    displacement : Displacement
    gen : array, shape (n, d)
    weight : array, shape (n,)
        By which events count; the constant part may differ.
    passing : boolean array, shape (n,)
        Events that take part.
    """
    rows = np.flatnonzero(passing)
    rows = rows[:: max(1, len(rows) // MATCHED_EVENTS)]
    root = np.sqrt(np.abs(weight[rows]))[:, None]
    own, other = (root * c.tangent(gen[rows]).astype(np.float64) for c in (network, displacement.classifier))
    matrix = np.linalg.lstsq(own, other, rcond=ROUNDING)[0]
    return Displacement(network, {name: matrix @ d for name, d in displacement.by_source.items()})
