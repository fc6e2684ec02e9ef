"""Sphinx configuration."""

project = "bayesunfold"
author = "the bayesunfold developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
myst_enable_extensions = ["dollarmath", "amsmath"]
exclude_patterns = ["_build"]
html_theme = "furo"
numpydoc_show_class_members = False
suppress_warnings = ["myst.xref_missing"]
