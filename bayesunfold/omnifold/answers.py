"""How the classifiers of one iteration move with every member's fluctuation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import stream
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.omnifold.iteration import Iteration
from bayesunfold.omnifold.problems import carried_share, varied_backgrounds, varied_step1, varied_step2
from bayesunfold.omnifold.settings import Settings
from bayesunfold.unfolding.perturbations import Perturbations
from bayesunfold.unfolding.propagation import Carried, Displacement, PullNormalization, Refit, linear_refits
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Answers", "generator_displacement", "propagate"]

Array = NDArray[np.floating]

GENERATOR_EVENTS = 2000
"""Events on which the size of the generator prior is measured."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Answers:
    """Displacements of the classifiers of one iteration.

    Attributes
    ----------
    step1, step2 : Displacement
    fakes : Displacement or None
    """

    step1: Displacement
    step2: Displacement
    fakes: Displacement | None = None


def propagate(
    events: StandardizedEvents,
    settings: Settings,
    iteration: Iteration,
    before: Iteration | None,
    push_before: Displacement | None,
    fakes_before: Displacement | None,
    centre: Displacement | None,
    perturbations: Perturbations,
) -> Answers:
    """Equations (1)-(6) for one iteration.

    Parameters
    ----------
    events : StandardizedEvents
    settings : Settings
    iteration : Iteration
    before : Iteration, optional
        The iteration before; None for the first.
    push_before : Displacement, optional
        Of the push weights before the iteration: of step 2 of the iteration before, or of the generator prior.
    fakes_before : Displacement, optional
        Of the fakes' push weights before the iteration.
    centre : Displacement, optional
        Of step 1 of the first iteration, whose hidden layers centre the prior.
    perturbations : Perturbations
    """
    both, shifts = events.passes.both, perturbations.shifts
    push = np.ones(len(events)) if before is None else before.push
    carried = []
    if push_before is not None:
        carried.append(Carried(push_before, events.gen, "zeros", both))
    if fakes_before is not None:
        carried.append(Carried(fakes_before, events.reco, "zeros", events.passes.fakes))
    known = None if before is None else before.fakes
    step1, step2 = iteration.step1, iteration.step2
    varied = {name: varied_step1(events, step1, push, known, shift) for name, shift in shifts.items()}
    changed = varied_backgrounds(events, step1, perturbations.backgrounds)
    refits = [Refit(step1, carried, perturbations, perturbations.prior, centre=centre, varied=varied, changed=changed)]
    part = carried_share(events, iteration.pull, settings.efficiency)
    carried = [Carried(step1, events.reco, "ones", part)]
    if push_before is not None:
        carried.append(Carried(push_before, events.gen, "ones", part))
    normalization = None
    if settings.efficiency == "prior":
        normalization = _pull_normalization(events, iteration.pull, part)
    varied = {
        name: varied_step2(events, step1, step2, push, iteration.pull, settings.efficiency, shift)
        for name, shift in shifts.items()
    }
    refits.append(Refit(step2, carried, perturbations, normalization=normalization, varied=varied))
    if iteration.fakes is not None:
        refits.append(Refit(iteration.fakes, [Carried(step2, events.gen, "ones", both)], perturbations))
    return Answers(*linear_refits(refits))


def _pull_normalization(events: StandardizedEvents, pull: Array, part: Array) -> PullNormalization:
    generated = np.where(events.passes.both, events.reco_weight, 0.0)
    pulled = np.where(events.passes.both, events.reco_weight * pull, 0.0)
    return PullNormalization(pulled / pulled.sum(), generated / generated.sum(), part)


def generator_displacement(
    events: StandardizedEvents, settings: Settings, step2: Classifier, seed: int
) -> Displacement | None:
    """Members' own generators ``n_0``: draws of the particle-level network's prior, of the size asked for.

    What the detector cannot tell apart keeps them to the end; what it measures forgets them with the iterations.
    """
    size = settings.generator_prior
    if size == 0:
        return None
    draws = stream(seed, "generator").standard_normal((step2.layout.n_parameters, settings.draws))
    unit = Displacement(step2, {"generator": step2.basis.T @ draws})
    passing = events.passes.gen
    rows = np.flatnonzero(passing)[:: max(1, int(passing.sum()) // GENERATOR_EVENTS)]
    change = unit.log_ratio_change(events.gen[rows])
    change -= change.mean(axis=0)
    factor = size / np.sqrt(np.mean(change**2))
    return Displacement(step2, {"generator": factor * unit.by_source["generator"]})
