"""Pooled draws, iterated."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import bayesunfold as bu
import bayesunfold.report.html as html
from bayesunfold.errors import InputError
from bayesunfold.generative.estimator import as_seen_by
from bayesunfold.generative.pooling import Pool, next_ratio, signal_share


def toy(seed=1, n=10_000):
    """Truth N(0.3, 0.8); one reconstructed event in five is a fake, and there is a background at N(1.5, 0.3)."""
    rng = np.random.default_rng(seed)
    gen = rng.normal(0, 1, n)
    truth = rng.normal(0.3, 0.8, 5000)
    data = np.r_[truth + rng.normal(0, 0.5, 5000), rng.normal(1.5, 0.3, 500)]
    background = bu.Background(rng.normal(1.5, 0.3, 2500), np.full(2500, 0.2), "other", 0.1)
    return bu.Simulation(gen, gen + rng.normal(0, 0.5, n), pass_gen=rng.random(n) > 0.2), bu.Data(data), background


@pytest.fixture(scope="module")
def unfolded():
    simulation, data, background = toy()
    network = bu.Network(hidden=(8,))
    unfolder = bu.GenerativeUnfolding(iterations=6, network=network, draws=100, random_seed=1, progressbar=False)
    return unfolder.fit(simulation, data, [background])


def test_truth_is_found_beside_fakes_and_backgrounds(unfolded):
    """Mean 0.3 and variance 0.64 to five bands, from which the simulation's 0 and 1 are farther."""
    moments = unfolded.moments("gen")
    pulls = (moments.nominal.values - [0.3, 0.64]) / moments.std("draw").values
    assert np.abs(pulls).max() < 5
    assert np.abs((moments.nominal.values - [0.0, 1.0]) / moments.std("draw").values).min() > 5
    total = unfolded.spectrum("gen", [-10, 10])
    assert total.nominal[0] == pytest.approx(4000, abs=5 * total.std()[0])


def test_it_is_a_row_of_a_comparison(unfolded):
    spectrum = unfolded.spectrum("gen", np.linspace(-2, 2, 5))
    assert bu.compare([spectrum]).rows()[0]["method"] == "GenerativeUnfolding"
    assert "2212.08674" in bu.citations(unfolded)
    assert "2212.08674" in bu.citations(spectrum)


def test_saved_and_loaded(unfolded, tmp_path):
    loaded = bu.load(unfolded.save(tmp_path / "generative.nc"))
    np.testing.assert_allclose(loaded.nominal, unfolded.nominal, rtol=1e-10)
    bins = np.linspace(-2, 2, 5)
    np.testing.assert_allclose(
        loaded.spectrum("gen", bins).draw_matrix, unfolded.spectrum("gen", bins).draw_matrix, rtol=1e-4
    )
    assert loaded.record.settings == unfolded.record.settings
    with pytest.raises(InputError, match="only results of OmniFold can be unfolded again"):
        loaded.estimate_bias()


def test_its_dashboard_names_no_cure_that_it_does_not_have(unfolded, tmp_path, monkeypatch):
    monkeypatch.setattr(html, "_svg", lambda *_: "<svg></svg>")  # only words are read
    page = unfolded.report(tmp_path / "report.html").read_text()
    assert "iterations have converged" in page
    assert "or quote the bias" not in page


def test_the_map_of_the_unfolding_is_that_of_its_events(unfolded):
    draws = unfolded.event_posterior([0.0, 1.0], draws=10)
    assert draws.shape == (10, 2, 1)
    assert unfolded.event_map is unfolded.event_map


def test_displacements_of_a_network_seen_by_itself(unfolded):
    members = unfolded.members
    events = members.events
    again = as_seen_by(members.step2.classifier, members.step2, events.gen, events.weight, events.passes.gen)
    z = np.linspace(-2, 2, 20)[:, None].astype(np.float32)
    np.testing.assert_allclose(again.log_ratio_change(z), members.step2.log_ratio_change(z), atol=2e-3)


def test_signal_share_in_closed_form(unfolded):
    """Four in five, less the background's density over the data's: to 0.1, and to 0.03 on average."""
    events = unfolded.members.events
    layout, _ = unfolded.record.settings.loop.layouts(events)
    share = signal_share(events, layout, np.random.default_rng(1))
    x = unfolded.data.features[:, 0]
    signal = 5000 * stats.norm(0.3, np.hypot(0.8, 0.5)).pdf(x)
    background = 500 * stats.norm(1.5, 0.3).pdf(x)
    expected = 0.8 * (1 - background / (signal + background))
    middle = np.abs(x) < 2
    assert np.abs(share - expected)[middle].max() < 0.1
    assert np.abs(share - expected)[middle].mean() < 0.03


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda *_: bu.GenerativeUnfolding(iterations=0), "iterations is 0"),
        (lambda *_: bu.GenerativeUnfolding(draws=1), "draws is 1"),
        (
            lambda s, d: bu.GenerativeUnfolding().fit(
                s, d, [bu.Background([0.1, 0.2], name="b", relative_uncertainty=0.1, profile=True)]
            ),
            "profile=True; OmniFold does not",
        ),
    ],
)
def test_bad_inputs(call, words):
    simulation, data, _ = toy(n=500)
    with pytest.raises(InputError, match=words):
        call(simulation, data)


@pytest.mark.parametrize(("measured", "size"), [(40, 40.0), (900, 300.0)])
def test_classes_of_pooled_draws_have_the_size_of_the_smaller_sample(unfolded, measured, size):
    """Each event has draws, but no more information than one event."""
    rng = np.random.default_rng(1)
    pools = [Pool(np.full(n, w), rng.normal(size=(n, 4, 1)).astype("f4")) for n, w in ((measured, 1.0), (300, 2.0))]
    layout = unfolded.members.step2.classifier.layout
    found = next_ratio(*pools, None, layout, np.random.default_rng(1), 1)
    joined = found.classes.joined()
    assert joined.ones.sum() == pytest.approx(size)
    assert joined.zeros.sum() == pytest.approx(size)
