"""Every bad input of the table is refused at once, by an error of the library that says what to do."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from bad_inputs import CASES, COMMANDS, EDGES, World

import bayesunfold as bu
from bayesunfold.cli.commands import main
from bayesunfold.errors import BayesUnfoldError


class TrainedError(Exception):
    """Training has begun."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    unfolder = bu.OmniFold(1, inference="laplace", draws=20, random_seed=1, progressbar=False)
    result = unfolder.fit(toy.simulation, toy.data)
    folder = bu.io.write_publication(result, tmp_path_factory.mktemp("made") / "publication")
    return result, result.spectrum("gen", EDGES), folder


@pytest.fixture
def world(made, tmp_path, monkeypatch):
    """Good events, and networks that must not be trained."""

    def train(*_args, **_options):
        raise TrainedError

    for place in ("omnifold.iteration.fit_map", "classifier.estimator.fit_map", "classifier.estimator.learn_scales"):
        monkeypatch.setattr(f"bayesunfold.{place}", train)
    return World(tmp_path, *made)


def verdict(case, world):
    """What became of a bad input: clear, late, unclear or accepted."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case(world)
    except TrainedError:
        return "late", "training began"
    except (BayesUnfoldError, FileNotFoundError, ImportError) as err:
        return ("clear" if len(str(err)) > 20 else "unclear"), str(err)
    except Exception as err:
        return "unclear", f"{type(err).__name__}: {err}"
    return "accepted", ""


@pytest.mark.parametrize("case", [c for _, c in CASES], ids=[re.sub("0x[0-9a-f]*", "", n) for n, _ in CASES])
def test_is_refused(case, world):
    found, text = verdict(case, world)
    assert found == "clear", text


def test_the_good_input_of_the_table_is_not_refused(world):
    """Else the cases would be refused for another reason than theirs."""
    from bad_inputs import GOOD

    assert "all checks pass" in world.toml(GOOD)
    with pytest.raises(TrainedError):
        world.fit()


def test_the_table_is_long_enough():
    assert len(CASES) + len(COMMANDS) >= 200
    assert len({name for name, _ in CASES}) == len(CASES)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands_end_with_one_line_and_no_traceback(arguments, world, capsys, monkeypatch):
    monkeypatch.chdir(world.folder)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"bayesunfold {arguments[0]}: ")
    assert "Traceback" not in captured.err
    assert "unexpected" not in captured.err
    assert np.all([len(line) > 20 for line in captured.err.strip().splitlines()])
