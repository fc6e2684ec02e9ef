"""Published point estimates of the seven Z+jets observables, which the speed benchmark prints too."""

from __future__ import annotations

import json
from pathlib import Path

REFERENCE = json.loads((Path(__file__).parents[2] / "benchmarks" / "zjets_reference.json").read_text())
