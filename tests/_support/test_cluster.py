"""Sums over events on the workers of a cluster: the same digits, whatever happens to workers."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from conftest import require

import bayesunfold as bu
import bayesunfold.generative.event_posterior as event_posterior
import bayesunfold.omnifold.estimator as estimator
from bayesunfold._support import cluster as module
from bayesunfold._support.threads import block_threads, map_blocks
from bayesunfold.cli import main
from bayesunfold.errors import ClusterError, ConvergenceError, InputError, InputTypeError
from bayesunfold.generative.training import TrainingPlan

# the nanny of a worker that is killed leaves its queue to the garbage collector
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
BINS = np.linspace(-2, 2, 6)


def local_cluster(n_workers):
    distributed = require("distributed")
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=60,
    )


@pytest.fixture(scope="module", autouse=True)
def _workers_start_quickly():
    """Workers are forked from one process that has imported the library, which is most of a start."""
    if sys.platform != "linux":
        yield
        return
    distributed = require("distributed")  # before its settings are changed, or they are lost on the way back
    import dask

    with dask.config.set({"distributed.worker.multiprocessing-method": "forkserver"}):
        context = distributed.utils.get_mp_context()  # the first call sets modules of its own
        context.set_forkserver_preload(["distributed", estimator.__name__, event_posterior.__name__])
        yield


@pytest.fixture(scope="module")
def client():
    with local_cluster(2) as running, require("distributed").Client(running) as client:
        yield client


@pytest.fixture
def everything_is_sent(monkeypatch):
    monkeypatch.setattr(module, "WORTHWHILE", 0.0)


def events(n=12_000, d=2):
    rng = np.random.default_rng(1)
    gen = rng.normal(size=(n, d))
    passes = rng.random(n) < 0.9
    simulation = bu.Simulation(gen, gen + 0.4 * rng.normal(size=(n, d)), rng.uniform(0.5, 1.5, n), pass_reco=passes)
    truth = rng.normal(0.1, 1, (n // 2, d))
    tilt = bu.Systematic("tilt", weight_up=simulation.weight * np.exp(0.1 * gen[:, 0]))
    scale = bu.Systematic("scale", reco_up=1.02 * simulation.reco, pass_reco_up=passes)
    return simulation, bu.Data(truth + 0.4 * rng.normal(size=truth.shape)), [tilt, scale]


def unfolder(method, groups=131072):
    settings = {"network": bu.Network(hidden=(8,)), "draws": 20, "random_seed": 1, "progressbar": False}
    if method == "omnifold":
        return bu.OmniFold(2, inference="laplace", event_groups=groups, **settings)
    return bu.UnbinnedFBU(event_groups=groups, moments=settings["network"], **settings)


@lru_cache
def on_one_machine(method, groups):
    simulation, data, systematics = events()
    return unfolder(method, groups).fit(simulation, data, [], systematics)


@pytest.mark.parametrize(
    ("method", "groups"),
    [*(pytest.param("omnifold", n, marks=pytest.mark.slow) for n in (131072, 10_000)), ("direct", 10_000)],
)
def test_the_same_digits_as_on_one_machine(client, everything_is_sent, method, groups):
    simulation, data, systematics = events()
    here = on_one_machine(method, groups)
    there = unfolder(method, groups).fit(simulation, data, [], systematics, client=client)
    expected = here.spectrum("gen_0", BINS)
    np.testing.assert_array_equal(there.spectrum("gen_0", BINS).draw_matrix, expected.draw_matrix)
    with bu.cluster(client):
        found = there.spectrum("gen_0", BINS)
        sizes = there.members.effective_sizes()
    np.testing.assert_array_equal(found.draw_matrix, expected.draw_matrix)
    np.testing.assert_array_equal(sizes, here.members.effective_sizes())
    for name, std in expected.by_source().items():
        np.testing.assert_array_equal(found.by_source()[name], std)


def shifted(x, block):
    return x[block].sum()


def test_sums_of_a_function_and_its_errors(client, everything_is_sent, tmp_path):
    x = np.arange(1_000_000.0)
    view, fortran = x[10:], np.asfortranarray(np.arange(100_000.0).reshape(1000, 100))
    blocks = [slice(k, k + 1000) for k in range(0, 10_000, 1000)]

    def refuses(block):
        if block.start == 5000:
            msg = "no such events"
            raise ConvergenceError(msg)
        return 0.0

    with bu.cluster(client, tmp_path), block_threads():
        assert list(map_blocks(lambda b: float(view[b].sum()), blocks)) == [view[b].sum() for b in blocks]
        rows = [slice(k, k + 100) for k in range(0, 1000, 100)]
        assert list(map_blocks(lambda b: fortran[b].T @ fortran[b], rows))[3].shape == (100, 100)
        with pytest.raises(ValueError, match="read-only"):  # workers would not see it
            view[0] = 1.0
        with pytest.raises(ConvergenceError, match="no such events"):
            list(map_blocks(refuses, blocks))
        assert len(list(tmp_path.iterdir())) == 1
    view[0] = fortran[0, 0] = 1.0
    assert not list(tmp_path.iterdir())


def slow_disk(block):
    if block.start == 5000:
        raise TimeoutError(block.start)
    return 0.0


def test_errors_of_a_worker_are_raised_once(client, everything_is_sent, tmp_path):
    blocks = [slice(k, k + 1000) for k in range(0, 10_000, 1000)]
    calls = tmp_path / "calls"
    calls.mkdir()

    def noted(block):
        (calls / f"{block.start}-{time.time_ns()}").touch()
        return slow_disk(block)

    with bu.cluster(client), block_threads(), pytest.raises(TimeoutError, match="5000"):
        list(map_blocks(noted, blocks))
    assert len(list(calls.glob("5000-*"))) == 1


def mapped_files(folder):
    with Path("/proc/self/maps").open() as maps:
        return sum(folder in line for line in maps)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_workers_let_go_of_what_the_caller_drops(client, everything_is_sent, tmp_path):
    blocks = [slice(k, k + 1000) for k in range(0, 10_000, 1000)]
    with bu.cluster(client, tmp_path), block_threads():
        for _ in range(5):
            x = np.ones(100_000)
            list(map_blocks(lambda b, x=x: float(x[b].sum()), blocks))
            del x
            gc.collect()
        assert max(client.run(mapped_files, str(tmp_path)).values()) <= 2 + module.FUNCTIONS
    client.run(gc.collect)
    assert max(client.run(mapped_files, str(tmp_path)).values()) == 0


def test_draws_for_each_event_are_those_of_one_machine(client, everything_is_sent, monkeypatch):
    """Functions that write what they find stay here."""
    rng = np.random.default_rng(3)
    gen = rng.normal(size=3000)
    simulation = bu.Simulation(gen, gen + 0.3 * rng.normal(size=3000))
    monkeypatch.setattr(event_posterior, "TrainingPlan", lambda: TrainingPlan(steps=(60, 60)))
    draws = bu.EventPosterior(random_seed=1, progressbar=False).fit(simulation)
    here = draws.sample(simulation.reco[:2000], 10).values
    with bu.cluster(client):
        np.testing.assert_array_equal(draws.sample(simulation.reco[:2000], 10).values, here)


def test_short_sums_stay_here(client, monkeypatch):
    monkeypatch.setattr(module._Remote, "_sent", lambda *_: pytest.fail("was sent"))
    x = np.ones(1000)
    with bu.cluster(client), block_threads():
        assert sum(map_blocks(lambda b: x[b].sum(), [slice(0, 500), slice(500, 1000)])) == 1000


def kill_one(running, killed):
    """Kill a worker that was not killed before."""
    pid = next(nanny.pid for nanny in running.workers.values() if nanny.pid and nanny.pid not in killed)
    killed.append(pid)
    os.kill(pid, signal.SIGKILL)


def test_workers_that_die_in_any_phase_change_nothing(everything_is_sent, monkeypatch):
    simulation, data, systematics = events()
    here = on_one_machine("omnifold", 10_000).spectrum("gen_0", BINS)
    killed, seen = [], set()
    with local_cluster(3) as running, require("distributed").Client(running) as client:
        submit = module._Remote._submit

        def submit_and_kill(self, part):
            future = submit(self, part)
            phase = seen_phase[-1]
            if phase not in seen:
                seen.add(phase)
                kill_one(running, killed)
            return future

        sent, seen_phase = module._Remote._sent, []

        def noting(self, function, blocks, workers, chunks):
            seen_phase.append(getattr(function, "func", function).__qualname__.split(".<locals>")[0])
            return sent(self, function, blocks, workers, chunks)

        monkeypatch.setattr(module._Remote, "_submit", submit_and_kill)
        monkeypatch.setattr(module._Remote, "_sent", noting)
        with bu.cluster(client):
            there = unfolder("omnifold", 10_000).fit(simulation, data, [], systematics).spectrum("gen_0", BINS)
    assert len(killed) == len(seen) >= 8
    np.testing.assert_array_equal(there.draw_matrix, here.draw_matrix)


def test_a_scheduler_that_goes_away_leaves_the_checkpoint(everything_is_sent, tmp_path, monkeypatch):
    simulation, data, systematics = events(6000, 1)
    path = tmp_path / "run.npz"
    expected = unfolder("omnifold").fit(simulation, data, [], systematics).spectrum("gen", BINS)
    running = local_cluster(1)
    client = require("distributed").Client(running)
    write = estimator.write_checkpoint

    def writing(*arguments):
        write(*arguments)
        running.close()

    monkeypatch.setattr(estimator, "write_checkpoint", writing)
    with pytest.raises(ClusterError, match="checkpoint= goes on from its last iteration"):
        unfolder("omnifold").fit(simulation, data, [], systematics, checkpoint=path, client=client)
    client.close()
    monkeypatch.undo()
    assert path.exists()
    again = unfolder("omnifold").fit(simulation, data, [], systematics, checkpoint=path)
    np.testing.assert_array_equal(again.spectrum("gen", BINS).draw_matrix, expected.draw_matrix)


def test_clusters_that_cannot_be_used(client, tmp_path, monkeypatch):
    with pytest.raises(InputTypeError, match="client is 3; pass a dask"), bu.cluster(3):
        pass
    with pytest.raises(InputError, match="which is no folder"), bu.cluster(client, tmp_path / "none"):
        pass
    monkeypatch.setattr(module, "_versions", lambda: {"Python": "2.7"})
    with pytest.raises(InputError, match=r"has Python 3\.\d+ and this process 2.7"), bu.cluster(client, tmp_path):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(module, "_state_of_worker", unseen)
    with pytest.raises(InputError, match=f"does not see {tmp_path}; name a folder"), bu.cluster(client, tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def unseen(folder):
    return module._versions(), False


def test_no_worker(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    with (
        local_cluster(0) as running,
        require("distributed").Client(running) as client,
        pytest.raises(InputError, match="has no worker"),
        bu.cluster(client),
    ):
        pass


def test_the_command_line(client, everything_is_sent, monkeypatch, tmp_path, capsys):
    sent, submit = [], module._Remote._submit
    monkeypatch.setattr(module._Remote, "_submit", lambda self, part: sent.append(part) or submit(self, part))
    simulation, data, _ = events(12_000, 1)
    np.savez(tmp_path / "sim.npz", x=simulation.gen[:, 0], y=simulation.reco[:, 0])
    np.savez(tmp_path / "data.npz", y=data.features[:, 0])
    path = tmp_path / "run.toml"
    path.write_text(
        '[simulation]\nfile = "sim.npz"\ngen = ["x"]\nreco = ["y"]\n[data]\nfile = "data.npz"\nfeatures = ["y"]\n'
        '[unfolding]\niterations = 1\ninference = "laplace"\ndraws = 20\nbias = false\n'
        "[network]\nhidden = [8]\n[output]\nreport = false\n"
    )
    address = client.scheduler.address
    assert main(["--debug", "unfold", str(path), "--scheduler", address, "--scratch", str(tmp_path)]) == 0
    assert (tmp_path / "run" / "unfolded.nc").exists()
    assert len(sent) > 2
    assert main(["unfold", str(path), "--scratch", str(tmp_path)]) == 2
    assert "there is no --scheduler" in capsys.readouterr().err
    distributed = require("distributed")
    connect = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, **_: connect(address, timeout="1s"))  # not 20 s
    assert main(["unfold", str(path), "--scheduler", "tcp://127.0.0.1:1", "--resume"]) == 2
    assert "there is no scheduler at" in capsys.readouterr().err
