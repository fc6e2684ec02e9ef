"""Misses that keep their generator weights, and the unit in which they do.

They keep them in units in which events that pass both levels have push weights of mean one, in every member.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.threads import block_threads, map_blocks
from bayesunfold.errors import ConvergenceError
from bayesunfold.unfolding.perturbations import Block

if TYPE_CHECKING:
    from bayesunfold.unfolding.members import Members

__all__ = ["change_of_kept"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def change_of_kept(members: Members, source: str | None, sampled: int) -> Array:
    """Change of the logarithm of their weights by a source of uncertainty, or by all, shape (n_members,).

    Parameters
    ----------
    members : Members
    source : str or None
    sampled : int
        Events that sums of groups are made from, beyond what is linear.

    Raises
    ------
    ConvergenceError
        If a member has no positive weight of events that pass both levels.
    """
    events = members.events
    both = events.passes.both
    weight = np.where(both, events.reco_weight, 0.0)
    grouped = members.grouped(source, sampled)
    with block_threads(), np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if grouped is not None:
            learned = grouped(np.zeros(len(both), dtype=np.int64), 1, both, events.reco_factor)[0]
            own = grouped.unlearned(weight)
        else:
            parts = map_blocks(partial(_of_block, members, weight, source), members.perturbations.simulation.blocks())
            learned, own = np.sum(list(parts), axis=0)
        found: Array = np.log(learned / (weight @ members.push)) - np.log(own / weight.sum())
    bad = int(np.sum(~np.isfinite(found)))
    if bad:
        msg = (
            f"the events that pass both levels have no positive weight in {bad} of {members.n_members} members, so "
            'misses have no unit to keep theirs in; take efficiency="learned", or merge events of opposite sign.'
        )
        raise ConvergenceError(msg)
    return found


def _of_block(members: Members, weight: Array, source: str | None, block: Block) -> tuple[Array, Array]:
    """Sums over a block of what members make of detector-level weights, with and without the networks."""
    rows = np.arange(block.rows.start, block.rows.stop)[weight[block.rows] != 0]
    own = np.ones((len(rows), members.n_members))
    relative = members.relative(block.number, block.rows, source)
    if relative is not None:
        own += relative[rows - block.rows.start]
    varied = members.varied(rows, source)
    if varied is not None:
        own *= np.exp(varied)
    learned = own * np.exp(members.step2.log_ratio_change(members.events.gen[rows], source).astype(np.float64))
    return (weight[rows] * members.push[rows]) @ learned, weight[rows] @ own
