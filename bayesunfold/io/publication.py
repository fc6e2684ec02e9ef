"""Publishing unbinned results: events with weight families, and metadata that say how to use them.

``events.parquet`` and ``metadata.yaml`` follow what the field is agreeing on for published event weights
(arXiv:2109.13243): one row an event, particle-level features, a nominal weight, and families of weights. Ours adds a
``posterior`` family: its columns are draws, and any quantity's uncertainty is the spread of that quantity over them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bayesunfold.binning import as_axes, bin_index
from bayesunfold.checkpoint import atomic_write
from bayesunfold.errors import FileFormatError, InputError
from bayesunfold.spectrum import Spectrum

if TYPE_CHECKING:
    from bayesunfold.result import UnfoldingResult

__all__ = ["Publication", "read_publication", "write_publication"]

Array = NDArray[np.floating]
FORMAT_VERSION = 1
RECIPE = (
    "Compute the quantity once with each posterior weight column in place of the nominal one. Shift the draws so that "
    "their mean is the quantity with nominal weights. Central quantiles of the draws are its credible interval, their "
    "covariance is the covariance of several quantities. The draws hold all listed sources together: never add them in "
    "quadrature to each other."
)


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
    metadata : dict
    """

    features: dict[str, Array]
    nominal: Array
    draws: Array
    metadata: dict[str, Any]

    def spectrum(self, values: str | ArrayLike, bins: ArrayLike) -> Spectrum:
        """Posterior histogram of an observable of the published events."""
        if isinstance(values, str):
            if values not in self.features:
                msg = f"{values!r} was not published; there are {', '.join(self.features)}."
                raise InputError(msg)
            name, column = values, self.features[values]
        else:
            name, column = "observable", np.asarray(values, dtype=np.float64)
            if column.shape != self.nominal.shape:
                msg = f"values have shape {column.shape}; give one for each of {len(self.nominal)} published events."
                raise InputError(msg)
        edges = as_axes([column], bins)
        index = bin_index([column], edges, np.isfinite(column))
        n_bins = len(edges[0]) - 1
        # two more groups: outside the bins, and undefined
        groups = np.where(index >= 0, index, np.where(np.isnan(column), n_bins + 1, n_bins))
        nominal = np.bincount(groups, self.nominal, n_bins + 2)[:n_bins]
        drawn = np.stack([np.bincount(groups, w, n_bins + 2) for w in self.draws])
        inside = drawn[:, :n_bins]
        return Spectrum(
            edges,
            inside - inside.mean(axis=0) + nominal,
            nominal,
            (name,),
            outside=drawn[:, n_bins],
            undefined=drawn[:, n_bins + 1],
        )


def write_publication(
    result: UnfoldingResult,
    folder: str | Path,
    *,
    draws: int | None = None,
    units: Mapping[str, str] | None = None,
    recommended_bins: Mapping[str, ArrayLike] | None = None,
    description: Mapping[str, str] | None = None,
) -> Path:
    """Write ``events.parquet`` and ``metadata.yaml``.

    Parameters
    ----------
    result : UnfoldingResult
    folder : path
    draws : int, optional
        Posterior columns; all draws if omitted. Fewer draws make bands noisier, not narrower.
    units : mapping of feature to str, optional
    recommended_bins : mapping of feature to edges, optional
    description : mapping of str to str, optional
        Free text by key: generator, selection, luminosity, reference.

    Returns
    -------
    Path
        The folder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import yaml

    sim = result.simulation
    n_draws = result.members.n_members if draws is None else draws
    if not 2 <= n_draws <= result.members.n_members:
        msg = f"draws is {draws}; it must lie between 2 and the {result.members.n_members} of the result."
        raise InputError(msg)
    binned = dict(recommended_bins or {})
    for name in [*(units or {}), *binned]:
        sim.gen_column(name)
    rows = sim.pass_gen
    table = {name: sim.gen[rows, j] for j, name in enumerate(sim.gen_names)}
    table["weight_nominal"] = result.nominal[rows]
    weights = result.weights.values[:n_draws][:, rows]
    table |= {f"weight_posterior_{s:04d}": weights[s] for s in range(n_draws)}
    metadata = {
        "format": "bayesunfold-publication",
        "format_version": FORMAT_VERSION,
        "events": "events.parquet",
        "number_of_events": int(rows.sum()),
        "normalisation": "weights sum to the unfolded number of events of the full particle-level selection",
        "total": float(result.nominal.sum()),
        "features": [
            {"name": name, "unit": (units or {}).get(name, ""), "level": "particle"}
            | ({"recommended_bins": np.asarray(binned[name]).tolist()} if name in binned else {})
            for name in sim.gen_names
        ],
        "weights": {
            "nominal": {"column": "weight_nominal", "meaning": "point estimate"},
            "posterior": {
                "columns": "weight_posterior_{:04d}",
                "number": n_draws,
                "kind": "draws of the joint posterior",
                "sources": list(result.members.sources),
                "propagation": RECIPE,
            },
        },
        "unfolding": dict(result.configuration),
        "history": [
            {
                "iteration": k,
                "change_in_bands": float(entry["change"]),
                "effective_size": float(entry["effective_size"]),
            }
            for k, entry in enumerate(result.history, start=1)
        ],
        "description": dict(description or {}),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / "events.parquet", lambda path: pq.write_table(pa.table(table), path))
    text = yaml.safe_dump(metadata, sort_keys=False)
    # the metadata comes last: a folder that has it is complete
    atomic_write(folder / "metadata.yaml", lambda path: path.write_text(text))
    return folder


def read_publication(folder: str | Path) -> Publication:
    """Read what :func:`write_publication` wrote; its bands equal the original ones.

    Raises
    ------
    FileFormatError
        If files are missing, damaged, or of a newer version.

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
        table = pq.read_table(folder / metadata["events"])
        family = metadata["weights"]["posterior"]
        names = [family["columns"].format(s) for s in range(family["number"])]
        return Publication(
            {f["name"]: table[f["name"]].to_numpy() for f in metadata["features"]},
            table["weight_nominal"].to_numpy(),
            np.stack([table[name].to_numpy() for name in names]),
            metadata,
        )
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as err:
        if isinstance(err, FileFormatError):
            raise
        msg = f"{folder} is not a publication of bayesunfold ({type(err).__name__}: {err})."
        raise FileFormatError(msg) from err
