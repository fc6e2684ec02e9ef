"""Tables of docs/studies/coverage.md and scale.md from the kept results.

A table stands between ``<!-- table NAME -->`` and ``<!-- end -->`` and is that of ``docs/studies/results/NAME.json``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys

from results import FOLDER

PAGES = tuple(FOLDER.parent / f"{name}.md" for name in ("coverage", "scale"))
TABLE = re.compile(r"(<!-- table ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """A table in Markdown."""
    content = json.loads((FOLDER / f"{name}.json").read_text())
    rows = [content["columns"], ["---"] * len(content["columns"]), *(row["cells"] for row in content["rows"])]
    return "\n".join(
        "|" + "|".join(cells) + "|" if cells[0] == "---" else "| " + " | ".join(cells) + " |" for cells in rows
    )


def main() -> int:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; end with 1 if a table is out of date")
    args = parser.parse_args()
    names = []
    for path in PAGES:
        page = path.read_text()
        made = TABLE.sub(lambda found: f"{found[1]}\n{table(found[2])}\n\n{found[3]}", page)
        names += [old[2] for old in TABLE.finditer(page) if old[0] not in made]
        if not args.check:
            path.write_text(made)
            print(f"written: {path}")
    if args.check:
        print(f"out of date: {', '.join(names)}" if names else "all tables are those of the kept results")
        return 1 if names else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
