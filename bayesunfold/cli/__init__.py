"""The command line, its configuration, and the live page."""

from __future__ import annotations

from bayesunfold.cli.commands import main

__all__ = ["main"]
