"""The first notebook runs from top to bottom."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import require

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"


# starting a kernel opens sockets and event loops whose clean-up jupyter leaves to the garbage collector
@pytest.mark.filterwarnings("default")
def test_gaussian_toy_notebook():
    nbformat, nbclient = require("nbformat"), require("nbclient")
    notebook = nbformat.read(NOTEBOOKS / "01_gaussian_toy.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace("toys=6", "toys=2")  # the study's last cell, most of the time
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOKS)}}).execute()
    figures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(figures) >= 4


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_with_their_outputs(path):
    """The documentation shows them as they are stored."""
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
