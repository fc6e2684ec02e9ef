"""Non-linearities of the networks, by name: in NumPy, as PyTensor expressions, and as ONNX nodes.

A new one is one entry here; training, the PyMC models and the exported weight functions take it from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ACTIVATIONS", "Activation", "log1pexp", "onnx_log1pexp"]

Array = NDArray[np.floating]
DOUBLE = 11
"""Number of the element type in the ONNX standard."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Activation:
    """A non-linearity in every form that the library needs.

    Attributes
    ----------
    value, derivative : callable
        In NumPy; the derivative is a function of the activation's own value. Single precision stays single.
    symbolic, symbolic_derivative : callable
        The same as PyTensor expressions.
    nodes, derivative_nodes : callable
        The same as ONNX nodes: of a graph under construction and the name of the input; the name of the output.
    """

    value: Callable[[Array], Array]
    derivative: Callable[[Array], Array]
    symbolic: Callable[[Any], Any]
    symbolic_derivative: Callable[[Any], Any]
    nodes: Callable[[Any, str], str]
    derivative_nodes: Callable[[Any, str], str]


def log1pexp(z: Array) -> Array:
    """``log(1 + exp(z))`` without overflow."""
    rest = np.log1p(np.exp(-np.abs(z)))
    rest += np.maximum(z, 0)
    return rest


def onnx_log1pexp(g: Any, z: str) -> str:
    """``log(1 + exp(z))`` without overflow; runtimes have their own in single precision only."""
    return g("Add", g("Max", z, 0.0), g("Log", g("Add", g("Exp", g("Neg", g("Abs", z))), 1.0)))


def _symbolic_tanh(z: Any) -> Any:
    import pytensor.tensor as pt

    return pt.tanh(z)


def _symbolic_relu(z: Any) -> Any:
    import pytensor.tensor as pt

    return pt.maximum(z, 0.0)


def _symbolic_softplus(z: Any) -> Any:
    import pytensor.tensor as pt

    return pt.softplus(z)


def _symbolic_step(a: Any) -> Any:
    import pytensor.tensor as pt

    return pt.gt(a, 0.0).astype("float64")


def _symbolic_expm1(a: Any) -> Any:
    import pytensor.tensor as pt

    return -pt.expm1(-a)


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(
        np.tanh,
        lambda a: 1.0 - a * a,
        _symbolic_tanh,
        lambda a: 1.0 - a**2,
        lambda g, z: g("Tanh", z),
        lambda g, a: g("Sub", 1.0, g("Mul", a, a)),
    ),
    "relu": Activation(
        lambda z: np.maximum(z, 0.0),
        lambda a: (a > 0).astype(a.dtype),
        _symbolic_relu,
        _symbolic_step,
        lambda g, z: g("Relu", z),
        lambda g, a: g("Cast", g("Greater", a, 0.0), to=DOUBLE),
    ),
    "softplus": Activation(
        log1pexp,
        lambda a: -np.expm1(-a),
        _symbolic_softplus,
        _symbolic_expm1,
        onnx_log1pexp,
        lambda g, a: g("Sub", 1.0, g("Exp", g("Neg", a))),
    ),
}
