"""Pseudo-experiments at scale, and refits of the loop."""

from __future__ import annotations

from bayesunfold.studies.bottom_line import BottomLine
from bayesunfold.studies.coverage import CoverageStudy, load_coverage
from bayesunfold.studies.event_closure import event_closure
from bayesunfold.studies.goodness import GoodnessOfFit
from bayesunfold.studies.pseudo_experiments import coverage_study
from bayesunfold.studies.refits import RefitComparison, compare_with_refits
from bayesunfold.studies.resampled import ResampledToys
from bayesunfold.studies.stress import stress

__all__ = [
    "BottomLine",
    "CoverageStudy",
    "GoodnessOfFit",
    "RefitComparison",
    "ResampledToys",
    "compare_with_refits",
    "coverage_study",
    "event_closure",
    "load_coverage",
    "stress",
]


def __dir__() -> list[str]:
    return __all__
