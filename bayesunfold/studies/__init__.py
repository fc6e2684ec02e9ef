"""Pseudo-experiments at scale."""

from __future__ import annotations

from bayesunfold.studies.coverage import CoverageStudy, coverage_study, load_coverage

__all__ = ["CoverageStudy", "coverage_study", "load_coverage"]


def __dir__() -> list[str]:
    return __all__
