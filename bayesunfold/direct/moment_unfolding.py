"""Moments of the unfolded distribution, without bins: the direct posterior whose log weight is linear in functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers, check_count, check_instance
from bayesunfold.classifier.network import Network
from bayesunfold.direct.estimator import UnbinnedFBU
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["LinearFBU", "MomentUnfolding"]

Array = NDArray[np.floating]
Function = Callable[[Array], ArrayLike]

MOST_POWERS = 6
KNOTS = 4
"""Quantiles of the other observable between which coefficients are interpolated."""


def __dir__() -> list[str]:
    return __all__


class LinearFBU(UnbinnedFBU):
    """The direct posterior with ``log nu`` linear in the particle-level features."""

    _linear = True


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
        Its tangent features are the detector-level moments that data and refolded simulation are compared by; by
        default as of :class:`UnbinnedFBU`.
    inference, draws, prior, rounds, efficiency, random_seed, progressbar
        As of :class:`UnbinnedFBU`. Every coefficient has a Normal prior about zero, in units in which the functions are
        uncorrelated with unit width, and one precision for all is learned.

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
        self._direct = LinearFBU(
            moments=detector_level,
            inference=inference,
            draws=draws,
            prior=prior,
            rounds=rounds,
            efficiency=efficiency,
            random_seed=random_seed,
            progressbar=progressbar,
        )

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
            Its particle-level features are the simulation's, followed by the functions that are none of them.
            :meth:`UnfoldingResult.moments` gives means and variances.

        Raises
        ------
        InputError
            If a function gives the wrong number of values, NaN or infinity, or nothing but one value; if ``by`` is no
            particle-level feature; for a systematic that holds another generator, whose functions are not known.
        """
        check_instance(simulation, Simulation, "simulation")
        other = [s.name for s in systematics if s.alternative is not None]
        if other:
            msg = f"{other} have alternative=; MomentUnfolding takes weights: learn them with bayesunfold.Reweighter."
            raise InputError(msg)
        extended = Functions.of(simulation, self.moments, self.by).simulation()
        return self._direct.fit(extended, data, backgrounds, systematics, checkpoint=checkpoint)


@dataclass(frozen=True)
class Functions:
    """Values of the functions ``T_a`` in every simulated event.

    Attributes
    ----------
    source : Simulation
    values : dict of str to array, shape (n,)
        By name; the name of a particle-level feature is that feature.
    """

    source: Simulation
    values: dict[str, Array]

    @classmethod
    def of(cls, simulation: Simulation, moments: int | Mapping[str, Function], by: str | None) -> Functions:
        """Powers or given functions, and their products with functions of another observable."""
        if isinstance(moments, Mapping):
            values = {name: _checked(name, f, simulation) for name, f in moments.items()}
        else:
            values = {}
            for name in simulation.gen_names:
                if name != by:
                    values |= _powers(name, simulation, moments)
        if not values:
            msg = f"there is no moment to unfold beside {by!r}; add a feature, or leave out by=."
            raise InputError(msg)
        if by is not None:
            values = _depending(values, by, simulation)
        return cls(simulation, values)

    def simulation(self) -> Simulation:
        """The simulation with the functions as particle-level features."""
        s = self.source
        columns = np.column_stack(list(self.values.values()))
        return Simulation(
            columns,
            s.reco,
            s.weight,
            s.pass_gen,
            s.pass_reco,
            undefined=s.undefined,
            names=list(self.values),
            reco_names=s.reco_names if s.reco_named else None,
        )


def _powers(name: str, simulation: Simulation, most: int) -> dict[str, Array]:
    """A feature, and powers of it about its mean in units of its width, which keeps them apart numerically."""
    x = simulation.gen_column(name)
    used = simulation.pass_gen & np.isfinite(x)
    mean, width = np.mean(x[used]), np.std(x[used])
    z = (x - mean) / (width if width > 0 else 1.0)
    return {name: x} | {f"{name} to power {k}, standardised": z**k for k in range(2, most + 1)}


def _checked(name: str, function: Function, simulation: Simulation) -> Array:
    """Values of a function in events that pass gen, zero elsewhere."""
    gen = simulation.pass_gen
    found = as_numbers(function(simulation.gen[gen]), f"moment {name!r}").squeeze()
    if found.shape != (int(gen.sum()),):
        msg = f"moment {name!r} gives shape {found.shape} for {int(gen.sum())} events; give one number per event."
        raise InputError(msg)
    if np.isinf(found).any() or (np.isnan(found).any() and simulation.undefined != "indicator"):
        msg = f"moment {name!r} is NaN or infinite in {int((~np.isfinite(found)).sum())} events; it needs a number."
        raise InputError(msg)
    if np.nanmin(found) == np.nanmax(found):
        msg = f"moment {name!r} is {found[0]:g} in every event; weights cannot change its mean. Leave it out."
        raise InputError(msg)
    values = np.zeros(len(simulation))
    values[gen] = found
    return values


def _depending(values: Mapping[str, Array], by: str, simulation: Simulation) -> dict[str, Array]:
    """Products of the functions with hat functions of an observable, and these alone."""
    x = simulation.gen_column(by)
    used = simulation.pass_gen & np.isfinite(x)
    knots = np.unique(np.quantile(x[used], np.linspace(0.0, 1.0, KNOTS)))
    if len(knots) < 2:
        msg = f"{by!r} is {knots[0]:g} in every event; moments cannot depend on it. Leave out by=."
        raise InputError(msg)
    inside = np.where(np.isfinite(x), x, knots[0])
    hats = [np.interp(inside, knots, row) for row in np.eye(len(knots))]
    out = {by: x} | {f"{by} near {knot:.4g}": hat for knot, hat in zip(knots[1:-1], hats[1:-1], strict=True)}
    for name, value in values.items():
        out[name] = value
        spread = (value - np.nanmean(value[used])) / max(float(np.nanstd(value[used])), 1e-300)
        for knot, hat in zip(knots[1:], hats[1:], strict=True):
            out[f"{name}, {by} near {knot:.4g}"] = spread * hat
    return out
