"""The luminosity that a spectrum is divided by, with a nuisance parameter of its own or that of a systematic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import LUMINOSITY, stream
from bayesunfold.unfolding.perturbations import Shift, alpha_of

if TYPE_CHECKING:
    from bayesunfold.unfolding.perturbations import Acceptance, Variation
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["Luminosity"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Luminosity:
    """Size and relative uncertainty of the luminosity.

    Attributes
    ----------
    size : float
        At the estimate of its parameter.
    uncertainty : float
        Relative to the size that was given, one standard deviation.
    centre : float
        Size at the estimate over the given one: not one if data moved a profiled parameter.
    pulls : array, shape (n_members,)
        The parameter in every member, if it is the luminosity's own.
    shared : Variation or Acceptance, optional
        The effect of a systematic of this name.
    """

    size: float
    uncertainty: float
    centre: float
    pulls: Array
    shared: Variation | Acceptance | None = None

    @classmethod
    def of(cls, result: UnfoldingResult, size: float, uncertainty: float) -> Luminosity:
        """Its parameter is that of a systematic named ``"luminosity"`` if there is one."""
        pulls = stream(result.record.seed, LUMINOSITY).standard_normal(result.members.n_members)
        effect = result.members.perturbations.effects.get(LUMINOSITY)
        if effect is None or isinstance(effect, Shift):
            return cls(size, uncertainty, 1.0, pulls)
        nuisances, estimate = result.measurement.nuisances, 0.0
        if nuisances is not None and LUMINOSITY in nuisances.names:
            estimate = float(nuisances.estimate[nuisances.names.index(LUMINOSITY)])
        centre = 1.0 + uncertainty * estimate
        return cls(size * centre, uncertainty, centre, pulls, effect)

    def factor(self, source: str | None = None) -> Array:
        """What the spectrum of every member is multiplied by, all sources together or one, shape (n_members,)."""
        if self.shared is not None:
            moved = alpha_of(self.shared, LUMINOSITY, source)
        else:
            moved = self.pulls if source in (None, LUMINOSITY) else None
        if moved is None:
            return np.ones(len(self.pulls))
        return self.centre / (self.centre + self.uncertainty * moved)
