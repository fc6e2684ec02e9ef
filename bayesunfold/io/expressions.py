"""Columns and selections as expressions: ``"jet_pt[0] > 20 & abs(eta) < 2.5"``, without ``eval``."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold.errors import InputError

__all__ = ["columns_of", "evaluate"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "arctan2": np.arctan2,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "isfinite": np.isfinite,
}
OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
    ast.BitAnd: np.logical_and,
    ast.BitOr: np.logical_or,
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
    ast.Not: np.logical_not,
    ast.Invert: np.logical_not,
}
INDEXED = re.compile(r"^(?P<name>.+)\[(?P<index>\d+)\]$")


def __dir__() -> list[str]:
    return __all__


def _parse(expression: str) -> ast.expr:
    try:
        return ast.parse(_with_python_precedence(expression), mode="eval").body
    except SyntaxError as err:
        msg = f"{expression!r} is not an expression ({err.msg}); write for instance 'pt > 20 & abs(eta) < 2.5'."
        raise InputError(msg) from None


QUOTED = "_quoted_"


def _quoted(match: re.Match[str]) -> str:
    """An identifier that stands for a name in backticks."""
    return QUOTED + match[1].encode().hex()


def _name(node: ast.Name) -> str:
    """The column that an identifier means."""
    if not node.id.startswith(QUOTED):
        return node.id
    return bytes.fromhex(node.id.removeprefix(QUOTED)).decode()


def _with_python_precedence(expression: str) -> str:
    """``&`` and ``|`` bind weaker than comparisons, as physicists write them; names may stand in backticks."""
    expression = re.sub("`([^`]+)`", _quoted, expression)
    return re.sub(r"\|+", " or ", re.sub(r"&+", " and ", expression))


def columns_of(expression: str) -> list[str]:
    """Columns that an expression needs; ``name[2]`` is the third entry of a jagged column.

    A name that is no identifier (``jet.pt`` of a nested branch) stands in backticks.

    Examples
    --------
    >>> columns_of("jet_pt[0] > 20 & abs(eta) < 2.5")
    ['jet_pt[0]', 'eta']
    """
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Subscript):
            found.append(_indexed(node, expression))
            return
        if isinstance(node, ast.Name) and node.id not in FUNCTIONS:
            found.append(_name(node))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(_parse(expression))
    return list(dict.fromkeys(found))


def _indexed(node: ast.Subscript, expression: str) -> str:
    if (
        isinstance(node.value, ast.Name)
        and isinstance(node.slice, ast.Constant)
        and isinstance(node.slice.value, int)
        and node.slice.value >= 0
    ):
        return f"{_name(node.value)}[{node.slice.value}]"
    msg = f"{expression!r}: only name[number] picks an entry of a column."
    raise InputError(msg)


def evaluate(expression: str, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Value of an expression, event by event.

    Parameters
    ----------
    expression : str
        Arithmetic, comparisons, ``&``, ``|``, ``~`` and the functions abs, sqrt, log, exp, sin, cos, arctan2, minimum,
        maximum, isfinite. ``&`` and ``|`` bind weaker than comparisons.
    columns : mapping of str to array

    Examples
    --------
    >>> import numpy as np
    >>> evaluate("pt > 20 & abs(eta) < 2", {"pt": np.array([30, 30, 10]), "eta": np.array([1.0, -3.0, 0.0])})
    array([ True, False, False])
    """

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return node.value
        if isinstance(node, ast.Name):
            name = _name(node)
            if name not in columns:
                msg = f"{expression!r} needs the column {name!r}; there are {', '.join(columns)}."
                raise InputError(msg)
            return _numeric(columns[name], name, expression)
        if isinstance(node, ast.Subscript):
            return columns[_indexed(node, expression)]
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](value(node.operand))
        if isinstance(node, ast.BoolOp):
            result = value(node.values[0])
            for other in node.values[1:]:
                result = OPERATORS[type(node.op)](result, value(other))
            return result
        if isinstance(node, ast.Compare):
            left, result = value(node.left), None
            for op, right in zip(node.ops, map(value, node.comparators), strict=True):
                if type(op) not in OPERATORS:
                    break
                part = OPERATORS[type(op)](left, right)
                result = part if result is None else np.logical_and(result, part)
                left = right
            else:
                return result
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FUNCTIONS:
            function = FUNCTIONS[node.func.id]
            wanted = function.nin if isinstance(function, np.ufunc) else 1
            if len(node.args) != wanted or node.keywords:
                msg = f"{expression!r}: {node.func.id} takes {wanted} argument{'s' if wanted > 1 else ''}."
                raise InputError(msg)
            return function(*map(value, node.args))
        legal = ", ".join(FUNCTIONS)
        msg = f"{expression!r} uses {ast.unparse(node)!r}; only arithmetic, comparisons, &, |, ~ and {legal}."
        raise InputError(msg)

    return np.asarray(value(_parse(expression)))


def _numeric(values: NDArray[Any], name: str, expression: str) -> NDArray[Any]:
    if values.dtype.kind not in "biuf":
        msg = f"{expression!r}: the column {name!r} holds {values.dtype} values; only numbers and flags can be used."
        raise InputError(msg)
    return values
