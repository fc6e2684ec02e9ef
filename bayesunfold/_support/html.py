"""What objects show of themselves in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

__all__ = ["facts"]


def __dir__() -> list[str]:
    return __all__


def facts(title: str, rows: Mapping[str, object], picture: str = "") -> str:
    """A title, a table of names and values, and a picture.

    Parameters
    ----------
    title : str
    rows : mapping
        Of texts, which are escaped.
    picture : str
        SVG, as it is.

    Examples
    --------
    >>> facts("Data", {"events": 3})
    '<b>Data</b><table><tr><th style="text-align:left">events</th><td style="text-align:left">3</td></tr></table>'
    """
    left = 'style="text-align:left"'
    cells = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(str(value))}</td></tr>" for name, value in rows.items()
    )
    return f"<b>{escape(title)}</b><table>{cells}</table>{picture}"
