"""The Python of the tutorial pages runs as it stands there, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bayesunfold.generative.event_posterior as event_posterior
from bayesunfold.generative.training import TrainingPlan

DOCS = Path(__file__).parents[1] / "docs"
FEWER = {
    "gallery.md": (
        ("events(20_000, 40)", "events(2_000, 40)"),
        ("events(6_000, 44)", "events(800, 44)"),
        ("OmniFold(6, random_seed=1)", 'OmniFold(2, bu.Network(hidden=(8,)), "laplace", random_seed=1)'),
    )
}
"""Changes to a page whose figures are drawn here and looked at nowhere; the tutorial runs with the default method."""


@pytest.mark.parametrize("page", ["tutorial.md", "from_omnifold.md", "gallery.md", "event_by_event.md"])
def test_pages_run_from_top_to_bottom(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # what the map of single events learns is tested in tests/generative
    monkeypatch.setattr(event_posterior, "TrainingPlan", lambda: TrainingPlan(steps=(60, 60)))
    text = (DOCS / page).read_text(encoding="utf-8")
    for written, fewer in FEWER.get(page, ()):
        assert text.count(written) == 1
        text = text.replace(written, fewer)
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    out = capsys.readouterr().out
    if page == "tutorial.md":
        assert (tmp_path / "first_unfolding.png").stat().st_size > 10_000
        assert "of the bins hold the truth" in out
        assert names["spectrum"].chi2(names["truth"]).p_value > 1e-4


def test_every_page_is_in_a_table_of_contents():
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("studies/*.md")]:
        name = str(page.relative_to(DOCS).with_suffix(""))
        assert name == "index" or re.search(rf"^{name}$", index, re.MULTILINE), name


def test_links_between_pages_lead_somewhere():
    for page in [*DOCS.glob("*.md"), *DOCS.glob("studies/*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(
            r"\]\(([\w./-]+\.(?:md|toml|py|ipynb|png|json|svg))(?:#[^)]*)?\)", page.read_text(encoding="utf-8")
        ):
            place = page.parent / target
            if place.parent.name == "notebooks":  # a build of the pages copies them from the top level
                place = DOCS.parent / "notebooks" / place.name
            assert place.exists(), f"{page.name}: {target}"
