"""Files by lists, patterns, trees and factors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.io.sources import FileSource, named_sources, without_trees


@pytest.fixture
def campaigns(tmp_path):
    """Three files of two, three and one events."""
    for name, x in (("mc16a", [1.0, 2.0]), ("mc16d", [3.0, 4.0, 5.0]), ("other", [9.0])):
        np.savez(tmp_path / f"{name}.npz", x=np.array(x), w=np.ones(len(x)))
    return tmp_path


def test_patterns_and_lists_in_their_order(campaigns):
    assert bu.io.read_columns(campaigns / "mc16*.npz", ["x"])["x"].tolist() == [1, 2, 3, 4, 5]
    listed = [campaigns / "other.npz", str(campaigns / "mc16*.npz")]
    assert bu.io.read_columns(listed, ["x"])["x"].tolist() == [9, 1, 2, 3, 4, 5]
    assert bu.io.read_columns(listed, ["x"], selection="x > 4.5")["x"].tolist() == [9, 5]
    assert bu.io.list_columns(listed) == ["x", "w"]


def test_factors_and_numbers_of_files(campaigns):
    files = [{"file": campaigns / "mc16d.npz", "factor": 0.5}, {"file": str(campaigns / "other.npz"), "factor": 2}]
    found = bu.io.read_columns(files, ["w * file_factor", "file_number"])
    assert found["w * file_factor"].tolist() == [0.5, 0.5, 0.5, 2.0]
    assert found["file_number"].tolist() == [0, 0, 0, 1]
    assert bu.io.read_columns(campaigns / "other.npz", ["file_factor"])["file_factor"].tolist() == [1.0]


def test_a_column_of_the_same_name_wins(tmp_path):
    np.savez(tmp_path / "a.npz", file_number=np.array([7.0]))
    assert bu.io.read_columns(tmp_path / "a.npz", ["file_number"])["file_number"].tolist() == [7.0]


def test_trees_behind_a_colon(tmp_path):
    uproot = require("uproot")
    with uproot.recreate(tmp_path / "a.root") as file:
        file["nominal"] = {"x": np.array([1.0, 2.0])}
        file["varied"] = {"x": np.array([3.0])}
    assert bu.io.read_columns(f"{tmp_path}/a.root:varied", ["x"])["x"].tolist() == [3.0]
    both = [f"{tmp_path}/a.root:varied", {"file": f"{tmp_path}/a.root", "tree": "nominal"}]
    assert bu.io.read_columns(both, ["x"])["x"].tolist() == [3.0, 1.0, 2.0]
    assert named_sources("root://host//a/b.root:tree") == [FileSource("root://host//a/b.root", "tree")]


def test_files_without_their_trees():
    named = ["a.root:one", {"file": "b_*.root:one", "factor": 0.5}, {"file": "c.root", "tree": "one"}, "d.npz"]
    assert without_trees(named) == ["a.root", {"file": "b_*.root", "factor": 0.5}, {"file": "c.root"}, "d.npz"]


def test_relative_paths_start_in_a_folder(campaigns):
    found = named_sources(["mc16*.npz", {"file": "other.npz", "factor": 3.0}], folder=campaigns)
    assert [Path(source.path).name for source in found] == ["mc16a.npz", "mc16d.npz", "other.npz"]
    assert [source.factor for source in found] == [1, 1, 3]


def test_other_names_of_the_same_file(campaigns, monkeypatch):
    (campaigns / "link.npz").symlink_to(campaigns / "other.npz")
    monkeypatch.chdir(campaigns)
    for other in ("other.npz", "link.npz", "../" + campaigns.name + "/other.npz"):
        with pytest.raises(InputError, match=r"other.npz; its events would count twice"):
            named_sources([campaigns / "other.npz", other])
    with pytest.raises(InputError, match=r"other.npz is named twice, also as .*link.npz"):
        named_sources("*.npz", folder=campaigns)
    assert len(named_sources([campaigns / "a.root:one", "a.root:two"])) == 2
    assert len(named_sources(["root://host//a/b.root", "root://host//a/../a/b.root"])) == 2


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    np.savez(tmp_path / "run[1].npz", x=np.ones(2))
    assert len(bu.io.read_columns(tmp_path / "run[1].npz", ["x"])["x"]) == 2


@pytest.mark.parametrize(
    ("named", "error", "words"),
    [
        ([], InputError, "list of files is empty"),
        (["a.npz", 3], InputTypeError, "a file is given as 3"),
        (["mc16a.npz", "mc16*.npz"], InputError, "mc16a.npz is named twice"),
        ("nothing_*.npz", FileNotFoundError, "no file matches"),
        ([{"path": "a.npz"}], InputError, "its keys are file"),
        ([{"file": "a.root:one", "tree": "two"}], InputError, "names a tree, and so does tree='two'"),
        ([{"file": "a.npz", "factor": 0}], InputError, "factor of a file"),
        ([{"file": "a.npz", "factor": "big"}], InputError, "factor of a file"),
    ],
)
def test_bad_names(campaigns, named, error, words):
    with pytest.raises(error, match=words):
        named_sources(named, folder=campaigns)


def test_files_that_disagree(campaigns):
    np.savez(campaigns / "flag.npz", x=np.array([True]), w=np.ones(1))
    with pytest.raises(InputError, match=r"'x' is a flag in .*flag.npz and a number in .*other.npz"):
        bu.io.read_columns([campaigns / "flag.npz", campaigns / "other.npz"], ["x"])
    np.savez(campaigns / "less.npz", x=np.ones(1))
    with pytest.raises(InputError, match=r"less\.npz has no column 'w'"):
        bu.io.read_columns([campaigns / "other.npz", campaigns / "less.npz"], ["x", "w"])
    with pytest.raises(InputError, match="have no events that pass"):
        bu.io.read_columns([campaigns / "other.npz", campaigns / "mc16a.npz"], ["x"], selection="x > 100")


def test_a_file_without_events_has_no_kind(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name, values in (("a", [30.0, 10.0]), ("b", []), ("c", [25.0])):
        pq.write_table(pa.table({"pt": pa.array(values, pa.float64())}), tmp_path / f"{name}.parquet")
    files = [tmp_path / f"{name}.parquet" for name in ("a", "b", "c")]
    found = bu.io.read_columns(files, ["pt > 20", "pt"])
    assert found["pt > 20"].tolist() == [True, False, True]
    data = bu.io.open_events(files, reco=["pt", "pt > 20"], cache=tmp_path / "cache")
    assert data.features[:, 1].tolist() == [1.0, 0.0, 1.0]
