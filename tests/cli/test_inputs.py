"""Configurations of inputs as analyses have them: levels in two trees, aliases, blind data."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.cli import main
from bayesunfold.cli.configuration import load_job
from bayesunfold.cli.unfold import _spectra, check_job
from bayesunfold.errors import InputError

N = 3000
SETTINGS = """
[unfolding]
iterations = 1
inference = "laplace"
draws = 20
random_seed = 1
bias = false
[[spectrum]]
observable = "t"
bins = [-2, 0, 2]
[output]
report = false
"""
SMALL = "[network]\nhidden = [6]\n"
REST = """\
[data]
file = "data.npz"
features = ["pt"]
[[systematic]]
name = "tilt"
weight_up = "w * up"
"""
ONE = (
    """
[simulation]
file = "one.npz"
gen = ["truth"]
reco = ["pt"]
names = ["t"]
weight = "w"
pass_gen = "has_truth"
pass_reco = "has_reco"
"""
    + REST
)
TWO = (
    """
[simulation]
file = "reco.npz"
gen_file = "truth.npz"
key = ["event"]
gen = ["pt"]
reco = ["pt"]
names = ["t"]
weight = "w"
"""
    + REST
)


@pytest.fixture
def folder(tmp_path):
    """The same events as one table and as a table per level, in another order, with an expression of the same name."""
    rng = np.random.default_rng(1)
    truth = rng.normal(size=N)
    has_truth, has_reco = rng.random(N) < 0.9, rng.random(N) < 0.7
    used = has_truth | has_reco
    order = np.argsort(~has_truth[used], kind="stable")  # fakes stand last
    columns = {
        "truth": truth,
        "pt": truth + rng.normal(0, 0.5, N),
        "w": rng.uniform(0.5, 1.5, N),
        "up": np.exp(0.1 * truth),
        "event": np.arange(N) + 10**15,
        "has_truth": has_truth,
        "has_reco": has_reco,
    }
    one = {name: values[used][order] for name, values in columns.items()}
    np.savez(tmp_path / "one.npz", **one)
    gen = {k: one[v][one["has_truth"]] for k, v in (("pt", "truth"), ("w", "w"), ("up", "up"), ("event", "event"))}
    np.savez(tmp_path / "truth.npz", **gen)
    rows = np.flatnonzero(one["has_reco"])
    matched, fakes = rows[one["has_truth"][rows]], rows[~one["has_truth"][rows]]
    rows = np.concatenate([rng.permutation(matched), fakes])
    np.savez(tmp_path / "reco.npz", **{k: one[k][rows] for k in ("pt", "w", "up", "event")})
    np.savez(tmp_path / "data.npz", pt=rng.normal(0.1, 1.1, 800))
    return tmp_path


def write(folder, text, name="run"):
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_levels_in_two_files_are_as_one_file(folder, capsys):
    for name, text in (("one", ONE), ("two", TWO)):
        assert main(["unfold", str(write(folder, text + SMALL + SETTINGS, name))]) == 0
    out = capsys.readouterr().out
    assert "levels of the simulation matched: " in out
    one, two = (bu.load(folder / name / "unfolded.nc") for name in ("one", "two"))
    sim = one.simulation, two.simulation
    for field in ("weight", "pass_gen", "pass_reco"):
        np.testing.assert_array_equal(getattr(sim[0], field), getattr(sim[1], field))
    np.testing.assert_array_equal(one.spectrum("t", [-2, 0, 2]).draw_matrix, two.spectrum("t", [-2, 0, 2]).draw_matrix)
    with (folder / "two" / "inputs.csv").open(newline="") as file:
        samples = [row["sample"] for row in csv.DictReader(file)]
    assert samples == ["simulation, particle level", "simulation, detector level", "data"]


CACHED = """
[alias]
pt_up = "pt + 0.1"
[simulation]
file = ["one.npz", {file = "more.npz", factor = 0.5}]
selection = "truth > -2.5"
cache = "maps"
gen = ["truth", "abs(truth)"]
reco = ["pt", "2 * pt"]
weight = "w"
pass_gen = "has_truth"
pass_reco = "has_reco"
[data]
file = "data.npz"
features = ["pt", "pt**2"]
cache = "maps"
[[background]]
name = "top"
file = "data.npz"
features = ["pt", "pt"]
weight = "0.1 + 0 * pt"
cache = "maps"
[[systematic]]
name = "scale"
reco_up = ["pt_up", "2 * pt_up"]
pass_reco_up = "has_reco & (pt > -1)"
[[systematic]]
name = "tilt"
weight_up = "w * up"
"""


def test_a_cache_maps_what_would_be_read_and_changes_no_digit(folder):
    more = dict(np.load(folder / "one.npz"))
    nowhere = np.arange(len(more["w"])) % 10 == 0  # events that pass no level, whose weights say nothing
    more |= {name: more[name] & ~nowhere for name in ("has_truth", "has_reco")}
    more["w"] = np.where(nowhere, np.nan, more["w"])
    np.savez(folder / "more.npz", **more)
    jobs = {}
    for name, text in (("cached", CACHED), ("read", CACHED.replace('cache = "maps"\n', ""))):
        jobs[name] = load_job(write(folder, text + SETTINGS.replace('"t"', '"truth"'), name))
    (a, varied_a), (b, varied_b) = (job.simulation() for job in jobs.values())
    data = [job.data().features for job in jobs.values()]
    assert all(isinstance(array.base, np.memmap) for array in (a.gen, a.reco, data[0]))
    for field in ("gen", "reco", "weight", "pass_gen", "pass_reco"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field))
    for one, other in zip(varied_a, varied_b, strict=True):
        for field in ("reco_up", "pass_reco_up", "weight_up"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
    np.testing.assert_array_equal(*data)
    np.testing.assert_array_equal(jobs["cached"].backgrounds()[0].weight, jobs["read"].backgrounds()[0].weight)
    assert jobs["cached"].unused == jobs["read"].unused > 100
    manifests = [[(e.sample, e.file, e.events, e.kept, e.factor) for e in job.manifest] for job in jobs.values()]
    assert manifests[0] == manifests[1]
    assert [e.factor for e in jobs["cached"].manifest if e.sample == "simulation"] == [1.0, 0.5]
    # an alias that changes is another cache
    text = CACHED.replace("pt + 0.1", "pt + 0.2") + SETTINGS.replace('"t"', '"truth"')
    _, (scale, _) = load_job(write(folder, text, "changed")).simulation()
    np.testing.assert_allclose(scale.reco_up[:, 0], a.reco[:, 0] + 0.2)


def test_a_cache_beside_variations_with_events_of_their_own(folder):
    one = np.load(folder / "one.npz")
    np.savez(folder / "up.npz", pt=one["pt"][::-1] + 0.2, event=one["event"][::-1])
    text = ONE.replace("[simulation]\n", '[simulation]\ncache = "maps"\nkey = ["event"]\n')
    text += '[[systematic]]\nname = "scale"\nfile = "up.npz"\nreco_up = ["pt"]\n' + SETTINGS
    simulation, (_, scale) = load_job(write(folder, text)).simulation()
    np.testing.assert_allclose(scale.reco_up[simulation.pass_reco, 0], simulation.reco[simulation.pass_reco, 0] + 0.2)


def test_a_variation_in_another_tree_of_the_detector_level(folder):
    reco = np.load(folder / "reco.npz")
    keep = reco["pt"] + 0.2 > -1.5  # a cut that moves with the scale
    np.savez(folder / "up.npz", pt=(reco["pt"] + 0.2)[keep][::-1], event=reco["event"][keep][::-1])
    text = TWO + '[[systematic]]\nname = "scale"\nfile = "up.npz"\nreco_up = ["pt"]\nabsent = "fails"\n' + SETTINGS
    simulation, (_, scale) = load_job(write(folder, text)).simulation()
    there = simulation.pass_reco & (simulation.reco[:, 0] + 0.2 > -1.5)
    np.testing.assert_array_equal(scale.pass_reco_up, there)
    np.testing.assert_allclose(scale.reco_up[there, 0], simulation.reco[there, 0] + 0.2)


def test_fakes_without_a_weight_are_named(folder):
    reco = dict(np.load(folder / "reco.npz"))
    np.savez(folder / "reco.npz", pt=reco["pt"], event=reco["event"])
    with pytest.raises(InputError, match=r"\d+ events of the detector level have no particle level .* no column 'w'"):
        load_job(write(folder, TWO + SETTINGS)).simulation()
    matched = np.isin(reco["event"], np.load(folder / "truth.npz")["event"])
    np.savez(folder / "reco.npz", pt=reco["pt"][matched], event=reco["event"][matched])
    simulation, _ = load_job(write(folder, TWO + SETTINGS)).simulation()
    assert simulation.pass_gen.all()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('key = ["event"]\n', "", r"give key, an expression that identifies an event"),
        ('gen_file = "truth.npz"\n', 'gen_selection = "pt > 0"\n', "gen_selection and neither gen_file nor gen_tree"),
        ('key = ["event"]\n', 'key = ["event"]\ngen_key = ["w", "up"]\n', "key of the detector level has 1 columns"),
    ],
)
def test_keys_of_two_trees_that_miss_others(folder, old, new, words):
    assert old in TWO
    with pytest.raises(InputError, match=words):
        load_job(write(folder, TWO.replace(old, new) + SETTINGS)).simulation()


def test_selections_of_each_level(folder):
    text = TWO.replace('gen = ["pt"]', 'gen = ["pt"]\ngen_selection = "pt > 0"\nselection = "pt < 1"')
    simulation, _ = load_job(write(folder, text + SETTINGS)).simulation()
    assert simulation.gen[simulation.pass_gen].min() > 0
    assert simulation.reco[simulation.pass_reco].max() < 1


def test_aliases_are_expressions_with_a_name(folder):
    text = ONE.replace('gen = ["truth"]', 'gen = ["t"]').replace('names = ["t"]\n', "") + SETTINGS
    text = text.replace('features = ["pt"]', 'features = ["scaled"]').replace('reco = ["pt"]', 'reco = ["scaled"]')
    alias = '[alias]\nt = "10 * tenth"\ntenth = "truth / 10"\nscaled = "pt * 1000 / 1000"\n'
    simulation, systematics = load_job(write(folder, text + alias)).simulation()
    assert simulation.gen_names == ("t",)
    np.testing.assert_allclose(simulation.gen[:, 0], np.load(folder / "one.npz")["truth"])
    assert len(systematics) == 1


@pytest.mark.parametrize(
    ("alias", "words"),
    [
        ('pt = "truth"', "'pt' is an alias, and .*one.npz has a column of that name"),
        ('a = "b"\nb = "a + 1"', "the alias '.' uses itself: . -> . -> ."),
        ('a = "truth >"', "is not an expression"),
        ('file_factor = "truth"', "has the name of something else"),
        ("a = 3", "alias.a is 3; it must be an expression"),
        ('"a b" = "truth"', "'a b' is no name"),
    ],
)
def test_aliases_that_cannot_be(folder, alias, words):
    with pytest.raises(InputError, match=words):
        load_job(write(folder, ONE + SETTINGS + f"[alias]\n{alias}\n")).simulation()


def test_blind_data_are_not_read_until_told(folder, capsys):
    text = ONE.replace("[data]", "[data]\nblind = true") + SMALL + SETTINGS
    path = write(folder, text)
    (folder / "data.npz").rename(folder / "hidden.npz")
    assert main(["unfold", str(path)]) == 2
    assert "say how many events to expect with expected_data" in capsys.readouterr().err
    path = write(folder, text + "[coverage]\nexpected_data = 800\n")
    assert main(["unfold", str(path), "--check"]) == 0
    assert main(["unfold", str(path)]) == 0
    assert "BLIND: no data were read" in capsys.readouterr().out
    blind = bu.load(folder / "run" / "blind" / "unfolded.nc")
    assert blind.record.blind
    blind.save(folder / "moved.nc")  # the file says it, not its folder
    assert main(["report", str(folder / "moved.nc")]) == 0
    assert main(["info", str(folder / "moved.nc")]) == 0
    assert "BLIND: no data were read" in capsys.readouterr().out
    assert (folder / "moved.html").read_text().count('<p class="note">BLIND') == 1
    assert abs(len(blind.data) - 800) < 6 * np.sqrt(800)
    assert [p.name for p in (folder / "run").iterdir()] == ["blind"]
    in_data = np.isin(blind.simulation.reco[:, 0], blind.data.features[:, 0]) & blind.simulation.pass_reco
    assert in_data.sum() > 500  # of some 660, since some are drawn twice
    assert (blind.simulation.weight[in_data] == 0).all()  # no event is in both
    full = np.load(folder / "one.npz")["w"]
    assert abs(blind.simulation.weight.sum() / full.sum() - 1) < 0.05  # four standard deviations, and the seed is fixed
    (folder / "hidden.npz").rename(folder / "data.npz")
    assert main(["unfold", str(path), "--unblind"]) == 0
    assert "BLIND" not in capsys.readouterr().out
    measured = bu.load(folder / "run" / "unfolded.nc")
    assert len(measured.data) == 800
    assert measured.record.blind is False
    for name, mark in (("data.nc", False), ("older.nc", None)):  # without a mark the folder says it
        replace(measured, record=replace(measured.record, blind=mark)).save(folder / "run" / "blind" / name)
        assert main(["info", str(folder / "run" / "blind" / name)]) == 0
        assert ("BLIND" in capsys.readouterr().out) == (mark is None)
    path = write(folder, ONE + SETTINGS)
    assert main(["unfold", str(path), "--unblind"]) == 2
    assert "nothing to unblind" in capsys.readouterr().err


def test_a_blind_run_writes_nothing_to_publish(folder, capsys):
    text = ONE.replace("[data]", "[data]\nblind = true") + SETTINGS + "root = true\npublication = true\n"
    assert main(["unfold", str(write(folder, text + "[coverage]\nexpected_data = 800\n"))]) == 0
    names = {p.name for p in (folder / "run" / "blind").iterdir()}
    assert names == {"unfolded.nc", "inputs.csv", "t.png"}
    path = write(folder, text + "[coverage]\nexpected_data = 50000\n")
    assert main(["unfold", str(path)]) == 2
    assert "needs more simulated events, or a smaller coverage.expected_data" in capsys.readouterr().err


@pytest.mark.parametrize("text", [ONE, TWO])
def test_another_simulation(folder, text):
    for name in ("one", "reco", "truth"):
        columns = dict(np.load(folder / f"{name}.npz"))
        np.savez(folder / f"other_{name}.npz", **{k: v[: 3 * len(v) // 4] for k, v in columns.items()})
    other = 'alternative = "other_one.npz"\n'
    if text == TWO:
        other = 'alternative = "other_reco.npz"\nalternative_gen = "other_truth.npz"\n'
    section = f'[[systematic]]\nname = "model"\n{other}correlation = {{tilt = 0.2}}\n'
    job = load_job(write(folder, text + section + SETTINGS))
    simulation, (_, model) = job.simulation()
    assert 0.6 * len(simulation) < len(model.alternative) < 0.9 * len(simulation)
    assert model.alternative.gen_names == simulation.gen_names
    assert model.correlation == {"tilt": 0.2}
    assert {e.sample.split(",")[0] for e in job.manifest} == {"simulation", "model"}


def test_dropped_events_are_counted_by_sample(folder):
    """Of each file every event passes a level, but for those that are added; other trees keep them."""
    for name, more in (("one", 7), ("other", 5)):
        columns = dict(np.load(folder / "one.npz"))
        extra = {k: v[:more] & False if v.dtype == bool else v[:more] for k, v in columns.items()}
        np.savez(folder / f"{name}.npz", **{k: np.concatenate([v, extra[k]]) for k, v in columns.items()})
    section = '[[systematic]]\nname = "model"\nalternative = "other.npz"\n'
    columns = dict(np.load(folder / "other.npz"))
    np.savez(folder / "other.npz", **{k: v[7:] for k, v in columns.items()})  # without seven that pass
    job = load_job(write(folder, ONE + section + SETTINGS))
    text = check_job(job)
    assert job.unused == 7
    assert "7 simulated events pass neither level, nominally or in a variation; they were dropped" in text
    assert "12 events of the alternative simulation of model pass neither level; they were dropped" in text


def test_another_simulation_is_said_once(folder):
    section = '[[systematic]]\nname = "model"\n'
    for text, more, words in (
        (ONE, 'alternative = "x.npz"\nweight_up = "w"\n', "alternative simulation and weight_up"),
        (ONE, 'alternative_gen = "x.npz"\n', "alternative_gen and no alternative"),
        (ONE, 'alternative = "x.npz"\nalternative_gen = "y.npz"\n', "leave alternative_gen out"),
        (TWO, 'alternative = "x.npz"\n', "give alternative_gen"),
    ):
        with pytest.raises(InputError, match=words):
            load_job(write(folder, text + section + more + SETTINGS)).simulation()


def test_sources_in_groups(folder, capsys):
    text = ONE + SETTINGS + 'groups = {statistics = ["data", "sim*"], shower = ["tilt"]}\n'
    job = load_job(write(folder, text))
    simulation, systematics = job.simulation()
    result = job.unfolder(progressbar=False).fit(simulation, job.data(), systematics=systematics)
    assert set(_spectra(job, result)["t"].by_source()) == {"statistics", "prior", "shower", "total"}
    assert main(["unfold", "--check", str(write(folder, text.replace('"tilt"]', '"tylt"]')))]) == 2
    assert "no source matches 'tylt' of the group 'shower'; there are: data" in capsys.readouterr().err
    profiled = text.replace('weight_up = "w * up"', 'weight_up = "w * up"\nprofile = true')
    profiled = profiled.replace("iterations = 1\n", 'method = "direct"\n').replace("bias = false\n", "")
    profiled = profiled.replace('shower = ["tilt"]', 'tilt = ["tilt", "prior"]')
    assert main(["unfold", "--check", str(write(folder, profiled))]) == 2
    assert "'tilt' has the name of a profiled parameter in it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("publication_by_source = true", "output.publication_by_source .* set publication = true"),
        ('reference = "arXiv:1911.09107"', "output.reference .* set publication = true"),
        ('generator = "one"', "output.generator .* set publication = true"),
        ('event_selection = "all"\nhepdata = true', "output.event_selection .* set publication = true"),
        ('abstract = "of what"\npublication = true', "output.abstract .* set hepdata = true"),
    ],
)
def test_keys_of_what_is_not_written(folder, more, words):
    with pytest.raises(InputError, match=words):
        load_job(write(folder, ONE + SETTINGS + more + "\n"))


def test_keys_without_effect(folder):
    """Groups of no spectrum, and the bias of a loop that there is not; omitted, the latter is not asked for."""
    groups = SETTINGS.replace('[[spectrum]]\nobservable = "t"\nbins = [-2, 0, 2]\n', "") + 'groups = {a = ["data"]}\n'
    with pytest.raises(InputError, match=r"output.groups .* no section \[\[spectrum\]\]"):
        load_job(write(folder, ONE + groups))
    direct = SETTINGS.replace("iterations = 1\n", 'method = "direct"\n')
    with pytest.raises(InputError, match=r'unfolding\.bias is true and the method "direct"'):
        load_job(write(folder, ONE + direct.replace("bias = false", "bias = true")))
    for text in (direct, direct.replace("bias = false\n", "")):
        load_job(write(folder, ONE + text))


def test_factors_of_both_levels_are_the_same(folder):
    files = 'file = "reco.npz"\ngen_file = "truth.npz"\n'
    assert files in TWO
    one = files.replace('"reco.npz"', '{file = "reco.npz", factor = 0.5}')
    with pytest.raises(InputError, match="only one of file and gen_file has factors"):
        load_job(write(folder, TWO.replace(files, one) + SETTINGS)).simulation()
    other = one.replace('"truth.npz"', '{file = "truth.npz", factor = 0.25}')
    with pytest.raises(InputError, match=r"one factor in their file .* \(first 0.25 and 0.5\)"):
        load_job(write(folder, TWO.replace(files, other) + SETTINGS)).simulation()
    same = load_job(write(folder, TWO.replace(files, other.replace("0.25", "0.5")) + SETTINGS)).simulation()[0]
    np.testing.assert_array_equal(same.weight, 0.5 * load_job(write(folder, TWO + SETTINGS)).simulation()[0].weight)


def test_patterns_find_columns_of_friends_of_the_particle_level_and_aliases(folder):
    truth = np.load(folder / "truth.npz")
    np.savez(folder / "extra.npz", b_up=truth["w"] * truth["up"], event=truth["event"])
    reco = dict(np.load(folder / "reco.npz")) | {"b_up": np.ones(len(np.load(folder / "reco.npz")["pt"]))}
    np.savez(folder / "reco.npz", **reco, d_up=reco["b_up"])
    text = TWO.replace('"truth.npz"', '{file = "truth.npz", friends = "extra.npz", friend_key = "event"}')
    text = text.replace('name = "tilt"\nweight_up = "w * up"', 'name = "{name}"\nweight_up = "{name}_up"')
    alias = '[alias]\nc_up = "w * 1.1 * up"\n'
    _, found = load_job(write(folder, text + SETTINGS + alias)).simulation()
    assert [s.name for s in found] == ["b", "c"]
    other = '[[systematic]]\nname = "a"\nweight_up = "w * up"\ncorrelation = {b = 0.5}\n'
    _, found = load_job(write(folder, text + other + SETTINGS + alias)).simulation()
    assert [s.correlation for s in found] == [{}, {}, {"b": 0.5}]


def test_weights_with_signs_as_a_data_driven_background(folder):
    """A background from control regions: weights by an expression, negative where it is subtracted."""
    rng = np.random.default_rng(2)
    np.savez(folder / "loose.npz", pt=rng.normal(size=400), prompt=rng.random(400) < 0.2, factor=np.full(400, 0.3))
    text = (
        ONE
        + """
[[background]]
name = "fakes"
file = "loose.npz"
features = ["pt"]
weight = "where(prompt, -factor, factor)"
relative_uncertainty = 0.2
"""
        + SETTINGS
    )
    job = load_job(write(folder, text))
    assert job.backgrounds()[0].weight.sum() == pytest.approx(
        0.3 * (1 - 2 * np.load(folder / "loose.npz")["prompt"]).sum()
    )
    result = job.unfolder(progressbar=False).fit(job.simulation()[0], job.data(), job.backgrounds())
    assert "fakes" in result.spectrum("t", [-2, 0, 2]).by_source()


def test_a_flag_that_is_a_number_elsewhere_is_named(folder):
    more = dict(np.load(folder / "one.npz"))
    np.savez(folder / "more.npz", **(more | {"w": more["w"] > 1}))
    text = CACHED.replace(", factor = 0.5", "") + SETTINGS
    with pytest.raises(InputError, match=r"'w' is a flag in .*more.npz and a number in .*one.npz"):
        load_job(write(folder, text)).simulation()


def test_a_background_lacks_features_as_the_simulation_says(folder):
    rng = np.random.default_rng(2)
    np.savez(folder / "top.npz", pt=np.where(rng.random(100) < 0.3, np.nan, rng.normal(size=100)), w=np.full(100, 0.1))
    section = '\n[[background]]\nname = "top"\nfile = "top.npz"\nfeatures = ["pt"]\nweight = "w"\n'
    with pytest.raises(InputError, match='undefined="indicator"'):
        load_job(write(folder, ONE + section + SETTINGS)).backgrounds()
    section += 'undefined = "indicator"\n'
    assert load_job(write(folder, ONE + section + SETTINGS)).backgrounds()[0].undefined == "indicator"
    section = section.replace('undefined = "indicator"', "")
    text = ONE.replace('file = "one.npz"', 'file = "one.npz"\nundefined = "indicator"')
    assert load_job(write(folder, text + section + SETTINGS)).backgrounds()[0].undefined == "indicator"


def test_a_network_of_the_direct_posterior_keeps_what_is_not_said(folder):
    text = ONE + SETTINGS.replace("iterations = 1", 'method = "direct"')
    assert "direct" in text
    found = load_job(write(folder, text + '\n[network]\nactivation = "softplus"\n')).unfolder()
    assert found.network == bu.Network(activation="softplus", prior_scale=(1.0, 1.0, 7.0))
    found = load_job(write(folder, text + "\n[network]\nadditive = 4\n")).unfolder()
    assert found.network.additive == 4


def test_event_numbers_of_64_bits_are_exact(folder):
    """Neighbours beyond 2^53 are one double. One file has them with a sign and one without; an alias names them."""
    small = load_job(write(folder, TWO + SETTINGS)).simulation()[0]
    for name, kind in (("reco", np.uint64), ("truth", np.int64)):
        columns = dict(np.load(folder / f"{name}.npz"))
        event = ((columns.pop("event") - 10**15) + 2**60).astype(kind)
        halves = slice(None, len(event) // 2), slice(len(event) // 2, None)
        for part, rows in zip((name, f"more_{name}"), halves, strict=True):
            np.savez(folder / f"{part}.npz", **{k: v[rows] for k, v in columns.items()}, event=event[rows])
    more = dict(np.load(folder / "more_reco.npz"))
    np.savez(folder / "more_reco.npz", **(more | {"event": more["event"].astype(np.int64)}))
    reco = {k: np.concatenate([np.load(folder / f"{f}.npz")[k] for f in ("reco", "more_reco")]) for k in ("pt",)}
    event = np.concatenate([np.load(folder / f"{f}.npz")["event"].astype(np.uint64) for f in ("reco", "more_reco")])
    np.savez(folder / "up.npz", pt=reco["pt"][::-1] + 0.2, event=event[::-1])
    text = TWO.replace('"reco.npz"', '["reco.npz", "more_reco.npz"]')
    text = text.replace('"truth.npz"', '["truth.npz", "more_truth.npz"]').replace('["event"]', '["number"]')
    text += '[[systematic]]\nname = "scale"\nfile = "up.npz"\nreco_up = ["pt"]\nabsent = "fails"\n' + SETTINGS
    simulation, (_, scale) = load_job(write(folder, text + '[alias]\nnumber = "event"\n')).simulation()
    for field in ("gen", "reco", "weight", "pass_gen", "pass_reco"):
        np.testing.assert_array_equal(getattr(simulation, field), getattr(small, field))
    passes = simulation.pass_reco
    np.testing.assert_allclose(scale.reco_up[passes, 0], simulation.reco[passes, 0] + 0.2)
    for key in ("number + 0", "number % 1000"):
        bad = text.replace('["number"]', f'["{key}"]') + '[alias]\nnumber = "event"\n'
        with pytest.raises(InputError, match=r"'event' of .*truth\.npz holds .* 115292\d+; above 2\^53 .* as key"):
            load_job(write(folder, bad)).simulation()
    bad = text.replace('gen = ["pt"]', 'gen = ["number"]') + '[alias]\nnumber = "event"\n'
    with pytest.raises(InputError, match=r"holds the whole number 115292\d+; above 2\^53"):
        load_job(write(folder, bad)).simulation()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('observable = "t"', 'observable = "pt"', "'pt' of .*spectrum.* is not a particle-level feature; there are t"),
        ('name = "tilt"', 'name = "ti/lt"', "name is 'ti/lt'; give the systematic a name without a slash"),
        ('name = "tilt"', 'name = "data"', "'data' is already a source"),
        ('name = "tilt"', 'name = "top"', "backgrounds and systematics are named top; give each its own name"),
        ('groups = {a = ["tilt"]}', 'groups = {a = ["tlit"]}', "no source matches 'tlit' of the group 'a'"),
        ('names = ["t"]', 'names = ["t/u"]', "hold a slash"),
        ("[unfolding]", '[[systematic.background]]\nname = "tpo"\nweight_up = "2"\n[unfolding]', "background 'tpo'"),
    ],
)
@pytest.mark.parametrize("grouped", [True, False])
def test_names_are_judged_before_events_are_read(folder, old, new, words, grouped):
    """No file of the simulation is there."""
    top = '[[background]]\nname = "top"\nfile = "top.npz"\nfeatures = ["pt"]\n'
    text = top + ONE.replace("one.npz", "absent.npz") + SETTINGS + ('groups = {a = ["tilt"]}\n' if grouped else "")
    with pytest.raises(FileNotFoundError, match=r"absent\.npz"):
        check_job(load_job(write(folder, text)))
    if old in text:
        with pytest.raises(InputError, match=words):
            check_job(load_job(write(folder, text.replace(old, new))))


@pytest.mark.parametrize(
    ("method", "wrong", "keys"),
    [
        ("direct", "iterations = 1", {"prior", "rounds"}),
        ("omnifold", "prior = 1.0", {"iterations", "generator_prior"}),
    ],
)
def test_a_key_of_another_method_lists_keys_of_the_section(folder, method, wrong, keys):
    """Those of one method alone, and those of both; what arrays and models are is in no configuration."""
    text = ONE + SETTINGS.split("[[spectrum]]")[0].replace("iterations = 1\n", "").replace("bias = false\n", "")
    path = write(folder, text + f'method = "{method}"\n{wrong}\n')
    with pytest.raises(InputError, match=f"{wrong.split(' = ')[0]} does not belong to the method '{method}'") as caught:
        load_job(path).unfolding()
    told = str(caught.value).split("which has ")[1].rstrip(".").split(", ")
    assert set(told) == keys | {"inference", "draws", "efficiency", "event_groups", "random_seed"}
