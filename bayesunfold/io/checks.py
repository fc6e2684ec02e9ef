"""What writers of spectra are given, and what they say of draws."""

from __future__ import annotations

from typing import Any, NamedTuple

from bayesunfold._support.checks import check_instance, check_mapping
from bayesunfold._support.statistics import draws_factor
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectrum

__all__ = ["FiniteDraws", "check_spectra", "draws_of"]


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


class FiniteDraws(NamedTuple):
    """How a chi-square with the covariance of draws is corrected for their finite number.

    Attributes
    ----------
    number : int
    dof : int or None
        Rank of the covariance; None without a chi-square, for want of draws or of a width.
    factor : float or None
        By which :meth:`bayesunfold.Spectrum.chi2` multiplies it.
    """

    number: int
    dof: int | None = None
    factor: float | None = None

    @property
    def sentence(self) -> str:
        """For readers of a file."""
        words = f"The covariance is that of {self.number} draws."
        if self.factor is None:
            return words
        return (
            f"{words} The inverse of such a covariance is too large (doi:10.1051/0004-6361:20066170): multiply a "
            f"chi-square with it by (draws - dof - 2)/(draws - 1) = {self.factor:.15g}, for dof = {self.dof}."
        )


def draws_of(spectrum: Spectrum) -> FiniteDraws | None:
    """The draws behind a covariance; None where it is known exactly.

    Examples
    --------
    >>> import numpy as np
    >>> s = Spectrum((np.arange(3.0),), np.random.default_rng(1).normal(10, 1, (101, 2)), np.full(2, 10.0))
    >>> draws_of(s)
    FiniteDraws(number=101, dof=2, factor=0.97)
    """
    if spectrum.exact_covariance is not None:
        return None
    n = len(spectrum.draw_matrix)
    try:
        dof = spectrum.chi2(spectrum.nominal).dof
    except InputError:
        return FiniteDraws(n)
    return FiniteDraws(n, dof, draws_factor(n, dof))
