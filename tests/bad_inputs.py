"""Bad inputs, one table: each is refused by an error of the library before anything is trained.

A case is a name and a function of a :class:`World`, which holds good events and what was made of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import bayesunfold as bu
from bayesunfold.cli.configuration import load_job
from bayesunfold.cli.unfold import check_job

N = 200
EDGES = [-3.0, 0.0, 3.0]


@dataclass
class World:
    """Good events and results, and a folder for files."""

    folder: Path
    result: Any
    spectrum: Any
    publication: Path

    def __post_init__(self) -> None:
        rng = np.random.default_rng(5)
        self.gen = rng.normal(0, 1, N)
        self.reco = self.gen + rng.normal(0, 0.3, N)
        self.data = rng.normal(0.2, 1, N)
        self.simulation = bu.Simulation(self.gen, self.reco)
        self.response = bu.ResponseMatrix([[0.8, 0.2], [0.1, 0.7]], truth=[500, 500])
        self.quick = {"iterations": 1, "inference": "laplace", "draws": 20, "progressbar": False, "random_seed": 1}

    def fit(self, **changed: Any) -> Any:
        """Unfold, with other arguments of ``fit``."""
        given = {"simulation": self.simulation, "data": self.data} | changed
        return bu.OmniFold(**self.quick).fit(**given)

    def write(self, name: str, text: str | bytes) -> Path:
        """A file in the folder."""
        path = self.folder / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    def npz(self, **arrays: Any) -> Path:
        """Events in a file."""
        np.savez(self.folder / "e.npz", **arrays)
        return self.folder / "e.npz"

    def toml(self, text: str) -> Any:
        """A configuration, read and checked."""
        np.savez(self.folder / "s.npz", x=self.gen, y=self.reco, f=self.gen > -9, n=np.arange(N))
        np.savez(self.folder / "d.npz", y=self.data)
        return check_job(load_job(self.write("c.toml", text)))


Case = tuple[str, Callable[[World], Any]]


def _features() -> list[Case]:
    bad: dict[str, Any] = {
        "text": ["a"] * N,
        "objects": [object()] * N,
        "ragged": [[1.0, 2.0]] * (N - 1) + [[1.0]],
        "3-d": np.zeros((N, 1, 1)),
        "empty": [],
        "no columns": np.zeros((N, 0)),
        "nan": np.where(np.arange(N) == 3, np.nan, np.linspace(0, 1, N)),
        "infinity": np.where(np.arange(N) == 3, np.inf, np.linspace(0, 1, N)),
        "complex": np.ones(N, complex),
        "dates": np.full(N, np.datetime64("2020-01-01")),
        "constant": np.ones(N),
        "1e305": np.where(np.arange(N) == 3, 1e305, np.linspace(0, 1, N)),
        "whole numbers beyond 2^53": np.arange(N) + 2**60,
        "(features, events)": np.random.default_rng(1).normal(size=(2, N)),
        "none": None,
        "one number": 3.0,
        "columns of other lengths": {"a": np.arange(3.0), "b": np.arange(4.0)},
    }
    cases: list[Case] = []
    for what, value in bad.items():
        cases.append((f"Simulation gen: {what}", lambda w, v=value: bu.Simulation(v, w.reco)))
        cases.append((f"Simulation reco: {what}", lambda w, v=value: bu.Simulation(w.gen, v)))
        cases.append((f"Data: {what}", lambda w, v=value: w.fit(data=v)))
        if what != "constant":
            cases.append((f"Background: {what}", lambda w, v=value: w.fit(backgrounds=[bu.Background(v, name="b")])))
    return cases


def _weights() -> list[Case]:
    bad: dict[str, Any] = {
        "short": np.ones(N - 1),
        "nan": np.full(N, np.nan),
        "infinity": np.full(N, np.inf),
        "text": ["x"] * N,
        "zero": np.zeros(N),
        "negative sum": -np.ones(N),
        "complex": np.ones(N, complex),
        "2-d": np.ones((N, 1)),
        "1e200": np.full(N, 1e200),
        "1e-200": np.full(N, 1e-200),
        "one number": 2.0,
    }
    cases: list[Case] = []
    for what, value in bad.items():
        cases.append((f"Simulation weight: {what}", lambda w, v=value: bu.Simulation(w.gen, w.reco, weight=v)))
        cases.append((f"Data weight: {what}", lambda w, v=value: bu.Data(w.data, weight=v)))
        cases.append((f"Background weight: {what}", lambda w, v=value: bu.Background(w.data, weight=v)))
        cases.append(
            (f"Systematic weight: {what}", lambda w, v=value: w.fit(systematics=[bu.Systematic("s", weight_up=v)]))
        )
    one = np.ones(N)
    one[0] = 1e20
    cases += [
        ("one huge weight", lambda w: w.fit(simulation=bu.Simulation(w.gen, w.reco, weight=one))),
        ("negative data weight", lambda w: bu.Data(w.data, weight=np.where(w.data > 0, 1.0, -0.1))),
        (
            "weights as factors",
            lambda w: w.fit(
                simulation=bu.Simulation(w.gen, w.reco, weight=np.full(N, 1e-4)),
                systematics=[bu.Systematic("s", weight_up=np.full(N, 1.1))],
            ),
        ),
        ("weights as differences", lambda w: w.fit(systematics=[bu.Systematic("s", weight_up=np.full(N, 0.1))])),
        ("weights identical", lambda w: w.fit(systematics=[bu.Systematic("s", weight_up=np.ones(N))])),
        (
            "weight where there was none",
            lambda w: w.fit(
                simulation=bu.Simulation(w.gen, w.reco, weight=np.where(w.gen > 0, 1.0, 0.0)),
                systematics=[bu.Systematic("s", weight_up=np.full(N, 0.6))],
            ),
        ),
    ]
    return cases


def _flags_and_names() -> list[Case]:
    flags: dict[str, Any] = {
        "whole numbers": np.ones(N, int),
        "text": ["y"] * N,
        "short": np.ones(N - 1, bool),
        "all false": np.zeros(N, bool),
        "masked": np.ma.masked_array(np.ones(N, bool), mask=np.arange(N) == 1),
        "2-d": np.ones((N, 1), bool),
    }
    names: dict[str, Any] = {
        "slash": ["a/b"],
        "empty": [""],
        "control": ["a\x00b"],
        "long": ["x" * 300],
        "two": ["a", "b"],
        "a text": "a",
        "broken formula": [r"$\frac$"],
        "a number": 3,
    }
    cases: list[Case] = []
    for what, value in flags.items():
        cases.append((f"pass_gen: {what}", lambda w, v=value: bu.Simulation(w.gen, w.reco, pass_gen=v)))
        cases.append((f"pass_reco: {what}", lambda w, v=value: bu.Simulation(w.gen, w.reco, pass_reco=v)))
        cases.append(
            (
                f"pass_reco_up: {what}",
                lambda w, v=value: w.fit(systematics=[bu.Systematic("s", reco_up=1.01 * w.reco, pass_reco_up=v)]),
            )
        )
    for what, value in names.items():
        cases.append((f"names of the simulation: {what}", lambda w, v=value: bu.Simulation(w.gen, w.reco, names=v)))
        cases.append((f"names of reco: {what}", lambda w, v=value: bu.Simulation(w.gen, w.reco, reco_names=v)))
        cases.append((f"names of the data: {what}", lambda w, v=value: bu.Data(w.data, names=v)))
    for name in ("", "a/b", "a{0}", "data", "posterior", "nominal", 3, "x" * 300, "a\nb"):
        cases.append((f"source called {name!r:.40}", lambda w, v=name: bu.Systematic(v, weight_up=np.ones(N))))
        cases.append((f"background called {name!r:.40}", lambda w, v=name: bu.Background(w.data, name=v)))
    cases += [
        ("lengths", lambda w: bu.Simulation(w.gen, w.reco[1:])),
        ("repeated names", lambda w: bu.Simulation(np.c_[w.gen, w.gen**2], w.reco, names=["a", "a"])),
        ("no event passes both", lambda w: bu.Simulation(w.gen, w.reco, pass_gen=w.gen > 0, pass_reco=w.gen <= 0)),
        ("undefined", lambda w: bu.Simulation(w.gen, w.reco, undefined="nan")),
        ("data of other features", lambda w: w.fit(data=np.c_[w.data, w.data])),
        (
            "data of other names",
            lambda w: bu.OmniFold(**w.quick).fit(
                bu.Simulation(w.gen, w.reco, names=["a"], reco_names=["b"]), bu.Data(w.data, names=["c"])
            ),
        ),
        ("data far away", lambda w: w.fit(data=np.r_[w.data, 1e9])),
        ("background of all data", lambda w: w.fit(backgrounds=[bu.Background(w.data, name="b")])),
        ("relative_uncertainty of 10", lambda w: bu.Background(w.data, relative_uncertainty=10)),
        ("relative_uncertainty negative", lambda w: bu.Background(w.data, relative_uncertainty=-0.1)),
        (
            "same name twice",
            lambda w: w.fit(
                backgrounds=[bu.Background(w.data[:9], name="b")],
                systematics=[bu.Systematic("b", reco_up=w.reco + 0.1)],
            ),
        ),
    ]
    return cases


def _systematics() -> list[Case]:
    def fit(w: World, **given: Any) -> Any:
        return w.fit(systematics=[bu.Systematic("s", **given)])

    return [
        ("systematic: nothing", lambda w: fit(w)),
        ("systematic: two kinds", lambda w: fit(w, weight_up=np.ones(N), reco_up=w.reco)),
        ("systematic: down alone", lambda w: fit(w, weight_down=np.ones(N))),
        ("systematic: reco_down alone", lambda w: fit(w, reco_down=w.reco)),
        ("systematic: flags down alone", lambda w: fit(w, reco_up=w.reco + 1, pass_reco_down=w.reco > 0)),
        ("systematic: short", lambda w: fit(w, reco_up=w.reco[1:])),
        ("systematic: identical", lambda w: fit(w, reco_up=w.reco)),
        ("systematic: identical flags", lambda w: fit(w, pass_reco_up=np.ones(N, bool))),
        ("systematic: nan", lambda w: fit(w, reco_up=np.full(N, np.nan))),
        ("systematic: alternative", lambda w: fit(w, alternative=3)),
        (
            "systematic: same alternative",
            lambda w: bu.OmniFold(**w.quick).check(
                w.simulation, w.data, systematics=[bu.Systematic("s", alternative=w.simulation)]
            ),
        ),
        ("systematics: not a list", lambda w: w.fit(systematics=bu.Systematic("s", reco_up=w.reco + 1))),
        ("systematics: of what", lambda w: w.fit(systematics=[3])),
        ("backgrounds: not a list", lambda w: w.fit(backgrounds=3)),
        ("simulation of what", lambda w: w.fit(simulation=(w.gen, w.reco))),
    ]


def _settings() -> list[Case]:
    bad: dict[str, list[Any]] = {
        "iterations": [0, -1, 2.5, "many", None, True, 10**6, np.ones(2)],
        "network": [3, "big"],
        "inference": ["vi", None, np.ones(2)],
        "draws": [0, 1, 2.0, 10**12, "x", None],
        "efficiency": ["best", None],
        "generator_prior": [-1, "x", np.nan],
        "linearize": ["False", 1],
        "restarts": [0, 1.5],
        "random_seed": [-1, 0.5, "1", 2**63, 2**64, 2**70],
        "progressbar": ["no"],
    }
    cases: list[Case] = []
    for key, values in bad.items():
        for value in values:
            cases.append((f"OmniFold {key}={value!r:.40}", lambda w, k=key, v=value: bu.OmniFold(**{k: v})))
    network: dict[str, list[Any]] = {
        "hidden": [(), (0,), 16, (16.5,), "16", (x for x in (4, 4)), (10**6,) * 2, (4,) * 60, np.float64(3)],
        "activation": ["gelu", [], None],
        "prior_scale": [0, -1, (), {1: 2}, 1e300, 1e-300, "all", np.nan, (1.0, "x")],
    }
    for key, values in network.items():
        for value in values:
            cases.append((f"Network {key}={value!r:.40}", lambda w, k=key, v=value: bu.Network(**{k: v})))
    cases += [
        ("scales of other layers", lambda w: bu.Network(hidden=(4, 4), prior_scale=(1.0, 2.0))),
        ("evidence in an unfolding", lambda w: bu.OmniFold(network=bu.Network(prior_scale="evidence"))),
        ("laplace of the full network", lambda w: bu.OmniFold(inference="laplace", linearize=False)),
        ("draws in four chains", lambda w: bu.OmniFold(inference="nuts", draws=30)),
        ("checkpoint of what", lambda w: w.fit(checkpoint=3)),
        ("checkpoint in a file", lambda w: w.fit(checkpoint=w.write("f", "x") / "c.npz")),
        ("checkpoint is a folder", lambda w: w.fit(checkpoint=w.folder)),
        ("checkpoint is something else", lambda w: w.fit(checkpoint=w.write("c.npz", "nonsense"))),
        ("checkpoint that is compressed", lambda w: w.fit(checkpoint=_compressed(w))),
    ]
    return cases


def _compressed(w: World) -> Path:
    np.savez_compressed(w.folder / "z.npz", key="k", seed=1, step1=np.zeros((9, 9)), step2=np.zeros(9), notes="[]")
    return w.folder / "z.npz"


def _results() -> list[Case]:
    bins: dict[str, Any] = {
        "falling": [3, 0],
        "one": [0],
        "text": "10",
        "a number": 10,
        "nan": [0, np.nan],
        "ragged": [[0, 1], [0, 1, 2]],
        "none": None,
        "empty": [],
        "infinite": [0, np.inf],
    }
    cases: list[Case] = []
    for what, value in bins.items():
        cases.append((f"bins: {what}", lambda w, v=value: w.result.spectrum("gen", v)))
    cases += [
        ("unknown feature", lambda w: w.result.spectrum("pt", EDGES)),
        ("values too short", lambda w: w.result.spectrum(np.ones(3), EDGES)),
        ("values of nan", lambda w: w.result.spectrum(np.full(len(w.result), np.nan), EDGES)),
        ("two columns", lambda w: w.result.spectrum(np.ones((len(w.result), 2)), EDGES)),
        ("normalization", lambda w: w.result.spectrum("gen", EDGES, normalization="unit")),
        ("luminosity zero", lambda w: w.result.spectrum("gen", EDGES, luminosity=0)),
        ("luminosity uncertain", lambda w: w.result.spectrum("gen", EDGES, luminosity=(1, 2))),
        ("luminosity triple", lambda w: w.result.spectrum("gen", EDGES, luminosity=(1, 2, 3))),
        ("luminosity of a shape", lambda w: w.result.spectrum("gen", EDGES, normalization="shape", luminosity=1)),
        ("centre", lambda w: w.result.spectrum("gen", EDGES, centre="mode")),
        ("unit", lambda w: w.result.spectrum("gen", EDGES, unit=("a", "b"))),
        ("spectra of a list", lambda w: w.result.spectra(["gen"])),
        ("covariance of nothing", lambda w: w.result.spectra({}).covariance()),
        ("refolded with an unknown option", lambda w: w.result.refolded("reco", EDGES, norm="shape")),
        ("weights_for of nan", lambda w: w.result.weights_for([np.nan])),
        ("weights_for 1e300", lambda w: w.result.weights_for([1e300])),
        ("weights_for two features", lambda w: w.result.weights_for(np.ones((3, 2)))),
        ("weights_for another name", lambda w: w.result.weights_for({"pt": np.zeros(3)})),
        ("expectation of short", lambda w: w.result.expectation(np.ones(3))),
        ("expectation of text", lambda w: w.result.expectation("pt")),
        ("expectation returns wrong", lambda w: w.result.expectation(lambda x: np.ones(3))),
        ("expectation is infinite", lambda w: w.result.expectation(lambda x: np.log(x[:, 0] * 0))),
        ("profile bins", lambda w: w.result.profile("gen", "gen", [1, 0])),
        ("prior_dependence", lambda w: w.result.prior_dependence(np.ones(3))),
        ("prior_dependence negative", lambda w: w.result.prior_dependence(-np.ones(len(w.result)))),
        ("datatree bins", lambda w: w.result.to_datatree({"pt": EDGES})),
        ("report bins", lambda w: w.result.report(w.folder / "r.html", {"pt": EDGES})),
        ("report spectra", lambda w: w.result.report(w.folder / "r.html", spectra={"pt": w.spectrum})),
        ("save a number", lambda w: w.result.save(3)),
        ("save as text", lambda w: w.result.save(w.folder / "r.txt")),
        ("save onto a folder", lambda w: w.result.save(_folder(w, "r.nc"))),
        ("save under a file", lambda w: w.result.save(w.write("f", "x") / "r.nc")),
        ("zarr onto a file", lambda w: w.result.save(w.write("r.zarr", "x"))),
        ("zarr onto the user's folder", lambda w: w.result.save(_folder(w, "u.zarr", "precious.txt"))),
        ("level", lambda w: w.spectrum.interval(68)),
        ("chi2 of another length", lambda w: w.spectrum.chi2([1.0])),
        ("chi2 of nan", lambda w: w.spectrum.chi2([np.nan, 1.0])),
        ("chi2 with a covariance", lambda w: w.spectrum.chi2([1.0, 1.0], np.eye(3))),
        ("chi2 with negative variances", lambda w: w.spectrum.chi2([1.0, 1.0], -np.eye(2))),
        ("chi2 with nan", lambda w: w.spectrum.chi2([1.0, 1.0], np.full((2, 2), np.nan))),
        ("table of another truth", lambda w: w.spectrum.table([1.0])),
        ("plot of another truth", lambda w: w.spectrum.plot(truth=[1.0])),
        ("Spectrum of falling edges", lambda w: bu.Spectrum(([2, 1, 0],), np.ones((5, 2)), np.ones(2))),
        ("Spectrum of one draw", lambda w: bu.Spectrum(([0, 1, 2],), np.ones((1, 2)), np.ones(2))),
        ("Spectrum of other bins", lambda w: bu.Spectrum(([0, 1],), np.ones((5, 2)), np.ones(2))),
        ("Spectrum of text", lambda w: bu.Spectrum(([0, 1],), [["a"], ["b"]], [1.0])),
        ("compare nothing", lambda w: bu.compare({})),
        ("compare one", lambda w: bu.compare(w.spectrum)),
        ("compare numbers", lambda w: bu.compare({"a": 3})),
        ("compare with text", lambda w: bu.compare({"a": w.spectrum}, truth=["a", "b"])),
        ("compare with another truth", lambda w: bu.compare({"a": w.spectrum}, truth=[1.0])),
        ("compare with a covariance", lambda w: bu.compare({"a": w.spectrum}, [1.0, 1.0], np.eye(3))),
        ("compare with a covariance alone", lambda w: bu.compare({"a": w.spectrum}, truth_covariance=np.eye(2))),
    ]
    return cases


def _folder(w: World, name: str, file: str | None = None) -> Path:
    (w.folder / name).mkdir()
    if file is not None:
        (w.folder / name / file).write_text("mine")
    return w.folder / name


def _binned() -> list[Case]:
    methods = {
        "IBU": bu.IBU(2),
        "inversion": bu.MatrixInversion(),
        "Tikhonov": bu.Tikhonov("derivative", 0.1),
        "SVD": bu.SVDUnfolding(1),
        "FBU": bu.FBU(),
    }
    counts: dict[str, Any] = {
        "negative": [-1, 5],
        "nan": [np.nan, 5],
        "three": [1, 2, 3],
        "text": ["a", "b"],
        "1e300": [1e300, 1.0],
        "none": None,
    }
    cases: list[Case] = []
    for name, method in methods.items():
        cases.append((f"{name} without a response", lambda w, m=method: m.fit(None, [1, 2])))
        for what, value in counts.items():
            cases.append((f"{name} of counts: {what}", lambda w, m=method, v=value: m.fit(w.response, v)))
    for what, value in {
        "1-d": [1, 2],
        "negative": [[-0.1, 0.2], [0.5, 0.5]],
        "above one": [[0.9, 0.2], [0.5, 0.5]],
        "nan": [[np.nan, 0.2], [0.5, 0.5]],
        "empty": [[0, 0], [0, 0]],
        "text": [["a", "b"]],
        "ragged": [[0.5], [0.1, 0.2]],
    }.items():
        cases.append((f"response: {what}", lambda w, v=value: bu.ResponseMatrix(v)))
    cases += [
        ("response: truth", lambda w: bu.ResponseMatrix([[0.5]], truth=[1, 2])),
        ("response: fakes of one", lambda w: bu.ResponseMatrix([[0.5]], fakes=[1.0])),
        ("response: efficiency", lambda w: bu.ResponseMatrix([[0.5]], efficiency=[1.5])),
        ("response: edges", lambda w: bu.ResponseMatrix([[0.5]], gen_edges=[[0, 1, 2]])),
        ("response of a pair", lambda w: bu.ResponseMatrix.from_events((w.gen, w.reco), EDGES)),
        ("response of falling bins", lambda w: bu.ResponseMatrix.from_events(w.simulation, [1, 0])),
        ("response of no events", lambda w: bu.ResponseMatrix.from_events(w.simulation, [1e6, 2e6])),
        ("response of a ragged table", lambda w: bu.ResponseMatrix.from_hist(([[1], [1, 2]], EDGES, EDGES))),
        ("response of a tuple", lambda w: bu.ResponseMatrix.from_hist((np.ones((2, 2)),))),
        ("response of a number", lambda w: bu.ResponseMatrix.from_hist(3)),
        ("fold nan", lambda w: w.response.fold([np.nan, 1])),
        ("IBU iterations", lambda w: bu.IBU(0)),
        ("IBU prior", lambda w: bu.IBU(2, prior=[1, 2, 3]).fit(w.response, [5, 5])),
        ("IBU prior word", lambda w: bu.IBU(2, prior="round").fit(w.response, [5, 5])),
        ("IBU errors", lambda w: bu.IBU(2, errors="no")),
        ("Tikhonov tau", lambda w: bu.Tikhonov(tau=-1)),
        ("Tikhonov bias", lambda w: bu.Tikhonov("derivative", bias=[1, 2, 3]).fit(w.response, [5, 5])),
        ("SVD k", lambda w: bu.SVDUnfolding(9).fit(w.response, [5, 5])),
        ("SVD of no data", lambda w: bu.SVDUnfolding(1).fit(w.response, [0, 0])),
        ("FBU of fractions", lambda w: bu.FBU().fit(w.response, [1.5, 2])),
        ("FBU backgrounds", lambda w: bu.FBU(backgrounds=[1])),
        ("FBU prior", lambda w: bu.FBU(prior="wide")),
        ("FBU systematic", lambda w: bu.FBU(systematics={"s": [0.1]}).fit(w.response, [5, 5])),
    ]
    return cases


def _reweighting() -> list[Case]:
    def fit(w: World, *args: Any, **settings: Any) -> Any:
        return bu.Reweighter(**settings).fit(*(args or (w.gen, w.data)))

    settings: dict[str, list[Any]] = {
        "method": ["tree", None],
        "folds": [0, 1.5],
        "calibration": ["spline"],
        "clip": [0, -1, "x"],
        "temper": [0, 2, "0.5"],
        "truncate": [0, "x"],
        "draws": [0, 1, "x"],
        "bootstraps": [0],
        "random_state": [-1, "x"],
        "classifier": ["tree", dict],
    }
    cases: list[Case] = [
        (f"Reweighter {key}={value!r:.40}", lambda w, k=key, v=value: bu.Reweighter(**{k: v}))
        for key, values in settings.items()
        for value in values
    ]
    for value in (0, 1, -3, 2.5, None, "x", [1, 0], [5]):
        cases.append((f"Reweighter bins={value!r}", lambda w, v=value: fit(w, method="binned", bins=v)))
    cases += [
        ("bins without events", lambda w: fit(w, method="binned", bins=[500, 600])),
        ("densities missing", lambda w: bu.Reweighter("analytic")),
        ("one density", lambda w: bu.Reweighter("analytic", densities=[np.exp])),
        ("densities of text", lambda w: fit(w, method="analytic", densities=("a", "b"))),
        ("density returns one", lambda w: fit(w, method="analytic", densities=(lambda x: 1.0, lambda x: x * 0 + 1))),
        ("other columns", lambda w: fit(w, w.gen, np.c_[w.data, w.data])),
        ("no overlap", lambda w: fit(w, w.gen, w.data + 1e6)),
        ("fold scalars", lambda w: bu.Reweighter().fit(w.gen, w.data, fold=(0, 1))),
        ("fold of one number", lambda w: bu.Reweighter().fit(w.gen, w.data, fold=(np.zeros(N, int), np.zeros(N, int)))),
        ("not fitted", lambda w: bu.Reweighter().weights(w.gen)),
        ("blend one", lambda w: bu.blend([w.gen], lambda x: np.ones((len(x), 1)))),
        ("blend of nan", lambda w: bu.blend([w.gen, np.full(3, np.nan)], lambda x: np.ones((len(x), 2)))),
        ("blend trust text", lambda w: bu.blend([w.gen, w.gen], "half")),
        ("blend trust none", lambda w: bu.blend([w.gen, w.gen], None)),
        ("blend trust of text", lambda w: bu.blend([w.gen, w.gen], lambda x: [["a", "b"]] * len(x))),
        ("blend negative trust", lambda w: bu.blend([w.gen, w.gen], lambda x: -np.ones((len(x), 2)))),
        ("likelihood without parameters", lambda w: bu.LikelihoodRatio([])),
        ("likelihood of a text", lambda w: bu.LikelihoodRatio("mu")),
        ("likelihood classifier", lambda w: bu.LikelihoodRatio(["mu"], classifier=3)),
        ("likelihood not fitted", lambda w: bu.LikelihoodRatio(["mu"]).log_lambda(w.gen, [0], [1])),
        ("likelihood not fitted scan", lambda w: bu.LikelihoodRatio(["mu"]).scan(w.gen, [0, 1])),
        ("theta of text", lambda w: bu.LikelihoodRatio(["mu"]).fit(w.gen, ["a"] * N)),
        ("theta short", lambda w: bu.LikelihoodRatio(["mu"]).fit(w.gen, np.arange(3.0))),
        ("theta constant", lambda w: bu.LikelihoodRatio(["mu"]).fit(w.gen, np.ones(N))),
        ("theta empty", lambda w: bu.LikelihoodRatio(["mu"]).fit(w.gen, [])),
        ("one class", lambda w: bu.BayesianClassifier().fit(w.gen[:, None], np.zeros(N))),
        ("three classes", lambda w: bu.BayesianClassifier().fit(w.gen[:, None], np.arange(N) % 3)),
        ("classifier inference", lambda w: bu.BayesianClassifier(inference="vi").fit(w.gen[:, None], w.gen > 0)),
        ("classifier linearize", lambda w: bu.BayesianClassifier(linearize="False").fit(w.gen[:, None], w.gen > 0)),
        ("classifier network", lambda w: bu.BayesianClassifier(network=3).fit(w.gen[:, None], w.gen > 0)),
    ]
    return cases


def _nothing(_seed: int) -> None:
    return None


def _an_array(_seed: int) -> Any:
    return np.ones(3)


def _studies() -> list[Case]:
    def study(w: World, **changed: Any) -> Any:
        given: dict[str, Any] = {
            "make_toy": lambda seed: (w.simulation, bu.Data(w.data)),
            "bins": EDGES,
            "expected": [100.0, 100.0],
            "toys": 2,
            "workers": 0,
            "progressbar": False,
        }
        given |= changed
        return bu.coverage_study(given.pop("make_toy"), **given)

    bad: dict[str, list[Any]] = {
        "levels": [0.68, (), (1.5,), "68"],
        "toys": [0, 1, 1.5],
        "random_seed": [0.5, -1, "1"],
        "workers": [-1, 1.5, 10**9],
        "client": ["tcp://x", 3],
        "checkpoint": [3],
        "settings": [{"a": object()}, 3],
        "expected": [[1.0], [-1.0, 1.0], [1.0, 1.0], ["a", "b"], {"pt": [1, 2]}],
        "bins": [[1, 0], "x"],
        "make_toy": [3, _nothing, _an_array],
        "unfold": [3, lambda toy, seed: 3],
    }
    cases: list[Case] = [
        (f"coverage {key}={getattr(value, '__name__', repr(value)):.40}", lambda w, k=key, v=value: study(w, **{k: v}))
        for key, values in bad.items()
        for value in values
    ]
    cases += [
        ("coverage checkpoint is a folder", lambda w: study(w, checkpoint=w.folder)),
        ("coverage checkpoint is binary", lambda w: study(w, checkpoint=w.write("b", b"\xff\xfe\x00\n"))),
        ("coverage checkpoint is something else", lambda w: study(w, checkpoint=w.write("t", "hello\n"))),
        ("coverage checkpoint of another study", lambda w: study(w, checkpoint=w.write("o", '{"edges": {}}\n'))),
        ("no coverage study", lambda w: bu.studies.load_coverage(w.write("s.npz", "x"))),
        ("toys of nothing", lambda w: bu.studies.ResampledToys(w.simulation, 0)),
        ("toys with a short factor", lambda w: bu.studies.ResampledToys(w.simulation, 9, np.ones(3))),
    ]
    return cases


EXPRESSIONS = (
    "z", "x +", "lambda: 1", "x.y", "[1]", "x if x else x", "f(x)", "log(x, x)", "~x", "x and x", "x & x > 0",
    "'a' == x", "x[0]", "x[x]", "1 << 2", "-" * 20_000 + "x", "x\x00", "9007199254740993", "open",
    "__import__('os')", "x := 3",
)  # fmt: skip


def _files() -> list[Case]:
    cases: list[Case] = [
        (f"expression {e:.20}", lambda w, e=e: bu.io.read_columns(w.npz(x=w.gen), [e])) for e in EXPRESSIONS
    ]

    def hdf5(w: World, make: Callable[[Any], Any]) -> Path:
        with h5py.File(w.folder / "e.h5", "w") as file:
            make(file)
        return w.folder / "e.h5"

    def external(file: Any) -> None:
        file["y"] = np.ones(3)
        file["x"] = h5py.ExternalLink("other.h5", "/x")

    def parquet(w: World, **columns: Any) -> Path:
        pq.write_table(pa.table(columns), w.folder / "e.parquet")
        return w.folder / "e.parquet"

    cases += [
        ("columns of none", lambda w: bu.io.read_columns(w.npz(x=w.gen), None)),
        ("columns of a text", lambda w: bu.io.read_columns(w.npz(x=w.gen), "x")),
        ("columns of a number", lambda w: bu.io.read_columns(w.npz(x=w.gen), [1])),
        ("selection of a number", lambda w: bu.io.read_columns(w.npz(x=w.gen), ["x"], selection=3)),
        ("selection of numbers", lambda w: bu.io.read_columns(w.npz(x=w.gen), ["x"], selection="x + 1")),
        ("selection of nothing", lambda w: bu.io.read_columns(w.npz(x=w.gen), ["x"], selection="x > 1e9")),
        ("whole numbers beyond 2^53", lambda w: bu.io.read_columns(w.npz(x=np.array([2**60, 1])), ["x"])),
        ("columns of other lengths", lambda w: bu.io.read_columns(w.npz(x=w.gen, y=w.gen[1:]), ["x", "y"])),
        ("objects", lambda w: bu.io.read_columns(w.npz(x=np.array([{}, 1], dtype=object)), ["x"])),
        ("text columns", lambda w: bu.io.read_columns(w.npz(x=np.array(["a", "b"])), ["x"])),
        ("text called npz", lambda w: bu.io.read_columns(w.write("t.npz", "hello"), ["x"])),
        ("text called root", lambda w: bu.io.read_columns(w.write("t.root", "hello"), ["x"])),
        ("text called parquet", lambda w: bu.io.read_columns(w.write("t.parquet", "hello"), ["x"])),
        ("another ending", lambda w: bu.io.read_columns(w.write("t.csv", "x\n1\n"), ["x"])),
        ("no file", lambda w: bu.io.read_columns(w.folder / "none.npz", ["x"])),
        ("an address", lambda w: bu.io.read_columns("root://nowhere.invalid//a.parquet", ["x"])),
        ("a folder", lambda w: bu.io.read_columns(_folder(w, "f.npz"), ["x"])),
        ("HDF5 of other lengths", lambda w: bu.io.read_columns(
            hdf5(w, lambda f: f.update(x=np.ones(3), y=np.ones(4))), ["x", "y"])),
        ("HDF5 number", lambda w: bu.io.read_columns(hdf5(w, lambda f: f.update(x=3.0)), ["x"])),
        ("HDF5 external link", lambda w: bu.io.read_columns(hdf5(w, external), ["x"])),
        ("HDF5 group", lambda w: bu.io.read_columns(hdf5(w, external), ["x"], tree="none")),
        ("parquet index of a flat column", lambda w: bu.io.read_columns(parquet(w, pt=w.gen), ["pt[0]"])),
        ("parquet list", lambda w: bu.io.read_columns(parquet(w, pt=[[1.0], [2.0, 3.0]]), ["pt"])),
        ("load nothing", lambda w: bu.load(w.folder / "none.nc")),
        ("load text", lambda w: bu.load(w.write("t.nc", "hello"))),
        ("load another file", lambda w: bu.load(hdf5(w, external))),
        ("hepdata of a list", lambda w: bu.io.write_hepdata(w.folder / "h", [w.spectrum])),
        ("hepdata of nothing", lambda w: bu.io.write_hepdata(w.folder / "h", {})),
        ("hepdata name", lambda w: bu.io.write_hepdata(w.folder / "h", {"../x": w.spectrum})),
        ("hepdata long name", lambda w: bu.io.write_hepdata(w.folder / "h", {"x" * 70: w.spectrum})),
        ("hepdata abstract", lambda w: bu.io.write_hepdata(w.folder / "h", {"x": w.spectrum}, abstract=None)),
        ("hepdata units", lambda w: bu.io.write_hepdata(w.folder / "h", {"x": w.spectrum}, units={"z": "GeV"})),
        ("hepdata onto the user's file", lambda w: bu.io.write_hepdata(
            _folder(w, "h2", "submission.yaml"), {"x": w.spectrum})),
        ("root of a spectrum", lambda w: bu.io.write_root(w.folder / "o.root", w.spectrum)),
        ("root name", lambda w: bu.io.write_root(w.folder / "o.txt", {"x": w.spectrum})),
        ("publication draws", lambda w: bu.io.write_publication(w.result, w.folder / "p", draws=2.5)),
        ("publication of all draws", lambda w: bu.io.write_publication(w.result, w.folder / "p", draws="all")),
        ("publication bins", lambda w: bu.io.write_publication(
            w.result, w.folder / "p", recommended_bins={"gen": [3, 2]})),
        ("publication bins of text", lambda w: bu.io.write_publication(
            w.result, w.folder / "p", recommended_bins="abc")),
        ("publication units", lambda w: bu.io.write_publication(w.result, w.folder / "p", units={"z": "GeV"})),
        ("publication description", lambda w: bu.io.write_publication(w.result, w.folder / "p", description="words")),
        ("publication onto the user's file", lambda w: bu.io.write_publication(
            w.result, _folder(w, "p2", "events.parquet"))),
        ("publication of nothing", lambda w: bu.io.read_publication(w.folder)),
        ("publication outside", lambda w: _metadata(w, "events: events.parquet", "events: ../events.parquet")),
        ("publication of 1e9 columns", lambda w: _metadata(w, "number: 20", "number: 1000000000")),
        ("publication format", lambda w: _metadata(w, "weight_posterior_{:04d}", "weight_{9}")),
        ("published feature", lambda w: bu.io.read_publication(w.publication).spectrum("pt", EDGES)),
    ]  # fmt: skip
    return cases


def _metadata(w: World, old: str, new: str) -> Any:
    folder = _folder(w, "changed")
    for path in w.publication.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    text = (folder / "metadata.yaml").read_text()
    assert old in text
    (folder / "metadata.yaml").write_text(text.replace(old, new))
    return bu.io.read_publication(folder)


GOOD = """[simulation]
file = "s.npz"
gen = ["x"]
reco = ["y"]
[data]
file = "d.npz"
features = ["y"]
[unfolding]
iterations = 1
[[spectrum]]
observable = "x"
bins = [-3, 0, 3]
"""


def _configurations() -> list[Case]:
    changes: list[tuple[str, str]] = [
        ('file = "s.npz"', 'file = "none.npz"'),
        ('file = "s.npz"', "file = 3"),
        ('gen = ["x"]', 'gen = ["z"]'),
        ('gen = ["x"]', 'gen = "x"'),
        ('gen = ["x"]', "gen = []"),
        ('gen = ["x"]', 'gen = ["x"]\nnames = ["a/b"]'),
        ('gen = ["x"]', 'gen = ["x"]\nnames = ["../evil"]'),
        ('gen = ["x"]', 'gen = ["x"]\nnames = [""]'),
        ('gen = ["x"]', r"gen = ['x']" + "\nnames = ['$\\frac$']"),
        ('gen = ["x"]', 'gen = ["x"]\nnames = ["a", "b"]'),
        ('gen = ["x"]', 'gen = ["x"]\npass_gen = "n"'),
        ('gen = ["x"]', 'gen = ["x"]\npass_gen = "x > 99"'),
        ('gen = ["x"]', 'gen = ["x"]\nselection = "~x > 1"'),
        ('gen = ["x"]', 'gen = ["x"]\nweight = "0 * x"'),
        ('gen = ["x"]', 'gen = ["x"]\nundefined = "maybe"'),
        ('gen = ["x"]', 'gen = ["x"]\nselection = 3'),
        ('features = ["y"]', 'features = ["y", "y"]'),
        ("iterations = 1", "iterations = 0"),
        ("iterations = 1", 'iterations = "many"'),
        ("iterations = 1", "draws = 1"),
        ("iterations = 1", "random_seed = 18446744073709551616"),
        ("iterations = 1", 'inference = "vi"'),
        ("iterations = 1", "iterationz = 1"),
        ("bins = [-3, 0, 3]", "bins = [3, 0]"),
        ("bins = [-3, 0, 3]", "bins = [1000, 2000]"),
        ("bins = [-3, 0, 3]", "bins = [0, 1]\nluminosity = 0"),
        ("bins = [-3, 0, 3]", "bins = [0, 1]\nluminosity = -36"),
        ("bins = [-3, 0, 3]", "bins = [0, 1]\nluminosity = nan"),
        ("bins = [-3, 0, 3]", "bins = [0, 1]\nluminosity = 1\nluminosity_uncertainty = 2"),
        ("bins = [-3, 0, 3]", "bins = [0, 1]\nluminosity_uncertainty = 0.1"),
        ("bins = [-3, 0, 3]", 'bins = [0, 1]\nnormalization = "unit"'),
        ("bins = [-3, 0, 3]", 'bins = [0, 1]\nnormalization = "shape"\nluminosity = 3'),
        ('observable = "x"', 'observable = "z"'),
        ("[data]", "[dat]"),
        ("[data]", "[[data]]"),
        ("[simulation]", "simulation = 3\n[x]"),
        ("[data]", "background = [1, 2]\n[data]"),
        ("[unfolding]", '[[systematic]]\nname = "s"\n[unfolding]'),
        ("[unfolding]", '[[systematic]]\nname = "s"\nweight_up = "0.01 + 0 * x"\n[unfolding]'),
        ("[unfolding]", '[[systematic]]\nname = "s{0}"\nweight_up = "1.1 + 0 * x"\n[unfolding]'),
        ("[unfolding]", '[[systematic]]\nname = "s"\nreco_up = ["y + 1"]\npass_reco_up = "n"\n[unfolding]'),
        ("[unfolding]", '[[background]]\nname = "data"\nfile = "d.npz"\nfeatures = ["y"]\n[unfolding]'),
        ("[unfolding]", '[[background]]\nname = "b"\nfile = "d.npz"\nfeatures = ["y"]\n[unfolding]'),
        ("[unfolding]", '[output]\nfolder = "d.npz"\n[unfolding]'),
        ("[unfolding]", '[output]\nfolder = "/proc/x"\n[unfolding]'),
        ("[unfolding]", "[output]\nreport = 3\n[unfolding]"),
        ("[unfolding]", "[network]\nhidden = [0]\n[unfolding]"),
        ('observable = "x"', f'observable = "{"x" * 70}"'),
        ("[simulation]", "[simulation"),
    ]
    cases: list[Case] = []
    for old, new in changes:
        assert old in GOOD, old
        cases.append((f"TOML {new[-60:]!r}", lambda w, o=old, n=new: w.toml(GOOD.replace(o, n))))
    cases += [
        ("TOML binary", lambda w: load_job(w.write("b.toml", b"\xff\xfe\x00"))),
        ("TOML of brackets", lambda w: load_job(w.write("b.toml", "x = " + "[" * 5000))),
        ("TOML hepdata name", lambda w: w.toml(
            GOOD.replace('gen = ["x"]', f'gen = ["x"]\nnames = ["{"n" * 60}"]')
            .replace('observable = "x"', f'observable = "{"n" * 60}"') + "[output]\nhepdata = true\n")),
        ("TOML publication name", lambda w: w.toml(
            GOOD.replace('gen = ["x"]', 'gen = ["x"]\nnames = ["weight_x"]')
            .replace('observable = "x"', 'observable = "weight_x"') + "[output]\npublication = true\n")),
    ]  # fmt: skip
    return cases


COMMANDS: list[list[str]] = [
    ["unfold"],
    ["unfold", "none.toml"],
    ["report", "none.nc"],
    ["info", "none.nc"],
    ["explore", "none.nc"],
    ["demo", "--seed", "-1"],
    ["demo", "--n-data", "0"],
    ["demo", "--draws", "1"],
    ["coverage", "--seed", "-1", "--toys", "2"],
    ["coverage", "--toys", "1"],
    ["coverage", "--toys", "2", "--plot", "x.xyz"],
    ["coverage", "--toys", "2", "--save", "/proc/x.npz"],
    ["coverage", "--toys", "2", "--save", "x.txt"],
    ["coverage", "--toys", "2", "--n-data", "30", "--workers", "0"],
    ["coverage", "--toys", "2", "--workers", "-1"],
    ["coverage", "none.toml"],
    ["coverage", "--toys", "2", "--smear", "-1", "--workers", "0"],
]

CASES: list[Case] = [
    *_features(),
    *_weights(),
    *_flags_and_names(),
    *_systematics(),
    *_settings(),
    *_results(),
    *_binned(),
    *_reweighting(),
    *_studies(),
    *_files(),
    *_configurations(),
]
