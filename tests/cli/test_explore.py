"""The live page: its controls in Python, and itself in a real browser."""

import csv
import http.client
import json
import socket
import sys
import threading
import time
import tomllib
from dataclasses import replace

import hist
import numpy as np
import pytest
import uhi.io.json

import bayesunfold as bu
from bayesunfold.cli.explore import Explorer, serve
from bayesunfold.cli.models import read_model

pytestmark = [
    # raised on import by the packages that Panel brings along
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]


@pytest.fixture(scope="module")
def result():
    toy = bu.datasets.gaussian_toy(400, 500, dimension=2, random_seed=1)
    unfolder = bu.OmniFold(2, bu.Network(hidden=(8,)), inference="laplace", draws=50, random_seed=1, progressbar=False)
    return unfolder.fit(toy.simulation, toy.measurement)


def test_controls_choose_the_spectrum(result):
    page = Explorer(result)
    page.observable.value = result.simulation.gen_names[1]
    page.edges.value = "-3, 0; 1,4"
    page.normalization.value = "density"
    page.level.value = 0.9
    page.update()
    expected = result.spectrum(result.simulation.gen_names[1], [-3, 0, 1, 4], normalization="density")
    assert np.array_equal(page.spectrum.nominal, expected.nominal)
    rows = list(csv.reader(page.csv()))
    assert rows[0][:6] == ["from", "to", "unfolded", "90 % low", "90 % high", "std"]
    assert np.array(rows[1:], dtype=float)[:, 3] == pytest.approx(expected.interval(0.9)[0])
    assert np.array(rows[1:], dtype=float)[:, 6:] == pytest.approx(expected.covariance())
    read = hist.Hist(json.loads(page.hist().read(), object_hook=uhi.io.json.object_hook))
    assert read.values() == pytest.approx(expected.nominal)
    assert page.png().getvalue()[:4] == b"\x89PNG"
    assert "90 % low" in page.table.object


def test_predictions_are_drawn_with_their_own_weights_or_at_the_unfolded_yield(result, tmp_path):
    """Events of a file, weighted; a feature that it lacks is said."""
    first, second = result.simulation.gen_names
    rng = np.random.default_rng(1)
    values, weight = rng.normal(size=2000), rng.uniform(0.5, 1.5, 2000)
    np.savez(tmp_path / "herwig.npz", **{first: values, "weight": weight, "other": values})
    model = read_model(tmp_path / "herwig.npz", (first, second))
    page = Explorer(result, models={"Herwig": model})
    page.edges.value = "-1, 0, 1"
    spectrum, total = page.spectrum, result.nominal.sum()
    expected = np.histogram(values, [-1, 0, 1], weights=weight)[0]
    assert model.contents(first, spectrum, total) == pytest.approx(expected)
    shape = result.spectrum(first, [-1, 0, 1], normalization="shape")  # of all events, also outside of the bins
    assert model.contents(first, shape, total) == pytest.approx(expected / weight.sum())
    np.savez(tmp_path / "shape.npz", **{first: values})
    scaled = read_model(tmp_path / "shape.npz", (first,)).contents(first, spectrum, total)
    assert scaled == pytest.approx(np.histogram(values, [-1, 0, 1])[0] * total / 2000)
    np.savez(tmp_path / "bad.npz", **{first: np.array([1.0, np.inf])})
    with pytest.raises(bu.errors.InputError, match="is infinite at row 1"):
        read_model(tmp_path / "bad.npz", (first,))
    texts = [text.get_text() for text in page.figure.object.axes[0].get_legend().get_texts()]
    assert any(text.startswith("Herwig") for text in texts)
    page.observable.value = second
    assert f"Herwig has no {second}." in page.message.object
    with pytest.raises(bu.errors.InputError, match="name at least one as a feature"):
        read_model(tmp_path / "herwig.npz", ("pt",))


def test_a_mistake_is_shown_and_the_last_spectrum_stays(result):
    page = Explorer(result)
    before = page.spectrum
    page.edges.value = "3, 1"
    assert "role='alert'" in page.message.object
    page.edges.value = "one, two"
    assert "no list of numbers" in page.message.object
    assert page.spectrum is before
    page.edges.value = ""
    assert "alert" not in page.message.object


def test_in_a_real_browser(result, browser):
    """Everything comes from the loopback address, without errors, and changes when a control changes."""
    from selenium.webdriver.common.keys import Keys

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve(result, port, show=False, threaded=True)
    # panes live in shadow roots
    find = """
        const all = (root, what) => [...root.querySelectorAll(what),
            ...[...root.querySelectorAll('*')].filter(e => e.shadowRoot).flatMap(e => all(e.shadowRoot, what))];
        return all(document, arguments[0]);"""

    def wait_for(condition):
        for _ in range(120):
            if condition():
                return True
            time.sleep(0.25)
        return False

    def rows():
        return len(browser.execute_script(find, "tbody tr"))

    try:

        def listening():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        assert wait_for(listening)
        browser.get(f"http://127.0.0.1:{port}/")
        assert wait_for(lambda: rows() == 15)
        assert wait_for(lambda: len(browser.execute_script(find, "img")) == 2)
        (edges,) = (
            e for e in browser.execute_script(find, "input") if e.get_attribute("placeholder") == "0, 10, 20, 50"
        )
        edges.send_keys("-3, 0, 3", Keys.ENTER)
        assert wait_for(lambda: rows() == 2)
        loaded = browser.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
        assert all(url.startswith(("http://127.0.0.1:", "data:", "blob:")) for url in loaded)
        assert [m for m in browser.get_log("browser") if m["level"] == "SEVERE"] == []
    finally:
        server.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "evil.example"])
def test_only_loopback_names_are_answered(result, host):
    """A foreign page may point its own name at this machine (DNS rebinding); its requests get no data."""
    from panel.io.state import state

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = serve(result, port, show=False, threaded=True)
    try:
        for _ in range(120):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.25)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/", headers={"Host": f"{host}:{port}"})
        assert connection.getresponse().status == 200
        connection.close()
        (session,) = state._servers[server.server_id][0].get_sessions()
        texts = [str(model.text) for model in session.document.models if hasattr(model, "text")]
        assert any("is served at http://127.0.0.1 only" in text for text in texts) == (host == "evil.example")
        assert any("draws, yield" in text for text in texts) != (host == "evil.example")
    finally:
        server.stop()


def test_another_result_stands_beside_and_systematics_move(result):
    toy = bu.datasets.gaussian_toy(400, 500, dimension=2, random_seed=1)
    tilt = bu.Systematic("tilt", weight_up=np.exp(0.1 * toy.gen[:, 0]), weight_down=np.exp(-0.1 * toy.gen[:, 0]))
    unfolder = bu.OmniFold(2, bu.Network(hidden=(8,)), inference="laplace", draws=50, random_seed=2, progressbar=False)
    varied = unfolder.fit(toy.simulation, toy.measurement, systematics=[tilt])
    page = Explorer(varied, {"the other": result})
    page.edges.value = "-3, 0, 4"
    labels = page.figure.object.axes[0].get_legend_handles_labels()[1]
    assert labels[-1] == "the other"
    page.others["one feature"] = bu.unfold(
        toy.gen[:, 0], toy.reco[:, 0], toy.data[:, 0], iterations=1, inference="laplace", draws=20, progressbar=False
    )
    page.observable.value = varied.simulation.gen_names[1]
    assert "one feature has no" in page.message.object
    page.observable.value = varied.simulation.gen_names[0]
    page.edges.value = "-3, 0, 4"
    page.moved["tilt"].value = -2.0
    page.update()
    line = page.figure.object.axes[0].patches[-1].get_data().values
    down = page.spectrum.ranking().query("source == 'tilt'").set_index("bin").loc[page.spectrum.bin_labels, "down"]
    assert line == pytest.approx(page.spectrum.nominal + 2 * down.to_numpy())


def test_a_blind_result_is_called_that(result):
    blind = replace(result, record=replace(result.record, blind=True))

    def notes(page):
        return [p.object for p in page.page().select(page.pn.pane.HTML) if "BLIND" in str(p.object)]

    assert notes(Explorer(result)) == []
    assert [note[:9] for note in notes(Explorer(blind))] == ["<b>BLIND:"]
    assert [note[:16] for note in notes(Explorer(result, {"other": blind}))] == ["<b>other: BLIND:"]


def test_the_binning_goes_out_as_toml(result):
    page = Explorer(result)
    page.edges.value = "-3, 0.12345678, 4.5"
    (entry,) = tomllib.loads(page.toml().read())["spectrum"]
    assert entry == {
        "observable": result.simulation.gen_names[0],
        "bins": [-3, 0.12345678, 4.5],
        "normalization": "yield",
    }


def test_the_address_is_printed_at_once(result, monkeypatch):
    """A log that buffers has the address while the page is served, of a port that was free."""
    from panel.io.state import state

    class Log:
        written = flushed = ""

        def write(self, text):
            self.written += text

        def flush(self):
            self.flushed = self.written

    log, known = Log(), set(state._servers)
    monkeypatch.setattr(sys, "stdout", log)
    thread = threading.Thread(target=serve, args=(result, 0), kwargs={"show": False}, daemon=True)
    thread.start()
    for _ in range(240):
        if "http://" in log.flushed:
            break
        time.sleep(0.25)
    ((server, *_),) = (state._servers[key] for key in state._servers.keys() - known)
    try:
        assert log.flushed == f"the page is at http://127.0.0.1:{server.port}\n"
        assert server.port > 0
    finally:
        server.io_loop.add_callback(server.io_loop.stop)
        thread.join(60)
    assert not thread.is_alive()
