"""Columns and selections as expressions: ``"jet_pt[0] > 20 & abs(eta) < 2.5"``, without ``eval``.

All numbers are real: columns of integers become double precision before any arithmetic, as in ROOT. Conditions are
conditions: ``&``, ``|`` and ``~`` take comparisons and flags, never numbers.
"""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import EXACT, check_exact
from bayesunfold.errors import InputError

__all__ = ["Piece", "columns_of", "evaluate", "piece_of", "single_column"]

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "log": np.log,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "arcsinh": np.arcsinh,
    "arctan2": np.arctan2,
    "atan2": np.arctan2,
    "hypot": np.hypot,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "isfinite": np.isfinite,
    "isnan": np.isnan,
    "where": np.where,
}
ARITHMETIC: dict[type, Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}
COMPARISONS: dict[type, Callable[..., Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
LOGIC: dict[type, Callable[..., Any]] = {
    ast.And: np.logical_and,
    ast.Or: np.logical_or,
    ast.Not: np.logical_not,
    ast.Invert: np.logical_not,
}
OF_ENTRIES = ("len", "sum", "min", "max")
"""Functions of all entries of a jagged column."""

INDEXED = re.compile(r"^(?P<name>.+)\[(?P<index>-?\d+)\]$")
REDUCED = re.compile(rf"^(?P<function>{'|'.join(OF_ENTRIES)})\((?P<name>.+)\)$")
LONGEST = 10_000
"""Characters of an expression."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Piece:
    """A column of a file, or one number per event that is made of its entries.

    Attributes
    ----------
    column : str
    index : int, optional
        Which entry; -1 is the last.
    function : str, optional
        ``len``, ``sum``, ``min`` or ``max`` of all entries.
    """

    column: str
    index: int | None = None
    function: str | None = None

    @property
    def plain(self) -> bool:
        """Whether it is the column itself."""
        return self.index is None and self.function is None


def piece_of(name: str) -> Piece:
    """What a name that :func:`columns_of` gives stands for.

    Examples
    --------
    >>> piece_of("jet_pt[0]"), piece_of("sum(jet_pt)").function, piece_of("met").plain
    (Piece(column='jet_pt', index=0, function=None), 'sum', True)
    """
    if match := INDEXED.match(name):
        return Piece(match["name"], index=int(match["index"]))
    if match := REDUCED.match(name):
        return Piece(match["name"], function=match["function"])
    return Piece(name)


QUOTED = "_quoted_"
"""Prefix of identifiers that stand for names which Python could not hold, or would change."""


def _parse(expression: str) -> ast.expr:
    if not isinstance(expression, str):
        msg = f"an expression is {expression!r}; it must be a text, for instance 'pt > 20 & abs(eta) < 2.5'."
        raise InputError(msg)
    if len(expression) > LONGEST:
        msg = f"the expression {expression[:40]!r}... has {len(expression)} characters; at most {LONGEST} are read."
        raise InputError(msg)
    try:
        return ast.parse(_as_python(expression), mode="eval").body
    except (SyntaxError, ValueError) as err:
        reason = getattr(err, "msg", None) or str(err)
        msg = (
            f"{expression!r} is not an expression ({reason}); write for instance 'pt > 20 & abs(eta) < 2.5'. Names "
            "that are no identifiers, or words of Python, stand in backticks: `jet.pt`, `lambda`."
        )
        raise InputError(msg) from None
    except (RecursionError, MemoryError):
        raise InputError(_nested(expression)) from None


def _nested(expression: str) -> str:
    return f"the expression {expression[:40]!r}... is nested too deeply; write it with fewer brackets and signs."


def _as_python(expression: str) -> str:
    """``&`` and ``|`` bind weaker than comparisons, as physicists write them; names may stand in backticks.

    Python folds letters that look alike (``p\u209c`` and ``pt``), so names of other than ASCII letters are quoted.
    """
    expression = re.sub("`([^`]+)`", lambda m: _quoted(m[1]), expression)
    expression = re.sub(r"[^\W\d]\w*", lambda m: m[0] if m[0].isascii() else _quoted(m[0]), expression)
    return re.sub(r"\|+", " or ", re.sub(r"&+", " and ", expression))


def _quoted(name: str) -> str:
    return QUOTED + name.encode().hex()


def _name(node: ast.Name) -> str:
    """The column that an identifier means."""
    if not node.id.startswith(QUOTED):
        return node.id
    try:
        return bytes.fromhex(node.id.removeprefix(QUOTED)).decode()
    except ValueError:
        return node.id


def columns_of(expression: str) -> list[str]:
    """Columns that an expression needs; ``name[2]`` is the third entry of a jagged column, ``sum(name)`` its sum.

    A name that is no identifier (``jet.pt`` of a nested branch) stands in backticks.

    Raises
    ------
    InputError
        If it is no expression, or calls an unknown function.

    Examples
    --------
    >>> columns_of("jet_pt[0] > 20 & abs(eta) < 2.5")
    ['jet_pt[0]', 'eta']
    """
    try:
        return list(dict.fromkeys(_columns_in(_parse(expression), expression)))
    except RecursionError:
        raise InputError(_nested(expression)) from None


def single_column(expression: str) -> str | None:
    """The column that an expression names and does nothing with, None for any other.

    Examples
    --------
    >>> single_column("event"), single_column("event % 100")
    ('event', None)
    """
    node = _parse(expression)
    return _name(node) if isinstance(node, ast.Name) else None


def _columns_in(node: ast.AST, expression: str) -> Iterator[str]:
    if isinstance(node, ast.Subscript):
        yield _indexed(node, expression)
    elif isinstance(node, ast.Call) and _of_entries(node):
        yield _reduced(node, expression)
    elif isinstance(node, ast.Call):
        _function(node, expression)
        for argument in node.args:
            yield from _columns_in(argument, expression)
    elif isinstance(node, ast.Name):
        yield _name(node)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _columns_in(child, expression)


def _function(node: ast.Call, expression: str) -> Callable[..., Any]:
    """The function that a call names, with the right number of arguments."""
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    if name not in FUNCTIONS:
        every = (*FUNCTIONS, *OF_ENTRIES)
        near = difflib.get_close_matches(name, every, n=1, cutoff=0.5)
        hint = f"; the nearest is {near[0]}" if near else ""
        msg = f"{expression!r} calls {name!r}, which is no function here{hint}. There are {', '.join(every)}."
        raise InputError(msg)
    function = FUNCTIONS[name]
    wanted = function.nin if isinstance(function, np.ufunc) else 3
    if len(node.args) != wanted or node.keywords:
        msg = f"{expression!r}: {name} takes {wanted} argument{'s' if wanted > 1 else ''}."
        raise InputError(msg)
    return function


def _of_entries(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id in OF_ENTRIES


def _reduced(node: ast.Call, expression: str) -> str:
    """The name of a function of a jagged column."""
    name = ast.unparse(node.func)
    if len(node.args) != 1 or node.keywords or not isinstance(node.args[0], ast.Name):
        others = " Two numbers per event have minimum(a, b) and maximum(a, b)." if name in ("min", "max") else ""
        msg = f"{expression!r}: {name} takes one column with several entries per event, {name}(jet_pt).{others}"
        raise InputError(msg)
    return f"{name}({_name(node.args[0])})"


def _indexed(node: ast.Subscript, expression: str) -> str:
    text = ast.unparse(node.slice)
    if isinstance(node.value, ast.Name) and (text.isdecimal() or text == "-1"):
        return f"{_name(node.value)}[{text}]"
    msg = f"{expression!r}: only name[number] picks an entry of a column, and name[-1] the last one."
    raise InputError(msg)


def evaluate(expression: str, columns: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Value of an expression, event by event.

    Parameters
    ----------
    expression : str
        Arithmetic, comparisons, ``&``, ``|``, ``~`` and the functions abs, sqrt, log, log10, log1p, exp, sin, cos, tan,
        sinh, cosh, tanh, arcsinh, arctan2 (atan2), hypot, minimum, maximum, isfinite, isnan, and ``where(condition,
        a, b)``. ``len``, ``sum``, ``min`` and ``max`` are of the entries of a jagged column; here they are columns of
        that name. ``&`` and ``|`` bind weaker than comparisons, ``~`` binds stronger: write ``~(pt > 20)``.
    columns : mapping of str to array

    Returns
    -------
    array
        Double precision, or booleans for conditions. Undefined values (the logarithm of a negative number) are NaN.

    Raises
    ------
    InputError
        No expression, a missing column, text columns, whole numbers beyond 2^53, numbers used as conditions.

    Examples
    --------
    >>> import numpy as np
    >>> evaluate("pt > 20 & abs(eta) < 2", {"pt": np.array([30, 30, 10]), "eta": np.array([1.0, -3.0, 0.0])})
    array([ True, False, False])
    """
    try:
        with np.errstate(all="ignore"):
            return np.asarray(_Evaluation(expression, columns).visit(_parse(expression)))
    except RecursionError:
        raise InputError(_nested(expression)) from None


class _Evaluation(ast.NodeVisitor):
    """Value of each kind of node; all others are refused."""

    def __init__(self, expression: str, columns: Mapping[str, NDArray[Any]]) -> None:
        self.expression, self.columns = expression, columns

    def _number(self, node: ast.expr) -> Any:
        value = self.visit(node)
        return np.asarray(value, dtype=np.float64)

    def _condition(self, node: ast.expr) -> Any:
        value = np.asarray(self.visit(node))
        if value.dtype != bool:
            text = self._text(node)
            msg = (
                f"{self.expression!r} uses the number {text} as a condition; write {text} != 0, or bracket the "
                f"comparison that is meant: ~({text} > 1)."
            )
            raise InputError(msg)
        return value

    def _text(self, node: ast.expr) -> str:
        return re.sub(rf"{QUOTED}([0-9a-f]+)", lambda m: bytes.fromhex(m[1]).decode(), ast.unparse(node))

    def _column(self, name: str) -> NDArray[Any]:
        if name not in self.columns:
            msg = f"{self.expression!r} needs the column {name!r}; there are {', '.join(self.columns)}."
            raise InputError(msg)
        values = np.asarray(self.columns[name])
        if values.dtype.kind not in "biuf":
            msg = (
                f"{self.expression!r}: the column {name!r} holds {values.dtype} values; only numbers and flags can be "
                "used."
            )
            raise InputError(msg)
        check_exact(values, f"the column {name!r}")
        return values if values.dtype == bool else values.astype(np.float64)

    def visit_Constant(self, node: ast.Constant) -> Any:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            return self.generic_visit(node)
        if isinstance(node.value, int) and node.value > EXACT:
            msg = f"{self.expression!r} holds {node.value}; above 2^53 they are not exact. Write it with a point."
            raise InputError(msg)
        return float(node.value)

    def visit_Name(self, node: ast.Name) -> Any:
        return self._column(_name(node))

    def visit_Subscript(self, node: ast.Subscript) -> Any:
        return self._column(_indexed(node, self.expression))

    def visit_BinOp(self, node: ast.BinOp) -> Any:
        if type(node.op) not in ARITHMETIC:
            return self.generic_visit(node)
        return ARITHMETIC[type(node.op)](self._number(node.left), self._number(node.right))

    def visit_UnaryOp(self, node: ast.UnaryOp) -> Any:
        if type(node.op) in LOGIC:
            return LOGIC[type(node.op)](self._condition(node.operand))
        return ARITHMETIC[type(node.op)](self._number(node.operand))

    def visit_BoolOp(self, node: ast.BoolOp) -> Any:
        result = self._condition(node.values[0])
        for other in node.values[1:]:
            result = LOGIC[type(node.op)](result, self._condition(other))
        return result

    def visit_Compare(self, node: ast.Compare) -> Any:
        if any(type(op) not in COMPARISONS for op in node.ops):
            return self.generic_visit(node)
        left, result = self._number(node.left), None
        for op, right in zip(node.ops, map(self._number, node.comparators), strict=True):
            part = COMPARISONS[type(op)](left, right)
            result = part if result is None else np.logical_and(result, part)
            left = right
        return result

    def visit_Call(self, node: ast.Call) -> Any:
        if _of_entries(node):
            return self._column(_reduced(node, self.expression))
        if _function(node, self.expression) is np.where:
            condition, yes, no = node.args
            return np.where(self._condition(condition), self._number(yes), self._number(no))
        return _function(node, self.expression)(*map(self._number, node.args))

    def generic_visit(self, node: ast.AST) -> Any:
        legal = ", ".join(FUNCTIONS)
        msg = f"{self.expression!r} uses {ast.unparse(node)!r}; only arithmetic, comparisons, &, |, ~ and {legal}."
        raise InputError(msg)
