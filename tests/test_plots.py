"""Figures show what they are given; looks are for eyes."""

import matplotlib as mpl
import numpy as np
import pytest
from conftest import require
from matplotlib.figure import Figure

import bayesunfold as bu
from bayesunfold import plots
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectra

EDGES = np.array([0.0, 1.0, 2.0, 4.0])
CONTENTS = np.array([100.0, 200.0, 50.0])


def _spectrum(**options):
    drawn = np.random.default_rng(1).normal(CONTENTS, [5.0, 8.0, 4.0], (2000, 3))
    return bu.Spectrum((EDGES,), drawn, CONTENTS, **({"names": ("pt",), "units": ("GeV",)} | options))


def _in_two(**options):
    edges = np.array([0.0, 1.0, 3.0]), EDGES
    contents = np.concatenate([CONTENTS, CONTENTS / 2])
    drawn = np.random.default_rng(2).normal(contents, np.sqrt(contents), (500, 6))
    return bu.Spectrum(edges, drawn, contents, names=("y", "pt"), units=("", "GeV"), **options)


def _legend(ax):
    return ax.get_legend_handles_labels()[1]


def test_models_have_their_chi_square_and_other_methods_their_errors():
    spectrum, other = _spectrum(), _spectrum(method="IBU")
    model = CONTENTS * 1.1
    top, bottom = spectrum.plot(models={"Herwig": model, "IBU": other}).axes
    herwig, ibu = _legend(top)[-2:]
    chi2 = spectrum.chi2(model)
    assert herwig == rf"Herwig ($\chi^2$ = {chi2.value:.1f} / 3, p = {chi2.p_value:.2g})"
    assert ibu == "IBU"
    (errors,) = top.containers
    np.testing.assert_allclose(errors.lines[0].get_ydata(), CONTENTS)
    heights = np.diff([segment[:, 1] for segment in errors.lines[2][0].get_segments()], axis=1).ravel()
    np.testing.assert_allclose(heights, 2 * other.std())
    (ratio,) = bottom.containers
    np.testing.assert_allclose(ratio.lines[0].get_ydata(), 1.0)


def test_a_model_without_a_chi_square_is_drawn_without_it():
    few = bu.Spectrum((EDGES,), _spectrum().draw_matrix[:4], CONTENTS)
    assert _legend(few.plot(models={"Herwig": CONTENTS}).axes[0])[-1] == "Herwig"


def test_wrong_models_are_errors():
    with pytest.raises(InputError, match="3 bin contents"):
        _spectrum().plot(models={"Herwig": [1.0]})
    other = bu.Spectrum((EDGES + 1,), _spectrum().draw_matrix, CONTENTS)
    with pytest.raises(InputError, match="bins of 'IBU' are not those"):
        _spectrum().plot(models={"IBU": other})
    with pytest.raises(InputError, match="normalised as 'shape'"):
        _spectrum().plot(models={"IBU": _spectrum(normalization="shape")})
    with pytest.raises(InputError, match=r"NaN or infinite in bins \[1\]"):
        _spectrum().plot(models={"Herwig": [1.0, np.nan, 1.0]})


def test_the_ratios_show_models_that_are_not_too_far():
    low, high = _spectrum().plot(models={"Herwig": 1.4 * CONTENTS}).axes[1].get_ylim()
    assert low < 1.0 < 1.4 < high


def test_legends_in_axes_of_ones_own_are_small():
    panels = Figure(figsize=(18, 4)).subplots(1, 3)
    _spectrum().plot(ax=panels[0], models={"Herwig": CONTENTS})
    assert panels[0].get_legend().get_texts()[0].get_fontsize() < mpl.rcParams["font.size"]


# the others go the same way
OTHER_STYLES = [pytest.param(name, marks=pytest.mark.slow) for name in ("ALICE", "DUNE", "LHCb")]


@pytest.mark.parametrize("experiment", ["ATLAS", "CMS", *OTHER_STYLES])
def test_styles_of_experiments_are_theirs_and_go_no_further(experiment):
    styles = require("mplhep").style
    before = dict(mpl.rcParams)
    figure = _spectrum().plot(models={"Herwig": CONTENTS}, experiment=experiment)
    assert dict(mpl.rcParams) == before
    assert figure.get_figwidth() == getattr(styles, experiment)["figure.figsize"][0]
    label = figure.axes[1].xaxis.label
    assert label.get_fontname() in mpl.font_manager.get_font_names()
    for draw in (plots.plot_sources, plots.plot_correlation):
        assert draw(_spectrum(exact_sources={"data": np.ones(3)}), experiment=experiment).axes


def test_a_style_is_known_and_for_new_figures():
    with pytest.raises(InputError, match="experiment is 'UA1'"):
        _spectrum().plot(experiment="UA1")
    with pytest.raises(InputError, match="Omit one of the two"):
        _spectrum().plot(ax=Figure().subplots(), experiment="CMS")


def test_the_axes_say_what_per_what():
    bottom_title = [_spectrum(normalization=n).plot().axes[0].get_ylabel() for n in ("yield", "density", "shape")]
    assert bottom_title == ["events / bin", "events / GeV", "fraction of events / bin"]
    top, bottom = _spectrum().plot(data=CONTENTS).axes
    assert bottom.get_xlabel() == "pt [GeV]"
    assert "data, detector level" in _legend(top)


def test_two_observables_in_a_row_have_named_slices():
    top, bottom = _in_two().plot().axes
    assert [text.get_text() for text in top.texts] == ["y: 0 to 1", "1 to 3"]
    assert [float(text.get_position()[0]) for text in top.texts] == [1.5, 4.5]
    assert bottom.get_xlim() == (0.0, 6.0)


def test_slices_show_their_part():
    truth = np.arange(6.0).reshape(2, 3)
    figure = plots.plot_slices(_in_two(), truth=truth)
    assert [ax.get_title() for ax in figure.axes] == ["y: 0 to 1", "y: 1 to 3"]
    drawn = figure.axes[1].patches[-1].get_data()
    np.testing.assert_array_equal(drawn.values, truth[1])
    np.testing.assert_array_equal(drawn.edges, EDGES)
    with pytest.raises(InputError, match="two axes"):
        plots.plot_slices(_spectrum())
    with pytest.raises(InputError, match="6 bin contents"):
        plots.plot_slices(_in_two(), truth=[1.0])
    with pytest.raises(InputError, match="6 bin contents"):
        plots.plot_slices(_in_two(), truth=truth.T)
    assert _in_two().plot(truth=truth).axes


def test_every_slice_at_the_lower_edge_has_numbers():
    edges = np.arange(6.0), np.array([0.0, 1.0, 2.0])
    figure = plots.plot_slices(bu.Spectrum(edges, np.ones((3, 10)), np.ones(10)))
    shown = [ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes[:5]]
    assert shown == [False, False, True, True, True]


def test_a_map_has_contents_and_relative_widths():
    spectrum = _in_two()
    left, right = plots.plot_map(spectrum).axes[:2]
    np.testing.assert_array_equal(left.collections[0].get_array(), spectrum.nominal.reshape(2, 3).T)
    low, high = spectrum.interval(0.68)
    expected = (50 * (high - low) / spectrum.nominal).reshape(2, 3).T
    np.testing.assert_allclose(right.collections[0].get_array(), expected)
    assert left.texts[0].get_text() == "100"
    with pytest.raises(InputError, match="a map is for two"):
        plots.plot_map(_spectrum())


def test_a_map_of_empty_bins_is_drawn():
    spectrum = bu.Spectrum(_in_two().edges, np.zeros((10, 6)), np.zeros(6), names=("y", "pt"))
    plots.plot_map(spectrum).draw_without_rendering()


def test_correlations_have_edges_and_blocks():
    ax = plots.plot_correlation(_spectrum()).axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1", "2", "4"]
    assert ax.get_xlabel() == ax.get_ylabel() == "pt [GeV]"
    two = plots.plot_correlation(Spectra(pt=_spectrum(), mass=_spectrum(names=("mass",)))).axes[0]
    assert two.get_xlabel() == "pt [GeV], then mass [GeV]"
    assert [line.get_xdata()[0] for line in two.lines if line.get_xdata()[0] == line.get_xdata()[1]] == [3]
    np.testing.assert_allclose(two.collections[0].get_array().diagonal(3), 1.0)  # the same draws twice
    assert plots.plot_correlation(_in_two()).axes[0].get_xlabel() == "pt [GeV], in slices of y"
    assert plots.plot_correlation({"a": _spectrum(), "b": _spectrum()}).axes
    with pytest.raises(InputError, match="no spectra"):
        plots.plot_correlation(Spectra())


def test_the_gap_between_total_and_stacked_sources_is_said():
    """Two sources that are one: the total is twice each, the stack sqrt(2) of it, so 29 % of the total are between."""
    draws = np.random.default_rng(3).normal(CONTENTS, 5.0, (1000, 3))
    half = {name: lambda: CONTENTS + (draws - CONTENTS) / 2 for name in ("data", "prior")}
    figure = plots.plot_sources(bu.Spectrum((EDGES,), draws, CONTENTS, sources=half))
    assert "Of the total, +29 to +29 %" in figure.get_supxlabel()
    exact = bu.MatrixInversion().fit(bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600]), [100, 150])
    assert plots.plot_sources(exact).get_supxlabel() == ""


def test_tables_in_every_form():
    spectrum = _spectrum()
    markdown = spectrum.table(CONTENTS, form="markdown").splitlines()
    assert len(markdown) == 5
    assert markdown[1] == "|---:|---:|---:|---:|---:|---:|"
    assert [cell.strip() for cell in markdown[2].split("|")[1:3]] == ["[0, 1)", "100"]
    latex = spectrum.table(form="latex").splitlines()
    assert latex[0] == r"\begin{tabular}{rrrr}"
    assert r"68 \% low" in latex[1]
    assert latex[1].endswith(r"\\")
    assert latex[-1] == r"\end{tabular}"
    assert all(row.lstrip().startswith("{[}") for row in latex[3:-1])  # "\\ [" would be a distance
    csv = spectrum.table(form="csv").splitlines()
    assert csv[0] == "bin,unfolded,68 % low,68 % high"
    assert csv[1].startswith('"[0, 1)",100,')
    assert spectrum.table().splitlines()[0].split() == ["bin", "unfolded", "68", "%", "low", "68", "%", "high"]
    with pytest.raises(InputError, match="form is 'html'"):
        spectrum.table(form="html")


def test_what_lies_beyond_the_ratio_panel_is_marked():
    spectrum = _spectrum()
    _, ratios = spectrum.plot(truth=1.3 * CONTENTS, generator=[300.0, 20.0, 50.0]).axes
    low, high = ratios.get_ylim()
    assert low < 0.7
    assert high > 1.3
    marks = {(line.get_marker(), tuple(line.get_xdata())) for line in ratios.lines if line.get_marker() in ("^", "v")}
    assert marks == {("^", (0.5,)), ("v", (1.5,))}


def test_a_band_is_called_by_its_level():
    top, _ = plots.plot_spectrum(_spectrum(), levels=(0.68, 0.997)).axes
    assert {"68 % band", "99.7 % band"} <= set(_legend(top))


def _columns(legend):
    return len({round(text.get_window_extent().x0) for text in legend.get_texts()})


@pytest.mark.parametrize(
    ("name", "columns"), [("Pythia 8", 2), ("Powheg + Pythia 8 (A14, NNPDF3.0)", 1), ("x" * 30, 1)]
)
def test_legends_lie_in_their_panel(name, columns):
    """Long names stand in one column; the legend's lower end is above everything that is drawn."""
    figure = _spectrum().plot(truth=CONTENTS, models={f"{name} {k}": CONTENTS * (1 + k / 10) for k in range(3)})
    figure.draw_without_rendering()
    top = figure.axes[0]
    legend, panel = top.get_legend().get_window_extent(), top.get_window_extent()
    assert _columns(top.get_legend()) == columns
    assert panel.x0 <= legend.x0
    assert legend.x1 <= panel.x1
    highest = max(1.2 * CONTENTS.max(), _spectrum().interval(0.95)[1].max())
    assert top.transData.transform((0, highest))[1] < legend.y0


def test_negative_contents_have_room_for_a_legend_above_them():
    drawn = np.random.default_rng(1).normal([-5.0, -7.0], 1.0, (300, 2))
    spectrum = bu.Spectrum((np.array([0.0, 1.0, 2.0]),), drawn, np.array([-5.0, -7.0]))
    low, high = spectrum.plot(models={"A": [-4.0, -8.0]}).axes[0].get_ylim()
    highest, lowest = spectrum.interval(0.95)[1].max(), spectrum.interval(0.95)[0].min()
    assert low <= lowest
    assert high > highest + 0.3 * (highest - lowest)


def test_names_that_begin_with_an_underscore_are_in_legends():
    """Matplotlib leaves them out."""
    spectrum = _spectrum(exact_sources={"_top": np.ones(3), "data": np.ones(3)})
    models = {"_herwig": CONTENTS, "_ibu": _spectrum()}
    for figure, names in (
        (spectrum.plot(models=models), ["_herwig", "_ibu"]),
        (plots.plot_sources(spectrum), ["_top", "data", "total"]),
        (bu.compare({"_a": _spectrum(), "b": _spectrum()}).plot(), ["_a", "b"]),
    ):
        shown = [text.get_text().strip() for text in figure.axes[0].get_legend().get_texts()]
        assert [text.split(" (")[0] for text in shown][-len(names) :] == names


def test_numbers_in_cells_lie_in_their_cells():
    """Of two narrow columns and a wide one only the wide one has numbers; no two of many lie over each other."""
    edges = np.array([0.0, 1.0, 2.0, 100.0]), np.array([0.0, 1.0, 2.0])
    contents = np.array([1234.0, 2345.0, 3456.0, 4567.0, 5678.0, 6789.0])
    drawn = np.random.default_rng(1).normal(contents, np.sqrt(contents), (100, 6))
    ax = plots.plot_map(bu.Spectrum(edges, drawn, contents)).axes[0]
    assert [text.get_text() for text in ax.texts] == ["5678", "6789"]
    response = bu.ResponseMatrix(np.eye(20), gen_edges=np.geomspace(20, 400, 21), reco_edges=np.geomspace(20, 400, 21))
    figure = response.plot()
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 2 < len(boxes) < 20
    assert not any(a.overlaps(b) for k, a in enumerate(boxes) for b in boxes[:k])


def test_edges_that_differ_have_names_that_differ():
    edges = np.array([5279.0, 5279.2, 5279.4, 5279.6])
    spectrum = bu.Spectrum((edges,), _spectrum().draw_matrix, CONTENTS)
    names = ["5279", "5279.2", "5279.4", "5279.6"]
    assert [tick.get_text() for tick in plots.plot_correlation(spectrum).axes[0].get_xticklabels()] == names
    assert [row.split("]")[0].split(")")[0].strip() for row in spectrum.table().splitlines()[1:]] == [
        "[5279, 5279.2",
        "[5279.2, 5279.4",
        "[5279.4, 5279.6",
    ]
    fine = np.array([1.0, 1.0 + 1e-8, 1.0 + 2e-8]), EDGES
    both = bu.Spectrum(fine, _in_two().draw_matrix, _in_two().nominal, names=("y", "pt"))
    titles = [ax.get_title() for ax in plots.plot_slices(both).axes]
    assert titles == ["y: 1 to 1.00000001", "y: 1.00000001 to 1.00000002"]


def test_every_level_of_coverage_has_its_colour():
    found, none, levels = np.full((9, 1), 100.0), np.zeros((9, 1)), tuple(np.linspace(0.5, 0.95, 8))
    ends = np.full((9, 8, 1), 10.0)
    study = bu.CoverageStudy(
        {"x": np.array([0.0, 1.0])},
        np.array([100.0]),
        levels,
        found,
        none + 10.0,
        found[:, None] - ends,
        found[:, None] + ends,
        *(none, none, none, none[:, 0], np.arange(9)),
    )
    drawn = [points.lines[0].get_color() for points in plots.plot_coverage(study).axes[0].containers]
    assert len(drawn) == len(set(drawn)) == 8
