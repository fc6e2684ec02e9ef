"""Spectra as reference data of Rivet: a YODA file of version 2.

YODA's errors of a bin are named components. Those of one name are fully correlated over the bins, unless the name
begins with ``stat`` or ``uncor``. A covariance is written as such components: its eigenvectors, each times the root of
its eigenvalue. The sum of their outer products is the covariance, so a chi-square of Rivet is that of the spectrum.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import atomic_write
from bayesunfold.errors import InputError
from bayesunfold.io.checks import check_spectra
from bayesunfold.spectrum import Spectrum

__all__ = ["check_analysis", "write_yoda"]

Array = NDArray[np.floating]

SMALLEST = 1e-14
"""Eigenvalues below this part of the largest one are rounding."""

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
        names as titles. Values are written as they are: reference data are usually densities, which
        ``normalization="density"`` makes. Bins without a point estimate are written as NaN.
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
    path = Path(path)
    text = "\n".join(
        _estimate(f"/REF/{analysis}/d{number:02d}-x01-y01", name, spectrum)
        for number, (name, spectrum) in enumerate(spectra.items(), start=1)
    )
    atomic_write(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


def check_analysis(analysis: object) -> None:
    """Whether Rivet takes the name of an analysis.

    Raises
    ------
    InputError
    """
    if not isinstance(analysis, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", analysis):
        msg = f"the analysis is {analysis!r}; its name has letters, digits and _, for instance 'ATLAS_2026_I1234567'."
        raise InputError(msg)


def _estimate(key: str, title: str, spectrum: Spectrum) -> str:
    """One object of the file."""
    kept = np.isfinite(spectrum.nominal)
    errors = np.full((spectrum.n_bins, int(kept.sum())), np.nan)
    errors[kept] = _components(spectrum.covariance()[np.ix_(kept, kept)])
    errors = errors[:, np.any(np.nan_to_num(errors) != 0, axis=0)]
    labels = [f"sys component {k + 1}" for k in range(errors.shape[1])]
    kind = f"Estimate{len(spectrum.edges)}D"
    title = " ".join(title.split()) if PLAIN.fullmatch(title) else json.dumps(title)
    lines = [f"BEGIN YODA_{kind.upper()}_V3 {key}", f"Path: {key}", f"Title: {title}", f"Type: {kind}", "---"]
    for axis, edges in enumerate(spectrum.edges, start=1):
        lines.append(f"Edges(A{axis}): [{', '.join(f'{edge:.10e}' for edge in edges)}]")
    lines.append("ErrorLabels: [" + ", ".join(f'"{label}"' for label in labels) + "]")
    lines.append("\t".join(["# value", *(f"errDn({k + 1})\terrUp({k + 1})" for k in range(len(labels)))]))
    return "\n".join([*lines, *_rows(spectrum, errors), f"END YODA_{kind.upper()}_V3", ""])


def _rows(spectrum: Spectrum, errors: Array) -> list[str]:
    """A line per bin, the first axis running fastest; bins below and above all others hold nothing."""
    shape = spectrum.shape
    numbers = np.arange(spectrum.n_bins).reshape(shape)
    out = []
    for place in product(*(range(n + 2) for n in reversed(shape))):
        inside = tuple(i - 1 for i in reversed(place))
        if any(not 0 <= i < n for i, n in zip(inside, shape, strict=True)):
            out.append("\t".join(["nan"] + ["---"] * (2 * errors.shape[1])))
            continue
        number = int(numbers[inside])
        cells = [f"{spectrum.nominal[number]:.10e}"]
        for error in errors[number]:
            cells += ["---", "---"] if np.isnan(error) else [f"{-error:.10e}", f"{error:.10e}"]
        out.append("\t".join(cells))
    return out


def _components(covariance: Array) -> Array:
    """Columns whose outer products add up to a covariance, the largest first.

    Examples
    --------
    >>> found = _components(np.array([[2.0, 1.0], [1.0, 2.0]]))
    >>> np.round(found @ found.T, 12)
    array([[2., 1.],
           [1., 2.]])
    """
    values, vectors = np.linalg.eigh(covariance)
    values = np.where(values > SMALLEST * values.max(initial=0.0), values, 0.0)
    return (vectors * np.sqrt(values))[:, ::-1]
