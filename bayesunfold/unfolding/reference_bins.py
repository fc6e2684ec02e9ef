"""Reference bins: ten bins of equal generator population in each particle-level feature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["REFERENCE_BINS", "quantile_groups"]

REFERENCE_BINS = 10


def __dir__() -> list[str]:
    return __all__


def quantile_groups(values: NDArray[np.floating], rows: NDArray[np.bool_]) -> NDArray[np.integer]:
    """Reference bin of each event; -1 for events that fail gen, or where the feature does not exist."""
    rows = rows & ~np.isnan(values)
    if not rows.any():
        return np.full(len(values), -1)
    edges = np.quantile(values[rows], np.linspace(0, 1, REFERENCE_BINS + 1)[1:-1])
    groups = np.searchsorted(edges, values, side="right")
    return np.where(rows, groups, -1)
