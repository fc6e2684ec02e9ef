"""Binned results for others: ROOT histograms and HEPData tables."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bayesunfold._support.files import atomic_write
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectrum

__all__ = ["write_hepdata", "write_root"]


def __dir__() -> list[str]:
    return __all__


def write_root(path: str | Path, spectra: Mapping[str, Spectrum]) -> Path:
    """Write TH1 histograms with errors and TH2 covariances.

    Parameters
    ----------
    path : path
        A ``.root`` file; written atomically. Needs the extra ``root``.
    spectra : mapping of str to Spectrum
        ``name`` and ``name_covariance`` in the file.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> import tempfile
    >>> from pathlib import Path
    >>> write_root(Path(tempfile.mkdtemp()) / "out.root", {"pt": spectrum}).name
    'out.root'
    """
    try:
        import uproot
    except ImportError:
        msg = "writing ROOT files needs uproot; install bayesunfold[root]."
        raise ImportError(msg) from None
    import hist

    path = Path(path)
    if path.suffix != ".root":
        msg = f"{path.name} ends with {path.suffix!r}; name the file .root."
        raise InputError(msg)

    def write(temporary: Path) -> None:
        with uproot.recreate(temporary) as file:
            for name, spectrum in spectra.items():
                file[name] = spectrum.to_hist()
                bins = hist.axis.Integer(0, spectrum.n_bins, name="bin", flow=False)
                other = hist.axis.Integer(0, spectrum.n_bins, name="other", flow=False)
                covariance = hist.Hist(bins, other, storage=hist.storage.Double())
                covariance.view()[...] = spectrum.covariance()
                file[f"{name}_covariance"] = covariance

    atomic_write(path, write)
    return path


def write_hepdata(
    folder: str | Path,
    spectra: Mapping[str, Spectrum],
    *,
    abstract: str = "",
    units: Mapping[str, str] | None = None,
) -> Path:
    """Write a HEPData submission: a table and a covariance table for every spectrum.

    Parameters
    ----------
    folder : path
        Holds ``submission.yaml`` and the tables. Needs the extra ``hepdata``.
    spectra : mapping of str to Spectrum
        One observable each.
    abstract : str
    units : mapping of str to str, optional
        Unit of each observable.

    Notes
    -----
    Each bin has the 68 and 95 % bands around the point estimate, and the symmetric standard deviation of each source.
    Files appear in the folder only when all of them are written. Sources may be correlated after conditioning on
    posterior draws; the covariance table is what to fit with.

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
    try:
        import hepdata_lib as hl
    except ImportError:
        msg = "writing HEPData tables needs hepdata_lib; install bayesunfold[hepdata]."
        raise ImportError(msg) from None
    submission = hl.Submission()
    submission.comment = abstract
    for name, spectrum in spectra.items():
        submission.add_table(_table(hl, name, spectrum, (units or {}).get(name, "")))
        submission.add_table(_covariance_table(hl, name, spectrum))
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        made = Path(temporary) / "submission"
        made.mkdir()
        with contextlib.chdir(temporary):  # the library leaves an archive in the working directory
            submission.create_files(str(made.resolve()), remove_old=True)
        _replace_tables(made, folder)
    return folder


def _replace_tables(made: Path, folder: Path) -> None:
    """Move a finished submission to its place; tables of an earlier one go, other files of the user stay."""
    folder.mkdir(exist_ok=True)
    old = folder / "submission.yaml"
    if old.exists():
        for line in old.read_text().splitlines():
            if line.startswith("data_file:"):
                (folder / line.split(":", 1)[1].strip()).unlink(missing_ok=True)
        old.unlink()
    # the list of tables last: whoever sees it finds all of them
    for path in sorted(made.iterdir(), key=lambda p: p.name == "submission.yaml"):
        path.replace(folder / path.name)


def _bins(spectrum: Spectrum, name: str) -> list[tuple[float, float]]:
    if len(spectrum.edges) != 1:
        msg = f"{name!r} has {len(spectrum.edges)} axes; HEPData tables here hold one observable. Write slices."
        raise InputError(msg)
    edges = spectrum.edges[0]
    return [(float(a), float(b)) for a, b in pairwise(edges)]


def _table(hl: Any, name: str, spectrum: Spectrum, unit: str) -> Any:
    table = hl.Table(name)
    table.description = f"Unfolded {name} ({spectrum.normalization}), 68 and 95 % credible bands, {spectrum.method}."
    table.location = f"Spectrum of {name}"
    axis = hl.Variable(name, is_independent=True, is_binned=True, units=unit)
    axis.values = _bins(spectrum, name)
    value = hl.Variable(f"unfolded {name}", is_independent=False, is_binned=False, units="")
    value.values = spectrum.nominal.tolist()
    for level in (0.68, 0.95):
        low, high = spectrum.interval(level)
        band = hl.Uncertainty(f"{100 * level:.0f} % band", is_symmetric=False)
        reach = zip(low - spectrum.nominal, high - spectrum.nominal, strict=True)
        band.values = [(float(a), float(b)) for a, b in reach]
        value.add_uncertainty(band)
    if spectrum.sources or spectrum.exact_sources:
        for source, std in spectrum.by_source().items():
            if source == "total":
                continue
            own = hl.Uncertainty(source, is_symmetric=True)
            own.values = np.asarray(std).tolist()
            value.add_uncertainty(own)
    table.add_variable(axis)
    table.add_variable(value)
    return table


def _covariance_table(hl: Any, name: str, spectrum: Spectrum) -> Any:
    bins = _bins(spectrum, name)
    table = hl.Table(f"{name} covariance")
    table.description = f"Covariance of the bins of {name}, all sources together."
    table.location = f"Covariance of {name}"
    first = hl.Variable(f"{name} (row)", is_independent=True, is_binned=True)
    second = hl.Variable(f"{name} (column)", is_independent=True, is_binned=True)
    first.values = [b for b in bins for _ in bins]
    second.values = [b for _ in bins for b in bins]
    value = hl.Variable("covariance", is_independent=False, is_binned=False)
    value.values = spectrum.covariance().ravel().tolist()
    for variable in (first, second, value):
        table.add_variable(variable)
    return table
