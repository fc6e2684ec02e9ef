"""The dashboard, read by a parser and by a real browser."""

import html
import json
import warnings
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray as xr

import bayesunfold as bu
import bayesunfold.report.html as module
from bayesunfold.errors import BayesUnfoldWarning, ConvergenceWarning, InputError, InputTypeError
from bayesunfold.report.checks import DetectorClosure, _closure_check
from bayesunfold.report.figures import plot_classifiers
from bayesunfold.report.html import HOW_TO_READ, generator_of

SECTIONS = [
    "verdict",
    "spectra",
    "uncertainty-by-source",
    "correlations",
    "iterations",
    "classifiers",
    "closure-at-detector-level",
    "weights",
    "posterior-draws",
    "settings",
]


@pytest.fixture(scope="module", params=[pytest.param("advi", marks=pytest.mark.slow), "laplace"])
def page(request, tmp_path_factory):
    toy = bu.datasets.gaussian_toy(600, 600, random_seed=1)
    settings = {"iterations": 3, "inference": request.param, "draws": 100, "random_seed": 1, "progressbar": False}
    settings["network"] = bu.Network(hidden=(6,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of 3 iterations, for some data
        result = bu.unfold(toy.gen, toy.reco, toy.data, **settings)
    return result.report(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture
def no_figures(monkeypatch):
    """Figures are not drawn, where a test asserts nothing about them; the pages above have them."""
    monkeypatch.setattr(module, "_svg", lambda *_: "<svg></svg>")


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        if tag == "section":
            self.ids.append(attrs["id"])
        self.links += [v for k, v in attrs.items() if k in ("href", "src", "xlink:href") and v]


def test_sections_are_there_and_nothing_is_loaded_from_elsewhere(page):
    reader = _Reader()
    reader.feed(page.read_text())
    assert reader.ids == SECTIONS
    assert "script" not in reader.tags
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert reader.tags.count("svg") >= 7


@pytest.mark.usefixtures("no_figures")
def test_a_failed_check_says_what_to_do(tmp_path):
    toy = bu.datasets.gaussian_toy(600, 600, smear=1.5, random_seed=1)
    result = bu.unfold(
        toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=100, random_seed=1, progressbar=False
    )
    text = result.report(tmp_path / "r.html").read_text()
    assert "need attention" in text
    assert "take more iterations" in text


@pytest.mark.parametrize("dark", [False, True])
def test_in_a_real_browser(page, browser, dark):
    """No console errors, all figures drawn, no horizontal scroll on a phone 400 pixels wide."""
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri())
    assert browser.get_log("browser") == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
    heights = browser.execute_script(
        "return [...document.querySelectorAll('figure > svg')].map(s => s.getBoundingClientRect().height)"
    )
    assert len(heights) >= 7
    assert min(heights) > 50
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") != dark


def test_spectra_of_any_method_have_a_page(tmp_path):
    rng = np.random.default_rng(1)
    gen = rng.normal(0, 1, 3000)
    simulation = bu.Simulation(gen, gen + rng.normal(0, 0.3, 3000))
    edges = np.linspace(-2, 2, 9)
    R = bu.ResponseMatrix.from_events(simulation, edges)
    data = np.histogram(rng.normal(0.1, 1, 1000), edges)[0]
    spectra = {"IBU": bu.IBU(3).fit(R, data), "no errors": bu.IBU(3, errors=False).fit(R, data)}
    text = bu.report.write_report(spectra, tmp_path / "r.html").read_text()
    for section in ("spectra", "uncertainty-by-source", "correlations", "tables", "settings"):
        assert f'<section id="{section}">' in text
    assert spectra["IBU"].report(tmp_path / "one.html").exists()
    noted = bu.report.write_report(spectra, tmp_path / "n.html", notes=["PSEUDO-DATA"], inputs=[{"file": "toy.root"}])
    for words in ("PSEUDO-DATA", "toy.root"):
        assert words in noted.read_text()
        assert words in noted.with_suffix(".json").read_text()
    assert json.loads(noted.with_suffix(".json").read_text())["spectra"]["IBU"]["luminosity"] is None
    with pytest.raises(InputError, match=r"name an \.html file"):
        bu.report.write_report(spectra, tmp_path / "r.json")
    with pytest.raises(InputError, match="bins already"):
        bu.report.write_report(spectra, tmp_path / "r.html", {"x": edges})


def test_chains_are_drawn_with_energy_and_effective_size():
    from bayesunfold.report.figures import plot_draws

    rng = np.random.default_rng(1)
    tree = xr.DataTree.from_dict(
        {
            "fit": xr.Dataset(),
            "posterior": xr.Dataset({"log_ratio": (("chain", "draw", "probe"), rng.normal(size=(4, 100, 3)))}),
            "sample_stats": xr.Dataset({"energy": (("chain", "draw"), rng.normal(size=(4, 100)))}),
        }
    )
    labels = [ax.get_xlabel() for ax in plot_draws(tree).axes]
    assert labels == ["draw", "rank", "energy, centred", "draws"]


@pytest.mark.usefixtures("no_figures")
def test_the_numbers_stand_beside_the_page(tmp_path):
    toy = bu.datasets.gaussian_toy(400, 800, random_seed=1)
    result = bu.unfold(toy.gen, toy.reco, toy.data, inference="laplace", draws=60, random_seed=1, progressbar=False)
    spectrum = result.spectrum("gen", [-3, 0, 3], normalization="density", unit="GeV")
    rows = [{"sample": "data", "file": "<a>.root", "events": 400}]
    notes = ["BLIND: <no> data"]
    path = bu.report.write_report(result, tmp_path / "r.html", spectra={"gen": spectrum}, notes=notes, inputs=rows)
    text = path.read_text()
    assert "BLIND: &lt;no&gt; data" in text
    assert "&lt;a&gt;.root" in text
    assert '<section id="inputs">' in text
    numbers = json.loads(path.with_suffix(".json").read_text())
    assert numbers["notes"] == notes
    assert numbers["inputs"] == rows
    shown = numbers["spectra"]["gen"]
    np.testing.assert_allclose(shown["nominal"], spectrum.nominal)
    np.testing.assert_allclose(shown["bands"]["0.68"], spectrum.interval(0.68))
    np.testing.assert_allclose(shown["covariance"], spectrum.covariance())
    assert shown["units"] == ["GeV"]
    checks = result.verdicts()
    assert [c["name"] for c in numbers["checks"]] == [c.name for c in checks]
    assert [c["passed"] for c in numbers["checks"]] == [c.passed for c in checks]
    assert str(checks[0]).startswith("[pass] iterations have converged: ")
    assert all(c.about and html.escape(c.about) in text for c in checks if c.name != "sampler")


@pytest.mark.parametrize(
    ("auc", "passed", "words"),
    [
        (0.55, False, "more iterations"),
        (0.52, True, ""),
        (0.49, True, ""),
        (0.475, True, "below one half"),
        (0.46, False, "take fewer iterations"),
    ],
)
def test_a_closure_below_one_half_is_a_sign_too(auc, passed, words):
    line = (np.zeros(2), np.zeros(2))
    check = _closure_check(DetectorClosure(auc, 0.01, 0.7, line, line))
    assert check.passed is passed
    assert words in str(check)
    assert ("below one half" in check.value) == (auc < 0.48)


def test_a_generator_line_is_that_of_the_feature_or_there_is_none(tmp_path):
    """Other units, detector level, and the simulation's histogram at the unfolded yield for the feature itself."""
    toy = bu.datasets.gaussian_toy(100, 200, random_seed=1)
    unfolder = bu.OmniFold(1, bu.Network((4,)), inference="laplace", draws=20, random_seed=1, progressbar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesUnfoldWarning)
        result = unfolder.fit(toy.simulation, toy.data)
    gen, edges = toy.simulation.gen[:, 0], np.array([-1.0, 0.0, 2.0])
    expected = np.histogram(gen, edges)[0] * (100 / 200) / np.diff(edges) / 3.0
    own = result.spectrum("gen", edges, normalization="density", luminosity=3.0, centre="draws")
    np.testing.assert_allclose(generator_of(result, "gen", own), expected, rtol=1e-6)
    assert generator_of(result, "gen", result.spectrum(1000 * gen, 1000 * edges)) is None
    assert generator_of(result, "gen", result.refolded("reco", edges)) is None
    both = result.spectrum(("gen", "gen"), (edges, edges))
    for arguments, error, words in (
        ({"spectra": {"gen": both}}, InputError, "has 2 axes"),
        ({"spectra": {"gen": own}, "bins": {"gen": edges}}, InputError, "in bins and in spectra"),
        ({"spectra": {"gen": edges}}, InputTypeError, "has type ndarray"),
    ):
        with pytest.raises(error, match=words):
            bu.report.write_report(result, tmp_path / "r.html", **arguments)
    assert not (tmp_path / "r.html").exists()


def test_an_unseen_bin_leaves_the_figures_on_the_page(tmp_path):
    """A bin that no simulated event reaches has no point estimate; the others are drawn, and no section is empty."""
    drawn = np.random.default_rng(1).normal([10.0, 20.0, 30.0], 1.0, (100, 3))
    unseen = bu.Spectrum((np.arange(4.0),), drawn, np.array([10.0, 20.0, np.nan]))
    without = bu.Spectrum((np.arange(4.0),), drawn, np.full(3, np.nan))
    for spectra, sections, figures in (
        ({"some": unseen, "none": without}, ["spectra", "correlations", "tables", "settings"], 2),
        ({"none": without}, ["tables", "settings"], 0),
    ):
        reader = _Reader()
        reader.feed(bu.report.write_report(spectra, tmp_path / "r.html").read_text())
        assert reader.ids == sections
        assert reader.tags.count("svg") == figures


def test_checks_say_what_their_method_has(tmp_path):
    """A direct posterior has no iterations, and neither it nor a Laplace loop moves fluctuations onto draws."""
    toy = bu.datasets.gaussian_toy(200, 200, random_seed=1)
    options = {"inference": "laplace", "draws": 20, "random_seed": 1, "progressbar": False}
    small = bu.Network((6,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesUnfoldWarning)
        loop = bu.OmniFold(1, small, **options).fit(toy.simulation, toy.data)
        direct = bu.UnbinnedFBU(small, moments=small, rounds=0, **options).fit(toy.simulation, toy.data)
        for result in (loop, direct):
            checks = {check.name: check for check in result.verdicts()}
            negative = checks["members with negative weights"]
            assert (negative.passed, negative.cure) == (None, "")
        assert not any("iterations" in check.cure for check in checks.values())
        upper, lower = plot_classifiers(loop).axes
    assert upper.get_position().y0 > lower.get_position().y1
    above, below = HOW_TO_READ["Classifiers"].split("Below")
    assert above.startswith("Above, predicted")
    assert "tells apart" in below
    line = (np.zeros(2), np.zeros(2))
    for auc in (0.4, 0.6):
        closure = DetectorClosure(auc, 0.01, 0.7, line, line)
        assert "iterations" in _closure_check(closure).cure
        assert "iterations" not in _closure_check(closure, iterates=False).cure


@pytest.mark.usefixtures("no_figures")
def test_tests_that_were_made_are_lines_of_the_verdict(tmp_path):
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    settings = {"iterations": 1, "inference": "laplace", "draws": 50, "random_seed": 1, "progressbar": False}
    result = bu.unfold(toy.gen, toy.reco, toy.data, **settings)
    good, bad = bu.studies.BottomLine({"pt": 12.0, "m": 3.0}, 14.0), bu.studies.BottomLine({"pt": 20.0}, 14.0)
    null = np.linspace(0.01, 0.99, 99)
    fit = bu.studies.GoodnessOfFit(0.4, 0.0005, null, null)
    closed = bu.studies.GoodnessOfFit(0.4, np.nan)
    few = bu.studies.GoodnessOfFit(0.005, 0.3, null[:3] + 0.01, null[:3])  # the least of four, and small by no means
    path = result.report(tmp_path / "r.html", tests=[few, good, bad, fit, closed])
    checks = json.loads(path.with_suffix(".json").read_text())["checks"]
    found = [(c["name"], c["passed"], c["value"]) for c in checks[-6:]]
    assert [c["passed"] for c in checks[-8:-6]] == [True, True]
    assert found[0] == (
        "bottom line",
        True,
        "chi-square between two models: 12.0 unfolded (pt), 14.0 at detector level",
    )
    assert found[1][:2] == ("bottom line", False)
    assert found[2] == ("goodness of fit, moments", True, "p = 0.41 (99 pseudo-experiments)")
    assert found[3] == ("goodness of fit, second classifier", False, "p = 0.01 (99 pseudo-experiments)")
    assert found[4] == ("goodness of fit, moments", True, "p = 0.4 (closed form)")
    assert found[5] == ("goodness of fit, second classifier", None, "not tested")
    assert "the prior adds what the data do not hold" in path.read_text()
    with pytest.raises(bu.errors.InputTypeError, match=r"what result\.bottom_line"):
        result.report(tmp_path / "r.html", tests=["p = 0.3"])
    result.report(tmp_path / "r.html", tests=good)
    assert json.loads((tmp_path / "r.json").read_text())["checks"][-1]["name"] == "bottom line"
