"""The diagnostics dashboard: one HTML file that needs no network."""

from __future__ import annotations

from bayesunfold.report.html import write_report

__all__ = ["write_report"]


def __dir__() -> list[str]:
    return __all__
