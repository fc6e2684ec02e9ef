"""Ways to draw from the posterior of a network, by name. A new one is one file and one call of :func:`register`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bayesunfold.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bayesunfold.classifier.arithmetic import Layout
    from bayesunfold.classifier.sampling import Draws, LinearizedPosterior

    Sampler = Callable[[LinearizedPosterior, int, np.random.Generator], Draws]
    FullSampler = Callable[[Layout, NDArray, NDArray, LinearizedPosterior, int, np.random.Generator], Draws]

__all__ = ["InferenceMethod", "check_chains", "check_inference", "inference_method", "inference_names", "register"]


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class InferenceMethod:
    """A way to draw from the posterior of a network.

    Attributes
    ----------
    name : str
        What ``inference=`` says.
    sample : callable
        Of a :class:`bayesunfold.classifier.sampling.LinearizedPosterior`, the number of draws and a random generator:
        the draws, in whitened coordinates.
    sample_full : callable, optional
        The same for the network that is not linearised (``linearize=False``): of its layout, most probable weights,
        standardised events, linearised posterior, number of draws and random generator.
    is_gaussian : bool
        Whether draws are those of the Gaussian about the most probable weights, which members follow by themselves.
    chains : int
        Markov chains of equal length; one for independent draws.
    note : str
        What the dashboard says of the draws.
    citations : tuple of str
        Keys of ``references.bib``.
    """

    name: str
    sample: Sampler
    sample_full: FullSampler | None = None
    is_gaussian: bool = False
    chains: int = 1
    note: str = ""
    citations: tuple[str, ...] = ()


CHAINS = 4
"""Chains of NUTS."""

_METHODS: dict[str, InferenceMethod] = {}


def register(method: InferenceMethod) -> None:
    """Make a method known to everything that has an argument ``inference``.

    Raises
    ------
    InputError
        If another method has the name.
    """
    if _METHODS.get(method.name, method) != method:
        msg = f"there is another inference method {method.name!r}; choose another name."
        raise InputError(msg)
    _METHODS[method.name] = method


def inference_names() -> tuple[str, ...]:
    """Names of all methods."""
    return tuple(_METHODS)


def inference_method(name: object) -> InferenceMethod:
    """The method of a name.

    Raises
    ------
    InputError
        If there is none.
    """
    if not isinstance(name, str) or name not in _METHODS:
        msg = f"inference is {name!r}; it must be one of {', '.join(map(repr, inference_names()))}."
        raise InputError(msg)
    return _METHODS[name]


def check_chains(method: InferenceMethod, draws: int) -> None:
    """Whether the method's chains can share so many draws equally.

    Raises
    ------
    InputError
        If they cannot.
    """
    if draws % method.chains:
        msg = (
            f"draws is {draws}; {method.name.upper()} runs {method.chains} chains of equal length, so take a multiple "
            f"of {method.chains}."
        )
        raise InputError(msg)


def check_inference(name: object, *, linearize: bool) -> InferenceMethod:
    """The method of a name, if it can draw from such a network.

    Raises
    ------
    InputError
        For an unknown name, and for a full network that the method cannot sample.
    """
    method = inference_method(name)
    if not linearize and method.sample_full is None:
        able = " or ".join(repr(n) for n, m in _METHODS.items() if m.sample_full is not None)
        msg = f"linearize=False needs inference={able}; {method.name!r} draws from the linearised network only."
        raise InputError(msg)
    return method


def _advi(posterior: LinearizedPosterior, draws: int, rng: np.random.Generator) -> Draws:
    from bayesunfold.classifier.sampling import sample_advi

    return sample_advi(posterior, draws, rng)


def _nuts(posterior: LinearizedPosterior, draws: int, rng: np.random.Generator) -> Draws:
    from bayesunfold.classifier.sampling import sample_nuts

    return sample_nuts(posterior, draws, rng)


def _laplace(posterior: LinearizedPosterior, draws: int, rng: np.random.Generator) -> Draws:
    from bayesunfold.classifier.sampling import sample_gaussian

    return sample_gaussian(posterior, draws, rng)


def _full(
    method: str,
    layout: Layout,
    theta: NDArray,
    x: NDArray,
    posterior: LinearizedPosterior,
    draws: int,
    rng: np.random.Generator,
) -> Draws:
    from bayesunfold.classifier.full_network import sample_full_network

    return sample_full_network(method, layout, theta, x, posterior, draws, rng)


register(
    InferenceMethod(
        "advi",
        _advi,
        partial(_full, "advi"),
        note="ADVI draws are independent; R-hat and effective sample sizes of Markov chains do not apply.",
        citations=("pymc2023", "Kucukelbir:2017"),
    )
)
register(InferenceMethod("nuts", _nuts, partial(_full, "nuts"), chains=CHAINS, citations=("pymc2023", "Hoffman:2014")))
register(
    InferenceMethod(
        "laplace",
        _laplace,
        is_gaussian=True,
        note="Laplace: exact draws of a Gaussian; there is nothing to converge.",
    )
)
