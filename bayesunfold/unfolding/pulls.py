"""Table of the profiled nuisance parameters: pulls, constraints, correlations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesunfold.errors import InputError
from bayesunfold.unfolding.record import NuisanceDraws

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["known_nuisances", "pulls_table"]


def __dir__() -> list[str]:
    return __all__


def known_nuisances(nuisances: NuisanceDraws | None) -> NuisanceDraws:
    """Those of a result.

    Raises
    ------
    InputError
        If it has none.
    """
    if nuisances is None:
        msg = (
            "this result has no profiled nuisance parameters; pass Systematic(..., profile=True) or "
            'Background(..., profile=True) and unfold with method="direct".'
        )
        raise InputError(msg)
    return nuisances


def pulls_table(nuisances: NuisanceDraws) -> pd.DataFrame:
    """One row per parameter, by name.

    Columns ``prior`` (its mean, of standard deviation one), ``mean`` and ``std`` of the posterior, ``pull``, the change
    of the mean over the prior's standard deviation, ``constraint``, the posterior's standard deviation over the
    prior's, and ``correlation NAME`` with each parameter.
    """
    import pandas as pd

    draws = nuisances.draws()
    mean, std = draws.mean(axis=1), draws.std(axis=1, ddof=1)
    columns = {"prior": np.zeros(len(mean)), "mean": mean, "std": std, "pull": mean, "constraint": std}
    correlation = np.atleast_2d(np.corrcoef(draws))
    columns |= {f"correlation {name}": correlation[k] for k, name in enumerate(nuisances.names)}
    return pd.DataFrame(columns, index=pd.Index(nuisances.names, name="nuisance parameter"))
