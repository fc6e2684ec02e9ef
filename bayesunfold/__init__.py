"""Bayesian unfolding in particle physics.

Start with :func:`unfold`, or with :class:`Simulation`, :class:`Data` and :class:`OmniFold` for weights, pass
flags and settings. ``docs/statistics.md`` says what the bands mean.

Names are loaded when they are first used, so that importing is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayesunfold import datasets, errors, io, plots, report, studies
    from bayesunfold._support.cluster import cluster
    from bayesunfold.bibliography import citations
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
    from bayesunfold.classifier.estimator import BayesianClassifier
    from bayesunfold.classifier.network import Network
    from bayesunfold.direct.estimator import UnbinnedFBU
    from bayesunfold.direct.moment_unfolding import MomentUnfolding
    from bayesunfold.direct.unfold import unfold
    from bayesunfold.events import Background, Data, Simulation
    from bayesunfold.generative.estimator import GenerativeUnfolding
    from bayesunfold.generative.event_posterior import EventPosterior
    from bayesunfold.io.storage import load
    from bayesunfold.omnifold.estimator import OmniFold
    from bayesunfold.reweighting import LikelihoodRatio, Reweighter, blend, closure
    from bayesunfold.spectrum import Spectrum
    from bayesunfold.studies import CoverageStudy, coverage_study
    from bayesunfold.unfolding.levels import match_levels
    from bayesunfold.unfolding.result import UnfoldingResult
    from bayesunfold.unfolding.systematics import Systematic

    __version__: str

_PLACES = {
    "_support.cluster": ("cluster",),
    "bibliography": ("citations",),
    "binned": (
        "FBU",
        "IBU",
        "BinnedBackground",
        "MatrixInversion",
        "ResponseMatrix",
        "SVDUnfolding",
        "Tikhonov",
        "compare",
    ),
    "classifier.estimator": ("BayesianClassifier",),
    "classifier.network": ("Network",),
    "direct.estimator": ("UnbinnedFBU",),
    "direct.moment_unfolding": ("MomentUnfolding",),
    "events": ("Background", "Data", "Simulation"),
    "direct.unfold": ("unfold",),
    "generative.estimator": ("GenerativeUnfolding",),
    "generative.event_posterior": ("EventPosterior",),
    "omnifold.estimator": ("OmniFold",),
    "io.storage": ("load",),
    "reweighting": ("LikelihoodRatio", "Reweighter", "blend", "closure"),
    "spectrum": ("Spectrum",),
    "studies": ("CoverageStudy", "coverage_study"),
    "unfolding.levels": ("match_levels",),
    "unfolding.result": ("UnfoldingResult",),
    "unfolding.systematics": ("Systematic",),
}
"""Where each public name lives."""

_HOME = {name: module for module, names in _PLACES.items() for name in names}
_MODULES = ("datasets", "errors", "io", "plots", "report", "studies")

__all__ = [
    "FBU",
    "IBU",
    "Background",
    "BayesianClassifier",
    "BinnedBackground",
    "CoverageStudy",
    "Data",
    "EventPosterior",
    "GenerativeUnfolding",
    "LikelihoodRatio",
    "MatrixInversion",
    "MomentUnfolding",
    "Network",
    "OmniFold",
    "ResponseMatrix",
    "Reweighter",
    "SVDUnfolding",
    "Simulation",
    "Spectrum",
    "Systematic",
    "Tikhonov",
    "UnbinnedFBU",
    "UnfoldingResult",
    "blend",
    "citations",
    "closure",
    "cluster",
    "compare",
    "coverage_study",
    "datasets",
    "errors",
    "io",
    "load",
    "match_levels",
    "plots",
    "report",
    "studies",
    "unfold",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (scientific-python SPEC 1)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("bayesunfold")
    if name in _HOME:
        found = getattr(import_module(f"bayesunfold.{_HOME[name]}"), name)
    elif name in _MODULES:
        found = import_module(f"bayesunfold.{name}")
    else:
        msg = f"module 'bayesunfold' has no attribute {name!r}"
        raise AttributeError(msg)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
