"""Tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["as_text"]


def __dir__() -> list[str]:
    return __all__


def as_text(columns: Mapping[str, Sequence[str]]) -> str:
    """Columns of texts under their names, aligned to the right."""
    widths = [max(map(len, (name, *cells))) for name, cells in columns.items()]
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
