"""About how many seconds the phases of an unfolding take, for progress: only their ratios matter after a while."""

from __future__ import annotations

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.training import ADAM_BATCH, ADAM_EPOCHS, ADAM_STEPS, CURVATURE_ROWS
from bayesunfold.classifier.two_class import WIDE
from bayesunfold.unfolding.event_groups import GROUPS
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["PHASES", "direct_costs", "fit_cost", "iteration_costs", "members_cost"]

GRADIENT, EVENT = 1e-10, 2.5e-7
"""Seconds of a gradient, per event and weight and per event, with two threads of a processor of 2024."""

PRODUCT = 2e-11
"""Seconds of a multiplication and an addition in a large matrix product."""

POSTERIOR = 2.0
"""Seconds of ADVI, which looks at a few thousand events only."""

DIRECTIONS = 3
"""Weights per direction that the events see."""


PHASES = {"step1": "step 1", "step2": "step 2", "fakes": "fakes"}
"""What the fits of an iteration are called."""


def __dir__() -> list[str]:
    return __all__


def fit_cost(layout: Layout, events: int, *, cold: bool) -> float:
    """Of training a network on so many events, from random weights or from earlier ones."""
    p = layout.n_parameters
    gradient = events * (GRADIENT * p + EVENT)
    curvature = PRODUCT * max(CURVATURE_ROWS, 4 * p) * p**2
    if p <= WIDE:
        return (25 if cold else 10) * (gradient + curvature)
    passed = min(ADAM_EPOCHS * events, ADAM_STEPS * ADAM_BATCH) if cold else 0.0
    return (180 if cold else 40) * (gradient + 0.3 * curvature) + 1.5 * GRADIENT * passed * p


def members_cost(layouts: tuple[Layout, Layout], events: StandardizedEvents, draws: int, groups: int | None) -> float:
    """Of propagating the members through one iteration."""
    most = groups or max(len(events), len(events.data.x))
    rows = min(len(events), most), min(len(events.data.x), most)
    total = 0.0
    every = len(events) + len(events.data.x), len(events)
    for layout, n, count in zip(layouts, every, (sum(rows), rows[0]), strict=True):
        directions = layout.n_parameters / DIRECTIONS
        total += PRODUCT * n * directions * 2 * (layout.n_parameters + directions)
        total += PRODUCT * count * directions * (layout.n_parameters + draws)
    return total


def iteration_costs(
    k: int, layouts: tuple[Layout, Layout], events: StandardizedEvents, draws: int, groups: int | None = GROUPS
) -> dict[str, float]:
    """Of the phases of iteration ``k``, counted from zero."""
    reco, gen = layouts
    n, name = len(events), f"iteration {k + 1}, "
    costs = {name + "step 1": fit_cost(reco, n + len(events.data.x), cold=k == 0)}
    costs[name + "step 2"] = fit_cost(gen, n, cold=k == 0)
    if events.passes.fakes.any():
        costs[name + "fakes"] = fit_cost(reco, n, cold=k == 0)
    members = members_cost(layouts, events, draws, groups)
    return costs | {name + "members": 2 * members + POSTERIOR if k == 0 else members}


def direct_costs(
    layouts: tuple[Layout, Layout], events: StandardizedEvents, draws: int, groups: int | None, *, tested: bool
) -> dict[str, float]:
    """Of the phases of a direct posterior: those of a first iteration, the mode, and the members."""
    first = iteration_costs(0, layouts, events, draws, groups)
    costs = {name: first[f"iteration 1, {name}"] for name in ("step 1", "step 2")}
    costs["step 1"] *= 3
    members = 3.5 * members_cost(layouts, events, draws, groups)
    # the mode, and its test by two classifiers of half the events
    network = 2 * members + (0.2 * costs["step 1"] if tested else 0.0)
    return costs | {"particle-level network": network, "members": members}
