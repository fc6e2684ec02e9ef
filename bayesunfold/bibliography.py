"""BibTeX for what an analysis used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from bayesunfold.errors import InputTypeError

__all__ = ["Citations", "citations"]


def __dir__() -> list[str]:
    return __all__


def _read_entries() -> dict[str, str]:
    """The entries of references.bib by their keys; each starts with an @ at the beginning of a line."""
    text = files("bayesunfold").joinpath("references.bib").read_text(encoding="utf-8")
    entries = [entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE) if entry.strip()]
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in entries}


BY_METHOD = {
    "IBU": ("DAgostini:1994fjx", "Adye:2011gm"),
    "SVD": ("Hocker:1995kb",),
    "Tikhonov": ("Schmitt:2012kp",),
    "UnbinnedFBU": ("Choudalakis:2012hz", "Andreassen:2019cjw", "Immer:2021", "Rubin:1981", "MacKay:1992"),
    "MomentUnfolding": ("Desai:2024", "Andreassen:2019cjw", "Rubin:1981", "MacKay:1992"),
    "GenerativeUnfolding": ("Backes:2022", "Bellagente:2020", "Andreassen:2019cjw", "Immer:2021", "Rubin:1981"),
    "FBU": ("Choudalakis:2012hz", "pymc2023", "Hoffman:2014"),
}


class Citations(str):
    """BibTeX entries; shown as they are."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def citations(*used: Any) -> Citations:
    """BibTeX of the methods and libraries behind results.

    Parameters
    ----------
    *used : UnfoldingResult, Spectrum, Reweighter, BayesianClassifier or LikelihoodRatio
        What is to be published.

    Returns
    -------
    Citations
        A string, one entry a work, in the order in which they were met.

    Raises
    ------
    InputTypeError
        For anything else.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> spectrum = bu.IBU(2).fit(bu.ResponseMatrix(np.eye(3)), [10, 20, 30])
    >>> "DAgostini:1994fjx" in bu.citations(spectrum)
    True
    """
    entries, keys = _read_entries(), ["bayesunfold"]
    for item in used:
        keys += _keys(item)
    return Citations("\n\n".join(entries[key] for key in dict.fromkeys(keys)))


def _keys(item: Any) -> Iterator[str]:
    from bayesunfold.classifier.estimator import BayesianClassifier
    from bayesunfold.classifier.inference import inference_method
    from bayesunfold.reweighting import LikelihoodRatio, Reweighter
    from bayesunfold.spectrum import Spectrum
    from bayesunfold.unfolding.result import UnfoldingResult

    if isinstance(item, UnfoldingResult):
        yield from (*item.record.settings.citations, "arviz2019")
    elif isinstance(item, Spectrum):
        if item.method == "OmniFold":
            yield from ("Andreassen:2019cjw", "Immer:2021", "Rubin:1981", "pymc2023")
        for name, keys in BY_METHOD.items():
            if item.method.startswith(name):
                yield from keys
    elif isinstance(item, BayesianClassifier):
        yield from ("Immer:2021", *inference_method(item.inference).citations)
        if item.network is not None and item.network.learns_scales:
            yield "MacKay:1992"
    elif isinstance(item, Reweighter):
        if item.method == "classifier":
            yield "Cranmer:2015bka"
            yield from ("Immer:2021", "MacKay:1992") if item.classifier is None else ()
            if isinstance(item.classifier, BayesianClassifier):
                yield from _keys(item.classifier)
        if item.calibration == "beta":
            yield "Kull:2017"
    elif isinstance(item, LikelihoodRatio):
        yield from ("Cranmer:2015bka", "Hermans:2020", "Immer:2021", "MacKay:1992")
    else:
        msg = f"citations know results, spectra, classifiers and reweighters, not a {type(item).__name__}."
        raise InputTypeError(msg)
