"""Moments of the unfolded distribution, without bins: the direct posterior whose log weight is linear in functions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import check_count
from bayesunfold.classifier.network import Network
from bayesunfold.direct.estimator import UnbinnedFBU
from bayesunfold.errors import InputError, InputTypeError, WeightWarning
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.unfolding.functions import Function, Functions, FunctionScale
from bayesunfold.unfolding.reading import check_simulation
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.standardized import Scales
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["LinearFBU", "MomentUnfolding"]

Array = NDArray[np.floating]

MOST_POWERS = 6

SMALL_MEMBER = 0.02
"""Share of the point estimate's effective size below which a member is warned of."""


def __dir__() -> list[str]:
    return __all__


class LinearFBU(UnbinnedFBU):
    """The direct posterior with ``log nu`` linear in functions of the particle level; settings as of its base."""

    _linear = True

    def __init__(self, functions: Functions, **settings: Any) -> None:
        super().__init__(**settings)
        self.functions = functions

    def _scales(self, simulation: Simulation, intervals: tuple[int, int]) -> Scales:
        gen = simulation.pass_gen
        plain = Scales.fit(simulation, (intervals[0], 0))
        return replace(plain, gen=FunctionScale.of(self.functions, simulation.gen[gen], simulation.weight[gen]))


class MomentUnfolding:
    """Unfold moments: the direct posterior with ``log nu(t) = sum_a beta_a T_a(t)``.

    Of all weights that give the functions ``T_a`` their unfolded means, those are the closest to one. The answer is the
    posterior of ``beta``, and with it of every moment and spectrum; it is as good as the family holds the truth.

    Parameters
    ----------
    moments : int, or mapping of name to callable
        Powers of every particle-level feature up to this one; or functions ``T_a`` of the particle-level features (k,
        d_gen) that give one number per event.
    by : str, optional
        A particle-level feature of which the coefficients are functions, linear between four of its quantiles: moments
        may then depend on it in any way. It gets a free distribution of its own at the same quantiles.
    detector_level : Network, optional
        Its tangent features are among the detector-level moments that data and refolded simulation are compared by,
        beside the means of the functions given detector level; by default with an additive part.
    inference, draws, prior, rounds, efficiency, random_seed, progressbar
        As of :class:`UnbinnedFBU`, but ``prior`` is 1 by default for any number of features. Every coefficient has a
        Normal prior about zero, in units in which the functions are uncorrelated with unit width, and one precision for
        all is learned.

    Raises
    ------
    InputError, InputTypeError
        For arguments of the wrong kind or range.

    References
    ----------
    K. Desai, B. Nachman, J. Thaler, arXiv:2407.11284, with a generative adversarial network in place of the posterior.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(2000, 2000, random_seed=1)
    >>> unfolder = bu.MomentUnfolding(moments=2, draws=100, random_seed=1, progressbar=False)
    >>> result = unfolder.fit(toy.simulation, toy.data)
    >>> result.moments("gen", 2).coords["moment"].values.tolist()
    ['mean', 'variance']
    """

    def __init__(
        self,
        moments: int | Mapping[str, Function] = 2,
        *,
        by: str | None = None,
        detector_level: Network | None = None,
        inference: str = "marginal",
        draws: int = 500,
        prior: float = 1.0,
        rounds: int = 1,
        efficiency: Literal["learned", "prior"] = "learned",
        random_seed: int | None = None,
        progressbar: bool = True,
    ) -> None:
        if isinstance(moments, Mapping):
            for name, function in moments.items():
                if not callable(function):
                    msg = f"moment {name!r} has type {type(function).__name__}; give a function of the features."
                    raise InputTypeError(msg)
            if not moments:
                msg = "moments is empty; give at least one function, or a number of powers."
                raise InputError(msg)
            self.moments: int | dict[str, Function] = dict(moments)
        else:
            self.moments = check_count(moments, "moments", 1, MOST_POWERS)
        if by is not None and not isinstance(by, str):
            msg = f"by has type {type(by).__name__}; name a particle-level feature."
            raise InputTypeError(msg)
        self.by = by
        self._settings: dict[str, Any] = {
            "moments": detector_level,
            "inference": inference,
            "draws": draws,
            "prior": prior,
            "rounds": rounds,
            "efficiency": efficiency,
            "random_seed": random_seed,
            "progressbar": progressbar,
        }
        UnbinnedFBU(**self._settings)  # which checks them

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
        check_simulation(simulation)
        self._unfolder(simulation).check(simulation, data, backgrounds, systematics, checkpoint=checkpoint)

    def _unfolder(self, simulation: Simulation) -> LinearFBU:
        return LinearFBU(Functions.of(simulation, self.moments, self.by), **self._settings)

    def fit(
        self,
        simulation: Simulation,
        data: Data | ArrayLike,
        backgrounds: Sequence[Background] = (),
        systematics: Sequence[Systematic] = (),
        *,
        checkpoint: str | Path | None = None,
    ) -> UnfoldingResult:
        """Unfold; arguments, errors and warnings as of :meth:`UnbinnedFBU.fit`.

        Returns
        -------
        UnfoldingResult
            As of any method; :meth:`UnfoldingResult.moments` gives means and variances. A file does not keep functions
            of the user: a loaded result has their weights of simulated events, not of others.

        Raises
        ------
        InputError
            If a function gives the wrong number of values, NaN or infinity, or nothing but one value; if ``by`` is no
            particle-level feature.

        Warns
        -----
        WeightWarning
            If few events carry the weight of a member: data say little of a coefficient.
        """
        check_simulation(simulation)
        unfolder = self._unfolder(simulation)
        result = unfolder.fit(simulation, data, backgrounds, systematics, checkpoint=checkpoint)
        _warn_of_small_members(result)
        return result


def _warn_of_small_members(result: UnfoldingResult) -> None:
    sizes = result.members.effective_sizes()
    nominal = result.nominal.sum() ** 2 / (result.nominal**2).sum()
    small = int(np.sum(sizes < SMALL_MEMBER * nominal))
    if small:
        msg = (
            f"{small} of {len(sizes)} members have an effective size below {100 * SMALL_MEMBER:g} % of the point "
            f"estimate's (least {sizes.min():.0f} events of {nominal:.0f}): data say little of a coefficient. Take "
            "fewer moments, or leave out by=."
        )
        warnings.warn(msg, WeightWarning, stacklevel=3)
