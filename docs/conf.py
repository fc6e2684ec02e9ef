"""Sphinx configuration; notebooks are copied here from the top level, with the outputs they have."""

import shutil
from pathlib import Path

HERE = Path(__file__).parent
shutil.copytree(
    HERE.parent / "notebooks", HERE / "notebooks", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py")
)

project = "bayesunfold"
author = "the bayesunfold developers"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc"]
myst_enable_extensions = ["dollarmath", "amsmath"]
nb_execution_mode = "off"
exclude_patterns = ["_build", "_templates", "**.ipynb_checkpoints"]
html_theme = "furo"
numpydoc_show_class_members = False
templates_path = ["_templates"]
autodoc_typehints = "none"  # the docstrings say types and shapes
suppress_warnings = ["myst.xref_missing"]
