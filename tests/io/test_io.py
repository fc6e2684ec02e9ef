"""Files in and out: columns, expressions, publication, histograms, configuration, command line."""

import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot
import yaml

import bayesunfold as bu
from bayesunfold.cli.commands import main
from bayesunfold.cli.configuration import load_job
from bayesunfold.cli.schema import SECTIONS, schema_text
from bayesunfold.errors import BiasWarning, FileFormatError, InputError

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PT = np.array([10.0, 30.0, 50.0, 20.0])
JETS = [[1.0, 2.0], [3.0], [], [4.0, 5.0, 6.0]]


@pytest.fixture(scope="module")
def result():
    toy = bu.datasets.gaussian_toy(600, 600, random_seed=1)
    return bu.unfold(toy.gen, toy.reco, toy.data, iterations=2, draws=100, random_seed=1, progressbar=False)


@pytest.fixture(params=["parquet", "root", "rntuple", "h5", "npz"])
def file(request, tmp_path):
    path = tmp_path / f"events.{request.param.replace('rntuple', 'root')}"
    if request.param == "parquet":
        pq.write_table(pa.table({"pt": PT, "jets": JETS}), path)
    elif request.param in ("root", "rntuple"):
        import awkward as ak

        columns = {"pt": PT, "jets": ak.Array(JETS)}
        with uproot.recreate(path) as f:
            if request.param == "root":
                f["events"] = columns
            else:
                f.mkrntuple("events", columns)
    elif request.param == "h5":
        with h5py.File(path, "w") as f:
            f["pt"] = PT
    else:
        np.savez(path, pt=PT)
    return path


def test_columns_and_selections_in_every_format(file):
    columns = bu.io.read_columns(file, ["pt", "pt / 10"], selection="pt > 15 & ~(pt == 20)")
    assert columns["pt"].tolist() == [30.0, 50.0]
    assert columns["pt / 10"].tolist() == [3.0, 5.0]
    assert "pt" in bu.io.list_columns(file)
    with pytest.raises(InputError, match="near names: pt"):
        bu.io.read_columns(file, ["ptt"])
    with pytest.raises(InputError, match="no events that pass"):
        bu.io.read_columns(file, ["pt"], selection="pt > 1000")
    with pytest.raises(InputError, match="must be a comparison"):
        bu.io.read_columns(file, ["pt"], selection="pt + 1")


@pytest.mark.parametrize("file", ["parquet", "root", "rntuple"], indirect=True)
def test_entries_of_jagged_columns(file):
    second = bu.io.read_columns(file, ["jets[1]"])["jets[1]"]
    assert second[[0, 3]].tolist() == [2.0, 5.0]
    assert np.isnan(second[[1, 2]]).all()


@pytest.mark.parametrize("file", ["parquet", "root", "rntuple"], indirect=True)
def test_functions_of_jagged_columns(file):
    names = ["jets[-1]", "len(jets)", "sum(jets)", "min(jets)", "max(jets)", "where(len(jets) > 1, jets[1], -1)"]
    found = bu.io.read_columns(file, names)
    expected = [
        [j[-1] if j else np.nan for j in JETS],
        [len(j) for j in JETS],
        [sum(j) for j in JETS],
        [min(j, default=np.nan) for j in JETS],
        [max(j, default=np.nan) for j in JETS],
        [j[1] if len(j) > 1 else -1 for j in JETS],
    ]
    for name, values in zip(names, expected, strict=True):
        np.testing.assert_array_equal(found[name], values)
    with pytest.raises(InputError, match=r"several entries an event; .*sum\(jets\)"):
        bu.io.read_columns(file, ["jets"])
    with pytest.raises(InputError, match=r"one number per event; write pt instead of len\(pt\)"):
        bu.io.read_columns(file, ["len(pt)"])


@pytest.mark.parametrize("ending", ["root", "parquet"])
def test_what_is_missing_is_nan_or_no_entry(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    columns = {
        "x": [1.0, None, 3.0, None],
        "n": [1, None, 3, 4],
        "whole": [1, 2, 3, 4],
        "flag": [True, None, False, None],
        "jets": [[1.0, None], None, [3.0], []],
        "counts": [None, [7], [], [2, 3]],
    }
    if ending == "parquet":
        pq.write_table(pa.table(columns), path)
    else:
        import awkward as ak

        with uproot.recreate(path) as f:
            f.mkrntuple("events", {name: ak.Array(values) for name, values in columns.items()})
    expected = {
        "x": [1, np.nan, 3, np.nan],
        "n + whole": [2, np.nan, 6, 8],
        "len(jets)": [2, 0, 1, 0],
        "jets[0]": [1, np.nan, 3, np.nan],
        "jets[-1]": [np.nan, np.nan, 3, np.nan],
        "sum(jets)": [np.nan, 0, 3, 0],
        "counts[0]": [np.nan, 7, np.nan, 2],
        "max(counts)": [np.nan, 7, np.nan, 3],
    }
    for name, values in bu.io.read_columns(path, list(expected)).items():
        np.testing.assert_array_equal(values, expected[name])
    assert bu.io.read_columns(path, ["whole"], selection="n > 2")["whole"].tolist() == [3, 4]
    with pytest.raises(InputError, match="'flag' is a flag and has no value in 2 events; only numbers can be missing"):
        bu.io.read_columns(path, ["flag"])


@pytest.mark.parametrize("ending", ["root", "parquet", "h5", "npz"])
def test_whole_numbers_beyond_double_precision_are_refused(tmp_path, ending):
    path, large = tmp_path / f"a.{ending}", 2**53 + 1
    if ending in ("parquet", "root"):
        columns = {"lists": [[large], [large + 2], []], "holes": [large, None, 1]}
        if ending == "parquet":
            pq.write_table(pa.table(columns), path)
        else:
            import awkward as ak

            with uproot.recreate(path) as f:
                f.mkrntuple("events", {name: ak.Array(values) for name, values in columns.items()})
    else:
        columns = {"lists": np.array([[large, large + 2], [1, 2]])}
        if ending == "npz":
            np.savez(path, **columns)
        else:
            with h5py.File(path, "w") as f:
                f["lists"] = columns["lists"]
    wrong = ["lists[0]", "max(lists)", *(["holes"] if "holes" in columns else [])]
    for expression in wrong:
        with pytest.raises(InputError, match=r"holds the whole number 900719925474099\d; above 2\^53"):
            bu.io.read_columns(path, [expression])
    assert bu.io.read_columns(path, ["len(lists)"])["len(lists)"][0] == np.shape(columns["lists"][0])[0]


def test_entries_that_are_no_numbers(tmp_path):
    lists = [[[1.0, 2.0]], [], [[3.0]]]
    pq.write_table(pa.table({"nested": lists, "texts": [["a"], [], []], "none": [[], [], []]}), tmp_path / "a.parquet")
    with h5py.File(tmp_path / "a.h5", "w") as f:
        variable = f.create_dataset("nested", (2,), h5py.vlen_dtype(np.float32))
        variable[0], variable[1] = [1, 2], [3]
    import awkward as ak

    with uproot.recreate(tmp_path / "a.root") as f:
        f.mkrntuple("events", {"nested": ak.Array(lists), "texts": ak.Array([["a"], [], []])})
    for name, words in (
        ("a.parquet", "type list<.*>"),
        ("a.root", r"type var \* float64"),
        ("a.h5", "of variable length"),
    ):
        with pytest.raises(InputError, match=f"the entries of the column 'nested' .*{words}"):
            bu.io.read_columns(tmp_path / name, ["nested[0]"])
    for name in ("a.parquet", "a.root"):
        with pytest.raises(InputError, match=r"the entries of the column 'texts' have type string; .*must be numbers"):
            bu.io.read_columns(tmp_path / name, ["texts[0]"])
    assert bu.io.read_columns(tmp_path / "a.parquet", ["sum(none)"])["sum(none)"].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ending", [".npz", ".h5"])
def test_rectangular_columns_are_filled_with_nan(tmp_path, ending):
    jets, path = np.array([[1.0, np.nan], [3.0, 4.0], [np.nan, np.nan]]), tmp_path / f"a{ending}"
    if ending == ".npz":
        np.savez(path, jets=jets)
    else:
        with h5py.File(path, "w") as f:
            f["jets"] = jets
    found = bu.io.read_columns(path, ["len(jets)", "sum(jets)", "jets[-1]", "jets[1]", "jets[2]"])
    expected = [[1, 2, 0], [1, 7, 0], [1, 4, np.nan], [np.nan, 4, np.nan], [np.nan] * 3]
    for values, wanted in zip(found.values(), expected, strict=True):
        np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("sum(a + b)", r"sum takes one column .* sum\(jet_pt\)"),
        ("max(a, b)", r"maximum\(a, b\)"),
        ("where(b, b, c)", "number b as a condition"),
        ("where(b > 1, c)", "where takes 3 arguments"),
        ("a[-2]", r"name\[-1\] the last"),
        ("totl(a)", "no function here"),
    ],
)
def test_wrong_functions_of_columns(tmp_path, expression, words):
    np.savez(tmp_path / "a.npz", a=np.ones((2, 2)), b=np.ones(2), c=np.ones(2))
    with pytest.raises(InputError, match=words):
        bu.io.read_columns(tmp_path / "a.npz", [expression])


def test_files_larger_than_a_chunk(tmp_path, monkeypatch):
    import bayesunfold.io.formats as module

    monkeypatch.setattr(module, "CHUNK", 3)
    pq.write_table(pa.table({"x": np.arange(10.0)}), tmp_path / "x.parquet")
    with uproot.recreate(tmp_path / "x.root") as f:
        f["t"] = {"x": np.arange(10.0)}
    for name in ("x.parquet", "x.root"):
        assert bu.io.read_columns(tmp_path / name, ["x"], selection="x > 3")["x"].tolist() == list(range(4, 10))


@pytest.mark.parametrize("expression", ["__import__('os')", "x.y", "[1]", "x if y else z", "lambda: 1", "x >"])
def test_expressions_run_nothing_but_arithmetic(expression):
    with pytest.raises(InputError):
        bu.io.evaluate(expression, {"x": np.ones(2), "y": np.ones(2), "z": np.ones(2)})


def test_damaged_files_are_clear_errors(tmp_path):
    for name in ("a.root", "a.parquet", "a.h5", "a.npz"):
        (tmp_path / name).write_text("nonsense")
        with pytest.raises(FileFormatError, match="damaged or something else"):
            bu.io.read_columns(tmp_path / name, ["x"])
    with pytest.raises(FileNotFoundError):
        bu.io.read_columns(tmp_path / "missing.root", ["x"])
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(InputError, match=r"readable are \.root"):
        bu.io.read_columns(tmp_path / "a.txt", ["x"])


def test_published_bands_equal_the_original(result, tmp_path):
    edges = np.linspace(-6, 8, 8)
    folder = bu.io.write_publication(result, tmp_path, units={"gen": "GeV"}, recommended_bins={"gen": edges})
    published = bu.io.read_publication(folder)
    one, two = result.spectrum("gen", edges), published.spectrum("gen", edges)
    assert np.allclose(one.nominal, two.nominal)
    for level in (0.68, 0.95):
        assert np.allclose(one.interval(level), two.interval(level), rtol=1e-4, atol=1e-3)
    again = published.spectrum("gen", edges, luminosity=10.0)
    assert again.luminosity == 10.0
    assert again.units == ("GeV",)
    assert again.method == result.spectrum("gen", edges).method
    family = published.metadata["weights"]["posterior"]
    assert family["number"] == 100
    assert "never add them in quadrature" in family["propagation"]
    (tmp_path / "metadata.yaml").write_text("format: something")
    with pytest.raises(FileFormatError, match="not a publication"):
        bu.io.read_publication(tmp_path)


def test_root_histograms_round_trip(result, tmp_path):
    spectrum = result.spectrum("gen", np.linspace(-6, 8, 8))
    with uproot.open(bu.io.write_root(tmp_path / "out.root", {"gen": spectrum})) as file:
        assert np.allclose(file["gen"].values(), spectrum.nominal)
        assert np.allclose(file["gen"].errors(), spectrum.std())
        assert np.allclose(file["gen_covariance"].values(), spectrum.covariance())
        # what was written is a response's input as well
        R = bu.ResponseMatrix(np.eye(7))
        assert np.allclose(bu.IBU(1).fit(R, file["gen"]).nominal, spectrum.nominal)


# inside hepdata_lib and the validator, which leave files open
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hepdata_submission_is_valid(result, tmp_path, monkeypatch):
    from hepdata_validator.full_submission_validator import FullSubmissionValidator

    monkeypatch.chdir(tmp_path)
    spectrum = result.spectrum("gen", np.linspace(-6, 8, 8))
    folder = bu.io.write_hepdata(tmp_path / "hepdata", {"gen": spectrum}, abstract="A toy.", units={"gen": "GeV"})
    validator = FullSubmissionValidator()
    assert validator.validate(directory=str(folder)), validator.get_messages()
    text = (folder / "gen.yaml").read_text()
    assert "68 % band" in text
    assert "simulation" in text
    # as many digits as a covariance and narrow bins need
    table = yaml.safe_load((folder / "gen_covariance.yaml").read_text())
    written = [value["value"] for value in table["dependent_variables"][0]["values"]]
    np.testing.assert_allclose(np.reshape(written, (7, 7)), spectrum.covariance(), rtol=1e-12)
    narrow = bu.Spectrum((123456.7 + 0.4 * np.arange(8.0),), spectrum.draw_matrix, spectrum.nominal, names=("t",))
    unknown = bu.IBU(2, errors=False).fit(bu.ResponseMatrix(np.eye(2)), [1, 2])
    folder = bu.io.write_hepdata(tmp_path / "narrow", {"t": narrow, "u": unknown})
    bins = yaml.safe_load((folder / "t.yaml").read_text())["independent_variables"][0]["values"]
    np.testing.assert_allclose([b["low"] for b in bins], narrow.edges[0][:-1], rtol=1e-12)
    assert not (folder / "u_covariance.yaml").exists()


def test_the_schema_documents_and_checks_itself():
    text = schema_text()
    assert all(f"# {key}: " in text for section in SECTIONS.values() for key in section.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[simulaton]\n", "nearest is 'simulation'"),
        ("[simulation]\nfil = 'a'\n[data]\n", "nearest is 'file'"),
        ("[simulation]\nfile = 3\n[data]\n", "must be a text"),
        ("[simulation]\nfile = 'a'\n[data]\n", "misses gen, reco"),
        ("[data]\n", "no section"),
        ("[[data]]\n", "no section|must be written"),
        ("nonsense", "not TOML"),
    ],
)
def test_bad_configurations(tmp_path, text, message):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises((InputError, FileFormatError), match=message):
        load_job(tmp_path / "bad.toml")


@pytest.mark.slow  # the quick start and the experiment's example run from files to reports too
def test_unfold_command_from_files_to_report(tmp_path, capsys):
    """The example in the documentation, on a part of the events and with cheap settings."""
    subprocess.run([sys.executable, EXAMPLES / "make_zjets_files.py", tmp_path, "4000"], check=True)
    text = (EXAMPLES / "zjets.toml").read_text()
    text = text.replace("iterations = 4", "iterations = 1").replace('"advi"', '"laplace"').replace("200", "50", 1)
    text = text.replace("draws = 200", "draws = 50") + "root = true\n"
    if "[network]" not in text:
        text += "\n[network]\nhidden = [8, 8]\n"
    (tmp_path / "zjets.toml").write_text(text)
    with pytest.warns(BiasWarning, match=r"reaches .* of its 68 % band"):  # one iteration is too few
        assert main(["unfold", str(tmp_path / "zjets.toml")]) == 0
    out = capsys.readouterr().out
    folder = tmp_path / "zjets"
    for name in ("unfolded.nc", "report.html", "pt.png", "spectra.root", "publication/metadata.yaml"):
        assert (folder / name).exists()
        assert name.split("/")[0] in out
    assert not (folder / "checkpoint.npz").exists()
    loaded = bu.load(folder / "unfolded.nc")
    assert "final-state shower scale" in loaded.spectrum("pt", [100, 200, 1000]).by_source()
    page = (folder / "report.html").read_text()
    assert "http-equiv" not in page
    assert 'src="http' not in page
    assert main(["report", str(folder / "unfolded.nc"), "--out", str(tmp_path / "again.html")]) == 0
    shutil.copy(folder / "unfolded.nc", folder / "checkpoint.npz")
    assert main(["unfold", str(tmp_path / "zjets.toml")]) == 2
    assert "--resume" in capsys.readouterr().err


def test_schema_and_missing_config(capsys):
    assert main(["unfold", "--schema"]) == 0
    assert "[[systematic]]" in capsys.readouterr().out
    assert main(["unfold"]) == 2


def test_mistakes_in_expressions_and_columns_are_clear(tmp_path):
    pq.write_table(pa.table({"pt": PT, "jets": JETS, "name": ["a", "b", "c", "d"]}), tmp_path / "x.parquet")
    import awkward as ak

    with uproot.recreate(tmp_path / "x.root") as f:
        f["t"] = {"pt": PT, "jets": ak.Array(JETS)}
    for suffix in ("parquet", "root"):
        with pytest.raises(InputError, match=r"several entries an event; pick one of them, jets\[0\]"):
            bu.io.read_columns(tmp_path / f"x.{suffix}", ["jets"])
    with pytest.raises(InputError, match="only numbers and flags"):
        bu.io.read_columns(tmp_path / "x.parquet", ["name"])
    with pytest.raises(InputError, match="log takes 1 argument"):
        bu.io.evaluate("log(x, y)", {"x": np.ones(2), "y": np.ones(2)})
    with pytest.raises(InputError, match="needs the column 'z'"):
        bu.io.evaluate("x + z", {"x": np.ones(2)})


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_hepdata_touches_no_file_of_the_user(result, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "submission.tar.gz").write_text("mine")
    folder = tmp_path / "hepdata"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine too")
    spectrum = result.spectrum("gen", np.linspace(-6, 8, 8))
    bu.io.write_hepdata(folder, {"gen": spectrum, "again": spectrum})
    bu.io.write_hepdata(folder, {"gen": spectrum})
    assert (tmp_path / "submission.tar.gz").read_text() == "mine"
    assert (folder / "notes.txt").read_text() == "mine too"
    assert not (folder / "again.yaml").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hepdata", "submission.tar.gz"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["pt jet", "pt_jet"], "'pt_jet' and the table 'pt jet' would both be pt_jet.yaml"),
        (["m", "M"], "'M' and the table 'm' would both be m.yaml"),
        (["pt", "pt covariance"], "'pt covariance' and the table 'pt covariance' would both be pt_covariance.yaml"),
        (["Submission"], "'Submission' and the submission itself would both be submission.yaml"),
        (["nuisance_parameters"], "and the table 'nuisance parameters' would both be nuisance_parameters.yaml"),
    ],
)
def test_hepdata_tables_of_the_same_file(tmp_path, names, words):
    edges = np.array([0.0, 1.0, 2.0])
    spectra = {name: bu.Spectrum((edges,), np.ones((5, 2)) * np.arange(5)[:, None], np.ones(2)) for name in names}
    with pytest.raises(InputError, match=words):
        bu.io.write_hepdata(tmp_path / "h", spectra)
    assert not (tmp_path / "h").exists()


def test_spectra_are_checked_before_training(tmp_path):
    head = '[simulation]\nfile = "s"\ngen = ["x"]\nreco = ["y"]\n[data]\nfile = "d"\nfeatures = ["y"]\n'
    path = tmp_path / "c.toml"
    for text, message in (
        ("bins = [3, 1]", "increas"),
        ('bins = [1, 3]\nnormalization = "foo"', "normalization is 'foo'"),
        ('bins = [1, 3]\n[[spectrum]]\nobservable = "x"\nbins = [1, 2]', "give an observable once"),
    ):
        path.write_text(f'{head}[[spectrum]]\nobservable = "x"\n{text}\n')
        with pytest.raises(InputError, match=message):
            load_job(path)


@pytest.mark.filterwarnings("ignore::bayesunfold.errors.BiasWarning")  # two iterations are too few
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inside hepdata_lib
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_quick_start_runs(tmp_path, capsys):
    """From ROOT files to a HEPData record and a dashboard, with the configuration of the documentation."""
    text = (EXAMPLES.parent / "quickstart.md").read_text()
    toml = text.split("```toml\n")[1].split("```")[0]
    toml = toml.replace("random_seed = 1", 'random_seed = 1\ninference = "laplace"\niterations = 2\ndraws = 60')
    toml += "\n[network]\nhidden = [8]\n"
    (tmp_path / "measurement.toml").write_text(toml)
    rng = np.random.default_rng(1)

    def columns(n, scale):
        gen_pt, gen_m = 30 + rng.exponential(40 * scale, n), rng.gamma(4, 3, n)
        gen_pt[rng.random(n) < 0.1] = 25.0
        pt, m = gen_pt * rng.normal(1, 0.1, n) + 5, gen_m * rng.normal(1, 0.1, n)
        up = {"pt_up": 1.02 * pt, "m_up": 1.02 * m, "pt_down": 0.98 * pt, "m_down": 0.98 * m}
        return {"gen_pt": gen_pt, "gen_m": gen_m, "pt": pt, "m": m, "eta": rng.uniform(-2.5, 2.5, n), **up}

    for name, sample in (("simulation", columns(1500, 1.0)), ("data", columns(750, 1.1)), ("top", columns(100, 2.0))):
        with uproot.recreate(tmp_path / f"{name}.root") as f:
            f["events"] = sample | {"w": np.full(len(sample["pt"]), 0.2 if name == "top" else 1.0)}
    assert main(["unfold", "--check", str(tmp_path / "measurement.toml")]) == 0, capsys.readouterr().err
    assert "all checks pass; nothing was trained" in capsys.readouterr().out
    assert not (tmp_path / "measurement").exists()
    assert main(["unfold", str(tmp_path / "measurement.toml")]) == 0, capsys.readouterr().err
    assert (
        "simulated events pass neither level, nominally or in a variation; they were dropped" in capsys.readouterr().out
    )
    made = {p.name for p in (tmp_path / "measurement").iterdir()}
    assert made >= {"report.html", "unfolded.nc", "pt.png", "m.png", "spectra.root", "hepdata", "publication"}
    spectrum = bu.load(tmp_path / "measurement" / "unfolded.nc").spectrum("pt", [30, 50, 100])
    assert {"top", "energy scale"} <= set(spectrum.by_source())
    assert "units: GeV" in (tmp_path / "measurement" / "hepdata" / "pt.yaml").read_text()
    assert "Jet transverse" in (tmp_path / "measurement" / "hepdata" / "submission.yaml").read_text()
    assert "the generator and its tune" in (tmp_path / "measurement" / "publication" / "metadata.yaml").read_text()


def test_names_in_backticks(tmp_path):
    pq.write_table(pa.table({"jet.pt": PT, "jet.all": JETS}), tmp_path / "x.parquet")
    read = bu.io.read_columns(tmp_path / "x.parquet", ["`jet.pt` / 10", "`jet.all`[0]"], selection="`jet.pt` > 15")
    assert read["`jet.pt` / 10"].tolist() == [3.0, 5.0, 2.0]
    assert read["`jet.all`[0]"][0] == 3.0
