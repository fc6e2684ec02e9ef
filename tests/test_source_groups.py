"""Sources of uncertainty in groups."""

from __future__ import annotations

import numpy as np
import pytest

import bayesunfold as bu
from bayesunfold import plots
from bayesunfold.errors import InputError, InputTypeError
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
