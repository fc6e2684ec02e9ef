"""Events of many files as memory maps: what is read, when it is read again, and what a full disk leaves."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from types import SimpleNamespace

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.io import clear_cache, event_cache, map_columns, open_events, read_columns

COLUMNS = {"reco": ["r", "u + log(m)"], "gen": ["t", "u"]}


@pytest.fixture
def files(tmp_path):
    """Three parquet files of 1000 events."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for k in range(3):
        pq.write_table(pa.table(_columns(k)), tmp_path / f"sim_{k}.parquet")
    return tmp_path


def _columns(k):
    rng = np.random.default_rng(k)
    t = rng.normal(0, 1, (1000, 2))
    return {
        "t": t[:, 0],
        "u": t[:, 1],
        "r": t[:, 0] + rng.normal(0, 0.3, 1000),
        "m": rng.exponential(size=1000) + 1,
        "w": rng.exponential(size=1000),
        "ok": rng.random(1000) < 0.9,
        "n": rng.integers(0, 5, 1000),
        "event": 20_000_000 + np.arange(1000),
    }


def _open(folder, **more):
    settings = {"weight": "w * file_factor", "pass_reco": "ok", "cache": folder / "cache", "progressbar": False} | more
    return open_events(folder / "sim_*.parquet", COLUMNS["reco"], COLUMNS["gen"], **settings)


def _spy(monkeypatch):
    """Numbers of the files that are read from now on."""
    numbers, read = [], event_cache.read_chunks

    def spied(source, number, *args, **kwargs):
        numbers.append(number)
        return read(source, number, *args, **kwargs)

    monkeypatch.setattr(event_cache, "read_chunks", spied)
    return numbers


def test_it_is_what_read_columns_reads(files):
    simulation = _open(files, selection="m > 1.2")
    wanted = read_columns(
        files / "sim_*.parquet", ["t", "u", "r", "u + log(m)", "w", "ok"], selection="m > 1.2", progressbar=False
    )
    np.testing.assert_array_equal(simulation.gen, np.column_stack([wanted["t"], wanted["u"]]).astype(np.float32))
    np.testing.assert_array_equal(
        simulation.reco, np.column_stack([wanted["r"], wanted["u + log(m)"]]).astype(np.float32)
    )
    np.testing.assert_array_equal(simulation.weight, wanted["w"])
    np.testing.assert_array_equal(simulation.pass_reco, wanted["ok"])
    assert simulation.gen.dtype == np.float32
    assert not simulation.gen.flags.writeable
    assert simulation.gen_names == ("t", "u")
    assert simulation.reco_names == ("r", "u + log(m)")


def test_data_double_precision_and_names(files):
    data = open_events(
        {"file": files / "sim_0.parquet", "factor": 2.0}, ["r", "n"], weight="w * file_factor", dtype="float64",
        reco_names=["pt", "jets"], cache=files / "cache", progressbar=False,
    )  # fmt: skip
    assert isinstance(data, bu.Data)
    np.testing.assert_array_equal(data.features, np.column_stack([_columns(0)["r"], _columns(0)["n"]]))
    np.testing.assert_array_equal(data.weight, 2 * _columns(0)["w"])
    assert data.names == ("pt", "jets")


def test_more_columns_have_the_same_rows(files):
    simulation = _open(files, selection="ok")
    mapped = map_columns(files / "sim_*.parquet", ["t", "w"], selection="ok", cache=files / "cache", progressbar=False)
    np.testing.assert_array_equal(mapped[:, 0], simulation.gen[:, 0])


def test_a_second_call_reads_nothing(files, monkeypatch):
    first = _open(files)
    numbers = _spy(monkeypatch)
    second = _open(files)
    assert numbers == []
    np.testing.assert_array_equal(first.gen, second.gen)
    _open(files, selection="m > 2")  # another request is another cache
    assert numbers == [0, 1, 2]


def test_an_interrupted_call_goes_on(files, monkeypatch):
    read = event_cache.read_chunks

    def interrupted(source, number, *args, **kwargs):
        for chunk in read(source, number, *args, **kwargs):
            yield chunk
            if number == 1:
                raise KeyboardInterrupt

    monkeypatch.setattr(event_cache, "read_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _open(files)
    monkeypatch.setattr(event_cache, "read_chunks", read)
    numbers = _spy(monkeypatch)
    simulation = _open(files)
    assert numbers == [1, 2]
    np.testing.assert_array_equal(
        simulation.gen[:, 0], np.concatenate([_columns(k)["t"] for k in range(3)]).astype("f4")
    )


def test_a_changed_file_is_read_again_with_those_behind_it(files, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    _open(files)
    pq.write_table(pa.table(_columns(7)), files / "sim_1.parquet")
    numbers = _spy(monkeypatch)
    simulation = _open(files)
    assert numbers == [1, 2]
    np.testing.assert_array_equal(simulation.gen[1000:2000, 0], _columns(7)["t"].astype("f4"))
    np.testing.assert_array_equal(simulation.gen[2000:, 0], _columns(2)["t"].astype("f4"))


def test_open_maps_stay_what_they_were(files):
    """A file changes, and another call reads it again: the first call's arrays keep their events."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = _open(files)
    before = np.array(first.gen)
    pq.write_table(pa.table({k: v[:10] for k, v in _columns(7).items()}), files / "sim_0.parquet")
    second = _open(files)
    assert len(second) == 2010
    np.testing.assert_array_equal(first.gen, before)
    (folder,) = (files / "cache").iterdir()
    assert len(list(folder.glob("*.bin"))) == 4


def test_a_broken_rebuild_is_not_taken_for_the_old_events(files, monkeypatch):
    """A file changes, the call that reads it again breaks, and the file is put back with its time of change."""
    import os

    import pyarrow as pa
    import pyarrow.parquet as pq

    _open(files)
    path = files / "sim_0.parquet"
    old, times = path.read_bytes(), path.stat()
    pq.write_table(pa.table(_columns(7)), path)
    read = event_cache.read_chunks

    def broken(*args, **kwargs):
        yield next(read(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(event_cache, "read_chunks", broken)
    with pytest.raises(KeyboardInterrupt):
        _open(files)
    monkeypatch.setattr(event_cache, "read_chunks", read)
    path.write_bytes(old)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    np.testing.assert_array_equal(_open(files).gen[:1000, 0], _columns(0)["t"].astype("f4"))


def test_a_build_that_broke_in_the_first_file_can_be_cleared(files, monkeypatch):
    read = event_cache.read_chunks

    def broken(*args, **kwargs):
        yield next(read(*args, **kwargs))
        raise KeyboardInterrupt

    monkeypatch.setattr(event_cache, "read_chunks", broken)
    with pytest.raises(KeyboardInterrupt):
        _open(files)
    assert clear_cache(files / "cache") > 1000 * 24
    assert not list((files / "cache").iterdir())


def test_a_cache_that_is_being_filled_is_not_cleared(files):
    _open(files)
    (folder,) = (files / "cache").iterdir()
    with event_cache._locked(folder, progressbar=False):
        assert clear_cache(files / "cache") == 0
    assert clear_cache(files / "cache") > 0


def test_file_systems_without_locks_and_folders_without_write_access(files, monkeypatch):
    import fcntl

    def none(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    assert len(_open(files)) == 3000

    def forbidden(*_args, **_kwargs):
        raise AssertionError

    monkeypatch.setattr(event_cache, "_locked", forbidden)  # a complete cache is only read
    assert len(_open(files)) == 3000


def test_a_damaged_cache_is_made_again(files, monkeypatch):
    _open(files)
    (folder,) = (files / "cache").iterdir()
    (array,) = folder.glob("gen.*.bin")
    with array.open("r+b") as file:
        file.truncate(1500 * 8)
    numbers = _spy(monkeypatch)
    _open(files)
    assert numbers == [1, 2]
    (folder / "manifest.json").write_text("{")
    assert len(_open(files)) == 3000
    assert numbers == [1, 2, 0, 1, 2]


def test_a_folder_without_room_is_said_before_reading(files, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    numbers = _spy(monkeypatch)
    # four features of 4 bytes, a weight of 8 and a flag
    with pytest.raises(InputError, match=r"needs 7.5e-05 GB and .* has 1e-06 GB left"):
        _open(files)
    assert numbers == []


def test_a_disk_that_is_full_in_the_middle_keeps_what_is_complete(files, monkeypatch):
    rows, calls = event_cache._rows, []

    def full(*args):
        calls.append(1)
        if len(calls) > 4:  # four tables of the first file
            raise OSError(errno.ENOSPC, "No space left on device")
        return rows(*args)

    monkeypatch.setattr(event_cache, "_rows", full)
    with pytest.raises(OSError, match=r"no space left in .*; 1000 events of 1 files are kept there"):
        _open(files)
    monkeypatch.setattr(event_cache, "_rows", rows)
    numbers = _spy(monkeypatch)
    assert len(_open(files)) == 3000
    assert numbers == [1, 2]


def test_one_call_builds_and_others_wait(files, monkeypatch):
    """Four threads ask at once; every file is read once."""
    numbers, found = _spy(monkeypatch), []
    threads = [threading.Thread(target=lambda: found.append(_open(files))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert sorted(numbers) == [0, 1, 2]
    assert all(np.array_equal(s.gen, found[0].gen) for s in found)


def test_only_what_the_cache_wrote_is_removed(files):
    _open(files)
    (folder,) = (files / "cache").iterdir()
    mine = folder / "notes.txt"
    mine.write_text("mine")
    other = files / "cache" / "other" / "manifest.json"
    other.parent.mkdir()
    other.write_text('{"request": {"tables": {}}}')
    freed = clear_cache(files / "cache")
    assert freed > 3000 * 24
    assert list(folder.iterdir()) == [mine]
    assert other.exists()
    assert clear_cache(files / "cache") == 0


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert event_cache.default_cache() == tmp_path / "bayesunfold"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert event_cache.default_cache().parts[-2:] == (".cache", "bayesunfold")


@pytest.mark.parametrize(
    ("columns", "more", "error", "message"),
    [
        (["t * 1e39"], {}, InputError, "reaches .*e\\+39, which single precision cannot hold"),
        (["event"], {}, InputError, "holds whole numbers up to 20000999; above 16777216"),
        (
            ["event / 7 + 1e6"],
            {},
            InputError,
            "varies by 143 about 3857214.2 in 3000 events, which single precision rounds away",
        ),
        (["t"], {"selection": "m < 0"}, InputError, "have no events that pass 'm < 0'"),
        (["t"], {"dtype": "float16"}, InputError, "dtype"),
        ("t", {}, InputTypeError, "give a list of columns"),
        ([], {}, InputError, "is empty"),
        (["x"], {}, InputError, "has no column 'x'"),
    ],
)
def test_what_cannot_be_kept_is_named(files, columns, more, error, message):
    with pytest.raises(error, match=message):
        map_columns(files / "sim_*.parquet", columns, cache=files / "cache", progressbar=False, **more)


def _mapped(folder, columns, files="*.npz", **more):
    return map_columns(folder / files, columns, cache=folder / "c", progressbar=False, **more)


def test_few_events_of_a_file_may_be_close_together(tmp_path, monkeypatch):
    """Pairs within 0.001 of a mass, whose range over all files is 4."""
    mass = 89 + np.arange(5)[:, None] + np.array([0.0, 0.001])
    for k, values in enumerate(mass):
        np.savez(tmp_path / f"{k}.npz", m=values)
    read = event_cache.read_chunks

    def interrupted(source, number, *args, **kwargs):
        if number == 4:
            raise KeyboardInterrupt
        return read(source, number, *args, **kwargs)

    monkeypatch.setattr(event_cache, "read_chunks", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _mapped(tmp_path, ["m"])
    monkeypatch.setattr(event_cache, "read_chunks", read)
    np.testing.assert_array_equal(_mapped(tmp_path, ["m"])[:, 0], mass.ravel().astype("f4"))


def test_a_column_that_is_narrow_in_all_files(tmp_path):
    for k in range(4):
        np.savez(tmp_path / f"{k}.npz", m=91 + 1e-4 * np.arange(10 * k, 10 * k + 10))
    words = r"'m' varies by 0.0039 about 91.00195 in 40 events, which single precision rounds away"
    for _ in range(2):  # what was read before does not hide it
        with pytest.raises(InputError, match=words):
            _mapped(tmp_path, ["m"])
    np.savez(tmp_path / "3.npz", m=np.array([60.0, 120.0]))  # narrow in all files but the last
    assert np.ptp(_mapped(tmp_path, ["m"])) == 60


def test_one_number_with_its_rounding_is_no_variation(tmp_path):
    x = np.linspace(1, 2, 1000)
    assert np.ptp(np.hypot(3 * x, 4 * x) / x) > 0
    np.savez(tmp_path / "a.npz", x=x)
    np.testing.assert_array_equal(_mapped(tmp_path, ["hypot(3 * x, 4 * x) / x"]), np.full((1000, 1), 5, "f4"))


def test_a_file_without_events_says_nothing_about_types(tmp_path):
    """Empty lists of flags are written as floats."""
    np.savez(tmp_path / "a.npz", t=np.zeros(0), r=np.zeros(0), ok=np.zeros(0), good=np.zeros(0))
    np.savez(tmp_path / "b.npz", t=np.arange(2.0), r=np.arange(2.0), ok=np.array([1, 0]) > 0, good=np.ones(2) > 0)
    settings = {"pass_reco": "ok", "selection": "good & t < 5", "cache": tmp_path / "c", "progressbar": False}
    for k in range(2):
        simulation = open_events(tmp_path / "*.npz", ["r"], ["t"], **settings)
        assert simulation.pass_reco.tolist() == [True, False], k
    assert read_columns(tmp_path / "*.npz", ["t"], selection="ok")["t"].tolist() == [0]


def test_another_file_of_the_same_size_and_time_is_noticed(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(4.0))
    times = (tmp_path / "a.npz").stat()
    assert _mapped(tmp_path, ["x"])[:, 0].tolist() == [0, 1, 2, 3]
    np.savez(tmp_path / "a.npz", x=np.arange(4.0) + 10)
    os.utime(tmp_path / "a.npz", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (tmp_path / "a.npz").stat().st_size == times.st_size
    assert _mapped(tmp_path, ["x"])[:, 0].tolist() == [10, 11, 12, 13]


def test_a_cache_of_before_is_made_again(files, monkeypatch):
    """Entries without the second time and without ranges."""
    expected = np.array(_open(files).gen)
    (manifest,) = (files / "cache").glob("*/manifest.json")
    kept = json.loads(manifest.read_text())
    for entry in kept["files"]:
        entry["state"] = entry["state"][:2]
        del entry["ranges"]
    manifest.write_text(json.dumps(kept))
    numbers = _spy(monkeypatch)
    np.testing.assert_array_equal(_open(files).gen, expected)
    assert numbers == [0, 1, 2]


def test_large_numbers_are_kept_in_double_precision(files):
    found = map_columns(
        files / "sim_0.parquet", ["t * 1e39", "event"], cache=files / "c", dtype="float64", progressbar=False
    )
    np.testing.assert_array_equal(found[:, 1], _columns(0)["event"])


def test_flags_must_be_flags_and_belong_to_a_simulation(files):
    with pytest.raises(InputError, match=r"'n' of .* has type float64; it must be a flag"):
        _open(files, pass_gen="n")
    with pytest.raises(InputError, match="pass_reco, names belong to a simulation"):
        open_events(files / "sim_0.parquet", ["r"], pass_reco="ok", names=["t"], cache=files / "cache")


def test_an_unfolding_of_maps_is_that_of_arrays(files):
    mapped = _open(files)
    arrays = bu.Simulation(
        np.array(mapped.gen), np.array(mapped.reco), mapped.weight, None, mapped.pass_reco,
        names=mapped.gen_names, reco_names=mapped.reco_names,
    )  # fmt: skip
    data = bu.Data(mapped.reco[mapped.pass_reco][:500], names=mapped.reco_names)
    unfolder = bu.OmniFold(1, inference="laplace", draws=10, random_seed=1, progressbar=False)
    first, second = (unfolder.fit(s, data).spectrum("t", [-1, 0, 1]) for s in (mapped, arrays))
    np.testing.assert_array_equal(first.draw_matrix, second.draw_matrix)
