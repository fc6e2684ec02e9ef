"""Settings of the direct posterior, in one frozen object that the result keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.inference import CHAINS, InferenceMethod, inference_method
from bayesunfold.classifier.network import Network
from bayesunfold.classifier.sampling import sample_gaussian
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["SAMPLED", "DirectSettings", "default_hyperprior", "default_networks"]

SAMPLED = ("advi", "nuts")
"""Methods that sample the precisions in PyMC."""

ONE_FEATURE = Network(prior_scale=(1.0, 1.0, 7.0)), Network(additive=6)
MANY_FEATURES = Network(additive=12), Network(additive=12)
"""Default networks at particle level and at detector level (docs/studies/coverage.md).

One particle-level feature has a smoother prior than the loop's: the loop regularises by stopping, this posterior by its
prior alone.
"""


FEW_FEATURES, WIDE = (2, 3), 3.0
"""Numbers of particle-level features for which the hyperprior is wide, and its width (docs/studies/coverage.md)."""

NOTE = "Direct posterior: exact draws of a Gaussian for each member's prior precisions; there is nothing to converge."


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class DirectSettings:
    """Arguments of :class:`bayesunfold.UnbinnedFBU`, checked there, without the seed.

    Attributes
    ----------
    network : Network
        At particle level.
    moments : Network
        At detector level; its tangent features are the moments.
    inference : {"marginal", "laplace", "advi", "nuts"}
    draws : int
    prior : float
        Width of the hyperprior of the logarithm of each prior precision.
    restarts : int
    rounds : int
        Most second classifiers whose tangent features may join the moments.
    efficiency : {"learned", "prior"}
        What events that fail detector level weigh: what the network says, or their generator weight.
    linear : bool
        Whether the log weight is linear in functions of the particle level (:class:`bayesunfold.MomentUnfolding`); then
        ``network`` has no part in it.
    event_groups : int or None
        Most groups of events that fluctuate together; None, also of older files, for events one by one.
    """

    network: Network = field(default_factory=lambda: ONE_FEATURE[0])
    moments: Network = field(default_factory=lambda: ONE_FEATURE[1])
    inference: str = "marginal"
    draws: int = 500
    prior: float = 1.0
    restarts: int = 1
    rounds: int = 1
    efficiency: Literal["learned", "prior"] = "learned"
    linear: bool = False
    event_groups: int | None = None

    @property
    def generator_prior(self) -> float:
        """The network's own prior holds what the detector does not see."""
        return 0.0

    @property
    def method(self) -> str:
        """Name of the method, for figures and tables."""
        return "MomentUnfolding" if self.linear else "UnbinnedFBU"

    @property
    def iterates(self) -> bool:
        """Whether the method is a loop."""
        return False

    @property
    def sampling(self) -> InferenceMethod:
        """How posterior draws are made."""
        chains = CHAINS if self.inference == "nuts" else 1
        note = NOTE if chains == 1 else ""
        return InferenceMethod(self.inference, sample_gaussian, is_gaussian=True, chains=chains, note=note)

    @property
    def citations(self) -> tuple[str, ...]:
        """Keys of the works behind the method."""
        used = inference_method(self.inference).citations if self.inference in SAMPLED else ()
        first = ("Desai:2024",) if self.linear else ("Choudalakis:2012hz", "Immer:2021")
        return (*first, "Andreassen:2019cjw", "Rubin:1981", "MacKay:1992", *used)

    def layouts(self, events: StandardizedEvents) -> tuple[Layout, Layout]:
        """The networks at detector level and at particle level."""
        if not self.linear:
            return events.layouts(self.moments, self.network)
        n_features = events.gen.shape[1]
        reco = self.moments.layout(events.reco.shape[1], events.scales.reco)
        return reco, Layout((n_features, 1), "tanh", (float(np.sqrt(n_features)),))  # each coefficient is N(0, 1)

    def state(self) -> dict[str, object]:
        """All settings as JSON-ready values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {"network": self.network.state(), "moments": self.moments.state(), "method": "direct"}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DirectSettings:
        """Inverse of :meth:`state`."""
        known = {name: state[name] for name in cls.__dataclass_fields__ if name in state}
        networks = {name: Network(**state[name]) for name in ("network", "moments")}
        return cls(**(known | networks))


def default_networks(n_features: int) -> tuple[Network, Network]:
    """Networks at particle level and at detector level for a number of particle-level features."""
    return ONE_FEATURE if n_features == 1 else MANY_FEATURES


def default_hyperprior(n_features: int) -> float:
    """Width of the hyperprior for a number of particle-level features."""
    return WIDE if n_features in FEW_FEATURES else 1.0
