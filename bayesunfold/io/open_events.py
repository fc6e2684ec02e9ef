"""Events of many files as a simulation or data whose arrays are memory maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

from numpy.typing import NDArray

from bayesunfold._support.checks import check_choice
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.events import Data, Simulation, Undefined
from bayesunfold.io.event_cache import Table, cached_tables, default_cache
from bayesunfold.io.sources import Named, named_sources

__all__ = ["map_columns", "open_events"]

Precision = Literal["float32", "float64"]
KINDS = {"float32": "f4", "float64": "f8"}


def __dir__() -> list[str]:
    return __all__


@overload
def open_events(
    path: Named,
    reco: Sequence[str],
    gen: Sequence[str],
    *,
    weight: str | None = ...,
    pass_gen: str | None = ...,
    pass_reco: str | None = ...,
    reco_factor: str | None = ...,
    selection: str | None = ...,
    names: Sequence[str] | None = ...,
    reco_names: Sequence[str] | None = ...,
    undefined: Undefined = ...,
    tree: str | None = ...,
    cache: str | Path | None = ...,
    dtype: Precision = ...,
    progressbar: bool = ...,
) -> Simulation: ...


@overload
def open_events(
    path: Named,
    reco: Sequence[str],
    gen: None = None,
    *,
    weight: str | None = ...,
    selection: str | None = ...,
    reco_names: Sequence[str] | None = ...,
    undefined: Undefined = ...,
    tree: str | None = ...,
    cache: str | Path | None = ...,
    dtype: Precision = ...,
    progressbar: bool = ...,
) -> Data: ...


def open_events(
    path: Named,
    reco: Sequence[str],
    gen: Sequence[str] | None = None,
    *,
    weight: str | None = None,
    pass_gen: str | None = None,
    pass_reco: str | None = None,
    reco_factor: str | None = None,
    selection: str | None = None,
    names: Sequence[str] | None = None,
    reco_names: Sequence[str] | None = None,
    undefined: Undefined = "error",
    tree: str | None = None,
    cache: str | Path | None = None,
    dtype: Precision = "float32",
    progressbar: bool = True,
) -> Simulation | Data:
    """Events of files as memory maps.

    The columns are read once, in chunks, into a cache folder; later calls, also of other processes, map what is there.
    A call that was interrupted goes on with the file that it was reading. Files that have changed are read again, with
    those behind them; maps that are open stay what they were. Another list of files, selection or list of columns is
    another cache. :func:`clear_cache` removes the folder's contents.

    The maps need no memory of their own. A fit standardises the features, in single precision and in memory: ``4``
    bytes per event and feature.

    Parameters
    ----------
    path : path, address, pattern, table, or sequence of these
        As of :func:`read_columns`: ``"sim_*.parquet"``, ``"sim.root:tree"``, and so on.
    reco : sequence of str
        Detector-level features: columns, or expressions of them.
    gen : sequence of str, optional
        Particle-level features; without them the events are data.
    weight : str, optional
        Column or expression; kept in double precision.
    pass_gen, pass_reco : str, optional
        Expressions that are true or false; of a simulation only.
    reco_factor : str, optional
        Scale factors of the detector level alone, a column or an expression; of a simulation only.
    selection : str, optional
        Expression; only events where it is true are kept.
    names, reco_names : sequence of str, optional
        Names of the features at particle level and at detector level; the expressions if omitted, ``a over b`` for
        ``a/b``.
    undefined : {"error", "indicator"}
        What NaN means, as for :class:`bayesunfold.Simulation`.
    tree : str, optional
        TTree, RNTuple or HDF5 group.
    cache : path, optional
        Folder; ``$XDG_CACHE_HOME/bayesunfold`` or ``~/.cache/bayesunfold`` if omitted. ``4`` bytes per event and
        feature, 8 for a weight.
    dtype : {"float32", "float64"}
        Of the features. Networks see single precision in any case.
    progressbar : bool

    Returns
    -------
    Simulation or Data

    Raises
    ------
    InputError, InputTypeError, FileNotFoundError, FileFormatError
        As of :func:`read_columns` and of :class:`bayesunfold.Simulation`; a folder without room for the events;
        numbers that single precision cannot hold.
    OSError
        A disk that is full in the middle; what is complete is kept.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> for k in range(2):
    ...     np.savez(folder / f"sim_{k}.npz", t=np.arange(3.0) + k, r=np.arange(3.0), w=np.ones(3))
    >>> simulation = open_events(folder / "sim_*.npz", ["r"], ["t"], weight="w", cache=folder, progressbar=False)
    >>> simulation, isinstance(simulation.gen.base, np.memmap)
    (Simulation(6 events, gen: t, reco: r, misses: 0, fakes: 0, effective size: 6.0), True)
    """
    flags = {name: column for name, column in (("pass_gen", pass_gen), ("pass_reco", pass_reco)) if column is not None}
    if gen is None and (flags or names is not None or reco_factor is not None):
        given = [*flags, *(["names"] if names is not None else []), *(["reco_factor"] if reco_factor else [])]
        msg = f"{', '.join(given)} belong to a simulation, which has gen= too; data have reco, weight and selection."
        raise InputError(msg)
    check_choice(dtype, "dtype", tuple(KINDS))
    tables = {"reco": Table(_expressions(reco, "reco"), KINDS[dtype])}
    if gen is not None:
        tables["gen"] = Table(_expressions(gen, "gen"), KINDS[dtype])
    if weight is not None:
        tables["weight"] = Table(_expressions([weight], "weight"), "f8")
    if reco_factor is not None:
        tables["reco_factor"] = Table(_expressions([reco_factor], "reco_factor"), "f8")
    tables |= {name: Table(_expressions([column], name), "?") for name, column in flags.items()}
    found = _tables(path, tables, selection, tree, cache, progressbar=progressbar)
    columns = {name: found[name][:, 0] for name in ("weight", "reco_factor", *flags) if name in found}
    given_reco = _plain(reco) if reco_names is None else reco_names
    if gen is None:
        return Data(found["reco"], columns.get("weight"), undefined, given_reco)
    return Simulation(
        found["gen"],
        found["reco"],
        **columns,
        undefined=undefined,
        names=_plain(gen) if names is None else names,
        reco_names=given_reco,
    )


def map_columns(
    path: Named,
    columns: Sequence[str],
    *,
    selection: str | None = None,
    tree: str | None = None,
    cache: str | Path | None = None,
    dtype: Precision = "float32",
    progressbar: bool = True,
) -> NDArray[Any]:
    """Columns of files as one read-only memory map, shape (n, columns): weights of variations, observables.

    Arguments and errors are those of :func:`open_events`; rows are those of the events that it opens from the same
    files with the same selection.

    Examples
    --------
    >>> import numpy as np, pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> np.savez(folder / "sim.npz", up=np.ones(3), down=np.zeros(3))
    >>> map_columns(folder / "sim.npz", ["up", "up - down"], cache=folder, progressbar=False).shape
    (3, 2)
    """
    check_choice(dtype, "dtype", tuple(KINDS))
    tables = {"columns": Table(_expressions(columns, "columns"), KINDS[dtype])}
    return _tables(path, tables, selection, tree, cache, progressbar=progressbar)["columns"]


def _tables(
    path: Named,
    tables: dict[str, Table],
    selection: str | None,
    tree: str | None,
    cache: str | Path | None,
    *,
    progressbar: bool,
) -> dict[str, NDArray[Any]]:
    place = default_cache() if cache is None else Path(cache)
    return cached_tables(named_sources(path, tree), tables, selection, place, progressbar=progressbar)[0]


def _plain(expressions: Sequence[str]) -> list[str]:
    """Expressions as names: saved files cannot have a slash in one."""
    return [expression.replace("/", " over ") for expression in expressions]


def _expressions(columns: Sequence[str], what: str) -> tuple[str, ...]:
    given: Any = columns
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(c, str) for c in given):
        msg = f"{what} is {columns!r}; give a list of columns or expressions, for instance ['pt']."
        raise InputTypeError(msg)
    if not columns:
        msg = f"{what} is empty; name at least one column."
        raise InputError(msg)
    return tuple(columns)
