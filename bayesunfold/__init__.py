"""Bayesian unfolding in particle physics.

Start with :func:`unfold`, or with :class:`Simulation`, :class:`Data` and :class:`OmniFold` for weights, pass
flags and settings. ``docs/statistics.md`` says what the bands mean.
"""

from __future__ import annotations

from bayesunfold import datasets, errors, io, plots, report, studies
from bayesunfold.binned import (
    FBU,
    IBU,
    BinnedBackground,
    MatrixInversion,
    ResponseMatrix,
    SVDUnfolding,
    Tikhonov,
    compare,
)
from bayesunfold.citations import citations
from bayesunfold.classifier.estimator import BayesianClassifier
from bayesunfold.classifier.network import Network
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.omnifold.estimator import OmniFold, unfold
from bayesunfold.reweighting import LikelihoodRatio, Reweighter, blend, closure
from bayesunfold.spectrum import Spectrum
from bayesunfold.studies import CoverageStudy, coverage_study
from bayesunfold.unfolding.result import UnfoldingResult
from bayesunfold.unfolding.storage import load
from bayesunfold.unfolding.systematics import Systematic

__version__ = "0.1.0"

__all__ = [
    "FBU",
    "IBU",
    "Background",
    "BayesianClassifier",
    "BinnedBackground",
    "CoverageStudy",
    "Data",
    "LikelihoodRatio",
    "MatrixInversion",
    "Network",
    "OmniFold",
    "ResponseMatrix",
    "Reweighter",
    "SVDUnfolding",
    "Simulation",
    "Spectrum",
    "Systematic",
    "Tikhonov",
    "UnfoldingResult",
    "blend",
    "citations",
    "closure",
    "compare",
    "coverage_study",
    "datasets",
    "errors",
    "io",
    "load",
    "plots",
    "report",
    "studies",
    "unfold",
]


def __dir__() -> list[str]:
    return __all__
