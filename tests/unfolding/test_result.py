"""What one reads from a result, and that files give it back."""

from __future__ import annotations

import arviz as az
import h5py
import numpy as np
import pytest
import xarray as xr

import bayesunfold as bu
from bayesunfold.errors import FileFormatError, InputError

EDGES = np.array([-5.0, -2.0, 0.0, 2.0, 4.0, 7.0])


def test_spectrum_is_the_histogram_of_the_weights(result, toy):
    spectrum = result.spectrum("gen", EDGES, centre="draws")
    weights = result.weights.values
    index = np.digitize(toy.gen[:, 0], EDGES) - 1
    by_hand = np.stack([weights[:, index == b].sum(axis=1) for b in range(5)], axis=1)
    np.testing.assert_allclose(spectrum.draw_matrix, by_hand, rtol=1e-5)
    np.testing.assert_allclose(spectrum.nominal, [result.nominal[index == b].sum() for b in range(5)])
    outside = weights[:, (index < 0) | (index > 4)].sum(axis=1)
    np.testing.assert_allclose(spectrum.outside, outside, rtol=1e-5)
    centred = result.spectrum("gen", EDGES)
    np.testing.assert_allclose(centred.mean(), centred.nominal, rtol=1e-10)
    np.testing.assert_allclose(centred.std(), spectrum.std(), rtol=1e-10)


@pytest.mark.parametrize("normalization", ["yield", "shape", "density"])
def test_what_is_in_no_bin_is_centred_as_bins_are(result, normalization):
    """Bins and flow add up to one, or to the yield of the point estimate; single draws to those of its members."""
    edges, yields = [-2.0, 0.0, 2.0], result.nominal[result.simulation.pass_gen].sum()
    s = result.spectrum("gen", edges, normalization=normalization)
    volume = 2.0 if normalization == "density" else 1.0
    total = 1.0 if normalization == "shape" else yields
    everything = s.draw_matrix.sum(axis=1) * volume + s.flow[0] + s.flow[1]
    assert everything.mean() == pytest.approx(total, rel=1e-9)
    assert s.to_hist().values(flow=True)[[0, -1]].sum() == pytest.approx(total - s.nominal.sum() * volume, rel=1e-9)
    if normalization == "shape":
        np.testing.assert_allclose(everything, 1.0, rtol=1e-9)
    assert (s.outside + s.undefined).mean() + s.nominal.sum() * volume * yields / total == pytest.approx(yields)
    drawn = result.spectrum("gen", edges, normalization=normalization, centre="draws")
    np.testing.assert_allclose(np.std(s.flow, axis=1), np.std(drawn.flow, axis=1), rtol=1e-6)


def test_draws_of_a_cross_section_have_its_point_estimate_as_their_mean(result):
    """The luminosity is log-normal, of mean ``exp(log(1.4)^2 / 2)``, which is not one."""
    s = result.spectrum("gen", EDGES, luminosity=(2.0, 0.4))
    np.testing.assert_allclose(s.mean(), s.nominal, rtol=1e-9)
    below, above = (values.mean() for values in s.flow)
    outside = np.array(
        [(result.simulation.gen[:, 0] < -5) @ result.nominal, (result.simulation.gen[:, 0] >= 7) @ result.nominal]
    )
    np.testing.assert_allclose([below, above], outside / 2, rtol=1e-9, atol=1e-12)


def test_normalizations(result):
    plain = result.spectrum("gen", EDGES)
    density = result.spectrum("gen", EDGES, normalization="density")
    np.testing.assert_allclose(density.nominal, plain.nominal / np.diff(EDGES))
    np.testing.assert_allclose(density.draw_matrix, plain.draw_matrix / np.diff(EDGES))
    shape = result.spectrum("gen", np.array([-100.0, 0.0, 100.0]), normalization="shape", centre="draws")
    np.testing.assert_allclose(shape.draw_matrix.sum(axis=1), 1.0, rtol=1e-9)


def test_any_observable_in_two_dimensions(result, toy):
    x = toy.gen[:, 0]
    both = result.spectrum((x, x**2), (EDGES, [0.0, 4.0, 100.0]))
    np.testing.assert_allclose(both.draws.sum("bin_1").values, result.spectrum(x, EDGES).draw_matrix, rtol=1e-6)
    joint = result.spectra({"gen": EDGES})
    np.testing.assert_array_equal(joint["gen"].draw_matrix, result.spectrum("gen", EDGES).draw_matrix)


@pytest.mark.parametrize(
    ("values", "bins", "words"),
    [
        ("pt", EDGES, "not a particle-level feature"),
        (np.zeros(3), EDGES, "3 entries"),
        ("gen", EDGES[::-1], "increase"),
        ("gen", [1.0], "at least two"),
        ("gen", [0.0, np.inf], "NaN or infinity"),
        (np.full(800, np.nan), EDGES, "must exist"),
        (np.zeros((800, 2)), EDGES, "2 columns"),
        (("gen", "gen"), (EDGES,), "2 observables"),
    ],
)
def test_bad_requests(result, values, bins, words):
    with pytest.raises(InputError, match=words):
        result.spectrum(values, bins)


def test_bad_options(result):
    with pytest.raises(InputError, match="normalization"):
        result.spectrum("gen", EDGES, normalization="area")
    with pytest.raises(InputError, match=r"luminosity is -36\.0"):
        result.spectrum("gen", EDGES, luminosity=-36.0)
    with pytest.raises(InputError, match="centre"):
        result.spectrum("gen", EDGES, centre="median")


def test_by_source_adds_up(result):
    split = result.spectrum("gen", EDGES).by_source()
    total = split.pop("total")
    assert set(split) == {"data", "simulation", "prior"}
    squares = np.sum([s**2 for s in split.values()], axis=0)
    # independent sources; each variance from 200 draws has a relative error of 0.1, so 5 sigma on the ratio
    assert np.all(np.abs(squares / total**2 - 1) < 5 * np.sqrt(2 / 200) * np.sqrt(2))


def test_expectation_is_the_weighted_mean(result, toy):
    mean = result.expectation(lambda gen: gen[:, 0])
    assert float(mean.mean()) == pytest.approx(np.average(toy.gen[:, 0], weights=result.nominal))
    w = result.weights.values.astype(float)
    by_hand = (w @ toy.gen[:, 0]) / w.sum(axis=1)
    assert float(mean.std()) == pytest.approx(by_hand.std(), rel=1e-4)
    with pytest.raises(InputError, match="NaN or infinity"):
        result.expectation(lambda gen: np.full(len(gen), np.nan))


def test_weights_for_have_the_yield_of_a_direct_posterior(toy):
    direct = bu.UnbinnedFBU(bu.Network(hidden=(6,)), draws=20, rounds=0, random_seed=1, progressbar=False)
    result = direct.fit(bu.Simulation(toy.gen, toy.reco), bu.Data(toy.data))
    np.testing.assert_allclose(result.weights_for(toy.gen)["nominal"].values, result.nominal, rtol=1e-5)


def test_weights_for_the_same_events_are_their_weights(result, toy):
    factor = result.weights_for(toy.gen)
    np.testing.assert_allclose(factor["nominal"].values, result.nominal, rtol=1e-5)
    # members lack only the events' own fluctuations 1 + g
    g = np.concatenate([result.members.perturbations.simulation.block(0)])
    np.testing.assert_allclose(factor.values * (1 + g.T), result.weights.values, rtol=1e-3, atol=1e-5)
    with pytest.raises(InputError, match="1"):
        result.weights_for(np.zeros((4, 2)))


def test_refolded_agrees_with_data(result, toy):
    """Closure at detector level: the folded result describes the data it came from."""
    edges = EDGES - 2.5
    spectrum = result.refolded("reco", edges)
    counts = np.histogram(toy.data[:, 0], edges)[0]
    assert np.all(np.abs(spectrum.nominal - counts) < 4 * np.hypot(spectrum.std(), np.sqrt(counts)))


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_files_give_the_result_back(result, tmp_path, suffix):
    path = result.save(tmp_path / f"result{suffix}")
    again = bu.load(path)
    np.testing.assert_allclose(again.nominal, result.nominal, rtol=1e-12)
    a, b = result.spectrum("gen", EDGES), again.spectrum("gen", EDGES)
    np.testing.assert_allclose(a.draw_matrix, b.draw_matrix, rtol=1e-5)
    for name, std in a.by_source().items():
        np.testing.assert_allclose(b.by_source()[name], std, rtol=1e-4)
    assert again.configuration == result.configuration
    assert again.summary() == result.summary()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    result.save(path)  # a second time, over the first


def test_result_with_acceptance_and_advi_survives_a_file(accepted, tmp_path):
    simulation, data = accepted
    unfolder = bu.OmniFold(1, network=bu.Network((6, 4)), draws=40, random_seed=2, progressbar=False)
    result = unfolder.fit(simulation, data)
    again = bu.load(result.save(tmp_path / "r.nc"))
    a, b = result.spectrum("gen", EDGES), again.spectrum("gen", EDGES)
    np.testing.assert_allclose(a.draw_matrix, b.draw_matrix, rtol=1e-4)
    assert len(result.draws.elbo) > 0


def test_wrong_files_are_named(result, tmp_path):
    with pytest.raises(FileNotFoundError):
        bu.load(tmp_path / "none.nc")
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(FileFormatError, match="cannot be read"):
        bu.load(tmp_path / "text.nc")
    xr.DataTree(xr.Dataset({"x": 1.0})).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(FileFormatError, match="not a result of bayesunfold"):
        bu.load(tmp_path / "other.nc")
    path = result.save(tmp_path / "newer.nc")
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(FileFormatError, match="Update"):
        bu.load(path)
    with pytest.raises(InputError, match=r"\.nc"):
        result.save(tmp_path / "result.root")


def test_arviz_works_on_it(result):
    tree = result.to_datatree({"gen": EDGES})
    assert {"posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data", "fit"} <= set(
        tree.children
    )
    summary = az.summary(tree, var_names=["unfolded_gen"], ci_prob=0.68, ci_kind="eti")
    assert len(summary) == 5
    for plot in (az.plot_trace_dist, az.plot_forest):
        assert plot(tree, var_names=["unfolded_gen"], backend="none") is not None
    with pytest.raises(InputError, match="pt"):
        result.to_datatree({"pt": EDGES})


def test_log_likelihood_is_that_of_the_pymc_model(result):
    """The stored log-likelihood equals the linearised PyMC model's, draw by draw."""
    import pytensor

    tree = result.to_datatree()
    model = result.linearized_model
    with pytensor.config.change_flags(mode="FAST_COMPILE", linker="py"):
        logp = model.compile_logp(vars=model.observed_RVs, sum=True)
    stored = tree["log_likelihood"]["label"].sum("event").values[0]
    for s in (0, 7):
        assert logp({"z": result.draws.z[s]}) == pytest.approx(stored[s], rel=1e-5)


def test_the_model_can_be_looked_at(result):
    import pymc as pm

    model = result.model
    assert {"weight_1", "bias_1", "weight_3", "label", "log_ratio"} <= set(model.named_vars)
    assert model.named_vars_to_dims["weight_2"] == ("unit_1", "unit_2")
    graph = pm.model_to_graphviz(model)
    assert "weight_1" in graph.source


def test_plots_draw_what_they_are_given(result, toy, tmp_path):
    from bayesunfold import plots

    spectrum = result.spectrum("gen", EDGES)
    fig = spectrum.plot(truth=toy.expected(EDGES), generator=np.ones(5), label="x [cm]")
    top, bottom = fig.axes
    labels = top.get_legend_handles_labels()[1]
    assert {"truth", "generator", "68 % band", "95 % band"} <= set(labels)
    assert bottom.get_xlabel() == "x [cm]"
    for figure in (plots.plot_correlation(spectrum), plots.plot_sources(spectrum), result.plot_history()):
        figure.savefig(tmp_path / "figure.png")
    with pytest.raises(InputError, match="5 bin contents"):
        spectrum.plot(truth=[1.0])
