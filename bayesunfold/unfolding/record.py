"""What a result keeps beside its ensemble: the inputs, the measurement, and how it was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NotRequired, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from bayesunfold.classifier.inference import InferenceMethod
from bayesunfold.classifier.sampling import Draws
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.events import Background, Data, Simulation

__all__ = ["Inputs", "LinearMoments", "Look", "Measurement", "MethodSettings", "NuisanceDraws", "Record"]

BLIND = (
    "BLIND: no data were read; pseudo-data take their place until --unblind. They are simulated events, which the "
    "simulation then lacks. HEPData, publication and ROOT files are not written"
)
"""What a reader of a blind result must know first."""


def __dir__() -> list[str]:
    return __all__


class Look(TypedDict):
    """What the history keeps of an iteration.

    ``change`` is the largest change of a reference bin in units of its band, ``spectra`` the shares of the reference
    bins by feature, ``directions`` the numbers of directions of both classifiers.
    """

    losses: dict[str, float]
    decrements: dict[str, float]
    change: float
    effective_size: float
    spectra: list[list[float]]
    directions: list[int]
    criticism: NotRequired[dict[str, float]]


class MethodSettings(Protocol):
    """Settings of the method that made a result."""

    @property
    def method(self) -> str:
        """Name of the method, for figures and tables."""

    @property
    def iterates(self) -> bool:
        """Whether the method is a loop, whose history says how it converged."""

    @property
    def inference(self) -> str:
        """Where posterior draws come from."""

    @property
    def efficiency(self) -> str:
        """What simulated events that fail detector level weigh."""

    @property
    def sampling(self) -> InferenceMethod:
        """How the draws came about, for the dashboard."""

    @property
    def citations(self) -> tuple[str, ...]:
        """Keys of the works behind the method, in ``references.bib``."""

    def state(self) -> dict[str, object]:
        """All settings as JSON-ready values."""


@dataclass(frozen=True)
class Inputs:
    """What was unfolded.

    Attributes
    ----------
    simulation : Simulation
    data : Data
    backgrounds : tuple of Background
    correlations : dict of str to dict of str to float
        By systematic: correlations of its nuisance parameter with those of others, as they were given.
    """

    simulation: Simulation
    data: Data
    backgrounds: tuple[Background, ...] = ()
    correlations: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class LinearMoments:
    """What a direct posterior knows of the particle-level network: its moments, linear in the network's parameters.

    Attributes
    ----------
    observed : array, shape (p,)
        Moments, in units of their uncertainties, as they would be at the prior's centre.
    derivative : array, shape (p, P)
        Of the moments with respect to the parameters.
    centre : array, shape (P,)
        Mean of the parameters' prior.
    log_precision : array, shape (n_members, layers)
        Logarithms of the prior precisions of every member.
    width : float
        Of the Normal hyperprior of the logarithms.
    hyperprior : str
        Name of the user's function that gave another one; empty for the Normal one.
    custom : callable, optional
        That function, which a file does not keep.
    systematics : tuple of str
        Names of the profiled nuisance parameters.
    columns : array, shape (p, K)
        Derivative of the moments by them.
    free : array, shape (P, K)
        Changes of the network that mimic them, with a prior of their own.
    correlation : array, shape (K, K)
        Of the nuisance parameters before the data.
    """

    observed: NDArray[np.floating]
    derivative: NDArray[np.floating]
    centre: NDArray[np.floating]
    log_precision: NDArray[np.floating]
    width: float
    hyperprior: str = ""
    custom: Callable[[tuple[str, ...]], Any] | None = None
    systematics: tuple[str, ...] = ()
    columns: NDArray[np.floating] | None = None
    free: NDArray[np.floating] | None = None
    correlation: NDArray[np.floating] = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True)
class NuisanceDraws:
    """Posterior of the profiled nuisance parameters, each N(0, 1) before the data.

    Attributes
    ----------
    names : tuple of str
    estimate : array, shape (K,)
        Where the simulation was moved to.
    by_source : dict of source to array, shape (K, n_members)
        What each source of uncertainty moves of them.
    """

    names: tuple[str, ...]
    estimate: NDArray[np.floating]
    by_source: dict[str, NDArray[np.floating]]

    def draws(self) -> NDArray[np.floating]:
        """Their values in every member, shape (K, n_members)."""
        return self.estimate[:, None] + np.sum(list(self.by_source.values()), axis=0)


@dataclass(frozen=True)
class Measurement:
    """Step 1 of the first iteration, draws of its posterior, and the moments and nuisances of a direct posterior."""

    step1: Classifier
    draws: Draws
    moments: LinearMoments | None = None
    nuisances: NuisanceDraws | None = None


@dataclass(frozen=True)
class Record:
    """How a result was made.

    Attributes
    ----------
    settings : Settings
    seed : int
    versions : dict of str to str
        Of the libraries.
    history : tuple of Look
    seconds : dict of str to float
    blind : bool, optional
        Whether pseudo-data stand for the data; None where nothing is known of it.
    """

    settings: MethodSettings
    seed: int
    versions: dict[str, str] = field(default_factory=dict)
    history: tuple[Look, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    blind: bool | None = None
