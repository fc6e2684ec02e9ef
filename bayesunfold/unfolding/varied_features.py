"""Whether the detector level of a variation can be meant: units, order and selection of its features."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import OverlapWarning
from bayesunfold.events import Simulation
from bayesunfold.unfolding.overlap import hard_edge

__all__ = ["warn_of_cut", "warn_of_other_features", "warn_of_selection"]

Array = NDArray[np.floating]

FEWEST, MOST = 20, 10_000
"""Fewer events have no median to judge by; of more, every k-th is looked at."""

SPREAD, SHIFT, SIZE = 3.0, 1.0, 0.5
"""A varied feature is taken for something else if its spread differs from the nominal one by more than the factor, or
if its median shift exceeds this part of the nominal spread and this part of the median size. A change of a scale by
10 % shifts a feature by a tenth of its size, however narrow it is, and a smearing shifts no median."""

NEARER = 0.5
"""A varied feature belongs to another column if the distance to that is a smaller part of the distance to its own."""

BEYOND = 20
"""Events beyond a cut that no fluctuation of the least event makes: fewer than one case of 50 000."""

MORE = 0.05
"""Relative change of the passing weight, in one direction on both sides, that no energy scale makes."""


def __dir__() -> list[str]:
    return __all__


def warn_of_other_features(simulation: Simulation, varied: Array, passes: NDArray[np.bool_], what: str) -> None:
    """Warn if varied features are not the nominal ones with a change: in another unit, or in another order.

    Event by event, over those that pass the selection nominally and in the variation.

    Parameters
    ----------
    simulation : Simulation
    varied : array, shape (n, d_reco)
    passes : boolean array, shape (n,)
        In the variation.
    what : str
        The argument and its systematic.
    """
    rows = np.flatnonzero(passes & simulation.pass_reco)
    if len(rows) < FEWEST:
        return
    rows = rows[:: -(-len(rows) // MOST)]
    names, nominal, moved = simulation.reco_names, simulation.reco[rows], varied[rows]
    changed = [j for j in range(len(names)) if not np.array_equal(nominal[:, j], moved[:, j], equal_nan=True)]
    nearest = {j: _nearest(nominal, moved[:, j], j) for j in changed}
    order = {j: k for j, k in nearest.items() if j != k}
    if order and set(order) == set(order.values()):
        pairs = ", ".join(f"{names[k]} in the column of {names[j]}" for j, k in order.items())
        msg = f"{what} seems to hold {pairs}; give its features in the order of reco: {', '.join(names)}."
        warnings.warn(msg, OverlapWarning, stacklevel=6)
        return
    for j in changed:
        exists = np.isfinite(nominal[:, j]) & np.isfinite(moved[:, j])
        before, after = nominal[exists, j], moved[exists, j]
        if len(before) >= FEWEST and _other(before, after):
            msg = (
                f"{what} has {names[j]} with a median of {np.median(after):.4g}, and {np.median(before):.4g} nominally "
                "in the same events; that is no variation of it. Give the whole feature, not its change, in the unit "
                "and the order of reco."
            )
            warnings.warn(msg, OverlapWarning, stacklevel=6)


def _nearest(nominal: Array, moved: Array, own: int) -> int:
    """Nominal column that a varied one is nearest to, which is its own unless another is much nearer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without any number
        distance = np.nanmedian(np.abs(nominal - moved[:, None]), axis=0)
    best = int(np.argmin(np.where(np.isnan(distance), np.inf, distance)))
    return best if distance[best] < NEARER * distance[own] else own


def _other(before: Array, after: Array) -> bool:
    """Whether a feature is something else than the nominal one with a realistic change."""
    spread, varied = (float(np.subtract(*np.quantile(x, [0.75, 0.25]))) for x in (before, after))
    if not (spread > 0 and varied > 0):
        spread, varied = float(before.std()), float(after.std())
    shift = abs(float(np.median(after - before)))
    if shift > SHIFT * spread and shift > SIZE * float(np.median(np.abs(before))):
        return True
    return spread > 0 and not spread / SPREAD < varied < spread * SPREAD


def warn_of_cut(simulation: Simulation, shifted: Array, what: str) -> None:
    """Warn if shifted features cross an edge that a selection has cut, or leave a gap at it."""
    rows = simulation.pass_reco
    for j, name in enumerate(simulation.reco_names):
        nominal, moved = simulation.reco[rows, j], shifted[rows, j]
        exists = np.isfinite(nominal) & np.isfinite(moved)
        nominal, moved = nominal[exists], moved[exists]
        for sign in (1.0, -1.0):
            found = hard_edge(sign * nominal)
            if found is None:
                continue
            edge, width = found
            near = sign * nominal <= edge + width
            if float((sign * moved).min()) != edge and np.any(moved[near] != nominal[near]):
                msg = (
                    f"{what} moves events across the edge of {name} at {sign * edge:.6g}, where a selection seems to "
                    f"cut; events that migrate over it are missing. Give pass_{what.split(' of ')[0]}, the pass flags "
                    "in the variation, and keep the events that pass only there."
                )
                warnings.warn(msg, OverlapWarning, stacklevel=6)
                return


def warn_of_selection(name: str, simulation: Simulation, sides: Mapping[str, Any]) -> None:
    """Warn if a variation without pass flags, whose events all pass, has not the selection of the simulation.

    Parameters
    ----------
    name : str
        Of the systematic.
    simulation : Simulation
    sides : mapping of str to array
        Arguments of :class:`bayesunfold.Systematic`.
    """
    cure = (
        "Without pass_reco every event of the variation passes: give pass_reco with its events (pass_reco_up and "
        "pass_reco_down in a configuration), the simulation's selection with the varied features."
    )
    nominal = simulation.pass_reco
    flags = {side: sides.get(f"pass_reco_{side}", nominal) for side in ("up", "down") if f"reco_{side}" in sides}
    for side, passes in flags.items():
        for j, feature in enumerate(simulation.reco_names):
            known, varied = simulation.reco[nominal, j], np.asarray(sides[f"reco_{side}"])[passes, j]
            for sign in (1.0, -1.0):
                found = hard_edge(sign * known[np.isfinite(known)])
                beyond = 0 if found is None else int((sign * varied < found[0]).sum())
                if found is not None and beyond > BEYOND:
                    msg = (
                        f"{beyond} events that pass in {side} of {name} lie beyond the edge of {feature} at "
                        f"{sign * found[0]:.6g}, where the simulation's selection seems to cut. {cure}"
                    )
                    warnings.warn(msg, OverlapWarning, stacklevel=3)
                    return
    weight = simulation.reco_weight
    changes = [float(weight[passes].sum() / weight[nominal].sum()) - 1 for passes in flags.values()]
    if len(changes) == 2 and min(abs(c) for c in changes) > MORE and changes[0] * changes[1] > 0:
        up, down = (f"{100 * abs(c):.2g} % {'more' if c > 0 else 'fewer'}" for c in changes)
        msg = (
            f"the weights of passing events are {up} in up of {name} than nominally, and {down} in down of it; no "
            f"change of a scale does so in both directions. {cure}"
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)
