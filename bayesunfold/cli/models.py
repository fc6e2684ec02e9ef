"""Predictions beside an unfolded spectrum: particle-level events of another generator, from a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import as_weight
from bayesunfold.errors import InputError
from bayesunfold.io.columns import list_columns, read_columns
from bayesunfold.normalization import contents_like

if TYPE_CHECKING:
    from bayesunfold.spectrum import Spectrum

__all__ = ["ModelEvents", "read_model"]

Array = NDArray[np.floating]

WEIGHT = "weight"
"""Column of a file that holds the events' weights."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class ModelEvents:
    """Events of a prediction that pass the particle-level selection.

    Attributes
    ----------
    columns : dict of str to array, shape (k,)
        By particle-level feature.
    weight : array, shape (k,), or None
        In units of expected events; None if only the shape is predicted.
    """

    columns: dict[str, Array]
    weight: Array | None

    def contents(self, name: str, spectrum: Spectrum, total: float) -> Array:
        """The prediction in the bins and the normalisation of a spectrum, shape (bins,).

        Without weights it is scaled to a total of events. Events in which the feature does not exist are in no bin and
        count in the total.
        """
        values = self.columns[name]
        weight = np.full(len(values), total / len(values)) if self.weight is None else self.weight
        return contents_like(spectrum, values, weight, np.ones(len(values), dtype=bool))


def read_model(path: str | Path, features: Sequence[str]) -> ModelEvents:
    """Read a prediction: columns named as particle-level features, and ``weight``, in expected events, if there is one.

    Parameters
    ----------
    path : path
        As of :func:`bayesunfold.io.read_columns`: ``"herwig.parquet"``, ``"herwig.root:tree"``.
    features : sequence of str
        Those of the result.

    Raises
    ------
    InputError
        No column of these names, infinite values, weights that do not sum to something positive.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.savez(folder / "herwig.npz", pt=np.array([1.0, 2.0]), weight=np.array([1.0, 3.0]))
    >>> read_model(folder / "herwig.npz", ["pt", "m"]).columns
    {'pt': array([1., 2.])}
    """
    there = list_columns(str(path))
    known = [name for name in features if name in there]
    if not known:
        msg = f"{path} has the columns {', '.join(there)}; name at least one as a feature: {', '.join(features)}."
        raise InputError(msg)
    weighted = WEIGHT in there and WEIGHT not in known
    found = read_columns(str(path), [*known, *([WEIGHT] if weighted else [])])
    columns: dict[str, Array] = {name: np.asarray(found[name], dtype=np.float64) for name in known}
    for name, values in columns.items():
        if np.isinf(values).any():
            msg = f"{name} in {path} is infinite at row {int(np.argmax(np.isinf(values)))}; remove such events."
            raise InputError(msg)
    size = len(columns[known[0]])
    return ModelEvents(columns, as_weight(found[WEIGHT], size, f"weight in {path}") if weighted else None)
