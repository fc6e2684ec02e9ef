"""Random streams by name: the only places where keys of random numbers stand.

A stream is a counter-based generator (Philox) whose key is the run's seed and a number of its own, so that what one
part draws never depends on how much another part has drawn.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

__all__ = ["LUMINOSITY", "event_key", "part_stream", "stream", "training_stream"]

LUMINOSITY: Final = "luminosity"
"""Stream of the luminosity's parameter, source of uncertainty, and name of a systematic that shares the parameter."""

Name = Literal[
    "prior",
    "posterior",
    "yields",
    "systematics",
    "luminosity",
    "generator",
    "direct",
    "centre",
    "precisions",
    "criticism",
    "predictive",
    "migration",
    "generative",
    "proposals",
    "moments",
    "alternatives",
    "starts",
]

NUMBERS: dict[str, int] = {
    "prior": 10_001,
    "posterior": 10_002,
    "yields": 10_003,
    "systematics": 10_004,
    "luminosity": 10_005,
    "generator": 10_006,
    "direct": 10_007,
    "centre": 10_008,
    "precisions": 10_009,
    "criticism": 10_010,
    "predictive": 10_011,
    "migration": 10_012,
    "generative": 10_013,
    "proposals": 10_014,
    "moments": 10_015,
    "alternatives": 10_016,
    "starts": 10_017,
}
"""Numbers of the streams. Changing one changes the members of a seed."""


def __dir__() -> list[str]:
    return __all__


def stream(seed: int, name: Name) -> np.random.Generator:
    """The generator of one part of a run.

    Parameters
    ----------
    seed : int
    name : str
        ``"prior"`` noise of the networks, ``"posterior"`` draws, ``"yields"``, nuisance parameters of ``"systematics"``
        and of the ``"luminosity"``, prior of the ``"generator"``, noise of the ``"direct"`` posterior, its
        ``"precisions"``, the ``"centre"`` of its prior and its ``"criticism"``,
        ``"predictive"`` draws, the ``"migration"`` of events into and out of a profiled selection, training of a
        ``"generative"`` map and its ``"proposals"``, the network of the ``"moments"``,
        classifiers of ``"alternatives"``, and other ``"starts"`` of a fit that learned nothing.

    Examples
    --------
    >>> bool((stream(1, "prior").random(3) == stream(1, "prior").random(3)).all())
    True
    >>> bool((stream(1, "prior").random(3) == stream(1, "yields").random(3)).any())
    False
    """
    return _generator(seed, NUMBERS[name])


def part_stream(seed: int, name: Name, number: int) -> np.random.Generator:
    """The generator of a numbered part of a stream: a block of events, or a feature."""
    return np.random.Generator(np.random.Philox(key=[seed, NUMBERS[name]], counter=[0, 0, 0, number + 1]))


def training_stream(seed: int, iteration: int) -> np.random.Generator:
    """The generator of an iteration's training: starts and choices of events."""
    return _generator(seed, iteration)


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=[seed, number]))


def event_key(seed: int, sample: Literal["data", "simulation"] | int) -> int:
    """Key of the event fluctuations of a sample; backgrounds are numbered from zero.

    Blocks of events are numbered on the second half of the key.
    """
    if sample == "simulation":
        return 2 * seed + 2
    return 2 * seed + 1 + (0 if sample == "data" else (sample + 1) * 2**33)
