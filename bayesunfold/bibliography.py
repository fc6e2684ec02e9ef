"""BibTeX for what an analysis used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bayesunfold.errors import InputTypeError

__all__ = ["Citations", "citations"]


def __dir__() -> list[str]:
    return __all__


def _entry(kind: str, key: str, **fields: str) -> str:
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{kind}{{{key},", *lines, "}"])


ENTRIES = {
    "bayesunfold": _entry(
        "software",
        "bayesunfold",
        title="bayesunfold: Bayesian unfolding in particle physics",
        author="{The bayesunfold developers}",
        year="2026",
    ),
    "omnifold": _entry(
        "article",
        "Andreassen:2019cjw",
        title="{OmniFold: A Method to Simultaneously Unfold All Observables}",
        author="Andreassen, Anders and Komiske, Patrick T. and Metodiev, Eric M. and Nachman, Benjamin and "
        "Thaler, Jesse",
        journal="Phys. Rev. Lett.",
        volume="124",
        pages="182001",
        year="2020",
        doi="10.1103/PhysRevLett.124.182001",
        eprint="1911.09107",
    ),
    "pymc": _entry(
        "article",
        "pymc2023",
        title="{PyMC: a modern, and comprehensive probabilistic programming framework in Python}",
        author="Abril-Pla, Oriol and others",
        journal="PeerJ Comput. Sci.",
        volume="9",
        pages="e1516",
        year="2023",
        doi="10.7717/peerj-cs.1516",
    ),
    "arviz": _entry(
        "article",
        "arviz2019",
        title="{ArviZ a unified library for exploratory analysis of Bayesian models in Python}",
        author="Kumar, Ravin and Carroll, Colin and Hartikainen, Ari and Martin, Osvaldo",
        journal="J. Open Source Softw.",
        volume="4",
        number="33",
        pages="1143",
        year="2019",
        doi="10.21105/joss.01143",
    ),
    "bootstrap": _entry(
        "article",
        "Rubin:1981",
        title="{The Bayesian Bootstrap}",
        author="Rubin, Donald B.",
        journal="Ann. Statist.",
        volume="9",
        pages="130--134",
        year="1981",
        doi="10.1214/aos/1176345338",
    ),
    "linearized": _entry(
        "inproceedings",
        "Immer:2021",
        title="{Improving predictions of Bayesian neural nets via local linearization}",
        author="Immer, Alexander and Korzepa, Maciej and Bauer, Matthias",
        booktitle="AISTATS",
        year="2021",
        eprint="2008.08400",
    ),
    "conditioning": _entry(
        "article",
        "Wilson:2021",
        title="{Pathwise Conditioning of Gaussian Processes}",
        author="Wilson, James T. and Borovitskiy, Viacheslav and Terenin, Alexander and Mostowsky, Peter and "
        "Deisenroth, Marc Peter",
        journal="J. Mach. Learn. Res.",
        volume="22",
        number="105",
        year="2021",
        eprint="2011.04026",
    ),
    "advi": _entry(
        "article",
        "Kucukelbir:2017",
        title="{Automatic Differentiation Variational Inference}",
        author="Kucukelbir, Alp and Tran, Dustin and Ranganath, Rajesh and Gelman, Andrew and Blei, David M.",
        journal="J. Mach. Learn. Res.",
        volume="18",
        number="14",
        year="2017",
        eprint="1603.00788",
    ),
    "nuts": _entry(
        "article",
        "Hoffman:2014",
        title="{The No-U-Turn Sampler: Adaptively Setting Path Lengths in Hamiltonian Monte Carlo}",
        author="Hoffman, Matthew D. and Gelman, Andrew",
        journal="J. Mach. Learn. Res.",
        volume="15",
        pages="1593--1623",
        year="2014",
        eprint="1111.4246",
    ),
    "evidence": _entry(
        "article",
        "MacKay:1992",
        title="{A Practical Bayesian Framework for Backpropagation Networks}",
        author="MacKay, David J. C.",
        journal="Neural Comput.",
        volume="4",
        pages="448--472",
        year="1992",
        doi="10.1162/neco.1992.4.3.448",
    ),
    "carl": _entry(
        "article",
        "Cranmer:2015bka",
        title="{Approximating Likelihood Ratios with Calibrated Discriminative Classifiers}",
        author="Cranmer, Kyle and Pavez, Juan and Louppe, Gilles",
        year="2015",
        eprint="1506.02169",
    ),
    "beta": _entry(
        "article",
        "Kull:2017",
        title="{Beyond sigmoids: How to obtain well-calibrated probabilities from binary classifiers with beta "
        "calibration}",
        author="Kull, Meelis and Silva Filho, Telmo M. and Flach, Peter",
        journal="Electron. J. Statist.",
        volume="11",
        pages="5052--5080",
        year="2017",
        doi="10.1214/17-EJS1338SI",
    ),
    "parametrized": _entry(
        "inproceedings",
        "Hermans:2020",
        title="{Likelihood-free MCMC with Amortized Approximate Ratio Estimators}",
        author="Hermans, Joeri and Begy, Volodimir and Louppe, Gilles",
        booktitle="ICML",
        year="2020",
        eprint="1903.04057",
    ),
    "ibu": _entry(
        "article",
        "DAgostini:1994fjx",
        title="{A multidimensional unfolding method based on Bayes' theorem}",
        author="D'Agostini, G.",
        journal="Nucl. Instrum. Meth. A",
        volume="362",
        pages="487--498",
        year="1995",
        doi="10.1016/0168-9002(95)00274-X",
    ),
    "adye": _entry(
        "inproceedings",
        "Adye:2011gm",
        title="{Unfolding algorithms and tests using RooUnfold}",
        author="Adye, Tim",
        booktitle="PHYSTAT 2011",
        year="2011",
        eprint="1105.1160",
    ),
    "svd": _entry(
        "article",
        "Hocker:1995kb",
        title="{SVD approach to data unfolding}",
        author="Hocker, Andreas and Kartvelishvili, Vakhtang",
        journal="Nucl. Instrum. Meth. A",
        volume="372",
        pages="469--481",
        year="1996",
        doi="10.1016/0168-9002(95)01478-0",
        eprint="hep-ph/9509307",
    ),
    "tikhonov": _entry(
        "article",
        "Schmitt:2012kp",
        title="{TUnfold: an algorithm for correcting migration effects in high energy physics}",
        author="Schmitt, Stefan",
        journal="JINST",
        volume="7",
        pages="T10003",
        year="2012",
        doi="10.1088/1748-0221/7/10/T10003",
        eprint="1205.6201",
    ),
    "fbu": _entry(
        "article",
        "Choudalakis:2012hz",
        title="{Fully Bayesian Unfolding}",
        author="Choudalakis, Georgios",
        year="2012",
        eprint="1201.4612",
    ),
}

BY_METHOD = {
    "IBU": ("ibu", "adye"),
    "SVD": ("svd",),
    "Tikhonov": ("tikhonov",),
    "FBU": ("fbu", "pymc", "nuts"),
}
BY_INFERENCE = {"advi": ("pymc", "advi", "conditioning"), "nuts": ("pymc", "nuts", "conditioning"), "laplace": ()}


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
    keys = ["bayesunfold"]
    for item in used:
        keys += _keys(item)
    return Citations("\n\n".join(ENTRIES[key] for key in dict.fromkeys(keys)))


def _keys(item: Any) -> Iterator[str]:
    from bayesunfold.classifier.estimator import BayesianClassifier
    from bayesunfold.reweighting import LikelihoodRatio, Reweighter
    from bayesunfold.spectrum import Spectrum
    from bayesunfold.unfolding.result import UnfoldingResult

    if isinstance(item, UnfoldingResult):
        yield from ("omnifold", "linearized", "bootstrap", *BY_INFERENCE[item.configuration["inference"]], "arviz")
    elif isinstance(item, Spectrum):
        if item.method == "OmniFold":
            yield from ("omnifold", "linearized", "bootstrap", "pymc")
        for method, keys in BY_METHOD.items():
            if item.method.startswith(method):
                yield from keys
    elif isinstance(item, BayesianClassifier):
        yield from ("linearized", *(k for k in BY_INFERENCE[item.inference] if k != "conditioning"))
        if item.network is not None and item.network.learns_scales:
            yield "evidence"
    elif isinstance(item, Reweighter):
        if item.method == "classifier":
            yield "carl"
            yield from ("linearized", "evidence") if item.classifier is None else ()
            if isinstance(item.classifier, BayesianClassifier):
                yield from _keys(item.classifier)
        if item.calibration == "beta":
            yield "beta"
    elif isinstance(item, LikelihoodRatio):
        yield from ("carl", "parametrized", "linearized", "evidence")
    else:
        msg = f"citations know results, spectra, classifiers and reweighters, not a {type(item).__name__}."
        raise InputTypeError(msg)
