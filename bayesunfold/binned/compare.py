"""Several unfolded spectra of one observable side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold._support.checks import as_numbers, check_covariance, check_instance
from bayesunfold._support.tables import as_text
from bayesunfold.binning import bin_volumes
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.spectrum import Chi2, Spectrum

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Comparison", "compare", "triangular_discriminator"]

Array = NDArray[np.floating]


def __dir__() -> list[str]:
    return __all__


def triangular_discriminator(p: ArrayLike, q: ArrayLike) -> float:
    """``1e3 x 1/2 sum (p - q)^2 / (p + q)`` of two spectra, each normalised to one.

    The measure by which unfolding methods are compared (Topsoe, IEEE Trans. Inf. Theory 46 (2000) 1602,
    doi:10.1109/18.850703; arXiv:1911.09107, eq. 8). Bins empty in both do not count.

    Examples
    --------
    >>> triangular_discriminator([1, 1], [2, 2])
    0.0
    >>> round(triangular_discriminator([1, 0], [0, 1]))
    1000
    """
    a, b = np.asarray(p, dtype=np.float64).ravel(), np.asarray(q, dtype=np.float64).ravel()
    a, b = a / a.sum(), b / b.sum()
    total = a + b
    return float(500.0 * np.sum(np.divide((a - b) ** 2, total, out=np.zeros_like(total), where=total != 0)))


@dataclass(frozen=True)
class Comparison:
    """Methods in the same bins.

    Attributes
    ----------
    spectra : dict of str to Spectrum
    truth : array, shape (bins,), or None
    truth_covariance : array, shape (bins, bins), or None

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> found = bu.compare({"IBU": bu.IBU(4).fit(R, [100, 150])}, truth=[85, 165])
    >>> print(found.table().splitlines()[0].split()[0])
    method
    """

    spectra: dict[str, Spectrum]
    truth: Array | None = None
    truth_covariance: Array | None = None

    def rows(self) -> list[dict[str, float | str]]:
        """A row per method: yield, median relative uncertainty, agreement with the truth, time; measured bins only."""
        out: list[dict[str, float | str]] = []
        for name, s in self.spectra.items():
            measured = ~np.isnan(s.nominal)
            filled = measured & (s.nominal > 0)
            # contents of a density times widths, or wide bins would count too little
            widths = bin_volumes(s.edges) if s.normalization == "density" else np.ones(s.n_bins)
            row: dict[str, float | str] = {
                "method": name,
                "total": float((s.nominal * widths)[measured].sum()),
                "rel. std": float(np.median(s.std()[filled] / s.nominal[filled])),
            }
            if self.truth is not None:
                chi2, inside = Chi2(float("nan"), 0, float("nan")), float("nan")
                if np.all(np.isfinite(s.std()[measured])):  # not made with errors=False
                    chi2 = s.chi2(self.truth, self.truth_covariance)
                    low, high = s.interval(0.68)
                    inside = float(np.mean(((low <= self.truth) & (self.truth <= high))[measured]))
                row |= {
                    "chi2": chi2.value,
                    "dof": chi2.dof,
                    "p-value": chi2.p_value,
                    "in 68 %": inside,
                    "discriminator": triangular_discriminator(
                        np.maximum((s.nominal * widths)[measured], 0.0), (self.truth * widths)[measured]
                    ),
                }
            row["seconds"] = float("nan") if s.seconds is None else s.seconds
            out.append(row)
        return out

    def to_dataframe(self) -> pd.DataFrame:
        """The rows as a frame."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def table(self) -> str:
        """The rows as text."""
        frame = self.to_dataframe()
        return as_text(
            {name: [v if isinstance(v, str) else f"{v:.4g}" for v in frame[name]] for name in map(str, frame)}
        )

    def plot(self, label: str | None = None) -> Figure:
        """Spectra on one figure with ratios and pulls to the truth (to the first method without one)."""
        from bayesunfold.plots.binned import plot_comparison

        return plot_comparison(self, label)

    def __repr__(self) -> str:
        return f"Comparison({', '.join(self.spectra)})\n{self.table()}"


def compare(
    spectra: Mapping[str, Spectrum] | Sequence[Spectrum],
    truth: ArrayLike | None = None,
    truth_covariance: ArrayLike | None = None,
) -> Comparison:
    """Put unfolded spectra of the same bins beside one another.

    Parameters
    ----------
    spectra : mapping of name to Spectrum, or sequence of Spectrum
        A sequence is named by each spectrum's method.
    truth : array, shape (bins,), optional
        In the same normalisation.
    truth_covariance : array, shape (bins, bins), optional
        Of a truth that fluctuates itself; added in the chi-square.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        No spectra, different bins or normalisations, a truth of the wrong length.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> methods = {"IBU": bu.IBU(4), "inversion": bu.MatrixInversion()}
    >>> found = bu.compare({name: m.fit(R, [100, 150]) for name, m in methods.items()}, truth=[85, 165])
    >>> list(found.spectra)
    ['IBU', 'inversion']
    """
    given: object = spectra
    if not isinstance(given, Mapping | Sequence) or isinstance(given, str):
        msg = f"spectra has type {type(spectra).__name__}; give a dict of spectra by name, or a list."
        raise InputTypeError(msg)
    for k, s in enumerate(spectra.values() if isinstance(spectra, Mapping) else spectra):
        check_instance(s, Spectrum, repr(list(spectra)[k]) if isinstance(spectra, Mapping) else f"spectrum {k}")
    named = dict(spectra) if isinstance(spectra, Mapping) else _by_method(spectra)
    if not named:
        msg = "there is nothing to compare; pass at least one spectrum."
        raise InputError(msg)
    first = next(iter(named.values()))
    for name, s in named.items():
        if not s.same_bins(first):
            msg = f"{name!r} has other bins than {next(iter(named))!r}; unfold all methods in the same bins."
            raise InputError(msg)
        if s.normalization != first.normalization:
            msg = f"{name!r} is a {s.normalization} and {next(iter(named))!r} a {first.normalization}; use one of them."
            raise InputError(msg)
        if s.luminosity != first.luminosity:
            msg = (
                f"{name!r} has luminosity {s.luminosity} and {next(iter(named))!r} {first.luminosity}; take one of "
                "them, or none, for all."
            )
            raise InputError(msg)
    target = None
    if truth is not None:
        target = as_numbers(truth, "truth").ravel()
        if target.shape != (first.n_bins,):
            msg = f"truth has {target.size} bins and the spectra {first.n_bins}; they must agree."
            raise InputError(msg)
        if not np.all(np.isfinite(target)) or target.sum() <= 0 or np.any(target < 0):
            msg = f"truth sums to {target.sum():g} with a least content of {target.min():g}; give finite counts."
            raise InputError(msg)
    covariance = None
    if truth_covariance is not None:
        if target is None:
            msg = "truth_covariance is given without truth; give both, or neither."
            raise InputError(msg)
        covariance = check_covariance(truth_covariance, first.n_bins, "the truth's covariance")
    return Comparison(named, target, covariance)


def _by_method(spectra: Sequence[Spectrum]) -> dict[str, Spectrum]:
    named: dict[str, Spectrum] = {}
    for s in spectra:
        name, k = s.method, 2
        while name in named:
            name, k = f"{s.method} ({k})", k + 1
        named[name] = s
    return named
