"""Execute notebooks in place: ``python scripts/run_notebooks.py [--check] notebooks/*.ipynb``.

With ``--check`` nothing is written; the exit code says whether every cell ran.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TEMPORARY = re.compile(r"^/\S*ipykernel_\d+/\d+\.py:\d+: ", re.MULTILINE)


def run(path: Path) -> nbformat.NotebookNode:
    """Execute one notebook in its own folder and return it with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps would change at every run
        for output in cell.get("outputs", []):
            if output.output_type == "stream":  # warnings name a temporary file, another one at every run
                output.text = TEMPORARY.sub("", output.text)
    return notebook


def main(arguments: list[str]) -> None:
    """Run all notebooks named."""
    check = "--check" in arguments
    for name in arguments:
        if name == "--check":
            continue
        start = time.perf_counter()
        notebook = run(Path(name))
        if not check:
            nbformat.write(notebook, name)
        sys.stdout.write(f"{name}: {time.perf_counter() - start:.0f} s\n")


if __name__ == "__main__":
    main(sys.argv[1:])
