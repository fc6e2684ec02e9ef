"""Settings of an unfolding, in one frozen object that the result keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bayesunfold.classifier.arithmetic import Layout
from bayesunfold.classifier.inference import InferenceMethod, inference_method
from bayesunfold.classifier.network import Network
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = ["Settings"]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Settings:
    """Arguments of :class:`bayesunfold.OmniFold`, checked there, without the seed.

    Attributes
    ----------
    iterations : int or "auto"
    network : Network
    inference : str
    draws : int
    efficiency : {"learned", "prior"}
    generator_prior : float
    linearize : bool
    restarts : int
    event_groups : int or None
        Most groups of events that fluctuate together; None, also of older files, for events one by one.
    """

    iterations: int | Literal["auto"] = "auto"
    network: Network = field(default_factory=Network)
    inference: str = "advi"
    draws: int = 500
    efficiency: Literal["learned", "prior"] = "learned"
    generator_prior: float = 0.0
    linearize: bool = True
    restarts: int = 1
    event_groups: int | None = None

    @property
    def method(self) -> str:
        """Name of the method, for figures and tables."""
        return "OmniFold"

    @property
    def iterates(self) -> bool:
        """Whether the method is a loop."""
        return True

    @property
    def sampling(self) -> InferenceMethod:
        """How posterior draws are made."""
        return inference_method(self.inference)

    @property
    def citations(self) -> tuple[str, ...]:
        """Keys of the works behind the method."""
        moved = () if self.sampling.is_gaussian else ("Wilson:2021",)
        return ("Andreassen:2019cjw", "Immer:2021", "Rubin:1981", *self.sampling.citations, *moved)

    def layouts(self, events: StandardizedEvents) -> tuple[Layout, Layout]:
        """The network at detector level and at particle level."""
        return events.layouts(self.network, self.network)

    def state(self) -> dict[str, object]:
        """All settings as JSON-ready values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {"network": self.network.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Settings:
        """Inverse of :meth:`state`; other entries are left out. Older states have events one by one."""
        state = {"event_groups": None} | dict(state)
        known = {name: state[name] for name in cls.__dataclass_fields__}
        return cls(**(known | {"network": Network(**state["network"])}))
