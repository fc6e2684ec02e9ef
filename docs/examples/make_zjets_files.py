"""Write the packaged Z+jets events as parquet files, as a user would have them.

``python docs/examples/make_zjets_files.py [FOLDER] [EVENTS]``
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

import bayesunfold as bu


def main(folder: Path, events: int | None = None) -> None:
    """Simulation with both levels; data with detector level only."""
    sample = bu.datasets.zjets()
    simulation = {name: values[:events] for name, values in sample.sim.items()}
    data = {n: v[:events] for n, v in sample.nature.items() if n.startswith("reco_") or n == "pass_reco"}
    pq.write_table(pa.table(simulation), folder / "zjets_simulation.parquet")
    pq.write_table(pa.table(data), folder / "zjets_data.parquet")


if __name__ == "__main__":
    main(
        Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent,
        int(sys.argv[2]) if len(sys.argv) > 2 else None,
    )
