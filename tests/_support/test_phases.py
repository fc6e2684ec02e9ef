"""Time left of phases that take different times, with a clock that the tests move."""

from __future__ import annotations

import pytest

import bayesunfold as bu
from bayesunfold._support import progress
from bayesunfold._support.progress import Phases, aside, tick


@pytest.fixture
def clock(monkeypatch):
    """Seconds that the library believes to have passed."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_time_left_follows_the_pace(clock):
    """Everything takes twice as long as planned: after the first phase, twice the plan of the rest is left."""
    phases = Phases("work", {"a": 10.0, "b": 30.0, "c": 60.0}, show=False)
    phases.begin("a")
    assert phases.left() == pytest.approx(100)
    clock(20)
    phases.begin("b")
    # (20 + 1) / (10 + 1) for each planned second: the plan counts as one second of experience
    assert phases.left() == pytest.approx(90 * 21 / 11)
    clock(30)
    phases.inside(0.5)
    assert phases.left() == pytest.approx(75 * 51 / 26)
    phases.inside(0.2)  # never back
    assert phases.left() == pytest.approx(75 * 51 / 26)
    phases.add({"d": 5.0})
    assert phases.left() == pytest.approx(80 * 51 / 26)


def test_compiling_says_nothing_about_the_pace(clock, capsys):
    phases = Phases("work", {"a": 10.0, "b": 10.0}, show=True)
    with phases.active():
        phases.begin("a")
        with aside("compiling"):
            clock(50)
        clock(10)
        phases.begin("b")
    assert phases.left() == pytest.approx(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "work: a [0.0 s, about 20 s left]"
    assert lines[1] == "work: compiling [0.0 s]"
    assert lines[-1] == "work: b [60.0 s, about 10 s left]"


def test_a_log_gets_few_lines(clock, capsys):
    """A thousand reports in 20 seconds: one line every five seconds."""
    phases = Phases("work", {"a": 20.0, "b": 300.0}, show=True)
    with phases.active():
        phases.begin("a")
        for k in range(1000):
            clock(0.02)
            tick(k / 1000)
    lines = capsys.readouterr().err.splitlines()
    assert 4 <= len(lines) <= 6
    assert "min left" in lines[-1]
    tick(0.5)  # of nobody
    with aside("nothing"):
        pass
    assert capsys.readouterr().err == ""


def test_an_unfolding_says_its_phases_and_that_it_compiles(capsys):
    from bayesunfold.classifier import sampling

    sampling._compiled_advi.cache_clear()
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    bu.OmniFold(2, draws=10, random_seed=1).fit(toy.simulation, toy.data)
    said = capsys.readouterr().err
    for phase in ("iteration 1, step 1", "iteration 1, step 2", "iteration 1, members", "compiling the PyMC model",
                  "iteration 2, members", "2 iterations, 10 members, largest change"):  # fmt: skip
        assert phase in said
    assert "left]" in said
    bu.UnbinnedFBU(draws=10, rounds=0, random_seed=1).fit(toy.simulation, toy.data)
    said = capsys.readouterr().err
    for phase in ("unfolding: step 1", "unfolding: step 2", "particle-level network", "members"):
        assert phase in said
    bu.OmniFold(1, draws=10, random_seed=1, progressbar=False).fit(toy.simulation, toy.data)
    assert capsys.readouterr().err == ""
