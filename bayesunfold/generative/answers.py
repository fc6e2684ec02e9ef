"""The event posterior of an unfolding: the simulation's map with the unfolded weights of every member."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_count, check_instance
from bayesunfold.classifier.arithmetic import tangent
from bayesunfold.errors import InputError
from bayesunfold.events import Data
from bayesunfold.generative.event_posterior import MOST_DRAWS, EventPosterior, read_reco
from bayesunfold.unfolding.functions import check_functions
from bayesunfold.unfolding.members import Members

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["MemberFactors", "event_posterior"]

Array = NDArray[np.floating]

NOTHING = 1e-12
"""Least part of its weight that a systematic leaves an event: a probability is not negative."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class MemberFactors:
    """The unfolded weight function of some members, up to a factor of each.

    Attributes
    ----------
    members : Members
    directions : array, shape (P, chosen)
        Displacement of the network's parameters in the chosen members.
    chosen : array, shape (chosen,), optional
        Numbers of the members; the point estimate if None.

    Raises
    ------
    InputError
        For a loaded result whose functions a file does not keep: there are no factors of other events.
    """

    members: Members
    directions: Array
    chosen: NDArray[np.integer] | None = None

    def __post_init__(self) -> None:
        check_functions(self.members.events.scales.gen)

    @classmethod
    def of(cls, members: Members, chosen: NDArray[np.integer]) -> MemberFactors:
        """For members by number."""
        step2 = members.step2
        return cls(members, step2.classifier.basis @ step2.total()[:, chosen], chosen)

    @classmethod
    def nominal(cls, members: Members) -> MemberFactors:
        """For the point estimate."""
        return cls(members, np.zeros((members.step2.classifier.layout.n_parameters, 1)))

    def __call__(self, gen: Array) -> Array:
        """Factors on the generator weight at particle-level events, shape (chosen, n).

        Systematics that change generator weights are in them as functions of the particle level; where one takes more
        than all of the weight, next to nothing is left.
        """
        z = self.members.events.scales.gen(gen)
        network = self.members.step2.classifier
        log = network.log_ratio(z)[:, None] + tangent(network.layout, network.theta, z, self.directions)
        factors = np.exp(log - log.max(axis=0))
        learned = self.members.learned_changes
        if self.chosen is not None and learned:
            factors *= np.maximum(learned.factors(network.tangent(z), self.chosen), NOTHING)
        return factors.T


def event_posterior(
    result: UnfoldingResult, reco: ArrayLike | Data, draws: int, posterior: EventPosterior | None
) -> xr.DataArray:
    """See :meth:`bayesunfold.UnfoldingResult.event_posterior`."""
    count = check_count(draws, "draws", 1, MOST_DRAWS)
    if posterior is not None:
        check_instance(posterior, EventPosterior, "posterior")
    else:
        read_reco(reco, result.simulation)  # an error comes before the map is trained
    n = result.members.n_members
    chosen = np.arange(count) % n if count >= n else np.linspace(0, n - 1, count).round().astype(int)
    factors = MemberFactors.of(result.members, chosen[: min(count, n)])  # likewise
    fitted = result.event_map if posterior is None else posterior
    if fitted.features != result.simulation.gen_names:
        msg = (
            f"posterior was fitted to the particle-level features {fitted.features}; those of the unfolding are "
            f"{result.simulation.gen_names}, in this order. Fit it to a simulation with these."
        )
        raise InputError(msg)
    drawn = fitted.sample(reco, count, factors)
    return drawn.assign_coords(member=("draw", chosen))
