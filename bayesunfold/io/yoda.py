"""Spectra as reference data of Rivet: a YODA file of version 2.

Errors of a YODA object are named components, of which its own covariance takes the sizes and not the signs, so that no
components say that neighbouring bins are anticorrelated. The covariance is therefore an object of its own, and the
errors of a spectrum are called uncorrelated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import atomic_text
from bayesunfold.errors import InputError
from bayesunfold.io.checks import check_spectra, draws_of
from bayesunfold.spectrum import Spectrum

__all__ = ["check_analysis", "write_yoda"]

Array = NDArray[np.floating]

LABEL = "uncor total"
"""Of the errors. Tools that read YODA take those that begin with ``uncor`` as uncorrelated."""

MOST_AXES = 2
PLAIN = re.compile(r"[A-Za-z][\w .()/+-]*")
"""Titles that need no quotes."""


def __dir__() -> list[str]:
    return __all__


def write_yoda(path: str | Path, spectra: Mapping[str, Spectrum], analysis: str) -> Path:
    """Write spectra as reference data that Rivet compares predictions with.

    Parameters
    ----------
    path : path
        File, for instance ``"ATLAS_2026_I1234567.yoda"``; replaced if it is there.
    spectra : mapping of str to Spectrum
        Of one or two observables; they become ``d01-x01-y01``, ``d02-x01-y01`` and so on, in their order, with the
        names as titles and the standard deviation of each bin as its error. Values are written as they are: reference
        data are usually densities, which ``normalization="density"`` makes. Bins without a point estimate are written
        as NaN. The covariance is ``d01-x01-y02``, a value for each pair of bins, which are numbered from zero if there
        are two observables. If it is that of draws, its annotations are their number (``Draws``), its rank
        (``DegreesOfFreedom``), and what a chi-square with its inverse is multiplied by (``ChiSquareFactor``), as
        :meth:`bayesunfold.Spectrum.chi2` does.
    analysis : str
        Name of the Rivet analysis: letters, digits and ``_``.

    Returns
    -------
    Path

    Raises
    ------
    InputError, InputTypeError
        No spectra, more than two observables, a name that Rivet does not take.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> path = write_yoda(Path(tempfile.mkdtemp()) / "TOY_2026.yoda", {"pt": spectrum}, "TOY_2026")
    >>> print(path.read_text().splitlines()[0])
    BEGIN YODA_ESTIMATE1D_V3 /REF/TOY_2026/d01-x01-y01
    """
    check_spectra(spectra)
    check_analysis(analysis)
    for name, spectrum in spectra.items():
        if len(spectrum.edges) > MOST_AXES:
            msg = f"the spectrum {name!r} has {len(spectrum.edges)} observables; YODA takes one or two."
            raise InputError(msg)
    text = "\n".join(
        part
        for number, (name, spectrum) in enumerate(spectra.items(), start=1)
        for part in _objects(f"/REF/{analysis}/d{number:02d}-x01", name, spectrum)
    )
    return atomic_text(path, text)


def check_analysis(analysis: object) -> None:
    """Whether Rivet takes the name of an analysis.

    Raises
    ------
    InputError
    """
    if not isinstance(analysis, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", analysis):
        msg = f"the analysis is {analysis!r}; its name has letters, digits and _, for instance 'ATLAS_2026_I1234567'."
        raise InputError(msg)


def _objects(key: str, name: str, spectrum: Spectrum) -> tuple[str, str]:
    """A spectrum and its covariance."""
    kept = np.isfinite(spectrum.nominal)
    error = np.where(kept, spectrum.std(), np.nan)
    covariance = np.where(np.outer(kept, kept), spectrum.covariance(), np.nan)
    none = np.full(covariance.size, np.nan)
    one = spectrum.edges[0] if len(spectrum.edges) == 1 else np.arange(spectrum.n_bins + 1.0)
    return (
        _estimate(f"{key}-y01", name, spectrum.edges, spectrum.nominal, error),
        _estimate(f"{key}-y02", f"covariance of {name}", (one, one), covariance.ravel(), none, _about(spectrum)),
    )


def _about(spectrum: Spectrum) -> list[str]:
    """Annotations of a covariance: how a chi-square with it is corrected for a finite number of draws."""
    draws = draws_of(spectrum)
    if draws is None:
        return []
    named = {"Draws": draws.number, "DegreesOfFreedom": draws.dof, "ChiSquareFactor": draws.factor}
    return [f"{name}: {value:.15g}" for name, value in named.items() if value is not None]


def _estimate(
    key: str, title: str, edges: Sequence[Array], values: Array, errors: Array, about: Sequence[str] = ()
) -> str:
    """One object of the file; NaN is no value, or no error."""
    kind = f"Estimate{len(edges)}D"
    title = " ".join(title.split()) if PLAIN.fullmatch(title) else json.dumps(title)
    lines = [f"BEGIN YODA_{kind.upper()}_V3 {key}", f"Path: {key}", f"Title: {title}", f"Type: {kind}", *about, "---"]
    for axis, given in enumerate(edges, start=1):
        lines.append(f"Edges(A{axis}): [{', '.join(_number(edge) for edge in given)}]")
    lines += [f'ErrorLabels: ["{LABEL}"]', "# value\terrDn(1)\terrUp(1)"]
    shape = tuple(len(e) - 1 for e in edges)
    return "\n".join([*lines, *_rows(shape, values, errors), f"END YODA_{kind.upper()}_V3", ""])


def _rows(shape: tuple[int, ...], values: Array, errors: Array) -> list[str]:
    """A line per bin, the first axis running fastest; bins below and above all others hold nothing."""
    numbers = np.arange(len(values)).reshape(shape)
    out = []
    for place in product(*(range(n + 2) for n in reversed(shape))):
        inside = tuple(i - 1 for i in reversed(place))
        if any(not 0 <= i < n for i, n in zip(inside, shape, strict=True)):
            out.append("nan\t---\t---")
            continue
        number = int(numbers[inside])
        error = errors[number]
        sides = "---\t---" if np.isnan(error) else f"{_number(-error)}\t{_number(error)}"
        out.append(f"{_number(values[number])}\t{sides}")
    return out


def _number(value: float) -> str:
    """All digits."""
    return "nan" if np.isnan(value) else f"{float(value):.17g}"
