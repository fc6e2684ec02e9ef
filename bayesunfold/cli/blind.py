"""Pseudo-data of a blind run: events taken out of the simulation and the backgrounds, which keep the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.studies.resampled import select, signal_left
from bayesunfold.unfolding.background_changes import same_events
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["BlindSplit", "split_blind"]

Array = NDArray[np.floating]

SEED = 0
"""Of the pseudo-data, the same in each run."""

MOST = 0.8
"""Probability of an event to be taken, above which too few would be left."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class BlindSplit:
    """Pseudo-data, and the samples without their events.

    Attributes
    ----------
    data : Data
    simulation : Simulation
        All rows; those that were taken have weight zero, the others stand for them.
    backgrounds : list of Background
        Likewise.
    factor : array, shape (n,)
        On the weights of the simulation.
    kept : dict of str to tuple of arrays
        By background: its features, its weights before, and the factor that each event's weight has now.
    """

    data: Data
    simulation: Simulation
    backgrounds: list[Background]
    factor: Array
    kept: dict[str, tuple[Array, Array, Array]]

    def systematic(self, given: Systematic) -> Systematic:
        """A variation of the same events: its weights have the factor, a detector level stays.

        A background of the same events has the factors too; one of other events changes by as much as it did, from what
        is kept of the nominal one.
        """
        weights = {
            side: None if (w := getattr(given, side)) is None else np.asarray(w) * self.factor
            for side in ("weight_up", "weight_down")
        }
        varied = {
            name: tuple(None if side is None else self._thinned(name, side) for side in sides)
            for name, sides in given.backgrounds.items()
        }
        return given.changed(**weights, backgrounds=varied or None)

    def _thinned(self, name: str, side: Background) -> Background:
        """A background in a variation, with the change of weights that the pseudo-data made to the nominal one."""
        features, weight, factor = self.kept[name]
        x = side.columns_for(self.simulation)
        if same_events(x, features):
            return Background(x, side.weight * factor, name, undefined=side.undefined)
        both, change = np.concatenate([x, features]), weight * (factor - 1.0)
        return Background(both, np.concatenate([side.weight, change]), name, undefined=side.undefined)


def split_blind(simulation: Simulation, backgrounds: Sequence[Background], expected: float) -> BlindSplit:
    """Take pseudo-data out of the samples.

    Each event is taken with a probability p, the number of data events that are expected of it, or kept with a factor
    1/(1 - p). Of samples that are Poisson processes, the events that are taken and those that are kept are independent
    ones, as data and simulation are; an event in both, or twice in the data, would not be.

    Parameters
    ----------
    simulation : Simulation
    backgrounds : sequence of Background
    expected : float
        Number of data events, backgrounds included.

    Raises
    ------
    InputError
        Negative weights, backgrounds that leave nothing for the signal, samples with too few events.
    """
    signal = signal_left(expected, backgrounds)
    weight = np.where(simulation.pass_reco, simulation.reco_weight, 0.0)
    rng = np.random.default_rng(SEED)
    taken, factor = _thinned(weight * (signal / weight.sum()), "the simulation", rng)
    parts, left, factors = [simulation.reco[taken]], [], {}
    for b in backgrounds:
        rows, kept = _thinned(b.weight, b.name, rng)
        features = b.columns_for(simulation)
        parts.append(features[rows])
        left.append(
            Background(features, b.weight * kept, b.name, b.relative_uncertainty, b.undefined, profile=b.profile)
        )
        factors[b.name] = features, b.weight, kept
    data = Data(rng.permutation(np.concatenate(parts)), undefined=simulation.undefined)
    return BlindSplit(data, select(simulation, slice(None), factor), left, factor, factors)


def _thinned(probability: Array, what: str, rng: np.random.Generator) -> tuple[NDArray[np.integer], Array]:
    """Rows that are taken, and the factor of every event."""
    if (probability < 0).any():
        msg = (
            f"{int((probability < 0).sum())} events of {what} have negative weights, so pseudo-data cannot be taken "
            "from it; a blind run needs weights that are not negative."
        )
        raise InputError(msg)
    if probability.max(initial=0.0) > MOST:
        msg = (
            f"an event of {what} stands for up to {probability.max():.3g} expected events (limit {MOST}); a blind run "
            "needs more simulated events, or a smaller coverage.expected_data."
        )
        raise InputError(msg)
    taken = rng.random(len(probability)) < probability
    return np.flatnonzero(taken), np.where(taken, 0.0, 1.0 / (1.0 - probability))
