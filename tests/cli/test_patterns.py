"""One section for many systematic variations."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.cli.commands import main
from bayesunfold.cli.configuration import load_job
from bayesunfold.cli.patterns import expand
from bayesunfold.cli.sections import SystematicSection, VariedBackgroundSection
from bayesunfold.errors import InputError

COLUMNS = ["x", "y", "w_JET_A__1up", "w_JET_A__1down", "w_JET_B__1up", "w_JET_B__1down", "w_MUON__1up"]


def test_columns_that_match():
    section = SystematicSection(
        name="{name}", weight_up="w_JET_{name}__1up", weight_down="w_JET_{name}__1down", profile=True
    )
    found = expand(section, COLUMNS, [])
    assert [(s.name, s.weight_up, s.weight_down, s.profile) for s in found] == [
        ("A", "w_JET_A__1up", "w_JET_A__1down", True),
        ("B", "w_JET_B__1up", "w_JET_B__1down", True),
    ]


def test_the_place_in_names_of_correlated_ones():
    section = SystematicSection(
        name="{name} 2017", weight_up="w_JET_{name}__1up", correlation={"{name} 2016": 0.5, "all": 0.1}
    )
    found = expand(section, COLUMNS, [])
    assert [s.correlation for s in found] == [{"A 2016": 0.5, "all": 0.1}, {"B 2016": 0.5, "all": 0.1}]


def test_the_place_in_an_expression_and_in_a_list():
    section = SystematicSection(name="jet {name}", reco_up=["y", "log(y_{name}_up + 1)"])
    found = expand(section, ["y", "y_jes_up", "y_jer_up"], [])
    assert [s.name for s in found] == ["jet jes", "jet jer"]
    assert found[1].reco_up == ["y", "log(y_jer_up + 1)"]


def test_trees_that_match():
    section = SystematicSection(name="{name}", tree="{name}__1up", tree_down="{name}__1down", reco_up=["y"])
    found = expand(section, [], ["nominal", "JES__1up", "JES__1down", "JER__1up", "JER__1down"])
    assert [(s.tree, s.tree_down) for s in found] == [("JES__1up", "JES__1down"), ("JER__1up", "JER__1down")]


def test_a_section_without_the_place_is_itself():
    section = SystematicSection(name="one", weight_up="w")
    assert expand(section, COLUMNS, []) == [section]


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (SystematicSection(name="jet", weight_up="w_{name}__1up"), "in weight_up and not in its name"),
        (SystematicSection(name="jet", weight_up="w", correlation={"{name} 16": 0.5}), "in correlation and not in its"),
        (SystematicSection(name="{name}", weight_up="w"), "needs {name} in one of"),
        (SystematicSection(name="{name}", weight_up="v_{name}"), "no column matches 'v_{name}'; near names: "),
        (SystematicSection(name="{name}", tree="{name}_up", reco_up=["y"]), "no tree matches '{name}_up'"),
    ],
)
def test_bad_sections(section, words):
    with pytest.raises(InputError) as error:
        expand(section, COLUMNS, ["nominal"])
    assert words in str(error.value)


TEXT = """
[simulation]
file = "{file}"
gen = ["x"]
reco = ["y"]
key = ["event"]
[data]
file = "data.npz"
features = ["y"]
[[systematic]]
{systematic}
[unfolding]
iterations = 1
inference = "laplace"
draws = 20
random_seed = 1
bias = false
"""


def test_weights_from_files(tmp_path, capsys):
    toy = bu.datasets.gaussian_toy(300, 1000, random_seed=1)
    gen, reco = toy.gen[:, 0], toy.simulation.reco[:, 0]
    varied = {f"w_{name}_up": np.exp(size * gen) for name, size in (("a", 0.1), ("b", 0.05), ("c", -0.1))}
    np.savez(tmp_path / "sim.npz", x=gen, y=reco, event=np.arange(1000), **varied)
    np.savez(tmp_path / "data.npz", y=np.ravel(toy.data))
    path = tmp_path / "many.toml"
    path.write_text(TEXT.format(file="sim.npz", systematic='name = "tune {name}"\nweight_up = "w_{name}_up"'))
    assert main(["unfold", str(path), "--check"]) == 0
    assert "tune c" in capsys.readouterr().out
    _, systematics = load_job(path).simulation()
    assert [s.name for s in systematics] == ["tune a", "tune b", "tune c"]
    np.testing.assert_allclose(systematics[1].weight_up, varied["w_b_up"])


def test_trees_from_files(tmp_path):
    uproot = require("uproot")
    toy = bu.datasets.gaussian_toy(300, 1000, random_seed=1)
    gen, reco, event = toy.gen[:, 0], toy.simulation.reco[:, 0], np.arange(1000)
    with uproot.recreate(tmp_path / "sim.root") as file:
        file["nominal"] = {"x": gen, "y": reco, "event": event}
        for name, shift in (("JES", 0.1), ("JER", 0.05)):
            file[f"{name}__1up"] = {"y": reco[::-1] + shift, "event": event[::-1]}
    np.savez(tmp_path / "data.npz", y=np.ravel(toy.data))
    path = tmp_path / "trees.toml"
    systematic = 'name = "{name}"\ntree = "{name}__1up"\nreco_up = ["y"]'
    path.write_text(TEXT.format(file="sim.root:nominal", systematic=systematic))
    _, systematics = load_job(path).simulation()
    assert sorted(s.name for s in systematics) == ["JER", "JES"]
    shift = {s.name: s.reco_up[:, 0] - reco for s in systematics}
    np.testing.assert_allclose(shift["JES"], 0.1, rtol=1e-9)
    np.testing.assert_allclose(shift["JER"], 0.05, rtol=1e-9)


def test_backgrounds_of_a_variation():
    """What the place stands for goes into the sections inside, and decides where nothing else does."""
    top = VariedBackgroundSection(name="top", tree="{name}__1up", tree_down="{name}__1down")
    section = SystematicSection(name="{name}", tree="{name}__1up", reco_up=["y"], background=[top])
    found = expand(section, [], ["JES__1up", "JER__1up"])
    assert [s.background[0].tree_down for s in found] == ["JES__1down", "JER__1down"]
    alone = SystematicSection(name="{name}", background=[VariedBackgroundSection(name="top", weight_up="w_{name}")])
    assert [s.background[0].weight_up for s in expand(alone, ["w_tune", "w_pdf"], [])] == ["w_tune", "w_pdf"]


CONFIGURATION = """
[simulation]
file = "sim.npz"
gen = ["t"]
reco = ["r"]
reco_factor = "sf"
[data]
file = "data.npz"
features = ["r"]
[[background]]
name = "top"
file = "top.npz"
features = ["r"]
weight = "w"
[[systematic]]
name = "tune"
reco_factor_up = "sf * 1.1"
"""


def configured(tmp_path, more):
    """The job of a configuration whose last section is a systematic."""
    rng = np.random.default_rng(1)
    t = rng.normal(size=500)
    np.savez(tmp_path / "sim.npz", t=t, r=t + 0.1, sf=np.full(500, 0.9))
    np.savez(tmp_path / "data.npz", r=rng.normal(size=300))
    np.savez(tmp_path / "top.npz", r=rng.normal(size=50), w=np.ones(50))
    np.savez(tmp_path / "var.npz", r=rng.normal(size=40), w=np.full(40, 1.5), wd=np.full(40, 0.5))
    (tmp_path / "run.toml").write_text(CONFIGURATION + more)
    return load_job(tmp_path / "run.toml")


def test_both_sides_of_a_background_are_read_where_the_first_is(tmp_path):
    text = '[[systematic.background]]\nname = "top"\nfile = "var.npz"\nweight_up = "w"\nweight_down = "wd"\n'
    job = configured(tmp_path, text)
    simulation, (systematic,) = job.simulation()
    assert np.allclose(simulation.reco_factor, 0.9)
    assert np.allclose(systematic.reco_factor_up, 0.99)
    up, down = systematic.backgrounds["top"]
    assert (up.weight.sum(), down.weight.sum()) == (60.0, 20.0)
    assert "tune, top" in {entry.sample for entry in job.manifest}
    bu.OmniFold(iterations=1).check(simulation, job.data(), job.backgrounds(), [systematic])


def test_one_side_is_mirrored_and_a_selection_is_a_change(tmp_path):
    job = configured(tmp_path, '[[systematic.background]]\nname = "top"\nselection = "r > 0"\n')
    up, down = job.simulation()[1][0].backgrounds["top"]
    assert 10 < len(up) < 40
    assert down is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[[systematic.background]]\nname = "qcd"\nfile = "var.npz"\n',
            "varies the background 'qcd'; there are: 'top'",
        ),
        ('[[systematic.background]]\nname = "top"\n', "says nothing at +1"),
        ('[[systematic.background]]\nname = "top"\ntre = "x"\n', "the nearest is 'tree'"),
        (
            '[[systematic.background]]\nname = "top"\nweight_up = "2 * w"\nselection_down = "r > 0"\n',
            "has weight_up and a side at -1, and no weight_down",
        ),
        ('[systematic.background]\nname = "top"\n', "must be written [[systematic.background]]"),
        (2 * '[[systematic.background]]\nname = "top"\nfile = "var.npz"\n', "two sections for the background 'top'"),
    ],
)
def test_bad_backgrounds_of_variations(tmp_path, text, words):
    with pytest.raises(InputError) as error:
        configured(tmp_path, text).simulation()
    assert words in str(error.value)


def test_names_are_looked_for_where_the_variation_is(tmp_path):
    """Columns of the background that decides, in its own file."""
    rng = np.random.default_rng(1)
    np.savez(tmp_path / "qcd.npz", r=rng.normal(size=30), w_tune_up=np.ones(30), w_pdf_up=np.ones(30))
    qcd = '[[background]]\nname = "qcd"\nfile = "top.npz"\nfeatures = ["r"]\nweight = "w"\n'
    text = (
        qcd
        + '[[systematic]]\nname = "qcd {name}"\n[[systematic.background]]\nname = "top"\nselection = "r > 0"\n'
        + '[[systematic.background]]\nname = "qcd"\nfile = "qcd.npz"\nweight_up = "w_{name}_up"\n'
    )
    job = configured(tmp_path, text)
    assert [s.name for s in job.simulation()[1]] == ["tune", "qcd tune", "qcd pdf"]


def test_the_place_in_tables_of_files():
    file = [{"file": "var_{name}.root", "tree": "t_{name}"}]
    section = SystematicSection(name="{name}", weight_up="w_JET_{name}__1up", file=file, key=["event"])
    assert [s.file for s in expand(section, COLUMNS, [])] == [
        [{"file": f"var_{name}.root", "tree": f"t_{name}"}] for name in ("A", "B")
    ]


def test_the_place_in_a_column_with_other_signs():
    section = SystematicSection(name="{name}", weight_up="w * `sf-{name}-up`")
    assert [s.weight_up for s in expand(section, ["w", "sf-a-up", "sf-b-up"], [])] == [
        "w * `sf-a-up`",
        "w * `sf-b-up`",
    ]


def test_the_place_twice_in_a_tree_is_the_same_name():
    section = SystematicSection(name="{name}", tree="{name}_of_{name}", file="x.root", key=["event"], weight_up="w")
    assert [s.tree for s in expand(section, [], ["a_of_a", "a_of_b"])] == ["a_of_a"]
