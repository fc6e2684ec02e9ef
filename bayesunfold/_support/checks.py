"""Turning what users pass into checked arrays; every refusal names value, rule and cure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold.errors import InputError, InputTypeError

__all__ = [
    "as_features",
    "as_flag",
    "as_reco_factor",
    "as_numbers",
    "as_weight",
    "check_bins",
    "check_count",
    "check_covariance",
    "check_exact",
    "check_flag",
    "check_instance",
    "check_known",
    "check_level",
    "check_mapping",
    "check_names",
    "check_not_negative",
    "check_seed",
    "check_source_name",
    "effective_size",
    "uncovered_share",
]

Array = NDArray[np.floating]

SOURCES = ("data", "simulation", "prior", "generator", "luminosity", "total", "posterior", "nominal")
"""Names of sources of uncertainty and of columns of published weights, which no background or systematic may have."""


def __dir__() -> list[str]:
    return __all__


def _columns(values: Any, what: str) -> tuple[Any, tuple[str, ...] | None]:
    """Values as an array, and the column names of a frame, a series, a dict of columns or a structured array."""
    if isinstance(values, np.ndarray) and values.dtype.names is not None:
        values = {name: values[name] for name in values.dtype.names}
    if isinstance(values, Mapping):
        return _stack(values, what), tuple(str(name) for name in values)
    names = _frame_columns(values)
    return (values if names is None else values.to_numpy()), names


def _stack(columns: Mapping[Any, Any], what: str) -> Array:
    """A dict of columns, for instance as ROOT readers return them, as one array."""
    arrays = {str(name): _unmasked(column, f"column {name!r} of {what}") for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        msg = f"the columns of {what} have shapes {shapes}; each must have shape (events,), with one number per event."
        raise InputError(msg)
    for name, array in arrays.items():
        _check_numbers(array, f"column {name!r} of {what}", "features")
    return np.column_stack([a.astype(np.float64) for a in arrays.values()]) if arrays else np.zeros((0, 0))


def _unmasked(values: Any, what: str) -> NDArray[Any]:
    """An array; what a masked array masks is NaN, since a masked value is one that does not exist."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        _check_numbers(values.data, what, "contents")
        return np.ma.filled(values.astype(np.float64), np.nan)
    try:
        return np.asarray(values.to_numpy() if hasattr(values, "to_numpy") else values)
    except (ValueError, TypeError) as err:
        # lists of different lengths, jagged arrays
        msg = f"{what} is no array ({_first_line(err)}); give every event the same number of entries."
        raise InputError(msg) from err


def _first_line(err: Exception) -> str:
    return (str(err).strip().splitlines() or [type(err).__name__])[0][:120]


EXACT = 2.0**53
"""Whole numbers up to this are exact as floats."""


def _check_numbers(array: NDArray[Any], what: str, kind: str) -> None:
    if array.dtype == object or array.dtype.kind not in "fiub":
        msg = f"{what} has dtype {array.dtype}; {kind} must be numbers. Convert it, for instance with .astype(float)."
        raise InputTypeError(msg)
    check_exact(array, what)


def check_exact(array: NDArray[Any], what: str, cure: str = "Subtract an offset, or leave the column out.") -> None:
    """Whole numbers that double precision can hold."""
    if array.dtype.kind not in "iu" or array.dtype.itemsize < 8 or not array.size:
        return
    largest = max(abs(int(array.max())), abs(int(array.min())))
    if largest > EXACT:
        msg = (
            f"{what} holds the whole number {largest}; above 2^53 = {int(EXACT)} neighbouring ones are no longer "
            f"distinct. {cure}"
        )
        raise InputError(msg)


def _frame_columns(values: Any) -> tuple[str, ...] | None:
    """Column names of a pandas or polars frame or series, None for anything else."""
    columns = getattr(values, "columns", None)
    if columns is not None and hasattr(values, "to_numpy"):
        return tuple(str(c) for c in columns)
    name = getattr(values, "name", None)
    if isinstance(name, str) and hasattr(values, "to_numpy"):
        return (name,)
    return None


def as_features(values: ArrayLike, what: str) -> tuple[Array, tuple[str, ...] | None]:
    """Features as a float array of shape (n, d), and the names of a frame's columns.

    A 1-d input is one feature. Booleans and integers become floats, masked values NaN; NaN is left for the
    caller, who knows which rows may hold it. A read-only memory map of floats stays where it is.
    """
    mapped = values if isinstance(values, np.memmap) and values.mode == "r" and values.dtype.kind == "f" else None
    values, names = _columns(values, what)
    array = _unmasked(values, what)
    _check_numbers(array, what, "features")
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2:
        msg = f"{what} has {array.ndim} dimensions; it must have shape (events,) or (events, features)."
        raise InputError(msg)
    if array.shape[0] == 0 or array.shape[1] == 0:
        msg = f"{what} is empty: its shape is {array.shape}. Pass at least one event and one feature."
        raise InputError(msg)
    if array.shape[1] > max(array.shape[0], MANY_FEATURES):
        msg = (
            f"{what} has {array.shape[0]} events of {array.shape[1]} features; rows are events and columns features. "
            "Transpose it, or take more events than features."
        )
        raise InputError(msg)
    if names is not None:
        check_names(names, array.shape[1], what)
    return (array.astype(np.float64) if mapped is None else array), names


MANY_FEATURES = 50
"""An array of more columns than this and than rows is taken for (features, events)."""

LONGEST_NAME = 200


def check_names(names: Any, n_features: int, what: str) -> tuple[str, ...]:
    """Feature names: as many as columns, all different, and fit for files and figures.

    Raises
    ------
    InputError
        A wrong number, repeated names, and names that are empty, too long, hold a slash or a control character, or
        are no valid mathematical text between dollar signs.
    """
    if isinstance(names, str) or not isinstance(names, Sequence | np.ndarray):
        msg = f"names of {what} are {names!r}; give a list of texts, one per feature."
        raise InputTypeError(msg)
    names = tuple(str(n) for n in names)
    if len(names) != n_features:
        msg = f"{what} has {n_features} features but {len(names)} names {names}; give one name per column."
        raise InputError(msg)
    slashed = [n for n in names if "/" in n]
    if slashed:
        msg = f"names of {what} hold a slash: {slashed}; saved files cannot have one. Rename them, for instance pt_GeV."
        raise InputError(msg)
    for name in names:
        _check_name(name, what)
    if len(set(names)) != len(names):
        twice = sorted({n for n in names if names.count(n) > 1})
        msg = f"names of {what} repeat: {twice}; give every column its own name."
        raise InputError(msg)
    return names


def _check_name(name: str, what: str) -> None:
    """A name that files, tables and figures can show."""
    if not name.strip() or not name.isprintable():
        msg = f"a name of {what} is {name!r}; give a text of printable characters."
        raise InputError(msg)
    if len(name.encode()) > LONGEST_NAME:
        msg = f"a name of {what} has {len(name.encode())} bytes ({name[:30]!r}...); take at most {LONGEST_NAME}."
        raise InputError(msg)
    if name.count("$") > 1:
        from matplotlib.mathtext import MathTextParser

        try:
            MathTextParser("path").parse(name)
        except ValueError as err:
            msg = f"a name of {what} is {name!r}, which cannot be drawn ({_first_line(err)}). Repair the formula."
            raise InputError(msg) from err


def check_finite(array: Array, rows: NDArray[np.bool_] | None, what: str, names: tuple[str, ...], cure: str) -> None:
    """Raise if a feature is NaN or infinite in one of ``rows`` (all rows if None)."""
    bad = ~np.isfinite(array)
    if rows is not None:
        bad &= rows[:, None]
    if bad.any():
        first = int(np.argmax(bad.any(axis=1)))
        columns = [names[c] for c in np.flatnonzero(bad.any(axis=0))]
        msg = (
            f"{what} has {int(bad.any(axis=1).sum())} of {len(array)} rows with NaN or infinity "
            f"(first at row {first}, features {columns}); {cure}"
        )
        raise InputError(msg)


def as_weight(weight: ArrayLike | None, n: int, what: str, *, allow_negative: bool = True) -> Array:
    """Event weights of shape (n,), ones if None; their sum must be positive and finite."""
    if weight is None:
        return np.ones(n)
    array = _unmasked(weight, what)
    _check_numbers(array, what, "weights")
    array = array.astype(np.float64)
    if array.shape != (n,):
        msg = f"{what} has shape {array.shape}; it must be ({n},), one weight per event."
        raise InputError(msg)
    bad = ~np.isfinite(array)
    if bad.any():
        msg = (
            f"{what} has {int(bad.sum())} NaN or infinite values (first at row {int(np.argmax(bad))}); "
            "repair or remove those events."
        )
        raise InputError(msg)
    if not allow_negative and (array < 0).any():
        msg = f"{what} has {int((array < 0).sum())} negative values; they are not allowed here."
        raise InputError(msg)
    total = array.sum()
    if total <= 0:
        msg = f"{what} sums to {total:g}; the total weight must be positive. Check the sign and the selection."
        raise InputError(msg)
    largest = np.abs(array).max()
    if not LEAST_WEIGHT < largest < LARGEST_WEIGHT:
        msg = (
            f"{what} reaches {largest:.3g}, at row {int(np.argmax(np.abs(array)))}; weights must be of a size between "
            f"{LEAST_WEIGHT:g} and {LARGEST_WEIGHT:g}. Scale them: only their ratios matter for the simulation."
        )
        raise InputError(msg)
    return array


LEAST_WEIGHT, LARGEST_WEIGHT = 1e-100, 1e100
"""Sizes of weights whose squares are still exact."""


def as_reco_factor(factor: ArrayLike, passes: NDArray[np.bool_], what: str) -> Array:
    """Scale factors of the detector level, shape (n,), not negative; one where a row that fails it holds NaN."""
    given = _unmasked(factor, what)
    if given.shape == passes.shape and given.dtype.kind == "f":
        given = np.where(~passes & np.isnan(given), 1.0, given)
    return as_weight(given, len(passes), what, allow_negative=False)


def as_flag(flag: ArrayLike | None, n: int, what: str) -> NDArray[np.bool_]:
    """Boolean pass flags of shape (n,), all true if None; at least one must be true."""
    if flag is None:
        return np.ones(n, dtype=bool)
    if isinstance(flag, np.ma.MaskedArray) and np.ma.is_masked(flag):
        rows = np.flatnonzero(np.ma.getmaskarray(flag))
        msg = (
            f"{what} is masked in {len(rows)} events (first at row {rows[0]}); say whether they pass, for instance "
            "with .filled(False)."
        )
        raise InputError(msg)
    array = _unmasked(flag, what)
    if array.dtype != bool:
        msg = f"{what} has dtype {array.dtype}; flags must be boolean. Convert with .astype(bool) or a comparison."
        raise InputTypeError(msg)
    if array.shape != (n,):
        msg = f"{what} has shape {array.shape}; it must be ({n},), one flag per event."
        raise InputError(msg)
    if not array.any():
        msg = f"{what} is false for all {n} events; at least one event must pass."
        raise InputError(msg)
    return array


def check_bins(bins: ArrayLike, what: str = "bins") -> Array:
    """Bin edges: finite, strictly increasing, at least two."""
    edges = _unmasked(bins, what)
    if edges.dtype.kind not in "fiu":
        msg = f"{what} has dtype {edges.dtype}; edges must be numbers."
        raise InputTypeError(msg)
    edges = edges.astype(np.float64)
    if edges.ndim != 1 or len(edges) < 2:
        msg = f"{what} has shape {edges.shape}; pass the edges, at least two, in one dimension."
        raise InputError(msg)
    if not np.all(np.isfinite(edges)):
        msg = f"{what} holds NaN or infinity; leave overflow to the library, it keeps count of it."
        raise InputError(msg)
    if not np.all(np.diff(edges) > 0):
        first = int(np.argmax(np.diff(edges) <= 0))
        msg = f"{what} must increase: edge {first + 1} is {edges[first + 1]:g} after {edges[first]:g}. Sort them."
        raise InputError(msg)
    return edges


def check_count(value: Any, name: str, minimum: int = 1, maximum: int | None = None) -> int:
    """A whole number of at least ``minimum``, and at most ``maximum`` if there is one."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < minimum:
        msg = f"{name} is {value!r}; it must be a whole number of at least {minimum}."
        raise InputError(msg)
    if maximum is not None and value > maximum:
        msg = f"{name} is {value!r}; it must be a whole number of at most {maximum}."
        raise InputError(msg)
    return int(value)


LARGEST_SEED = 2**62 - 2
"""Seeds are keys of 64 bits, of which one run uses several."""


def check_seed(value: Any, name: str = "random_seed") -> int:
    """A seed: a whole number from 0 to ``LARGEST_SEED``."""
    return check_count(value, name, 0, LARGEST_SEED)


def check_flag(value: Any, name: str) -> bool:
    """True or False, and nothing that merely behaves like one of them."""
    if not isinstance(value, bool | np.bool_):
        msg = f"{name} is {value!r}; it must be True or False."
        raise InputTypeError(msg)
    return bool(value)


def check_positive(value: Any, name: str) -> float:
    """A positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 < value < np.inf:
        msg = f"{name} is {value!r}; it must be a positive number."
        raise InputError(msg)
    return float(value)


def check_not_negative(value: Any, name: str, hint: str = "") -> float:
    """Zero or a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        msg = f"{name} is {value!r}; it must be zero or a positive number{hint}."
        raise InputError(msg)
    return float(value)


def check_level(value: Any, name: str = "level") -> float:
    """A probability strictly between 0 and 1."""
    if not isinstance(value, float | np.floating) or not 0 < value < 1:
        msg = f"{name} is {value!r}; it must lie between 0 and 1, for instance 0.68."
        raise InputError(msg)
    return float(value)


def check_choice(value: object, name: str, choices: Sequence[str]) -> None:
    """Raise if a value is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        msg = f"{name} is {value!r}; it must be one of {', '.join(map(repr, choices))}."
        raise InputError(msg)


def check_instance(value: Any, kind: type, name: str) -> None:
    """An object of this library."""
    if not isinstance(value, kind):
        msg = f"{name} has type {type(value).__name__}; pass a bayesunfold.{kind.__name__}."
        raise InputTypeError(msg)


def check_mapping(value: Any, name: str) -> Mapping[str, Any]:
    """A dict by name."""
    if not isinstance(value, Mapping):
        msg = f"{name} has type {type(value).__name__}; give a dict by name."
        raise InputTypeError(msg)
    return value


def check_known(names: Any, known: Sequence[str], what: str) -> None:
    """Names that exist, else an error that lists those that do."""
    unknown = [n for n in names if n not in known]
    if unknown:
        msg = f"{what} names {', '.join(map(repr, unknown))}; there are {', '.join(known)}."
        raise InputError(msg)


def check_source_name(name: Any, what: str, allowed: str | None = None) -> str:
    """The name of a background or systematic: text that no other source of uncertainty has, but for one."""
    if not isinstance(name, str) or not name or "/" in name:
        msg = f"name is {name!r}; give the {what} a name without a slash."
        raise InputError(msg)
    if "{" in name or "}" in name:
        msg = f"name is {name!r}; columns of published weights are named by it, so it cannot hold braces."
        raise InputError(msg)
    _check_name(name, f"a {what}")
    if name in SOURCES and name != allowed:
        msg = f"{name!r} is already a source or a column; give the {what} another name than {', '.join(SOURCES)}."
        raise InputError(msg)
    return name


def as_numbers(values: Any, what: str) -> Array:
    """An array of floats, of any shape."""
    array = _unmasked(values, what)
    _check_numbers(array, what, "contents")
    return array.astype(np.float64)


def check_covariance(given: Any, n_bins: int, what: str) -> Array:
    """A covariance of bins: square, finite, with variances that are not negative."""
    found = as_numbers(given, what)
    if found.shape != (n_bins, n_bins) or not np.all(np.isfinite(found)):
        msg = f"{what} has shape {found.shape}; it must be ({n_bins}, {n_bins}) and finite."
        raise InputError(msg)
    if np.any(np.diag(found) < 0):
        msg = f"{what} has a negative variance ({np.diag(found).min():g}); variances are squares."
        raise InputError(msg)
    return found


def effective_size(weight: Array) -> float:
    """Kish effective sample size ``(sum w)^2 / sum w^2`` (Kish, Survey Sampling, 1965).

    Negative weights count as they stand: they lower the sum and raise the squares. An empty
    or all-zero sample has effective size 0.
    """
    squares = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / squares if squares > 0 else 0.0


def uncovered_share(values: Array, by: Array, weight: Array | None = None) -> float:
    """Share of ``values`` where the other sample has nothing; NaN is left out.

    ``values`` are cut into at most fifty bins of equal population, with thirty events per bin in both samples so that
    an empty one is no fluctuation. A bin counts as empty if the other sample's weight there, as a share of its total,
    is less than a thousandth of the share of ``values``. Fewer than thirty ``values`` fill no bin: of them, those
    outside the other sample's range count.

    Parameters
    ----------
    values : array, shape (m,)
    by : array, shape (n,)
    weight : array, shape (n,), optional
        Weights of ``by``; their sizes count, not their signs.
    """
    size = np.ones(len(by)) if weight is None else np.abs(weight)
    kept = np.isfinite(by) & (size > 0)
    exists, other, size = values[np.isfinite(values)], by[kept], size[kept]
    if len(exists) == 0 or len(other) == 0:
        return 0.0 if len(exists) == 0 else 1.0
    if len(exists) < PER_BIN:
        return float(((exists < other.min()) | (exists > other.max())).sum() / len(values))
    n_bins = max(1, min(50, len(exists) // PER_BIN, len(other) // PER_BIN))
    edges = np.unique(np.quantile(exists, np.linspace(0, 1, n_bins + 1)))
    edges = np.append(edges[:-1] if len(edges) > 1 else edges, np.nextafter(edges[-1], np.inf))
    there = np.histogram(exists, edges)[0] / len(values)
    covered = np.histogram(other, edges, weights=size / size.max())[0] / (size / size.max()).sum()
    return float(there[covered < NOTHING * there].sum())


PER_BIN = 30
"""Events of a bin that is empty by no fluctuation."""

NOTHING = 1e-3
"""Part of the other sample's share of events below which a bin counts as empty."""
