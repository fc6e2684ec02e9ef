"""The luminosity that a spectrum is divided by, with a nuisance parameter of its own or that of a systematic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.streams import LUMINOSITY, stream
from bayesunfold.errors import InputError

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["Luminosity"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Luminosity:
    """The uncertainty of the luminosity in every member.

    Attributes
    ----------
    uncertainty : float
        Relative, one standard deviation.
    pulls : array, shape (n_members,)
        Its nuisance parameter.
    shared : bool
        Whether that is the parameter of a systematic, which varies the backgrounds.
    """

    uncertainty: float
    pulls: Array
    shared: bool

    @classmethod
    def of(cls, result: UnfoldingResult, uncertainty: float, *, given: bool) -> Luminosity:
        """Its parameter is that of a systematic named ``"luminosity"`` if there is one.

        Raises
        ------
        InputError
            If there is one, and a luminosity is given without an uncertainty.
        """
        effect = result.members.perturbations.effects.get(LUMINOSITY)
        if effect is None:
            pulls = stream(result.record.seed, LUMINOSITY).standard_normal(result.members.n_members)
            return cls(uncertainty, pulls, shared=False)
        if given and uncertainty == 0:
            msg = (
                "the backgrounds vary with the luminosity, a systematic of this name, and that of the spectrum has no "
                "uncertainty; give luminosity=(size, relative uncertainty), the same as in the backgrounds."
            )
            raise InputError(msg)
        return cls(uncertainty, effect.alpha, shared=True)

    def factor(self, source: str | None = None) -> Array:
        """What the spectrum of every member is multiplied by, all sources together or one, shape (n_members,).

        One over the luminosity ``(1 + u) ** pull``, with the relative uncertainty u: log-normal, so that no member has
        a luminosity of zero or below. To first order in u it is ``1 + u pull``, and it is ``1 + u`` for a pull of one.
        """
        if source not in (None, LUMINOSITY):
            return np.ones(len(self.pulls))
        return np.exp(-np.log1p(self.uncertainty) * self.pulls)
