"""Events to try things on: the Gaussian toy and packaged Z+jets events."""

from __future__ import annotations

from bayesunfold.datasets.toys import GaussianToy, gaussian_toy
from bayesunfold.datasets.zjets import ZJETS_FEATURES, ZJets, zjets

__all__ = ["ZJETS_FEATURES", "GaussianToy", "ZJets", "gaussian_toy", "zjets"]


def __dir__() -> list[str]:
    return __all__
