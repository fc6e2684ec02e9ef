"""Columns of friend trees, joined row by row or by an identifier."""

from __future__ import annotations

import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import require

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.io.sources import named_sources, without_trees


@pytest.fixture
def files(tmp_path):
    """Two files of three and two events, with friends in the same order and in another one."""
    for name, x in (("a", [1.0, 2.0, 3.0]), ("b", [4.0, 5.0])):
        number = np.array(x, dtype=int) + 10**12
        np.savez(tmp_path / f"main_{name}.npz", x=np.array(x), event=number)
        np.savez(tmp_path / f"rows_{name}.npz", w=10 * np.array(x), x=-np.array(x))
        extra = np.append(number[::-1], 7)  # another order, and an event that the file lacks
        np.savez(tmp_path / f"keyed_{name}.npz", v=100.0 * (extra % 10**12), event=extra)
    return tmp_path


@pytest.fixture(params=["one chunk", "chunks of two"])
def chunks(request, monkeypatch):
    if request.param == "chunks of two":
        import bayesunfold.io.formats as module

        monkeypatch.setattr(module, "CHUNK", 2)


def test_row_by_row(files, chunks):
    named = {"file": str(files / "main_*.npz"), "friends": str(files / "rows_*.npz"), "factor": 2.0}
    found = bu.io.read_columns(named, ["x", "w", "w / x * file_factor"], selection="w > 15")
    assert found["x"].tolist() == [2, 3, 4, 5]  # the file's own x, not the friend's
    assert found["w"].tolist() == [20, 30, 40, 50]
    assert found["w / x * file_factor"].tolist() == [20] * 4
    assert bu.io.read_columns(named, ["w"])["w"].tolist() == [10, 20, 30, 40, 50]  # nothing of the file itself
    assert bu.io.list_columns(named) == ["x", "event", "w"]


def test_by_identifier(files, chunks):
    named = {"file": str(files / "main_*.npz"), "friends": [str(files / "keyed_*.npz")], "friend_key": "event"}
    found = bu.io.read_columns(named, ["v", "x"])
    np.testing.assert_array_equal(found["v"], 100 * found["x"])
    assert bu.io.read_columns(named, ["v"], selection="v > 250")["v"].tolist() == [300, 400, 500]


def test_identifiers_of_a_friend_are_put_in_order_once(files, monkeypatch):
    import bayesunfold.io.formats as formats
    import bayesunfold.unfolding.matching as matching

    x = np.arange(7.0)
    pq.write_table(pa.table({"x": x, "event": np.arange(7)}), files / "a.parquet")
    pq.write_table(pa.table({"v": x[::-1], "event": np.arange(7)[::-1]}), files / "f.parquet")
    lengths, index = [], matching._index
    monkeypatch.setattr(matching, "_index", lambda columns: lengths.append(len(columns[0])) or index(columns))
    monkeypatch.setattr(formats, "CHUNK", 3)
    named = {"file": files / "a.parquet", "friends": str(files / "f.parquet"), "friend_key": "event"}
    assert bu.io.read_columns(named, ["v"])["v"].tolist() == x.tolist()
    assert lengths == [7, 3, 3, 1]


def test_in_other_formats(tmp_path, chunks):
    uproot = require("uproot")
    x = np.arange(5.0)
    pq.write_table(pa.table({"x": x, "run": np.ones(5, int), "event": np.arange(5)}), tmp_path / "a.parquet")
    order = np.array([3, 1, 4, 0, 2])
    with uproot.recreate(tmp_path / "f.root") as file:
        file["weights"] = {"w": x[order], "run": np.ones(5, int), "event": order}
        file["other"] = {"u": x}
    named = {
        "file": tmp_path / "a.parquet",
        "friends": [f"{tmp_path}/f.root:weights"],
        "friend_key": ["run", "event"],
    }
    found = bu.io.read_columns(named, ["x", "w"])
    np.testing.assert_array_equal(found["x"], found["w"])
    root = {"file": f"{tmp_path}/f.root", "tree": "weights", "friends": f"{tmp_path}/f.root:other"}
    np.testing.assert_array_equal(bu.io.read_columns(root, ["u"])["u"], x)


def test_events_in_memory_maps_notice_a_new_friend(files):
    named = {"file": str(files / "main_a.npz"), "friends": str(files / "rows_a.npz")}
    cache = files / "cache"

    def opened():
        return bu.io.open_events(named, ["w"], ["x"], cache=cache, progressbar=False).reco[:, 0].tolist()

    assert opened() == [10, 20, 30]
    np.savez(files / "rows_a.npz", w=np.array([1.0, 2.0, 3.5]))
    os.utime(files / "rows_a.npz", ns=(1, 1))
    assert opened() == [1, 2, 3.5]


@pytest.mark.parametrize("key", [{}, {"friend_key": "event"}])
def test_friends_of_patterns_are_those_of_the_same_wildcards(tmp_path, key):
    for k in (1, 2, 10):  # by name sim_1 is before sim_10, and sim_10_Friend before sim_1_Friend
        np.savez(tmp_path / f"sim_{k}.npz", event=np.arange(2) + 100 * k)
        np.savez(tmp_path / f"sim_{k}_Friend.npz", w=np.arange(2) + 100.0 * k, event=np.arange(2) + 100 * k)
    named = {"file": f"{tmp_path}/sim_*[0-9].npz", "friends": f"{tmp_path}/sim_*[0-9]_Friend.npz"} | key
    found = bu.io.read_columns(named, ["event", "w"])
    assert found["w"].tolist() == found["event"].tolist() == [100, 101, 1000, 1001, 200, 201]


def test_friends_of_patterns_in_other_folders(tmp_path):
    for campaign, k in (("a", 1), ("a", 2), ("b/c", 1)):
        for kind in ("main", "friend"):
            (tmp_path / kind / campaign).mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / campaign / f"x{k}.npz").touch()
    for pattern in ("**/x?.npz", "**/[!y-z]*.npz"):
        found = named_sources({"file": f"main/{pattern}", "friends": f"friend/{pattern}"}, folder=tmp_path)
        pairs = [(s.path.relative_to(tmp_path), s.friends[0].path.relative_to(tmp_path)) for s in found]
        assert [tuple(str(p.relative_to(p.parts[0])) for p in pair) for pair in pairs] == [
            (name, name) for name in ("a/x1.npz", "a/x2.npz", "b/c/x1.npz")
        ]


def test_friends_of_other_wildcards(tmp_path):
    for name in ("sim_1", "sim_2", "w_2", "w_3"):
        (tmp_path / f"{name}.npz").touch()
    words = r"sim_1.npz has no friend and .*w_3.npz no file: the wildcards of sim_\*.npz and w_\*.npz match '1' and '3'"
    with pytest.raises(InputError, match=words):
        named_sources({"file": "sim_*.npz", "friends": "w_*.npz"}, folder=tmp_path)


@pytest.mark.parametrize(
    ("table", "error", "words"),
    [
        ({"friends": "keyed_a.npz"}, InputError, "main_a.npz has 3 events and its friend keyed_a.npz has 4"),
        ({"friends": "rows_*.npz"}, InputError, "is 1 file and its friend .* is 2; each file needs one"),
        ({"friends": "rows_a.npz", "friend_key": "event"}, InputError, "rows_a.npz has no column 'event'"),
        ({"friends": "keyed_b.npz", "friend_key": "event"}, InputError, r"3 of 3 events of main_a.npz .*first: 100000"),
        ({"friend_key": "event"}, InputError, "has friend_key and no friends"),
        ({"friends": 3}, InputTypeError, "friends of .* is 3"),
        ({"friends": "none.npz"}, FileNotFoundError, "none.npz does not exist"),
    ],
)
def test_friends_that_do_not_fit(files, table, error, words):
    if isinstance(table.get("friends"), str):
        table = table | {"friends": str(files / table["friends"])}
    with pytest.raises(error, match=words):
        bu.io.read_columns({"file": str(files / "main_a.npz")} | table, ["x", "w" if "rows" in str(table) else "v"])


def test_two_rows_of_a_friend_for_one_event(files):
    np.savez(files / "twice.npz", v=np.ones(2), event=np.array([10**12 + 1] * 2))
    named = {"file": files / "main_a.npz", "friends": str(files / "twice.npz"), "friend_key": "event"}
    with pytest.raises(InputError, match=r"key of twice\.npz has 1 events whose identifier stands there before"):
        bu.io.read_columns(named, ["v"])


def test_columns_of_a_friend_of_other_lengths(files):
    np.savez(files / "odd.npz", w=np.ones(3), v=np.ones(9))
    with pytest.raises(InputError, match=r"odd.npz: the columns have shapes"):
        bu.io.read_columns({"file": files / "main_a.npz", "friends": str(files / "odd.npz")}, ["v"])


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_arrays_beside_the_events_do_not_count(tmp_path, ending):
    columns = {"bins": np.arange(5.0), "event": np.arange(3), "w": 10.0 * np.arange(3), "v": np.ones(4)}
    for name, x in (("f", {}), ("a", {"bins": np.arange(7.0), "event": np.arange(3)[::-1], "x": np.ones(3)})):
        if ending == ".npz":
            np.savez(tmp_path / f"{name}.npz", **(x or columns))
        else:
            h5py = require("h5py")
            with h5py.File(tmp_path / f"{name}.h5", "w") as file:
                for column, values in (x or columns).items():
                    file[column] = values
    named = {"file": tmp_path / f"a{ending}", "friends": str(tmp_path / f"f{ending}")}
    assert bu.io.read_columns(named, ["w"])["w"].tolist() == [0, 10, 20]  # nothing of the file itself
    assert bu.io.read_columns(named, ["w / x"])["w / x"].tolist() == [0, 10, 20]
    assert bu.io.read_columns(named | {"friend_key": "event"}, ["w"])["w"].tolist() == [20, 10, 0]
    with pytest.raises(InputError, match=r"f\..*: the columns have shapes {'v': \(4,\)}; each must hold one"):
        bu.io.read_columns(named, ["x", "v"])


def test_files_without_events(files):
    np.savez(files / "main_c.npz", x=np.zeros(0), event=np.zeros(0, dtype=int))
    np.savez(files / "keyed_c.npz", v=np.zeros(0), event=np.zeros(0, dtype=int))
    named = {"file": str(files / "main_*.npz"), "friends": str(files / "keyed_*.npz"), "friend_key": "event"}
    assert bu.io.read_columns(named, ["v"])["v"].tolist() == [100, 200, 300, 400, 500]
    named = {"file": files / "main_a.npz", "friends": str(files / "keyed_c.npz"), "friend_key": "event"}
    with pytest.raises(InputError, match=r"3 of 3 events of main_a.npz are not in its friend keyed_c.npz"):
        bu.io.read_columns(named, ["v"])


def test_only_the_factor_of_large_files(tmp_path, monkeypatch):
    h5py = require("h5py")
    import bayesunfold.io.formats as module

    monkeypatch.setattr(module, "CHUNK", 2)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(5.0)
    found = bu.io.read_columns({"file": tmp_path / "a.h5", "factor": 0.5}, ["file_factor"])
    assert found["file_factor"].tolist() == [0.5] * 5


def test_row_by_row_friends_stay_with_their_tree():
    table = {"file": "a.root", "tree": "nominal", "friends": "f.root", "factor": 2.0}
    assert without_trees(table) == {"file": "a.root", "factor": 2.0}
    kept = without_trees(table | {"friend_key": "event"})
    assert kept == {"file": "a.root", "friends": "f.root", "factor": 2.0, "friend_key": "event"}


def test_a_column_that_neither_has(files):
    named = {"file": files / "main_a.npz", "friends": str(files / "rows_a.npz")}
    with pytest.raises(InputError, match="has no column 'ww'; near names: w"):
        bu.io.read_columns(named, ["ww"])


def test_friends_start_in_the_same_folder(files):
    source = named_sources({"file": "main_*.npz", "friends": ["rows_*.npz"]}, folder=files)[1]
    assert source.friends[0].path == files / "rows_b.npz"


@pytest.mark.parametrize("kinds", [(np.uint64, np.uint64), (np.uint64, np.int64)])
def test_identifiers_of_64_bits(tmp_path, chunks, kinds):
    """Neighbours beyond 2^53 are one double; as friend_key they are exact, with and without a sign."""
    number = [2**60 + k for k in (0, 1, 2)]
    np.savez(tmp_path / "a.npz", x=np.arange(3.0), event=np.array(number, kinds[0]))
    np.savez(tmp_path / "f.npz", w=np.array([20.0, 0.0, 10.0]), event=np.array(number, kinds[1])[[2, 0, 1]])
    named = {"file": tmp_path / "a.npz", "friends": str(tmp_path / "f.npz"), "friend_key": ["event"]}
    assert bu.io.read_columns(named, ["w"])["w"].tolist() == [0, 10, 20]
    with pytest.raises(InputError, match=r"'event' of .*a\.npz holds .* 11\d+; above 2\^53 .*match_levels"):
        bu.io.read_columns(named, ["event"])
