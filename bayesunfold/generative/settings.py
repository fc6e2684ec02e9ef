"""Settings of generative unfolding, in one frozen object that the result keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bayesunfold.classifier.inference import InferenceMethod
from bayesunfold.omnifold.settings import Settings

__all__ = ["GenerativeSettings"]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class GenerativeSettings:
    """Arguments of :class:`bayesunfold.GenerativeUnfolding`.

    Attributes
    ----------
    loop : Settings
        Of the OmniFold run that the bands come from.
    """

    loop: Settings = field(default_factory=Settings)

    @property
    def method(self) -> str:
        """Name of the method, for figures and tables."""
        return "GenerativeUnfolding"

    @property
    def iterates(self) -> bool:
        """Whether the method is a loop."""
        return True

    @property
    def inference(self) -> str:
        """Where posterior draws come from."""
        return self.loop.inference

    @property
    def efficiency(self) -> Literal["learned", "prior"]:
        """What simulated events that fail detector level weigh."""
        return self.loop.efficiency

    @property
    def generator_prior(self) -> float:
        """Relative uncertainty of the generator."""
        return self.loop.generator_prior

    @property
    def event_groups(self) -> int | None:
        """Most groups of events that fluctuate together."""
        return self.loop.event_groups

    @property
    def sampling(self) -> InferenceMethod:
        """How posterior draws are made."""
        return self.loop.sampling

    @property
    def citations(self) -> tuple[str, ...]:
        """Keys of the works behind the method."""
        return ("Backes:2022", "Bellagente:2020", *self.loop.citations)

    def state(self) -> dict[str, object]:
        """All settings as JSON-ready values."""
        return self.loop.state() | {"method": "generative"}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> GenerativeSettings:
        """Inverse of :meth:`state`."""
        return cls(Settings.from_state(state))
