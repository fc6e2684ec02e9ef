"""Files: nothing of the user's is lost, and a killed write leaves the old contents."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold._support import files
from bayesunfold.errors import FileFormatError, InputError
from bayesunfold.omnifold.checkpoint import claim_checkpoint, read_checkpoint, release_checkpoint, write_checkpoint
from bayesunfold.omnifold.iteration import Networks

KILLS = int(os.environ.get("BAYESUNFOLD_KILLS", "2"))
"""Kills of each loop; ``make test-reliability`` takes fifty."""
FLIPS = int(os.environ.get("BAYESUNFOLD_FLIPS", "6"))
EDGES = [-3.0, 0.0, 3.0, 6.0]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def small():
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    unfolder = bu.OmniFold(2, inference="laplace", draws=40, random_seed=1, progressbar=False)
    return unfolder.fit(toy.simulation, toy.data)


# atomic writes


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.atomic_write(path, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["x.txt"]
    assert path.read_text() == "old"


def test_the_next_write_cleans_up_after_killed_ones_only(tmp_path):
    """Temporaries of dead processes go; those of living ones, of other files and the user's stay."""
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    ours = files._prefix(tmp_path / "x.txt")
    gone = tmp_path / (ours.replace(f"-{os.getpid()}-", f"-{dead.pid}-") + "abc.txt")
    kept = [tmp_path / (ours + "def.txt"), tmp_path / ".x.txt.bayesunfold-notes", tmp_path / ".x.txt.mine"]
    for path in (gone, *kept):
        path.write_text("")
    files.atomic_write(tmp_path / "x.txt", lambda temporary: temporary.write_text("new"))
    assert not gone.exists()
    assert all(path.exists() for path in kept)


def test_files_have_usual_permissions(tmp_path):
    files.atomic_write(tmp_path / "x.txt", lambda temporary: temporary.write_text("new"))
    (tmp_path / "y.txt").write_text("plain")
    assert (tmp_path / "x.txt").stat().st_mode == (tmp_path / "y.txt").stat().st_mode


# folders


def _write(text):
    def write(new):
        (new / "table.dat").write_text(text)
        (new / "list.yaml").write_text(f"files: {text}\n")

    return write


@pytest.mark.parametrize("exchange", [True, False])
def test_folders_are_replaced_and_the_users_files_stay(tmp_path, monkeypatch, exchange):
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda *_: False)
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    files.replace_folder(folder, _write("one"), "a test", "list.yaml")
    files.replace_folder(folder, _write("two"), "a test", "list.yaml")
    assert (folder / "table.dat").read_text() == "two"
    assert (folder / "notes.txt").read_text() == "mine"
    assert sorted(p.name for p in folder.iterdir()) == ["list.yaml", "notes.txt", "table.dat"]
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
    (folder / "table.dat").write_text("edited by hand")
    with pytest.raises(InputError, match=r"table\.dat, which bayesunfold did not write or which was changed"):
        files.replace_folder(folder, _write("three"), "a test", "list.yaml")
    assert (folder / "table.dat").read_text() == "edited by hand"


def test_a_folder_of_the_users_in_the_folder_stays(tmp_path):
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "thesis.txt").write_text("mine")
    for text in ("one", "two"):
        files.replace_folder(folder, _write(text), "a test", "list.yaml")
    assert (folder / "sub" / "thesis.txt").read_text() == "mine"
    assert (folder / "table.dat").read_text() == "two"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside hepdata_lib
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hepdata_removes_only_what_it_wrote(small, tmp_path):
    """A submission from elsewhere decides nothing, neither in the folder nor outside."""
    folder = tmp_path / "h"
    folder.mkdir()
    (tmp_path / "thesis.txt").write_text("mine")
    (folder / "my.yaml").write_text("mine")
    (folder / "submission.yaml").write_text("name: a\ndata_file: my.yaml\n---\nname: b\ndata_file: ../thesis.txt\n")
    with pytest.raises(InputError, match=r"holds submission\.yaml"):
        bu.io.write_hepdata(folder, {"gen": small.spectrum("gen", EDGES)})
    assert (tmp_path / "thesis.txt").read_text() == (folder / "my.yaml").read_text() == "mine"


def test_a_saved_result_replaces_results_only(small, tmp_path):
    path = tmp_path / "x.zarr"
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match="is not a result of bayesunfold"):
        small.save(path)
    (path / "precious.txt").unlink()
    small.save(path)  # an empty folder holds nothing to lose
    small.save(path)
    (path / "precious.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds precious\.txt"):
        small.save(path)
    assert (path / "precious.txt").read_text() == "mine"


DIES = """
import os, sys
from pathlib import Path
import bayesunfold as bu
from bayesunfold._support import files
path, exchange, calls = sys.argv[1], sys.argv[2] == "yes", 0
if not exchange:
    files._exchange = lambda *_: False
result = bu.load(path)

def dies(function, step):
    def counted(*args, **options):
        global calls
        calls += 1
        if calls == step:
            os._exit(9)
        return function(*args, **options)
    return counted

for step in range(1, 5):
    if os.fork() == 0:
        Path.replace = dies(Path.replace, step)
        files.shutil.rmtree = dies(files.shutil.rmtree, step)
        result.save(path)
        os._exit(0)
    os.wait()
    assert (bu.load(path).nominal == result.nominal).all(), step
"""


@pytest.mark.parametrize("exchange", ["yes", pytest.param("no", marks=pytest.mark.slow)])
def test_the_old_result_survives_a_death_at_every_step(small, tmp_path, exchange):
    path = tmp_path / "x.zarr"
    small.save(path)
    subprocess.run([sys.executable, "-c", DIES, str(path), exchange], check=True, env=ONE_THREAD)
    small.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def test_a_full_disk_is_an_error_and_no_crash(small, tmp_path, monkeypatch):
    """The bytes are made in memory: HDF5 itself never meets the disk."""

    def full(self, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        small.save(tmp_path / "x.nc")
    assert list(tmp_path.iterdir()) == []


def test_publications_of_two_writes_are_noticed(small, tmp_path):
    one, two = (bu.io.write_publication(small, tmp_path / name, draws=n) for name, n in (("a", 20), ("b", 30)))
    (two / "metadata.yaml").write_bytes((one / "metadata.yaml").read_bytes())
    with pytest.raises(FileFormatError, match="of another write"):
        bu.io.read_publication(two)


@pytest.mark.parametrize("name", ["x.nc", "x.zarr", "publication"])
def test_a_flipped_byte_is_noticed_or_harmless(small, tmp_path, name):
    path = tmp_path / name
    read = (lambda: bu.io.read_publication(path).draws) if name == "publication" else (lambda: bu.load(path).weights)
    bu.io.write_publication(small, path) if name == "publication" else small.save(path)
    before = np.asarray(read())
    everything = sorted(p for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
    rng = random.Random(3)
    for _ in range(FLIPS):
        target = rng.choices(everything, [p.stat().st_size for p in everything])[0]
        good = target.read_bytes()
        bad = bytearray(good)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        target.write_bytes(bad)
        try:
            assert np.array_equal(np.asarray(read()), before)
        except (FileFormatError, InputError):
            pass
        finally:
            target.write_bytes(good)


# checkpoints


def _records(n):
    return [Networks(np.full(4, float(k)), np.full(3, float(k)), None) for k in range(n)]


def test_a_checkpoint_belongs_to_one_run(tmp_path):
    path = tmp_path / "run.npz"
    assert claim_checkpoint(path, "mine", 1) == []
    with pytest.raises(FileFormatError, match="or of a run that goes on now"):
        claim_checkpoint(path, "another", 2)
    write_checkpoint(path, "mine", _records(2), 1)
    assert [r.step1[0] for r in claim_checkpoint(path, "mine", 1)] == [0.0, 1.0]
    path.unlink()
    claim_checkpoint(path, "another", 2)  # who removes it gives it away
    with pytest.raises(FileFormatError):
        write_checkpoint(path, "mine", _records(3), 1)
    assert read_checkpoint(path, "another") == []
    release_checkpoint(path, "mine")
    assert path.exists()
    release_checkpoint(path, "another")
    assert not path.exists()


def test_a_run_that_fails_before_its_first_iteration_leaves_no_claim(tmp_path, monkeypatch):
    toy = bu.datasets.gaussian_toy(200, 200, random_seed=1)

    def fail(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr("bayesunfold.omnifold.iteration.fit_map", fail)
    with pytest.raises(KeyboardInterrupt):
        bu.OmniFold(2, random_seed=1, progressbar=False).fit(toy.simulation, toy.data, checkpoint=tmp_path / "c.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_is_no_bomb(tmp_path):
    """Compressed arrays, and headers that claim more than the file holds, are refused before anything is read."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, step1=np.zeros(30_000_000))
    assert path.stat().st_size < 1_000_000
    start = time.perf_counter()
    with pytest.raises(FileFormatError, match="is compressed"):
        read_checkpoint(path, "k")
    np.savez(path, step1=np.zeros(3))
    path.write_bytes(path.read_bytes().replace(b"'shape': (3,), ", b"'shape': (9999999999999,), "[:15]))
    with pytest.raises(FileFormatError):
        read_checkpoint(path, "k")
    assert time.perf_counter() - start < 5


HEADING = {"edges": {"gen": [0.0, 1.0]}, "expected": [30.0], "levels": [0.68]}


@pytest.mark.parametrize("toys", [0, 2])
def test_a_coverage_checkpoint_cut_anywhere_resumes(tmp_path, toys):
    from bayesunfold.studies.pseudo_experiments import _append, _read_records

    path = tmp_path / "toys.jsonl"
    assert _read_records(path, HEADING) == {}
    for seed in range(toys):
        _append(path, {"seed": seed, "seconds": 1.5})
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        found = _read_records(path, HEADING)
        assert set(found) == {
            k for k in range(toys) if json.dumps({"seed": k, "seconds": 1.5}).encode() in whole[:size]
        }
        _append(path, {"seed": 9, "seconds": 2.5})
        again = _read_records(path, HEADING)
        assert set(again) == {*found, 9}
        assert all(json.loads(line) for line in path.read_text().splitlines())


RUN = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
import bayesunfold as bu
what, folder, delays = sys.argv[1], Path(sys.argv[2]), [float(d) for d in sys.argv[3:]]
toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
unfolder = bu.OmniFold(6, inference="laplace", draws=40, random_seed=1, progressbar=False)

def fit():
    return unfolder.fit(toy.simulation, toy.data, checkpoint=folder / "c.npz").nominal

def work():
    if what == "fit":
        return fit()
    for k in range(10_000):
        if what == "publication":
            bu.io.write_publication(result, folder / "p", draws=20 + k % 10)
        else:
            result.save(folder / what)

whole = unfolder.fit(toy.simulation, toy.data).nominal
result = bu.load(folder / "small.nc")
for delay in delays:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if what == "fit":
        assert (fit() == whole).all()
        (folder / "c.npz").unlink()
    elif what == "publication":
        assert not (folder / "p").exists() or (bu.io.read_publication(folder / "p").nominal == result.nominal).all()
    else:
        assert not (folder / what).exists() or (bu.load(folder / what).nominal == result.nominal).all()
"""


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "what", ["fit", "x.nc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("x.zarr", "publication"))]
)
def test_killed_work_leaves_one_whole_result(small, tmp_path, what):
    """A killed fit goes on to the same digits; a killed write leaves the old file or the new one."""
    small.save(tmp_path / "small.nc")
    rng = random.Random(2)
    delays = [str(rng.uniform(0.05, 0.6)) for _ in range(KILLS)]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, what, str(tmp_path), *delays], check=True, env=ONE_THREAD
    )
    made = {"publication": ["p"], "fit": []}.get(what, [what])
    if what == "publication":
        bu.io.write_publication(small, tmp_path / "p")
    elif what != "fit":
        small.save(tmp_path / what)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["small.nc", *made])
