"""Binned results as a HEPData submission.

A table of a spectrum has the point estimate with one symmetric error per source, the ends of the 68 and 95 % bands as
columns of their own, and the total standard deviation. Readers of HEPData add the errors of a value in quadrature, so a
band is never an error, and sources are errors only where they are independent and their squares add up to the total's.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_known, check_mapping
from bayesunfold._support.files import check_replaceable, replace_folder
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.io.checks import check_spectra, draws_of
from bayesunfold.spectrum import Spectrum

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_hepdata", "write_hepdata"]

Array = NDArray[np.floating]

LONGEST_NAME = 64
"""Characters of a table's name that HEPData takes."""

ADDS_UP = 4.0
"""Sources are written as errors if the root of their summed squares is the total in every bin, to so many of its
standard errors. Independent sources have a relative one of at most one over the root of twice the number of draws."""

LEVELS = (0.68, 0.95)

DIGITS = 15
"""Significant digits of every number: a covariance of rounded numbers may have negative eigenvalues."""


def __dir__() -> list[str]:
    return __all__


def write_hepdata(
    folder: str | Path,
    spectra: Mapping[str, Spectrum],
    *,
    abstract: str = "",
    units: Mapping[str, str] | None = None,
    keywords: Mapping[str, Sequence[str]] | None = None,
    nuisances: pd.DataFrame | None = None,
) -> Path:
    """Write a HEPData submission: a table and a covariance table for every spectrum.

    Parameters
    ----------
    folder : path
        Holds ``submission.yaml`` and the tables. Needs the extra ``hepdata``. A submission that this function wrote
        before is replaced as a whole; other files in the folder stay.
    spectra : mapping of str to Spectrum
        Of one or several observables. Bins without a point estimate are left out, and the table says which.
    abstract : str
    units : mapping of str to str, optional
        Unit of each observable, by name of the spectrum or of the axis; that of the spectrum if omitted.
    keywords : mapping of str to sequence of str, optional
        HEPData's keywords of all tables: ``reactions``, ``cmenergies``, ``observables``, ``phrases``.
    nuisances : pandas.DataFrame, optional
        ``result.nuisances``: a table of the profiled nuisance parameters.

    Raises
    ------
    InputError, InputTypeError
        No spectra, names that HEPData does not take, unknown units, files of the user's that would be overwritten.

    Notes
    -----
    A covariance table has the total covariance and that of each source whose draws are known. The covariance is what to
    fit with: after conditioning on posterior draws, sources are independent only approximately. Its description has the
    number of draws, and what a chi-square is multiplied by for it, as :meth:`bayesunfold.Spectrum.chi2` does.

    Sources are the errors of a value if their squares add up to the total's within the sampling error of the draws, and
    no two of them have parameters with a ``correlation``. Otherwise the error is the total, and the standard deviation
    of each source is a column; in a group of :meth:`bayesunfold.Spectrum.grouped` correlated sources can be together.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> import tempfile
    >>> folder = write_hepdata(tempfile.mkdtemp(), {"pt": spectrum}, units={"pt": "GeV"})  # doctest: +SKIP
    >>> (folder / "submission.yaml").exists()  # doctest: +SKIP
    True
    """
    check_spectra(spectra)
    check_hepdata(Path(folder), list(spectra), abstract)
    given = {str(k): str(v) for k, v in check_mapping(units or {}, "units").items()}
    axes = [name for spectrum in spectra.values() for name in spectrum.names]
    check_known(given, [*spectra, *axes], "units")
    words = {k: [str(w) for w in v] for k, v in check_mapping(keywords or {}, "keywords").items()}
    hl = _library()
    submission = hl.Submission()
    submission.comment = abstract
    for name, spectrum in spectra.items():
        kept = ~np.isnan(spectrum.nominal)
        tables = [_table(hl, name, spectrum, _units(name, spectrum, given), kept)]
        if np.all(np.isfinite(spectrum.std()[kept])):  # not made with errors=False
            tables.append(_covariance_table(hl, name, spectrum, _units(name, spectrum, given), kept))
        for table in tables:
            table.keywords |= {"observables": list(spectrum.names), "phrases": ["Unfolding", spectrum.method]} | words
            submission.add_table(table)
        if any(parameter.draws is not None for parameter in spectrum.parameters.values()):
            submission.add_table(_correlation_table(hl, name, spectrum, _units(name, spectrum, given), kept, words))
    if nuisances is not None:
        submission.add_table(_nuisance_table(hl, nuisances))

    def write(new: Path) -> None:
        with tempfile.TemporaryDirectory() as elsewhere, contextlib.chdir(elsewhere):
            made = Path(elsewhere) / "submission"  # the library leaves an archive in the working directory
            made.mkdir()
            submission.create_files(str(made), remove_old=True)
            for path in made.iterdir():
                shutil.copyfile(path, new / path.name)

    replace_folder(Path(folder), write, "a HEPData submission", pointer="submission.yaml")
    return Path(folder)


def _library() -> Any:
    try:
        import hepdata_lib
    except ImportError:
        msg = "writing HEPData tables needs hepdata_lib; install bayesunfold[hepdata]."
        raise ImportError(msg) from None
    return hepdata_lib


def check_hepdata(folder: Path, names: Sequence[str], abstract: str = "") -> None:
    """Whether a submission can be written: names of the tables, and what stands in the folder.

    Raises
    ------
    InputError, InputTypeError
    """
    _library()
    if not isinstance(abstract, str):
        msg = f"abstract is {abstract!r}; it must be a text."
        raise InputTypeError(msg)
    files = {"submission.yaml": "", "nuisance_parameters.yaml": "nuisance parameters"}
    for name in names:
        for table in (name, f"{name} covariance", f"{name} nuisances"):
            if len(table) > LONGEST_NAME:
                msg = f"the HEPData table {table!r} has {len(table)} characters; names have at most {LONGEST_NAME}."
                raise InputError(msg)
            if "/" in table or not table.isprintable() or not name.strip():
                msg = f"a HEPData table cannot be called {table!r}; its file has that name. Use plain characters."
                raise InputError(msg)
            file = f"{table.replace(' ', '_').lower()}.yaml"
            if file in files:
                other = f"the table {files[file]!r}" if files[file] else "the submission itself"
                msg = f"the HEPData table {table!r} and {other} would both be {file}; give the spectrum another name."
                raise InputError(msg)
            files[file] = table
    check_replaceable(folder, lambda found: found.lower() in files, "a HEPData submission")


def _units(name: str, spectrum: Spectrum, given: Mapping[str, str]) -> list[str]:
    """Unit of each axis: as given for the axis, for the spectrum, or as the spectrum knows it."""
    known = list(spectrum.units) + [""] * len(spectrum.names)
    only = given.get(name) if len(spectrum.names) == 1 else None
    return [given.get(axis, only if only is not None else known[i]) for i, axis in enumerate(spectrum.names)]


def content_unit(spectrum: Spectrum, units: Sequence[str]) -> str:
    """Unit of the bins' contents: events, nothing for shapes, per unit of the observables, over the luminosity."""
    if spectrum.normalization == "shape":
        return ""
    top = "events" if spectrum.luminosity is None else "events / luminosity"
    if spectrum.normalization == "yield":
        return top
    return " / ".join([top, *(u or "unit" for u in units)])


def _bin_columns(
    hl: Any, spectrum: Spectrum, units: Sequence[str], kept: NDArray[np.bool_], word: str = ""
) -> list[Any]:
    """Independent variables: the bins of each axis, flattened as the contents are."""
    pairs = [[(float(a), float(b)) for a, b in pairwise(edges)] for edges in spectrum.edges]
    grids = np.meshgrid(*(np.arange(len(p)) for p in pairs), indexing="ij")
    variables = []
    for name, unit, pair, grid in zip(spectrum.names, units, pairs, grids, strict=True):
        variable = hl.Variable(f"{name}{word}", is_independent=True, is_binned=True, units=unit)
        variable.digits = DIGITS
        variable.values = [pair[i] for i in grid.ravel()[kept]]
        variables.append(variable)
    return variables


def _table(hl: Any, name: str, spectrum: Spectrum, units: Sequence[str], kept: NDArray[np.bool_]) -> Any:
    table = hl.Table(name)
    unseen = np.flatnonzero(~kept).tolist()
    table.description = (
        f"Unfolded {name} ({spectrum.normalization}), {spectrum.method}. The ends of the credible bands are columns, "
        "not errors to be added. Errors of the value are single sources of uncertainty, one standard deviation each."
        + (f" Bins {unseen} were not measured." if unseen else "")
    )
    table.location = f"Spectrum of {name}"
    for axis in _bin_columns(hl, spectrum, units, kept):
        table.add_variable(axis)
    unit = content_unit(spectrum, units)
    value = _column(hl, f"unfolded {name}", spectrum.nominal[kept], unit)
    std = spectrum.std()[kept]
    measured = bool(np.all(np.isfinite(std)))
    split = _split(spectrum, kept)
    add_up = bool(split) and _adds_up(spectrum, split, std)
    for source, size in (split if add_up else {"total": std} if measured else {}).items():
        own = hl.Uncertainty(source, is_symmetric=True)
        own.values = np.asarray(size).tolist()
        value.add_uncertainty(own)
    table.add_variable(value)
    for source, size in ({} if add_up else split).items():
        table.add_variable(_column(hl, f"standard deviation from {source}", size, unit))
    if measured:
        for level in LEVELS:
            low, high = spectrum.interval(level)
            for end, edge in (("lower", low), ("upper", high)):
                table.add_variable(_column(hl, f"{100 * level:.0f} % band, {end} end", edge[kept], unit))
        table.add_variable(_column(hl, "total standard deviation", std, unit))
    return table


def _nuisance_table(hl: Any, nuisances: pd.DataFrame) -> Any:
    """Posterior of the profiled nuisance parameters, in standard deviations of their priors."""
    table = hl.Table("nuisance parameters")
    table.description = "Profiled nuisance parameters in standard deviations of their priors, with correlations."
    table.keywords = {"observables": ["nuisance parameter"], "phrases": ["Unfolding"]}
    names = hl.Variable("nuisance parameter", is_independent=True, is_binned=False, units="")
    names.values = [str(name) for name in nuisances.index]
    table.add_variable(names)
    for column in ("mean", "std", *(c for c in nuisances.columns if str(c).startswith("correlation"))):
        table.add_variable(_column(hl, str(column), nuisances[column].to_numpy(), ""))
    return table


def _correlation_table(
    hl: Any,
    name: str,
    spectrum: Spectrum,
    units: Sequence[str],
    kept: NDArray[np.bool_],
    words: Mapping[str, Sequence[str]],
) -> Any:
    """Correlations of the bins with the profiled nuisance parameters."""
    table = hl.Table(f"{name} nuisances")
    table.description = f"Correlations of the bins of {name} with the profiled nuisance parameters."
    table.location = f"Nuisance parameters of {name}"
    table.keywords |= {"observables": list(spectrum.names), "phrases": ["Unfolding", spectrum.method]} | dict(words)
    for axis in _bin_columns(hl, spectrum, units, kept):
        table.add_variable(axis)
    correlations = spectrum.nuisance_correlations()
    for parameter in correlations.columns:
        column = hl.Variable(f"correlation with {parameter}", is_independent=False, is_binned=False, units="")
        known = correlations[parameter].to_numpy()[kept].tolist()
        column.digits = DIGITS
        column.values = [value if np.isfinite(value) else "-" for value in known]
        table.add_variable(column)
    return table


def _split(spectrum: Spectrum, kept: NDArray[np.bool_]) -> dict[str, Array]:
    """Standard deviation of each source; empty if they are not known."""
    if not spectrum.knows_sources:
        return {}
    return {name: np.asarray(std)[kept] for name, std in spectrum.by_source().items() if name != "total"}


def _adds_up(spectrum: Spectrum, split: Mapping[str, Array], std: Array) -> bool:
    """Whether the squares of the sources may be added: they are independent, and the sum is the total's square."""
    if any(name in split and parameter.partners for name, parameter in spectrum.parameters.items()):
        return False
    summed = np.sqrt(np.sum([s**2 for s in split.values()], axis=0))
    return bool(np.all(np.abs(summed - std) <= ADDS_UP / np.sqrt(2 * len(spectrum.draw_matrix)) * std))


def _column(hl: Any, name: str, values: Array, unit: str) -> Any:
    variable = hl.Variable(name, is_independent=False, is_binned=False, units=unit)
    variable.digits = DIGITS
    variable.values = np.asarray(values).tolist()
    return variable


def _covariance_table(hl: Any, name: str, spectrum: Spectrum, units: Sequence[str], kept: NDArray[np.bool_]) -> Any:
    draws = draws_of(spectrum)
    table = hl.Table(f"{name} covariance")
    table.description = (
        f"Covariance of the bins of {name}: all sources together, and each source that is known by itself."
        + ("" if draws is None else f" {draws.sentence}")
    )
    table.location = f"Covariance of {name}"
    n = int(kept.sum())
    for word, take in ((" (row)", np.repeat(np.arange(n), n)), (" (column)", np.tile(np.arange(n), n))):
        for axis in _bin_columns(hl, spectrum, units, kept, word):
            axis.values = [axis.values[i] for i in take]
            table.add_variable(axis)
    unit = content_unit(spectrum, units)
    squared = f"({unit})^2" if unit else ""
    inside = np.ix_(kept, kept)
    table.add_variable(_column(hl, "covariance", spectrum.covariance()[inside].ravel(), squared))
    for source, make in spectrum.sources.items():
        own = np.atleast_2d(np.cov(np.asarray(make()), rowvar=False))
        table.add_variable(_column(hl, f"covariance, {source}", own[inside].ravel(), squared))
    return table
