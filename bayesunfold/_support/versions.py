"""Versions of what a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed_versions"]

PACKAGES = ("bayesunfold", "pymc", "pytensor", "arviz", "numpy", "scipy", "scikit-learn")


def __dir__() -> list[str]:
    return __all__


def installed_versions() -> dict[str, str]:
    """Python and the packages that numbers depend on; "unknown" of one that is imported without being installed."""
    return {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # sources on the path of imports
        return "unknown"
