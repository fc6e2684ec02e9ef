"""Kept results of the studies: one JSON file per table of docs/studies/coverage.md, one entry per row."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "docs" / "studies" / "results"


def coverage_cells(summary: Mapping[str, float]) -> dict[str, str]:
    """Cells of a row of a coverage table, from ``CoverageStudy.summary()``."""
    return {
        "toys": f"{summary['toys']:.0f}",
        "core bins": f"{summary['core bins']:.0f}",
        "68 % mean": f"{summary['0.68 mean']:.3f} ± {summary['0.68 error']:.3f}",
        "worst bin": f"{summary['0.68 worst']:.3f}",
        "95 % mean": f"{summary['0.95 mean']:.3f} ± {summary['0.95 error']:.3f}",
        "joint 68 / 95 %": f"{summary['0.68 joint']:.3f} / {summary['0.95 joint']:.3f}",
        "width / spread": f"{summary['width / spread']:.2f}",
        "rms bias / spread": f"{summary['rms bias']:.2f}",
    }


def keep_direct(row: str, study: Any) -> Path:
    """Put a coverage study of the direct posterior into its table, with its width beside Poisson's."""
    import numpy as np

    narrow = float((study.std.mean(axis=0) / np.sqrt(study.expected))[study.core].mean())
    cells = coverage_cells(study.summary()) | {"width / Poisson": f"{narrow:.2f}"}
    return keep("direct", [row], cells, study.summary() | {"width / Poisson": narrow})


def keep(
    table: str, row: Sequence[str], cells: Mapping[str, str] | Mapping[int, str], numbers: Mapping[str, Any]
) -> Path:
    """Put a row's numbers into the file of its table.

    Parameters
    ----------
    table : str
        Name of the file.
    row : sequence of str
        How the first cells of the row begin, bold or not, which says which one it is; a new row is put at the end.
    cells : mapping of column to text
        Cells that change, by the names of their columns or by their places; those of columns that the table does not
        have are left out.
    numbers : mapping
        Everything that was found, in full precision.
    """
    path = FOLDER / f"{table}.json"
    content = json.loads(path.read_text())
    columns = content["columns"]
    found = next((r for r in content["rows"] if _is(r["cells"], row)), None)
    if found is None:
        found = {"cells": [*row, *[""] * (len(columns) - len(row))]}
        content["rows"].append(found)
    for column, text in cells.items():
        if isinstance(column, int):
            found["cells"][column] = text
        elif column in columns:
            found["cells"][columns.index(column)] = text
    found["numbers"] = found.get("numbers", {}) | dict(numbers)
    found["command"] = re.sub(r" --(out|workers) \S+", "", " ".join(sys.argv))
    found["bayesunfold"] = version("bayesunfold")
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _is(cells: Sequence[str], row: Sequence[str]) -> bool:
    """Whether a row is the one asked for: a cell is the text, or begins with it and a colon or semicolon."""
    plain = [cell.strip("*") for cell in cells]
    return all(
        cell == text or cell.startswith((f"{text}:", f"{text};")) for cell, text in zip(plain, row, strict=False)
    )
