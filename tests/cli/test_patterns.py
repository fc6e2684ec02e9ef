"""One section for many systematic variations."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.cli.commands import main
from bayesunfold.cli.configuration import load_job
from bayesunfold.cli.patterns import expand
from bayesunfold.cli.sections import SystematicSection
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
