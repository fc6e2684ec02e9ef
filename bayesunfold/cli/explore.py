"""``bayesunfold explore``: a local page on which observable, binning, level and normalisation are chosen live.

Other results stand beside in the same bins, sliders move the nuisance parameters, and the binning goes out as TOML.
That is what unbinned results are for: any histogram, after the fact. The page is served on the loopback address only
and loads nothing from elsewhere.
"""

from __future__ import annotations

import html
import io
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_count
from bayesunfold.errors import BayesUnfoldError, InputError
from bayesunfold.io.arviz import default_bins
from bayesunfold.plots import plot_correlation, plot_spectrum
from bayesunfold.unfolding.record import BLIND

if TYPE_CHECKING:
    from bayesunfold.cli.models import ModelEvents
    from bayesunfold.spectrum import Spectrum
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["Explorer", "serve"]

Array = NDArray[np.floating]
ADDRESS = "127.0.0.1"
LOOPBACK = (ADDRESS, "localhost", "[::1]")
STYLE = """
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.1em 0.7em; text-align: right; border-bottom: 1px solid #ddd; }
"""


def __dir__() -> list[str]:
    return __all__


def _panel() -> Any:
    try:
        import panel as pn
    except ImportError as err:
        msg = "the page needs Panel: install bayesunfold[explore]."
        raise ImportError(msg) from err
    return pn


class Explorer:
    """Controls and what they show.

    Parameters
    ----------
    result : UnfoldingResult
    others : mapping of name to UnfoldingResult, optional
        Drawn beside it in the same bins, of the same observable.
    models : mapping of name to ModelEvents, optional
        Predictions, with chi-square and p-value; those without weights are scaled to the result's yield, which the
        p-value does not count.

    Attributes
    ----------
    observable, bins, range, edges, level, normalization
        Panel widgets; ``edges`` (numbers separated by commas) takes precedence over number and range of equal bins.
    moved : dict of str to widget
        For each systematic, where its parameter is put, in standard deviations; other than zero draws a line.
    """

    def __init__(
        self,
        result: UnfoldingResult,
        others: Mapping[str, UnfoldingResult] | None = None,
        models: Mapping[str, ModelEvents] | None = None,
    ) -> None:
        self.pn = pn = _panel()
        self.result, self.others, self.models = result, dict(others or {}), dict(models or {})
        self.total = float(result.nominal.sum())
        w = pn.widgets
        names = list(result.simulation.gen_names)
        self.observable = w.Select(name="observable", options=names)
        self.bins = w.IntSlider(name="equal bins", start=1, end=60, value=15)
        self.range = w.RangeSlider(name="range", start=0.0, end=1.0, value=(0.0, 1.0), step=0.01)
        self.edges = w.TextInput(name="or edges, separated by commas", placeholder="0, 10, 20, 50")
        self.level = w.FloatSlider(name="credible level", start=0.5, end=0.99, step=0.01, value=0.68)
        self.normalization = w.Select(name="normalisation", options=["yield", "shape", "density"])
        self.message = pn.pane.HTML("", css_classes=["bayesunfold-message"])
        self.figure = pn.pane.Matplotlib(None, format="png", dpi=144, tight=True, width=620)
        self.correlation = pn.pane.Matplotlib(None, format="png", dpi=120, tight=True, width=460)
        self.table = pn.pane.HTML("", stylesheets=[STYLE])
        self.spectrum: Spectrum | None = None
        self._downloads = [
            w.FileDownload(
                callback=getattr(self, name), filename=f"spectrum.{ending}", label=label, button_type="primary"
            )
            for name, ending, label in (
                ("csv", "csv", "CSV (bins, bands, covariance)"),
                ("png", "png", "PNG"),
                ("hist", "hist.json", "hist (UHI JSON)"),
                ("toml", "toml", "binning as TOML"),
            )
        ]
        self.moved = {
            name: w.FloatSlider(name=f"{name} [standard deviations]", start=-3.0, end=3.0, step=0.1, value=0.0)
            for name in result.members.systematics
        }
        self._set_range(names[0])
        self.observable.param.watch(lambda event: self._set_range(event.new), "value")
        for control in (self.bins, self.range, self.level, *self.moved.values()):  # when let go, not on the way
            control.param.watch(lambda _: self.update(), "value_throttled")
        for control in (self.edges, self.normalization):
            control.param.watch(lambda _: self.update(), "value")

    def _set_range(self, name: str) -> None:
        """Range of the slider for another observable."""
        edges = default_bins(self.result.simulation.gen_column(name)[self.result.simulation.pass_gen])
        low, high = float(edges[0]), float(edges[-1])
        margin = 0.25 * (high - low)
        self.range.param.update(start=low - margin, end=high + margin, value=(low, high), step=(high - low) / 200)
        if self.edges.value:
            self.edges.value = ""  # whose watcher updates
        else:
            self.update()

    def chosen_edges(self) -> Array:
        """Bin edges that the controls ask for."""
        text = self.edges.value.strip()
        if not text:
            low, high = self.range.value
            return np.linspace(float(low), float(high), int(self.bins.value) + 1)
        try:
            return np.array([float(part) for part in text.replace(";", ",").split(",") if part.strip()])
        except ValueError as err:
            msg = f"{text!r} is no list of numbers; write for instance 0, 10, 20, 50."
            raise InputError(msg) from err

    def update(self) -> None:
        """Make the spectrum anew and show it; an error is shown in its place."""
        name, level = self.observable.value, float(self.level.value)
        try:
            chosen = {"bins": self.chosen_edges(), "normalization": self.normalization.value}
            spectrum = self.result.spectrum(name, **chosen)
            has = {label: other for label, other in self.others.items() if name in other.simulation.gen_names}
            beside = {label: other.spectrum(name, **chosen) for label, other in has.items()}
        except BayesUnfoldError as err:
            self.message.object = f"<p role='alert'>{html.escape(str(err))}</p>"
            return
        self.spectrum = spectrum
        known = {label: model for label, model in self.models.items() if name in model.columns}
        predicted = {
            label if model.weight is not None else f"{label}, scaled": model.contents(name, spectrum, self.total)
            for label, model in known.items()
        }
        without = [f"{label} has no {name}." for label in (*self.others, *self.models) if label not in has | known]
        self.message.object = f"<p>{html.escape(' '.join([repr(spectrum), *without]))}</p>"
        models: dict[str, Any] = beside | predicted | self._with_systematics(spectrum)
        self.figure.object = plot_spectrum(spectrum, levels=(level,), label=name, models=models)
        self.correlation.object = plot_correlation(spectrum)
        self.table.object = self._table_html()

    def _with_systematics(self, spectrum: Spectrum) -> dict[str, Array]:
        """Contents with the parameters where the sliders are, by their impacts; nothing if all are at zero."""
        set_to = {name: float(slider.value) for name, slider in self.moved.items() if slider.value}
        if not set_to:
            return {}
        table = spectrum.ranking()
        contents = spectrum.nominal.copy()
        for name, value in set_to.items():
            rows = table[table["source"] == name]  # in the order of the bins
            contents += abs(value) * rows["up" if value > 0 else "down"].to_numpy()
        return {"systematics as set": contents}

    def _rows(self) -> tuple[list[str], list[list[float]]]:
        s, level = self._current(), float(self.level.value)
        low, high = s.interval(level)
        heads = ["from", "to", "unfolded", f"{100 * level:.0f} % low", f"{100 * level:.0f} % high", "std"]
        columns = (s.edges[0][:-1], s.edges[0][1:], s.nominal, low, high, s.std())
        return heads, [[float(v) for v in row] for row in zip(*columns, strict=True)]

    def _current(self) -> Spectrum:
        if self.spectrum is None:
            msg = "there is no spectrum yet; choose bins that increase."
            raise InputError(msg)
        return self.spectrum

    def _table_html(self) -> str:
        heads, rows = self._rows()
        top = "".join(f"<th>{html.escape(h)}</th>" for h in heads)
        body = "".join("<tr>" + "".join(f"<td>{v:.5g}</td>" for v in row) + "</tr>" for row in rows)
        return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"

    def csv(self) -> io.StringIO:
        """Bins, bands and covariance of the spectrum on the page."""
        heads, rows = self._rows()
        heads = heads + [f"covariance {b}" for b in range(len(rows))]
        lines = [",".join(heads)]
        for row, covariance in zip(rows, self._current().covariance(), strict=True):
            lines.append(",".join(repr(float(v)) for v in [*row, *covariance]))
        return io.StringIO("\n".join(lines) + "\n")

    def png(self) -> io.BytesIO:
        """The figure."""
        out = io.BytesIO()
        self.figure.object.savefig(out, format="png", dpi=200)
        out.seek(0)
        return out

    def hist(self) -> io.StringIO:
        """The histogram with variances in the Universal Histogram Interface's JSON form."""
        import uhi.io.json

        return io.StringIO(json.dumps(self._current().to_hist(), default=uhi.io.json.default))

    def toml(self) -> io.StringIO:
        """Observable and binning as an entry of a configuration of ``bayesunfold unfold``."""
        spectrum = self._current()
        lines = [
            "[[spectrum]]",
            f"observable = {json.dumps(spectrum.names[0])}",
            f"bins = [{', '.join(repr(float(edge)) for edge in spectrum.edges[0])}]",
            f'normalization = "{spectrum.normalization}"',
        ]
        return io.StringIO("\n".join(lines) + "\n")

    def page(self) -> Any:
        """Everything laid out."""
        pn = self.pn
        controls = pn.Column(
            "## bayesunfold",
            self.observable,
            self.bins,
            self.range,
            self.edges,
            self.level,
            self.normalization,
            *self.moved.values(),
            *self._downloads,
            width=320,
        )
        results = {"": self.result, **self.others}
        blind = [f"{name}: {BLIND}" if name else BLIND for name, result in results.items() if result.record.blind]
        notes = [pn.pane.HTML(f"<b>{html.escape(note)}</b>") for note in blind]
        shown = pn.Column(*notes, self.message, self.figure, self.table)
        return pn.FlexBox(controls, shown, self.correlation, align_items="flex-start")


def _page_for(
    result: UnfoldingResult, others: Mapping[str, UnfoldingResult], models: Mapping[str, ModelEvents], host: str
) -> Any:
    """The page, for requests that name this machine; another name may be a trick of a foreign page (DNS rebinding)."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    if name in LOOPBACK:
        return Explorer(result, others, models).page()
    return _panel().pane.HTML(f"This page is served at http://{ADDRESS} only, not at {html.escape(host)}.")


def serve(
    result: UnfoldingResult,
    port: int = 5006,
    *,
    others: Mapping[str, UnfoldingResult] | None = None,
    models: Mapping[str, ModelEvents] | None = None,
    show: bool = True,
    threaded: bool = False,
) -> Any:
    """Serve the page on the loopback address until interrupted; the address is printed once it is served.

    Parameters
    ----------
    result : UnfoldingResult
    port : int
        0 takes a free one; at most 65535.
    others : mapping of name to UnfoldingResult, optional
        Drawn beside it.
    models : mapping of name to ModelEvents, optional
        Predictions, drawn too.
    show : bool
        Open a browser.
    threaded : bool
        Return at once; the server, which is returned, has ``stop()``.

    Raises
    ------
    ImportError
        Without Panel (extra ``explore``).
    InputError
        For a port that does not exist.

    Notes
    -----
    Requests whose ``Host`` is not a loopback name get no data.
    """
    pn = _panel()
    check_count(port, "port", 0, 65535)
    pn.extension()
    server = pn.serve(
        lambda: _page_for(
            result, others or {}, models or {}, str(pn.state.headers.get("Host", ""))
        ),  # a page of its own for every visitor
        address=ADDRESS,
        port=port,
        websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"] if port else None,
        show=show,
        threaded=threaded,
        title="bayesunfold",
        start=threaded,
        verbose=threaded,
    )
    if threaded:
        return server
    print(f"the page is at http://{ADDRESS}:{server.port}", flush=True)  # a log has it at once
    server.start()
    if not server.io_loop.asyncio_loop.is_running():  # that of a notebook is
        server.io_loop.start()
    return server
