"""Every error and warning of the library.

One root, :class:`BayesUnfoldError`; each subclass is also the built-in class that a
NumPy or scikit-learn user would catch. Messages name the value, the rule and the cure.
"""

from __future__ import annotations

__all__ = [
    "BayesUnfoldError",
    "BayesUnfoldWarning",
    "BiasWarning",
    "BlindFeatureWarning",
    "ClusterError",
    "ConvergenceError",
    "ConvergenceWarning",
    "FileFormatError",
    "InputError",
    "InputTypeError",
    "OverlapWarning",
    "SmallSampleWarning",
    "ProfilingWarning",
    "UnreliableDrawsWarning",
    "WeightWarning",
]


def __dir__() -> list[str]:
    return __all__


class BayesUnfoldError(Exception):
    """Root of all errors raised on purpose by bayesunfold."""


class InputError(BayesUnfoldError, ValueError):
    """A value that breaks a rule: wrong length, NaN, non-positive weights, bad bins."""


class InputTypeError(BayesUnfoldError, TypeError):
    """An object of a kind that cannot be used: object arrays, wrong classes."""


class ConvergenceError(BayesUnfoldError, RuntimeError):
    """A fit that cannot go on, for instance an indefinite curvature from negative weights."""


class ClusterError(BayesUnfoldError, RuntimeError):
    """Machines that went away, or a folder of theirs that cannot be used."""


class FileFormatError(BayesUnfoldError, ValueError):
    """A file that is not one of ours, is damaged, or comes from a newer version."""


class BayesUnfoldWarning(UserWarning):
    """Root of all warnings raised on purpose by bayesunfold."""


class BiasWarning(BayesUnfoldWarning):
    """The estimated bias of the result is large against its band."""


class ConvergenceWarning(BayesUnfoldWarning):
    """A fit stopped before it met its own tolerance; the message says by how much."""


class OverlapWarning(BayesUnfoldWarning):
    """Simulation and data do not cover the same region of a feature."""


class SmallSampleWarning(BayesUnfoldWarning):
    """A sample is so small that bands are known to be too narrow."""


class BlindFeatureWarning(BayesUnfoldWarning):
    """The detector tells nothing of a particle-level feature, or the networks found nothing to learn."""


class WeightWarning(BayesUnfoldWarning):
    """Event weights lost much of the sample's information, members went negative, or factors are not used."""


class ProfilingWarning(BayesUnfoldWarning):
    """A profiled nuisance parameter that data should not constrain, cannot, or pull very far."""


class UnreliableDrawsWarning(BayesUnfoldWarning):
    """Posterior draws of a kind whose bands do not cover."""
