"""What writers of spectra are given."""

from __future__ import annotations

from typing import Any

from bayesunfold._support.checks import check_instance, check_mapping
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectrum

__all__ = ["check_spectra"]


def __dir__() -> list[str]:
    return __all__


def check_spectra(spectra: Any) -> None:
    """A dict of spectra by name, at least one.

    Raises
    ------
    InputError, InputTypeError
    """
    for name, spectrum in check_mapping(spectra, "spectra").items():
        check_instance(spectrum, Spectrum, f"the spectrum {name!r}")
    if not spectra:
        msg = "there are no spectra to write; give at least one, {'pt': result.spectrum('pt', bins)}."
        raise InputError(msg)
