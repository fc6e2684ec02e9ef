"""Events in, results out: ROOT, parquet, HDF5, npz, HEPData, and publication of unbinned weights."""

from __future__ import annotations

from bayesunfold.io.columns import list_columns, read_columns
from bayesunfold.io.event_cache import clear_cache
from bayesunfold.io.expressions import evaluate
from bayesunfold.io.hepdata import write_hepdata
from bayesunfold.io.hs3 import hs3_document, write_hs3
from bayesunfold.io.open_events import map_columns, open_events
from bayesunfold.io.publication import Publication, read_publication, write_publication
from bayesunfold.io.root import write_root
from bayesunfold.io.workspace import pyhf_workspace, write_pyhf
from bayesunfold.io.yoda import write_yoda

__all__ = [
    "Publication",
    "clear_cache",
    "evaluate",
    "hs3_document",
    "list_columns",
    "map_columns",
    "open_events",
    "pyhf_workspace",
    "read_columns",
    "read_publication",
    "write_hepdata",
    "write_hs3",
    "write_publication",
    "write_pyhf",
    "write_root",
    "write_yoda",
]


def __dir__() -> list[str]:
    return __all__
