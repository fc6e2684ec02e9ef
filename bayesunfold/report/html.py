"""One self-contained HTML page from a result: no scripts, no network, light and dark."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from bayesunfold._support.checks import check_bins, check_known, check_mapping
from bayesunfold._support.files import atomic_text, check_writable
from bayesunfold._support.versions import installed_versions
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.io.arviz import default_bins
from bayesunfold.normalization import contents_like
from bayesunfold.plots import plot_correlation, plot_history, plot_ranking, plot_sources, plot_spectrum
from bayesunfold.report.checks import MARKS, Check, checks_of_tests, detector_closure, verdicts
from bayesunfold.report.figures import plot_classifiers, plot_detector_closure, plot_draws, plot_weights
from bayesunfold.spectrum import Spectrum
from bayesunfold.unfolding.record import BLIND

if TYPE_CHECKING:
    from bayesunfold.studies.bottom_line import BottomLine
    from bayesunfold.studies.goodness import GoodnessOfFit
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["write_report"]

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --soft: #f3f5f8; --line: #d5dae1;
  --good: #13703a; --bad: #b3261e; --none: #5f6b7a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171b; --soft: #1e2329; --line: #3a424d;
  --good: #5bd08a; --bad: #ff8a80; --none: #9aa6b5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1080px; padding: 1rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .2rem 0; } h2 { font-size: 1.15rem; border-bottom: 1px solid var(--line); }
nav { display: flex; flex-wrap: wrap; gap: .2rem .9rem; }
nav a { color: inherit; } .wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; } td, th { padding: .3rem .5rem; text-align: left;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: break-word; }
td:first-child { white-space: nowrap; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.none { color: var(--none); }
.verdict { background: var(--soft); border-left: 5px solid var(--line); padding: .6rem .9rem; }
.figures { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); }
figure { margin: 0; min-width: 0; max-width: 720px; overflow: hidden; background: #ffffff;
  border: 1px solid var(--line); border-radius: 6px; padding: .3rem; }
figure svg { width: 100%; height: auto; display: block; } figcaption { color: #1b1f24; padding: .2rem .4rem; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .85rem; }
details { max-width: 34rem; } summary { cursor: pointer; }
.note { border-left: 5px solid var(--bad); padding: .3rem .9rem; } .how { color: var(--none); }
@media print { :root { --ink: #000000; --paper: #ffffff; --soft: #f3f5f8; } nav { display: none; }
  body { max-width: none; } figure, tr { break-inside: avoid; } .wide { overflow: visible; } }
"""

HOW_TO_READ = {
    "Verdict": "Each line is one check. What fails says what to do; what does not apply was not made.",
    "Spectra": "The step is the result; 68 % of the members lie in the dark band, 95 % in the light one, bin by bin. "
    "The lower panel divides by the result. Neighbouring bins are correlated, so compare models by chi-square.",
    "Uncertainty by source": "Standard deviation when one source alone fluctuates, relative to the result. Sources act "
    "together, so the total is not their sum in quadrature: the gap is what they do to each other.",
    "Correlations": "Of bins over members, from -1 to 1. Dark blocks beside the diagonal mean that the detector cannot "
    "tell these bins apart.",
    "Nuisance parameters": "Where the data moved each parameter, in standard deviations of its prior, and how much of "
    "the uncertainty it makes.",
    "Iterations": "The change of the spectrum by each iteration in units of its band should fall below the line.",
    "Classifiers": "Above, predicted against found shares: on the diagonal if the classifier is calibrated. Below, "
    "what it tells apart: near the diagonal there was little to learn.",
    "Closure at detector level": "A second classifier tells data from the simulation, before and after unfolding. "
    "After, it should be on the diagonal.",
    "Weights": "Weights far from one, or few effective events, mean that the simulation is far from the data.",
    "Posterior draws": "How the draws of the first network were made, and whether they can be trusted.",
    "Inputs": "What was read, file by file, after the selection.",
    "Settings": "Enough to make the result again.",
}
"""A sentence or two under the heading of each section."""


def __dir__() -> list[str]:
    return __all__


def write_report(
    result: UnfoldingResult | Spectrum | Mapping[str, Spectrum],
    path: str | Path,
    bins: Mapping[str, ArrayLike] | None = None,
    spectra: Mapping[str, Spectrum] | None = None,
    notes: Sequence[str] = (),
    inputs: Sequence[Mapping[str, object]] = (),
    tests: BottomLine | GoodnessOfFit | Sequence[BottomLine | GoodnessOfFit] = (),
) -> Path:
    """Write the dashboard, and beside it the same numbers as JSON.

    Parameters
    ----------
    result : UnfoldingResult, Spectrum, or mapping of name to Spectrum
        Spectra of any method make a shorter page: figures, sources, correlations, tables, settings.
    path : path
        An ``.html`` file, written atomically.
    bins : mapping of feature to edges, optional
        Binning of the spectra; 15 equal bins for features not named.
    spectra : mapping of feature to Spectrum, optional
        Spectra of one axis to show as they are, with their normalisation, luminosity and unit. The generator's line is
        drawn where they are the particle-level feature of this result, not something else under its name.
    notes : sequence of str
        What a reader must know first; shown under the title.
    inputs : sequence of mapping
        What was read, a row each with the same keys, as a table.
    tests : BottomLine, GoodnessOfFit, or sequence of these
        What ``result.bottom_line`` and ``result.goodness_of_fit`` returned; they become lines of the verdict.

    Raises
    ------
    InputError, InputTypeError
        For features that do not exist or are named twice, spectra of several axes, tests that are none.

    Returns
    -------
    Path
        Of the page; the numbers have the same name and end with ``.json``.

    Examples
    --------
    >>> import numpy as np
    >>> import bayesunfold as bu
    >>> rng = np.random.default_rng(1)
    >>> spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), rng.normal([10, 20], 1, (400, 2)), np.array([10.0, 20.0]))
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = write_report(spectrum, Path(tempfile.mkdtemp()) / "report.html")
    >>> path.read_text().count("<svg")
    2
    """
    path = Path(path)
    if path.suffix == ".json":
        msg = f"{path} ends with .json, where the numbers beside the page go; name an .html file."
        raise InputError(msg)
    for file in (path, path.with_suffix(".json")):
        check_writable(file)
    if isinstance(result, Spectrum | Mapping):
        if bins is not None or spectra is not None or tests:
            msg = "spectra have their bins already, and no tests; bins= and tests= are for unbinned results."
            raise InputError(msg)
        named = result if isinstance(result, Mapping) else {result.method: result}
        return _spectra_report(named, path, notes, inputs)
    if result.record.blind:
        notes = [BLIND, *(note for note in notes if note != BLIND)]
    sim = result.simulation
    for given, what in ((bins, "bins"), (spectra, "spectra")):
        check_known(check_mapping(given or {}, what), sim.gen_names, what)
    given_bins = {name: check_bins(e, f"bins of {name}") for name, e in (bins or {}).items()}
    _check_spectra(spectra or {}, given_bins)
    shown = dict(spectra or {})
    for name in sim.gen_names:
        if name not in shown:
            edges = given_bins.get(name, default_bins(sim.gen_column(name)[sim.pass_gen]))
            shown[name] = result.spectrum(name, edges)
    made = checks_of_tests(tests)
    tree = result.to_datatree()
    closure = detector_closure(result)
    checks = [*verdicts(result, tree, closure), *made]
    sections = {
        "Verdict": _verdict(checks),
        "Spectra": _grid(
            "spectrum", {n: plot_spectrum(s, generator=generator_of(result, n, s)) for n, s in shown.items()}
        ),
        "Uncertainty by source": _grid("sources", {n: plot_sources(s) for n, s in shown.items() if s.knows_sources}),
        "Correlations": _grid("correlation", {n: plot_correlation(s) for n, s in shown.items()}),
        **_nuisance_sections(result, shown),
        **(_loop_sections(result) if result.record.settings.iterates else {}),
        "Closure at detector level": _grid(
            "diagnostics", {"a second classifier, data against the refolded result": plot_detector_closure(closure)}
        ),
        "Weights": _grid("diagnostics", {"push weights and effective sizes": plot_weights(result)}),
        "Posterior draws": _draws(result, tree),
        **({"Inputs": _inputs(inputs)} if inputs else {}),
        "Settings": _settings(result),
    }
    page = _page(repr(result), sections, notes)
    numbers = {"notes": list(notes), "checks": [asdict(check) for check in checks], "spectra": numbers_of(shown)}
    _write(path, page, numbers | {"inputs": [dict(row) for row in inputs], "settings": result.configuration})
    return path


def numbers_of(spectra: Mapping[str, Spectrum]) -> dict[str, object]:
    """What the figures of spectra show, ready for JSON; NaN as None."""
    return {
        name: {
            "names": list(s.names),
            "edges": [edges.tolist() for edges in s.edges],
            "normalization": s.normalization,
            "luminosity": s.luminosity,
            "units": list(s.units),
            "method": s.method,
            "nominal": _plain(s.nominal),
            "bands": {str(level): [_plain(side) for side in s.interval(level)] for level in (0.68, 0.95)},
            "std": _plain(s.std()),
            "covariance": _plain(s.covariance()),
            "std_by_source": {
                source: _plain(std) for source, std in (s.by_source() if s.knows_sources else {}).items()
            },
            "bias": None if s.bias is None else _plain(s.bias),
        }
        for name, s in spectra.items()
    }


def _plain(values: np.ndarray) -> list[object]:
    """Nested lists, without NaN."""
    array = np.asarray(values, dtype=object)
    array[~np.isfinite(array.astype(np.float64))] = None
    return cast("list[object]", array.tolist())


def _write(path: Path, page: str, numbers: Mapping[str, object]) -> None:
    atomic_text(path.with_suffix(".json"), json.dumps(numbers, indent=1, default=str))
    atomic_text(path, page)


def _spectra_report(
    spectra: Mapping[str, Spectrum], path: Path, notes: Sequence[str], inputs: Sequence[Mapping[str, object]]
) -> Path:
    """Page of spectra alone; those of several observables have a table only."""
    flat = {name: s for name, s in spectra.items() if len(s.edges) == 1}
    split = {name: s for name, s in flat.items() if s.knows_sources}
    banded = {name: s for name, s in spectra.items() if np.any(np.isfinite(s.std()))}  # not made with errors=False
    sections = {
        "Spectra": _grid("spectrum", {n: plot_spectrum(s) for n, s in flat.items() if n in banded}),
        "Uncertainty by source": _grid("sources", {n: plot_sources(s) for n, s in split.items()}),
        "Correlations": _grid("correlation", {n: plot_correlation(s) for n, s in banded.items()}),
        "Tables": "".join(f"<h3>{html.escape(n)}</h3><pre>{html.escape(s.table())}</pre>" for n, s in spectra.items()),
        "Inputs": _inputs(inputs) if inputs else "",
        "Settings": _versions({n: {"method": s.method, "seconds": s.seconds} | s.settings for n, s in spectra.items()}),
    }
    page = _page("; ".join(map(repr, spectra.values())), sections, notes)
    _write(path, page, {"notes": list(notes), "spectra": numbers_of(spectra), "inputs": [dict(row) for row in inputs]})
    return path


def _check_spectra(spectra: Mapping[str, Spectrum], bins: Mapping[str, object]) -> None:
    """Whether each is a spectrum of one axis, and not named with bins too."""
    for name, spectrum in spectra.items():
        if not isinstance(spectrum, Spectrum):
            msg = f"spectra[{name!r}] has type {type(spectrum).__name__}; give what result.spectrum returns."
            raise InputTypeError(msg)
        if len(spectrum.edges) != 1:
            msg = (
                f"spectra[{name!r}] has {len(spectrum.edges)} axes ({', '.join(spectrum.names)}); here it has one. "
                "A report of spectra alone, write_report({name: spectrum}, path), shows several."
            )
            raise InputError(msg)
        if name in bins:
            msg = f"{name!r} is in bins and in spectra; give one of them, a spectrum has its bins."
            raise InputError(msg)


def generator_of(result: UnfoldingResult, name: str, spectrum: Spectrum) -> np.ndarray | None:
    """Simulated spectrum at the unfolded yield, in the normalisation of an unfolded one, shape (bins,).

    None if the unfolded one is not that of the particle-level feature: another unit or level, or another result.
    """
    sim = result.simulation
    same = contents_like(spectrum, sim.gen_column(name), result.nominal, sim.pass_gen)
    if not np.allclose(np.nan_to_num(same), np.nan_to_num(spectrum.nominal), rtol=1e-4, atol=0.0):
        return None
    weight = np.where(sim.pass_gen, sim.weight, 0.0)
    weight = weight * (result.nominal.sum() / weight.sum())
    return contents_like(spectrum, sim.gen_column(name), weight, sim.pass_gen)


def _page(title: str, sections: Mapping[str, str], notes: Sequence[str] = ()) -> str:
    """The page, without the sections that are empty."""
    sections = {name: content for name, content in sections.items() if content}
    links = "".join(f'<a href="#{_anchor(name)}">{html.escape(name)}</a>' for name in sections)
    body = "".join(
        f'<section id="{_anchor(name)}"><h2>{html.escape(name)}</h2>{_how(name)}{content}</section>'
        for name, content in sections.items()
    )
    said = "".join(f'<p class="note">{html.escape(note)}</p>' for note in notes)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Unfolding report</title>'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
        f"<h1>Unfolding report</h1><p>{html.escape(title)}</p>{said}<nav>{links}</nav>{body}</body></html>"
    )


def _how(name: str) -> str:
    return f'<p class="how">{html.escape(HOW_TO_READ[name])}</p>' if name in HOW_TO_READ else ""


def _anchor(name: str) -> str:
    return name.lower().replace(" ", "-")


def _svg(fig: Figure, salt: str) -> str:
    """Inline SVG, without the XML heading; ids are made unique so that several fit on one page."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _grid(kind: str, figures: Mapping[str, Figure]) -> str:
    """Figures with their names; nothing if there are none."""
    items = "".join(
        f"<figure>{_svg(fig, f'{kind} {name}')}<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, fig in figures.items()
    )
    return f'<div class="figures">{items}</div>' if items else ""


def _explained(check: Check) -> str:
    """Name of a check, which opens what it looks at."""
    name = html.escape(check.name)
    return f"<details><summary>{name}</summary>{html.escape(check.about)}</details>" if check.about else name


def _verdict(checks: list[Check]) -> str:
    failed = [c for c in checks if c.passed is False]
    line = f"Checks that need attention: {len(failed)}." if failed else "All checks pass."
    styles = {True: "good", False: "bad", None: "none"}
    rows = ""
    for c in checks:
        css, mark = styles[c.passed], MARKS[c.passed]
        cure = html.escape(c.cure) if c.passed is False else ""
        rows += (
            f'<tr><td class="{css}">{mark}</td><td>{_explained(c)}</td><td>{html.escape(c.value)}</td>'
            f"<td>{html.escape(c.threshold)}</td><td>{cure}</td></tr>"
        )
    return (
        f'<p class="verdict {"bad" if failed else "good"}">{line}</p><div class="wide"><table>'
        f"<tr><th></th><th>check</th><th>found</th><th>wanted</th><th>what to do</th></tr>{rows}</table></div>"
    )


def _nuisance_sections(result: UnfoldingResult, shown: Mapping[str, Spectrum]) -> dict[str, str]:
    """Pulls, rankings of the fullest bin of every spectrum, and tables; nothing if no parameter is profiled."""
    if result.measurement.nuisances is None:
        return {}
    table = result.nuisances.round(3).to_html(border=0)
    figures = {"pulls": result.plot_pulls()}
    for name, spectrum in shown.items():
        ranking = spectrum.ranking()
        label = list(dict.fromkeys(ranking["bin"]))[int(np.nanargmax(spectrum.nominal))]
        figures[f"ranking, {name}"] = plot_ranking(ranking, label)
    correlations = "".join(
        f"<p>Correlations with the bins of {html.escape(name)}</p>"
        f'<div class="wide">{spectrum.nuisance_correlations().round(2).to_html(border=0)}</div>'
        for name, spectrum in shown.items()
    )
    return {"Nuisance parameters": _grid("nuisances", figures) + f'<div class="wide">{table}</div>' + correlations}


def _loop_sections(result: UnfoldingResult) -> dict[str, str]:
    """What only a loop has: its history, and classifiers fitted to each other's weights."""
    return {
        "Iterations": _grid("diagnostics", {"losses and change of the spectrum": plot_history(result)}),
        "Classifiers": _grid("diagnostics", {"calibration and ROC of both steps": plot_classifiers(result)}),
    }


def _draws(result: UnfoldingResult, tree: object) -> str:
    method = result.record.settings.sampling
    note = f"<p>{html.escape(method.note)}</p>" if method.note else ""
    if method.is_gaussian:
        return note
    return note + _grid("diagnostics", {"posterior of step 1, first iteration": plot_draws(tree)})  # type: ignore[arg-type]


def _inputs(rows: Sequence[Mapping[str, object]]) -> str:
    head = "".join(f"<th>{html.escape(str(key))}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row.values()) + "</tr>" for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _settings(result: UnfoldingResult) -> str:
    return f"<pre>{html.escape(result.summary())}</pre>" + _versions(result.configuration)


def _versions(settings: Mapping[str, object]) -> str:
    text = json.dumps({"settings": settings, "versions of this page": installed_versions()}, indent=1, default=str)
    return f"<pre>{html.escape(text)}</pre>"
