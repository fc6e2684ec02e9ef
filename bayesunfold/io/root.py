"""Binned results as ROOT histograms."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bayesunfold._support.files import atomic_write
from bayesunfold.errors import InputError
from bayesunfold.io.checks import check_spectra
from bayesunfold.spectrum import Spectrum

__all__ = ["write_root"]


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

    check_spectra(spectra)
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
