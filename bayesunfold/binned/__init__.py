"""Binned unfolding with a response matrix: the methods people compare with."""

from __future__ import annotations

from bayesunfold.binned.compare import Comparison, compare
from bayesunfold.binned.fbu import FBU, BinnedBackground, FBUFit
from bayesunfold.binned.ibu import IBU, IBUStep
from bayesunfold.binned.regularized import MatrixInversion, SVDUnfolding, TauScan, Tikhonov
from bayesunfold.binned.response import ResponseMatrix

__all__ = [
    "FBU",
    "IBU",
    "BinnedBackground",
    "Comparison",
    "FBUFit",
    "IBUStep",
    "MatrixInversion",
    "ResponseMatrix",
    "SVDUnfolding",
    "TauScan",
    "Tikhonov",
    "compare",
]


def __dir__() -> list[str]:
    return __all__
