"""Unfolded results as data of the HEP Statistics Serialization Standard (HS3): spectra with covariances, and events.

A document holds data, which models of any tool that reads HS3 can be fitted to. A spectrum is a ``binned`` datum with
Gaussian uncertainties and their correlations, unbinned events are an ``unbinned`` datum with weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.files import atomic_text
from bayesunfold.binning import numbered
from bayesunfold.errors import InputError
from bayesunfold.io.checks import check_spectra, draws_of
from bayesunfold.spectrum import Spectrum

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["hs3_document", "write_hs3"]

Array = NDArray[np.floating]

VERSION = "0.2"
"""Of the standard."""

EVENTS = "events"
"""Name of the datum of unbinned events."""


def __dir__() -> list[str]:
    return __all__


def hs3_document(spectra: Mapping[str, Spectrum], events: UnfoldingResult | None = None) -> dict[str, Any]:
    """Spectra, and on request the unbinned events, as an HS3 document.

    Parameters
    ----------
    spectra : mapping of str to Spectrum
        Of any number of observables; a ``binned`` datum each, its contents flattened in C order, with the standard
        deviations of the bins and their correlations. Axes of the same name are numbered. The description in the
        metadata says what a chi-square with a covariance of draws is multiplied by, as
        :meth:`bayesunfold.Spectrum.chi2` does.
    events : UnfoldingResult, optional
        Adds the particle-level events, with the weights of the point estimate, as the ``unbinned`` datum ``"events"``.
        They have no uncertainty there: the standard has no place for one that is common to many events.

    Returns
    -------
    dict
        Ready for JSON.

    Raises
    ------
    InputError, InputTypeError
        No spectra, one with bins without a point estimate or without a width, a spectrum named ``"events"`` beside
        events, events in which a feature does not exist.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> datum = hs3_document({"pt": spectrum})["data"][0]
    >>> datum["type"], datum["contents"], datum["axes"]
    ('binned', [10.0, 20.0], [{'name': 'observable', 'edges': [0.0, 1.0, 2.0]}])
    """
    check_spectra(spectra)
    data = [_binned(name, spectrum) for name, spectrum in spectra.items()]
    if events is not None:
        if EVENTS in spectra:
            msg = f"a spectrum is named {EVENTS!r}, as the unbinned events are; give it another name."
            raise InputError(msg)
        data.append(_unbinned(events))
    packages = [{"name": "bayesunfold", "version": installed_version("bayesunfold")}]
    metadata: dict[str, Any] = {"hs3_version": VERSION, "packages": packages}
    drawn = {name: draws_of(spectrum) for name, spectrum in spectra.items()}
    about = [f"{name}: {draws.sentence}" for name, draws in drawn.items() if draws is not None]
    if about:
        metadata["description"] = "\n".join(about)
    return {"metadata": metadata, "data": data}


def write_hs3(path: str | Path, spectra: Mapping[str, Spectrum], events: UnfoldingResult | None = None) -> Path:
    """Write :func:`hs3_document` as JSON; arguments and errors as there.

    Returns
    -------
    Path

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> path = write_hs3(Path(tempfile.mkdtemp()) / "pt.json", {"pt": spectrum})
    >>> sorted(json.loads(path.read_text()))
    ['data', 'metadata']
    """
    return atomic_text(path, json.dumps(hs3_document(spectra, events)) + "\n")


def _binned(name: str, spectrum: Spectrum) -> dict[str, Any]:
    missing = np.flatnonzero(~np.isfinite(spectrum.nominal))
    if len(missing):
        msg = (
            f"bins {missing.tolist()} of the spectrum {name!r} have no point estimate, which HS3 cannot say; leave "
            "them out, or merge them with others."
        )
        raise InputError(msg)
    flat = np.flatnonzero(~(spectrum.std() > 0))
    if len(flat):
        msg = (
            f"bins {flat.tolist()} of the spectrum {name!r} have no width, so no correlations; merge them with others."
        )
        raise InputError(msg)
    names = numbered(spectrum.names)
    axes = [{"name": axis, "edges": edges.tolist()} for axis, edges in zip(names, spectrum.edges, strict=True)]
    uncertainty = {
        "type": "gaussian_uncertainty",
        "sigma": spectrum.std().tolist(),
        "correlation": spectrum.correlation().tolist(),
    }
    return {
        "name": name,
        "type": "binned",
        "contents": spectrum.nominal.tolist(),
        "axes": axes,
        "uncertainty": uncertainty,
    }


def _unbinned(result: UnfoldingResult) -> dict[str, Any]:
    sim = result.simulation
    rows = sim.pass_gen
    values = sim.gen[rows].astype(np.float64)
    missing = np.isnan(values).any(axis=0)
    if missing.any():
        name = sim.gen_names[int(np.argmax(missing))]
        msg = f"{name} does not exist in all events, which HS3 cannot say; write spectra alone."
        raise InputError(msg)
    low, high = values.min(axis=0), values.max(axis=0)
    axes = [
        {"name": name, "min": float(a), "max": float(b)} for name, a, b in zip(sim.gen_names, low, high, strict=True)
    ]
    return {
        "name": EVENTS,
        "type": "unbinned",
        "entries": values.tolist(),
        "axes": axes,
        "weights": result.nominal[rows].tolist(),
    }
