"""Tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bayesunfold._support.checks import check_choice

__all__ = ["as_table", "as_text"]

FORMS = ("text", "markdown", "latex", "csv")

LATEX = {
    "\\": r"\textbackslash{}",
    "%": r"\%",
    "_": r"\_",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "{": r"\{",
    "}": r"\}",
    "^": r"\^{}",
    "~": r"\~{}",
}
"""Characters that mean something else in LaTeX."""


def __dir__() -> list[str]:
    return __all__


def as_text(columns: Mapping[str, Sequence[str]]) -> str:
    """Columns of texts under their names, aligned to the right."""
    return "\n".join(map("  ".join, _aligned(columns)))


def as_table(columns: Mapping[str, Sequence[str]], form: str) -> str:
    r"""Columns of texts as plain text, as a Markdown table, as a ``tabular`` of LaTeX, or as comma-separated values.

    Examples
    --------
    >>> print(as_table({"bin": ["[0, 1)"], "68 %": ["3"]}, "latex"))
    \begin{tabular}{rr}
         bin & 68 \% \\
    \hline
    {[}0, 1) &     3 \\
    \end{tabular}
    """
    check_choice(form, "form", FORMS)
    if form == "text":
        return as_text(columns)
    if form == "csv":
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        return "\n".join(",".join(f'"{cell}"' if "," in cell else cell for cell in row) for row in rows)
    if form == "markdown":
        head, *body = [f"| {' | '.join(row)} |" for row in _aligned(columns)]
        return "\n".join([head, f"|{'---:|' * len(columns)}", *body])
    escaped = {_latex(name): [_latex(cell) for cell in cells] for name, cells in columns.items()}
    head, *body = [" & ".join(row) + r" \\" for row in _aligned(escaped)]
    return "\n".join([f"\\begin{{tabular}}{{{'r' * len(columns)}}}", head, r"\hline", *body, r"\end{tabular}"])


def _aligned(columns: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Rows of the table, names first, each cell as wide as its column."""
    widths = [max(map(len, (name, *cells))) for name, cells in columns.items()]
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    return [[cell.rjust(w) for cell, w in zip(row, widths, strict=True)] for row in rows]


def _latex(text: str) -> str:
    escaped = "".join(LATEX.get(letter, letter) for letter in text)
    return f"{{[}}{escaped[1:]}" if escaped.startswith("[") else escaped  # after a new line it would be its argument
