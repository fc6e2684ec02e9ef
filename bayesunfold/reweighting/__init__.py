"""Reweighting one sample to another, and likelihood ratios, with uncertainty and the checks to believe them."""

from __future__ import annotations

from bayesunfold.reweighting.blend import Blend, blend
from bayesunfold.reweighting.calibration import Calibrator, Reliability, reliability
from bayesunfold.reweighting.closure import Closure, closure, weighted_auc
from bayesunfold.reweighting.likelihood import LikelihoodRatio
from bayesunfold.reweighting.parameter_sets import ConfidenceSet, ExpectedCoverage, Scan
from bayesunfold.reweighting.reweighter import Reweighter

__all__ = [
    "Blend",
    "Calibrator",
    "Closure",
    "ConfidenceSet",
    "ExpectedCoverage",
    "LikelihoodRatio",
    "Reliability",
    "Reweighter",
    "Scan",
    "blend",
    "closure",
    "reliability",
    "weighted_auc",
]


def __dir__() -> list[str]:
    return __all__
