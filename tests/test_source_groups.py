"""Sources of uncertainty in groups."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold import plots
from bayesunfold.errors import InputError, InputTypeError
from bayesunfold.impacts import Parameter
from bayesunfold.io import Publication
from bayesunfold.source_groups import match_groups

NAMES = ["data", "jes 1", "jes 2", "muon"]


def spectrum(correlation: float = 0.0) -> bu.Spectrum:
    """Four sources of widths 1 to 4, the second and third correlated."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((4, 4000))
    z[2] = correlation * z[1] + np.sqrt(1 - correlation**2) * z[2]
    nominal = np.array([100.0, 50.0])
    drawn = {name: nominal + np.outer(z[k], [k + 1.0, k + 1.0]) for k, name in enumerate(NAMES)}
    total = nominal + sum(d - nominal for d in drawn.values())
    return bu.Spectrum(
        (np.array([0.0, 1.0, 2.0]),), total, nominal, sources={name: lambda d=d: d for name, d in drawn.items()}
    )


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_a_group_fluctuates_together(correlation):
    """The variance is ``4 + 9 + 2 r 2 3``, to 6 errors of 4000 draws."""
    found = spectrum(correlation).grouped({"jets": "jes*"})
    split = found.by_source()
    assert list(split) == ["data", "jets", "muon", "total"]
    expected = np.sqrt(13 + 12 * correlation)
    np.testing.assert_allclose(split["jets"], expected, rtol=6 / np.sqrt(2 * 4000))
    np.testing.assert_array_equal(split["muon"], spectrum(correlation).by_source()["muon"])
    np.testing.assert_array_equal(found.draw_matrix, spectrum(correlation).draw_matrix)
    names = plots.plot_sources(found).axes[0].get_legend_handles_labels()[1]
    assert names == ["data", "jets", "muon", "total"]
    assert set(found.ranking()["source"]) == {"data", "jets", "muon"}


def test_one_source_under_another_name_keeps_its_parameter():
    alpha = np.array([-2.0, -1.0, 1.0, 2.0])
    drawn = 10.0 + np.where(alpha > 0, 3 * alpha, alpha)[:, None]
    one = bu.Spectrum(
        (np.array([0.0, 1.0]),),
        drawn,
        np.array([10.0]),
        sources={"fsr [up]": lambda: drawn, "isr": lambda: drawn},
        parameters={"fsr [up]": Parameter(alpha), "isr": Parameter(alpha)},
    )
    row = one.grouped({"shower": "fsr [*]"}).ranking().set_index("source").loc["shower"]
    assert row["kind"] == "systematic"
    assert row["up"] == pytest.approx(3.0)
    assert row["down"] == pytest.approx(-1.0)
    both = one.grouped({"theory": ["fsr*", "isr"]}).ranking().set_index("source").loc["theory"]
    assert both["kind"] == "group"


def test_sources_of_different_numbers_of_draws_do_not_add():
    few = bu.Spectrum(
        (np.array([0.0, 1.0]),),
        np.ones((4, 1)),
        np.ones(1),
        sources={"a": lambda: np.ones((4, 1)), "b": lambda: np.ones((5, 1))},
    )
    with pytest.raises(InputError, match="have \\[4, 5\\] draws"):
        few.grouped({"both": "*"}).by_source()


def test_pairs_of_a_publication_add_as_their_parameters_do():
    """Two independent pairs of equal size: the root of two of one, to 6 errors of 1000 draws."""
    nominal = np.ones(100)
    pair = nominal * np.array([[1.01], [0.99]])
    found = Publication({"x": np.zeros(100)}, nominal, nominal * np.array([[0.9], [1.1]]), {}, {"a": pair, "b": pair})
    spectrum = found.spectrum("x", [-1, 1])
    assert spectrum.by_source()["a"] == pytest.approx(1.0, rel=0.01)
    assert spectrum.grouped({"both": "*"}).by_source()["both"] == pytest.approx(np.sqrt(2), rel=3 / np.sqrt(1000))


def test_exact_sources_add_in_squares():
    response = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    unfolded = bu.MatrixInversion().fit(response, [100, 150])
    split = unfolded.by_source()
    (group,) = (v for k, v in unfolded.grouped({"all": ["data", "simulation"]}).by_source().items() if k == "all")
    np.testing.assert_allclose(group, np.hypot(split["data"], split["simulation"]))


def test_groups_stand_where_their_first_source_stood():
    assert list(match_groups({"jets": ["jes 2", "jes 1"]}, NAMES)) == ["data", "jets", "muon"]
    assert match_groups({}, NAMES) == {name: (name,) for name in NAMES}
    assert match_groups({"muon": ["muon", "data"]}, NAMES)["muon"] == ("data", "muon")


@pytest.mark.parametrize(
    ("groups", "kind", "words"),
    [
        ({"jets": "jer*"}, InputError, "no source matches 'jer\\*' of the group 'jets'; there are: data, jes 1"),
        ({"a": "jes*", "b": "jes 1"}, InputError, "'jes 1' is in the groups 'a' and 'b'"),
        ({"data": "jes*"}, InputError, "'data' is the name of a source outside of it"),
        ({"total": "jes*"}, InputError, "'total' stands for all sources"),
        ({"jets": 3}, InputTypeError, "is 3; give a source's name or a pattern"),
        ({"jets": []}, InputTypeError, "is \\[\\]; give a source's name or a pattern"),
        (["jes*"], InputTypeError, "groups has type list"),
    ],
)
def test_bad_groups(groups, kind, words):
    with pytest.raises(kind, match=words):
        spectrum().grouped(groups)


def test_a_spectrum_that_does_not_know_its_sources():
    plain = bu.Spectrum((np.array([0.0, 1.0]),), np.ones((3, 1)), np.ones(1))
    with pytest.raises(InputError, match="nothing to group"):
        plain.grouped({"all": "*"})
