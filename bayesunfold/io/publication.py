"""Publishing unbinned results: events with weight families, and metadata that say how to use them.

``events.parquet`` and ``metadata.yaml`` follow what the field is agreeing on for published event weights
(arXiv:2109.13243): one row an event, particle-level features, a nominal weight, and families of weights:

* ``posterior``: draws in which everything fluctuates together. All that most readers need.
* ``systematic``: each systematic uncertainty by one standard deviation up and down, in pairs.
* ``bootstrap`` and ``ensemble``, if asked for: draws in which one source alone fluctuates, the events of a sample or
  the prior of the networks, so that readers can correlate sources with other measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from bayesunfold._support.checks import check_bins, check_count, check_mapping
from bayesunfold._support.files import check_replaceable, checksum, replace_folder
from bayesunfold._support.streams import LUMINOSITY
from bayesunfold._support.threads import block_threads
from bayesunfold.binning import as_axes
from bayesunfold.errors import FileFormatError, InputError
from bayesunfold.impacts import Parameter
from bayesunfold.normalization import EXTRA, Finish, assign_groups, read_luminosity
from bayesunfold.spectrum import Normalization, Spectrum
from bayesunfold.unfolding.correlations import partners_of, prior_correlation
from bayesunfold.unfolding.perturbations import interpolate
from bayesunfold.unfolding.two_point import statistics_name

if TYPE_CHECKING:
    from bayesunfold.unfolding.members import Members
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["Publication", "read_publication", "write_publication"]

Array = NDArray[np.floating]
FORMAT_VERSION = 2
"""Version 1 has no systematic pairs and no draws by source; it is still read."""
RECIPE = (
    "Compute the quantity once with each posterior weight column in place of the nominal one. Shift the draws so that "
    "their mean is the quantity with nominal weights. Central quantiles of the draws are its credible interval, their "
    "covariance is the covariance of several quantities. The draws hold all listed sources together: never add them in "
    "quadrature to each other."
)
PAIR_RECIPE = (
    "Compute the quantity with the up and the down column; the differences from the quantity with nominal weights are "
    "its shifts at plus and minus one standard deviation of a Normal nuisance parameter. They are part of the "
    "posterior draws already: use them to correlate the systematic with other measurements, not in addition. Where a "
    "correlation with another systematic is given, the covariance of two quantities has the product of their shifts by "
    "the one and by the other, times it, in both orders. The pair of a profiled systematic is one standard deviation "
    "of its posterior and has what goes with it of the other parameters: never add pairs of several profiled ones."
)
SOURCE_RECIPE = (
    "As the posterior draws, but this source alone fluctuates. Its variance is part of the posterior draws' already."
)
LEARNED = (
    "The pair is the mean of a ratio of two samples that was learned. What their statistics leave open of it is in the "
    "posterior draws only."
)
PULLS = 1000
"""Values of a nuisance parameter, in equal quantiles, for spectra of one systematic alone, if no source has draws."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Publication:
    """Published events.

    Attributes
    ----------
    features : dict of str to array, shape (n,)
    nominal : array, shape (n,)
    draws : array, shape (draws, n), float32
        The posterior family.
    metadata : dict
    pairs : dict of str to array, shape (2, n)
        By systematic: weights one standard deviation up and down.
    sources : dict of str to array, shape (draws, n)
        Draws in which one source alone fluctuates, if these were published.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesunfold.io import Publication
    >>> nominal = np.array([1.0, 2.0])
    >>> p = Publication({"pt": np.array([10.0, 30.0])}, nominal, nominal * np.array([[0.9], [1.1]]), {})
    >>> p.spectrum("pt", [0, 20, 40]).nominal
    array([1., 2.])
    """

    features: dict[str, Array]
    nominal: Array
    draws: Array
    metadata: dict[str, Any]
    pairs: dict[str, Array] = field(default_factory=dict)
    sources: dict[str, Array] = field(default_factory=dict)

    def spectrum(
        self,
        values: str | ArrayLike | tuple[str | ArrayLike, ...],
        bins: ArrayLike,
        *,
        normalization: Normalization = "yield",
        luminosity: float | None = None,
    ) -> Spectrum:
        """Posterior histogram of observables of the published events.

        Parameters
        ----------
        values : str, array of shape (n,), or a tuple of these
            A published feature by name, or the observable's value in every event, NaN where it does not exist; a tuple
            makes a histogram in several dimensions.
        bins : array of edges, or one array an observable
        normalization : {"yield", "shape", "density"}
        luminosity : float, optional
            Divides the spectrum. Its uncertainty is not in the published weights; an error if these vary backgrounds
            with it.

        Returns
        -------
        Spectrum
            Its ``by_source()`` is the result's for sources whose draws were published. Of a systematic it is that of
            the pair of weights, which lacks what the statistics of an alternative simulation leave open and what is of
            second order in its parameter; that is in the band.
        """
        observables = [self._observable(v) for v in (values if isinstance(values, tuple) else (values,))]
        names, columns = tuple(name for name, _ in observables), [column for _, column in observables]
        edges = as_axes(columns, bins)
        groups, n_bins = assign_groups(columns, edges, np.ones(len(self.nominal), dtype=bool))

        def sums(weights: Array) -> Array:
            return np.stack([np.bincount(groups, w, n_bins + EXTRA) for w in weights])

        size, uncertainty = read_luminosity(luminosity, normalization)
        if uncertainty > 0:
            msg = f"luminosity is {luminosity!r}; its uncertainty is not in published weights, add it yourself."
            raise InputError(msg)
        if luminosity is not None and LUMINOSITY in self.pairs:
            msg = (
                "the published weights vary the backgrounds with the luminosity, whose uncertainty a cross section has "
                "too, with the same sign; take the cross section of the result, and publish it beside the weights."
            )
            raise InputError(msg)
        finish = Finish(sums(self.nominal[None])[0], edges, normalization, "nominal", size)
        drawn = sums(self.draws)
        outside, undefined = finish.in_no_bin(drawn)

        units = {feature["name"]: feature.get("unit", "") for feature in self.metadata.get("features", [])}
        pulls = self._pulls()

        def single(name: str) -> Array:
            if name in self.sources:
                return finish(sums(self.sources[name]))
            return finish(_at_pulls(sums(self.pairs[name]), sums(self.nominal[None])[0], pulls[name]))

        sources: dict[str, Callable[[], Array]] = {name: partial(single, name) for name in (*self.sources, *self.pairs)}
        return Spectrum(
            edges,
            finish(drawn),
            finish.nominal,
            names,
            outside=outside,
            undefined=undefined,
            flow=finish.flow(drawn),
            normalization=normalization,
            luminosity=None if luminosity is None else size,
            units=tuple(units.get(name, "") for name in names) if any(units.get(name) for name in names) else (),
            method=self.metadata.get("method", "OmniFold"),
            sources=sources,
            parameters=self._parameters(pulls),
        )

    def _entries(self) -> dict[str, dict[str, Any]]:
        """By systematic: what the metadata say of its pair."""
        entries = self.metadata.get("weights", {}).get("systematic", {})
        return {name: entries.get(name, {}) for name in self.pairs}

    def _parameters(self, pulls: Mapping[str, Array]) -> dict[str, Parameter]:
        """Nuisance parameters of the systematics."""
        out = {}
        for name, entry in self._entries().items():
            p, x, partners = entry.get("profiled"), pulls[name], frozenset(entry.get("correlation", {}))
            out[name] = (
                Parameter(x, partners=partners)
                if p is None
                else Parameter(x * p["std"], p["mean"], p["std"], profiled=True)
            )
        return out

    def _pulls(self) -> dict[str, Array]:
        """By systematic: values of its nuisance parameter, with the correlations that were published."""
        names = list(self.pairs)
        n = len(next(iter(self.sources.values()))) if self.sources else PULLS
        scores = ndtri((np.arange(n) + 0.5) / n)
        drawn = np.array([np.random.default_rng(k).permutation(scores) for k in range(len(names))]).reshape(-1, n)
        given = {name: entry.get("correlation", {}) for name, entry in self._entries().items()}
        return dict(zip(names, np.linalg.cholesky(prior_correlation(given, names)) @ drawn, strict=True))

    def _observable(self, values: str | ArrayLike) -> tuple[str, Array]:
        if isinstance(values, str):
            if values not in self.features:
                msg = f"{values!r} was not published; there are {', '.join(self.features)}."
                raise InputError(msg)
            return values, self.features[values]
        column = np.asarray(values, dtype=np.float64)
        if column.shape != self.nominal.shape:
            msg = f"values have shape {column.shape}; give one for each of {len(self.nominal)} published events."
            raise InputError(msg)
        return "observable", column


def _at_pulls(pair: Array, nominal: Array, pulls: Array) -> Array:
    """Sums of one systematic at values of its parameter, straight lines on either side of the point estimate."""
    up, down = pair - nominal
    return nominal + interpolate(up, down, pulls).T


def write_publication(
    result: UnfoldingResult,
    folder: str | Path,
    *,
    draws: int | None = None,
    by_source: bool = False,
    units: Mapping[str, str] | None = None,
    recommended_bins: Mapping[str, ArrayLike] | None = None,
    description: Mapping[str, str] | None = None,
) -> Path:
    """Write ``events.parquet`` and ``metadata.yaml``.

    Both appear together. A publication that this function wrote before is replaced; other files in the folder stay.

    Parameters
    ----------
    result : UnfoldingResult
    folder : path
    draws : int, optional
        Posterior columns; all draws if omitted. Fewer draws make bands noisier, not narrower.
    by_source : bool
        Also draws in which one source alone fluctuates: data, simulation, each background, the prior. As many again
        for each.
    units : mapping of feature to str, optional
    recommended_bins : mapping of feature to edges, optional
    description : mapping of str to str, optional
        Free text by key: generator, selection, luminosity, reference.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    InputError
        For too many draws, unknown features, features whose names begin with ``weight_``, bins that do not increase,
        and files of the user's that would be overwritten.

    Examples
    --------
    >>> import tempfile
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=20,
    ...                    random_seed=1, progressbar=False)
    >>> folder = bu.io.write_publication(result, tempfile.mkdtemp(), units={"gen": "GeV"})
    >>> sorted(path.name for path in folder.glob("[!.]*"))
    ['events.parquet', 'metadata.yaml']
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    sim = result.simulation
    n_draws = result.members.n_members
    if draws is not None:
        n_draws = check_count(draws, "draws", 2, n_draws)
    units = {str(k): str(v) for k, v in check_mapping(units or {}, "units").items()}
    binned = {k: check_bins(v, f"recommended_bins of {k}") for k, v in _by_name(recommended_bins, "bins").items()}
    words = {str(k): str(v) for k, v in _by_name(description, "description").items()}
    for name in [*units, *binned]:
        sim.gen_column(name)
    check_publication(Path(folder), sim.gen_names)
    single = [s for s in result.members.sources if s not in result.members.systematics] if by_source else []
    table = _events_table(result, n_draws, single)
    metadata = {
        "format": "bayesunfold-publication",
        "format_version": FORMAT_VERSION,
        "method": result.record.settings.method,
        "events": "events.parquet",
        "number_of_events": int(sim.pass_gen.sum()),
        "normalisation": "weights sum to the unfolded number of events of the full particle-level selection",
        "total": float(result.nominal.sum()),
        "features": [
            {"name": name, "unit": units.get(name, ""), "level": "particle"}
            | ({"recommended_bins": binned[name].tolist()} if name in binned else {})
            for name in sim.gen_names
        ],
        "weights": _weight_columns(result, n_draws, single),
        "unfolding": dict(result.configuration),
        "history": [
            {
                "iteration": k,
                "change_in_bands": float(entry["change"]),
                "effective_size": float(entry["effective_size"]),
            }
            for k, entry in enumerate(result.history, start=1)
        ],
        "description": words,
    }

    def write(new: Path) -> None:
        pq.write_table(pa.table(table), new / "events.parquet", write_page_checksum=True)
        complete = metadata | {"events_sha256": checksum(new / "events.parquet")}
        (new / "metadata.yaml").write_text(yaml.safe_dump(complete, sort_keys=False))

    replace_folder(Path(folder), write, "a publication", pointer="metadata.yaml")
    return Path(folder)


def _events_table(result: UnfoldingResult, n_draws: int, single: Sequence[str]) -> dict[str, Array]:
    """Columns of the events that pass gen: features, point estimate, draws, systematic pairs, draws by source."""
    sim, rows = result.simulation, result.simulation.pass_gen
    table = {name: sim.gen[rows, j] for j, name in enumerate(sim.gen_names)}
    table["weight_nominal"] = result.nominal[rows]
    _add(table, _columns("posterior", result.weights.values[:n_draws][:, rows]))
    _add(table, _pair_columns(result, rows))
    for source in single:
        _add(table, _columns(source, _weights(result.members, rows, source)[:n_draws]))
    return table


def _weight_columns(result: UnfoldingResult, n_draws: int, single: Sequence[str]) -> dict[str, Any]:
    """What each family of weight columns is, and how uncertainties are made from it."""
    correlations = _correlations(result)
    profiled = _profiled(result)
    variations = result.members.perturbations.variations
    learned = {name for name in variations if statistics_name(name) in variations or variations[name].draws is not None}
    return {
        "nominal": {"column": "weight_nominal", "meaning": "point estimate"},
        "posterior": {
            "columns": "weight_posterior_{:04d}",
            "number": n_draws,
            "kind": "draws of the joint posterior",
            "sources": list(result.members.sources),
            "propagation": RECIPE,
        },
        "systematic": {
            name: {"up": f"weight_{name}_up", "down": f"weight_{name}_down", "propagation": PAIR_RECIPE}
            | ({"correlation": correlations[name]} if name in correlations else {})
            | ({"statistics": LEARNED} if name in learned else {})
            | ({"profiled": profiled[name]} if name in profiled else {})
            for name in result.members.systematics
        },
        "source": {
            name: {
                "columns": f"weight_{name}_{{:04d}}",
                "number": n_draws,
                "kind": "ensemble" if name in ("prior", "generator") else "bootstrap",
                "propagation": SOURCE_RECIPE,
            }
            for name in single
        },
    }


def _correlations(result: UnfoldingResult) -> dict[str, dict[str, float]]:
    """By systematic: correlations of its parameter with those of others; of profiled ones the pairs have them."""
    profiled = _profiled(result)
    names = [name for name in result.members.systematics if name not in profiled]
    return partners_of(names, prior_correlation(result.inputs.correlations, names))


def _profiled(result: UnfoldingResult) -> dict[str, dict[str, float]]:
    """By profiled systematic: mean and standard deviation of its posterior."""
    nuisances = result.measurement.nuisances
    if nuisances is None:
        return {}
    found = zip(nuisances.names, nuisances.draws(), strict=True)
    known = set(result.members.systematics)
    return {name: {"mean": float(d.mean()), "std": float(d.std(ddof=1))} for name, d in found if name in known}


def check_publication(folder: Path, gen_names: Sequence[str]) -> None:
    """Whether a publication can be written: names of the features, and what stands in the folder.

    Raises
    ------
    InputError
        For features whose names begin with ``weight_``, and files that would be overwritten.
    """
    reserved = [name for name in gen_names if name.startswith("weight_")]
    if reserved:
        msg = f"features {reserved} begin with 'weight_', as the columns of weights do; rename them."
        raise InputError(msg)
    check_replaceable(folder, ("events.parquet", "metadata.yaml").__contains__, "a publication")


def _by_name(values: Mapping[str, Any] | None, what: str) -> dict[str, Any]:
    return {} if values is None else dict(check_mapping(values, what))


def _add(table: dict[str, Array], columns: dict[str, Array]) -> None:
    """Add columns, of which none may have the name of another."""
    twice = [name for name in columns if name in table]
    if twice:
        msg = f"two columns of the publication would be called {twice[0]!r}; rename the feature or systematic."
        raise InputError(msg)
    table |= columns


def _columns(family: str, weights: Array) -> dict[str, Array]:
    return {f"weight_{family}_{s:04d}": w for s, w in enumerate(weights)}


def _weights(members: Members, rows: NDArray[np.bool_], source: str) -> Array:
    """Weights of the published events in which one source fluctuates, shape (members, events), float32."""
    with block_threads():
        return np.concatenate([block[rows[where]] for where, block in members.blocks(source)]).T


def _pair_columns(result: UnfoldingResult, rows: NDArray[np.bool_]) -> dict[str, Array]:
    columns: dict[str, Array] = {}
    for name in result.members.systematics:
        up, down = _weights(result.members.one_sigma(name), rows, name)
        columns |= {f"weight_{name}_up": up, f"weight_{name}_down": down}
    return columns


def read_publication(folder: str | Path) -> Publication:
    """Read what :func:`write_publication` wrote; its bands equal the original ones.

    Raises
    ------
    FileFormatError
        If files are missing, damaged, of a newer version, or not of one and the same write.

    Examples
    --------
    >>> import tempfile
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=20,
    ...                    random_seed=1, progressbar=False)
    >>> folder = bu.io.write_publication(result, tempfile.mkdtemp())
    >>> bu.io.read_publication(folder).spectrum("gen", [-5, 0, 5])
    Spectrum(gen: 2 bins, 20 draws, yield ... in range, OmniFold)
    """
    import pyarrow.parquet as pq
    import yaml

    folder = Path(folder)
    try:
        metadata = yaml.safe_load((folder / "metadata.yaml").read_text())
        version = metadata["format_version"]
        if metadata["format"] != "bayesunfold-publication" or version > FORMAT_VERSION:
            msg = f"{folder} has format {metadata['format']!r}, version {version}; this reads version {FORMAT_VERSION}."
            raise FileFormatError(msg)
        name = metadata["events"]
        if Path(name).name != name:
            msg = f"{folder} names the events {name!r}, outside the folder; they are not read."
            raise FileFormatError(msg)
        if metadata.get("events_sha256") not in (None, checksum(folder / name)):
            msg = f"{folder / name} is damaged, or of another write than metadata.yaml; write the publication again."
            raise FileFormatError(msg)
        table = pq.read_table(folder / name, page_checksum_verification=True)
        weights = metadata["weights"]

        def family(entry: dict[str, Any]) -> Array:
            number = int(entry["number"])
            if not 0 < number <= table.num_columns:
                msg = f"{folder} names {number} columns of weights, and its table has {table.num_columns} in all."
                raise FileFormatError(msg)
            names = [entry["columns"].format(s) for s in range(number)]
            return cast("Array", np.stack([table[name].to_numpy() for name in names]))

        return Publication(
            {f["name"]: table[f["name"]].to_numpy() for f in metadata["features"]},
            table["weight_nominal"].to_numpy(),
            family(weights["posterior"]),
            metadata,
            pairs={
                name: np.stack([table[entry["up"]].to_numpy(), table[entry["down"]].to_numpy()])
                for name, entry in weights.get("systematic", {}).items()
            },
            sources={name: family(entry) for name, entry in weights.get("source", {}).items()},
        )
    except (OSError, LookupError, TypeError, ValueError, AttributeError, yaml.YAMLError) as err:
        if isinstance(err, FileFormatError):
            raise
        msg = f"{folder} is not a publication of bayesunfold ({type(err).__name__}: {err})."
        raise FileFormatError(msg) from err
