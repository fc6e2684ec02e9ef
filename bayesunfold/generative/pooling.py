"""Particle-level draws of all measured events together: the next iteration of the unfolded distribution.

With weights ``nu_k`` the draws of event r follow ``nu_k(t) q(t | r)``, normalised. Averaged over the data they have the
density ``nu_{k+1}(t) q(t)`` of the next iteration, whose ratio to the simulation a classifier learns: equation (G4).
Backgrounds and fakes enter with negative weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold._support.streams import Name, part_stream
from bayesunfold._support.threads import map_blocks
from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.training import fit_map
from bayesunfold.classifier.two_class import Classifier, ClassWeights, TwoClass
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.generative.density import EventDensity, row_blocks
from bayesunfold.generative.resample import choose
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Pool", "next_ratio"]

Array = NDArray[np.floating]

MOST_ROWS, LEAST_PROPOSALS, MOST_PROPOSALS = 3_000_000, 8, 100
"""Proposals of all events together, and of each event."""

TRAINED_ROWS, MOST_CHOSEN = 400_000, 8
"""Chosen proposals that a classifier is trained on, all together and of each event."""

STREAM: Name = "proposals"


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Pool:
    """Detector-level events with proposals of their particle level.

    Attributes
    ----------
    weight : array, shape (m,)
        In expected data events; negative for backgrounds; zero for fakes, whose weight follows from the ratio.
    fakes : array, shape (m,)
        Generator weights of simulated fakes, zero for other events.
    proposals : array, shape (m, M, d), float32
        Standardised.
    """

    weight: Array
    fakes: Array
    proposals: Array

    @classmethod
    def of(
        cls,
        density: EventDensity,
        events: StandardizedEvents,
        simulation: Simulation,
        data: Data,
        backgrounds: tuple[Background, ...],
        seed: int,
    ) -> Pool:
        """Proposals for data, backgrounds and fakes.

        Parameters
        ----------
        density : EventDensity
        events : StandardizedEvents
        simulation, data, backgrounds
            What they were made from.
        seed : int
        """
        fakes = simulation.fakes
        reco = [data.features, *(b.columns_for(simulation) for b in backgrounds), simulation.reco[fakes]]
        x = np.concatenate(reco)
        none = np.zeros(int(fakes.sum()))
        weight = np.concatenate([data.weight, *(-b.weight for b in backgrounds), none])
        of_fakes = np.concatenate([np.zeros(len(x) - len(none)), events.weight[fakes]])
        m = int(np.clip(MOST_ROWS // len(x), LEAST_PROPOSALS, MOST_PROPOSALS))
        out = np.empty((len(x), m, events.gen.shape[1]), dtype=np.float32)

        def one(numbered: tuple[int, slice]) -> None:
            number, rows = numbered
            # numbers of the streams follow those of the event posterior's own draws
            rng = part_stream(seed, STREAM, 1_000_000 + number)
            proposed = density.propose(np.repeat(x[rows], m, axis=0), rng)
            out[rows] = events.scales.gen(proposed).reshape(-1, m, out.shape[2])

        for _ in map_blocks(one, enumerate(row_blocks(len(x), m))):
            pass
        return cls(weight, of_fakes, out)

    def ratio(self, classifier: Classifier | None) -> Array:
        """``nu`` of all proposals, up to a factor, shape (m, M)."""
        m, proposals, d = self.proposals.shape
        if classifier is None:
            return np.ones((m, proposals))
        log_ratio = classifier.log_ratio(self.proposals.reshape(-1, d)).reshape(m, proposals)
        return np.exp(log_ratio - log_ratio.max())

    def totals(self, ratio: Array, both: float, signal: float) -> Array:
        """Weights of the events: fakes take their part of the signal's total away.

        Parameters
        ----------
        ratio : array, shape (m, M)
        both : float
            Sum of generator weight times ratio over the simulated events that pass both levels.
        signal : float
            Expected data events of signal and fakes.
        """
        fakes = self.fakes * ratio.mean(axis=1)  # E[nu | r]
        return self.weight - signal * fakes / (both + fakes.sum())


def next_ratio(
    pool: Pool,
    events: StandardizedEvents,
    before: Classifier | None,
    layout: Layout,
    rng: np.random.Generator,
    seed: int,
) -> Classifier:
    """The classifier of pooled draws against the simulation, at particle level.

    Parameters
    ----------
    pool : Pool
    events : StandardizedEvents
    before : Classifier, optional
        Of the iteration before; None for the first.
    layout : Layout
        Of the network.
    rng : numpy.random.Generator
        Of the training.
    seed : int
        Choices among proposals are the same in every iteration, so that the iteration can come to rest.
    """
    both = events.passes.both
    ratio = pool.ratio(before)
    v = events.weight[both]
    of_both = float(v.sum()) if before is None else _total(before, events.gen[both], v, pool)
    weight = pool.totals(ratio, of_both, events.signal_yield)
    n = int(np.clip(TRAINED_ROWS // len(ratio), 1, min(MOST_CHOSEN, ratio.shape[1])))
    chosen = choose(ratio[:, :, None], n, part_stream(seed, STREAM, 999_999))
    x = np.take_along_axis(pool.proposals, chosen[:, :, None], axis=1).reshape(-1, pool.proposals.shape[2])
    ones = np.repeat(weight / n, n)
    zeros = np.where(both, events.weight, 0.0)
    zeros *= effective_size(zeros) / zeros.sum()
    samples = (
        ClassWeights.of("pooled", x, ones=ones * (zeros.sum() / ones.sum())),
        ClassWeights("simulation", events.gen, np.zeros(len(zeros)), zeros, both),
    )
    classes = TwoClass(samples, 0.0)
    start = None if before is None else before.theta
    fit = fit_map(layout, classes.joined(), rng, start=start)
    return Classifier("pooled draws", layout, fit.theta, classes, fit.objective, fit.decrement)


def _total(classifier: Classifier, gen: Array, weight: Array, pool: Pool) -> float:
    """Sum of weight times ratio, in the units of :meth:`Pool.ratio`."""
    d = pool.proposals.shape[2]
    most = classifier.log_ratio(pool.proposals.reshape(-1, d)).max()
    return float(weight @ np.exp(classifier.log_ratio(gen) - most))
