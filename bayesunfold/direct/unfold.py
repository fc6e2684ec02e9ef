"""Unfolding in one line, by either method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict, Unpack

from numpy.typing import ArrayLike

from bayesunfold.classifier.network import Network
from bayesunfold.direct.estimator import UnbinnedFBU
from bayesunfold.errors import InputError
from bayesunfold.events import Background, Data, Simulation, Undefined
from bayesunfold.omnifold.estimator import OmniFold
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.systematics import Systematic

__all__ = ["estimator", "unfold"]

ESTIMATORS: dict[str, type[OmniFold] | type[UnbinnedFBU]] = {"omnifold": OmniFold, "direct": UnbinnedFBU}


def __dir__() -> list[str]:
    return __all__


def estimator(method: object) -> type[OmniFold] | type[UnbinnedFBU]:
    """The class of a method.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if not isinstance(method, str) or method not in ESTIMATORS:
        msg = f"method is {method!r}; it must be one of {', '.join(map(repr, ESTIMATORS))}."
        raise InputError(msg)
    return ESTIMATORS[method]


class Arguments(TypedDict, total=False):
    """Arguments of :class:`bayesunfold.OmniFold` and :class:`bayesunfold.UnbinnedFBU`, for type checkers."""

    iterations: int | Literal["auto"]
    network: Network | None
    inference: str
    draws: int
    efficiency: Literal["learned", "prior"]
    generator_prior: float
    linearize: bool
    restarts: int
    moments: Network | None
    prior: float
    rounds: int
    event_groups: int | None
    random_seed: int | None
    progressbar: bool


def unfold(
    gen: ArrayLike,
    reco: ArrayLike,
    data: Data | ArrayLike,
    *,
    weight: ArrayLike | None = None,
    pass_gen: ArrayLike | None = None,
    pass_reco: ArrayLike | None = None,
    reco_factor: ArrayLike | None = None,
    undefined: Undefined = "error",
    backgrounds: Sequence[Background] = (),
    systematics: Sequence[Systematic] = (),
    checkpoint: str | Path | None = None,
    method: Literal["omnifold", "direct"] = "omnifold",
    **settings: Unpack[Arguments],
) -> UnfoldingResult:
    """Unfold in one line.

    Parameters
    ----------
    gen, reco : array or frame, shape (n,) or (n, d)
        Simulated events at particle level and detector level, row by row.
    data : Data, array or frame, shape (m,) or (m, d_reco)
        Measured events.
    weight, pass_gen, pass_reco, reco_factor : array, shape (n,), optional
        As for :class:`Simulation`.
    undefined : {"error", "indicator"}
        As for :class:`Simulation`; also of ``data`` unless that is a :class:`Data`.
    backgrounds, systematics, checkpoint
        As for :meth:`OmniFold.fit`.
    method : {"omnifold", "direct"}
        The loop of :class:`OmniFold`, or the one posterior of :class:`UnbinnedFBU`.
    **settings
        Arguments of that class.

    Returns
    -------
    UnfoldingResult

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=2, inference="laplace", draws=50,
    ...                    random_seed=1, progressbar=False)
    >>> round(float(result.nominal.sum()))
    300
    """
    unfolder = estimator(method)(**settings)  # type: ignore[misc]  # each class has its own arguments
    simulation = Simulation(gen, reco, weight, pass_gen, pass_reco, undefined, reco_factor=reco_factor)
    if not isinstance(data, Data):
        data = Data(data, undefined=undefined)
    return unfolder.fit(simulation, data, backgrounds, systematics, checkpoint=checkpoint)
