"""Versions of what a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import version

__all__ = ["installed_versions"]

PACKAGES = ("bayesunfold", "pymc", "pytensor", "arviz", "numpy", "scipy", "scikit-learn")


def __dir__() -> list[str]:
    return __all__


def installed_versions() -> dict[str, str]:
    """Python and the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
