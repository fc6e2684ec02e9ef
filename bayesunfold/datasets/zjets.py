"""Packaged Z+jets events: a simulation, and a second sample in place of the data and their truth.

pp -> Z(nu nu) + jet at 14 TeV, generated with Pythia 8.317 and passed through a fast detector that acts on
every particle. The two samples have different tunes. In the spirit of arXiv:1911.09107, with
the acceptance effects that its events lack.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bayesunfold.errors import InputError
from bayesunfold.events import Data, Simulation

__all__ = ["ZJETS_FEATURES", "ZJets", "zjets"]

Array = NDArray[np.floating]

ZJETS_FEATURES = ("pt", "m", "mult", "width", "log_rho", "zg", "tau21")
"""Features of the leading jet: pT and mass in GeV, the others dimensionless."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class ZJets:
    """Columns of both samples.

    Attributes
    ----------
    sim : dict of str to array, shape (80917,)
    nature : dict of str to array, shape (61081,)
        The second sample; its ``gen_*`` are the truth, for scoring only.
    features : tuple of str
        The features in use.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> events = bu.datasets.zjets(("pt", "m"))
    >>> len(events.simulation), events.simulation.gen_names
    (80917, ('pt', 'm'))
    """

    sim: dict[str, Array]
    nature: dict[str, Array]
    features: tuple[str, ...]

    def _table(self, columns: dict[str, Array], level: str) -> Array:
        return np.column_stack([columns[f"{level}_{name}"] for name in self.features])

    @cached_property
    def simulation(self) -> Simulation:
        """Simulated events with their pass flags, ready to unfold."""
        return Simulation(
            self._table(self.sim, "gen"),
            self._table(self.sim, "reco"),
            pass_gen=self.sim["pass_gen"],
            pass_reco=self.sim["pass_reco"],
            names=self.features,
            reco_names=self.features,
        )

    @cached_property
    def data(self) -> Data:
        """Events of the second sample that pass detector level."""
        return Data(self._table(self.nature, "reco")[self.nature["pass_reco"]], names=self.features)

    def truth(self, feature: str) -> Array:
        """A feature of the second sample's events that pass particle level, for scoring."""
        if f"gen_{feature}" not in self.nature:
            known = ", ".join(c[4:] for c in self.nature if c.startswith("gen_"))
            msg = f"{feature!r} is not a particle-level feature; there are {known}."
            raise InputError(msg)
        return self.nature[f"gen_{feature}"][self.nature["pass_gen"]]


def _read(name: str) -> dict[str, Array]:
    with resources.files("bayesunfold.datasets").joinpath(name).open("rb") as file:
        table = pq.read_table(file)
    columns = {}
    for column in table.column_names:
        values = table[column].to_numpy()
        columns[column] = values if values.dtype == bool else values.astype(np.float64)
    return columns


def zjets(features: tuple[str, ...] = ZJETS_FEATURES) -> ZJets:
    """Load the packaged Z+jets events.

    Parameters
    ----------
    features : tuple of str
        Which of the leading jet's features to use.

    Returns
    -------
    ZJets

    Examples
    --------
    >>> import bayesunfold as bu
    >>> events = bu.datasets.zjets()
    >>> len(events.simulation), len(events.data)
    (80917, 54993)
    """
    sim = _read("sim.parquet")
    unknown = [f for f in features if f"gen_{f}" not in sim or f"reco_{f}" not in sim]
    if unknown:
        known = ", ".join(c[4:] for c in sim if c.startswith("gen_") and f"reco_{c[4:]}" in sim)
        msg = f"unknown features {unknown}; there are {known}."
        raise InputError(msg)
    return ZJets(sim, _read("nature.parquet"), tuple(features))
