"""Whether bands contain the truth as often as they say.

Every toy has fresh data and a fresh simulation; its bands are scored against the *expected* truth, which
does not fluctuate. Scoring toys against their own truth sample, or with the spread of the
toys instead of their bands, would be no coverage test.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from bayesunfold._support.files import atomic_write, read_npz
from bayesunfold._support.statistics import clopper_pearson
from bayesunfold._support.tables import as_text
from bayesunfold.errors import FileFormatError, InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["CoverageStudy", "load_coverage"]

Array = NDArray[np.floating]

CORE_EXPECTED = 20.0
"""Bins with at least this many expected events are the core, over which the study averages."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class CoverageStudy:
    """Bands of many toys beside the truth they should contain.

    Attributes
    ----------
    edges : dict of str to array
        Bin edges of each observable; bins of all observables follow one another below.
    expected : array, shape (bins,)
        Expected truth, without statistical fluctuation.
    levels : tuple of float
    nominal, std : array, shape (toys, bins)
        Point estimates and widths.
    lower, upper : array, shape (toys, levels, bins)
    pit : array, shape (toys, bins)
        Fraction of the posterior below the truth, uniform for calibrated bands.
    chi2, dof : array, shape (toys, observables)
        Chi-square of the truth with the toy's own covariance, core bins only.
    seconds : array, shape (toys,)
    seeds : array, shape (toys,)
    wall_seconds : float
        Of the run, which may have had a part of the toys from a checkpoint.
    extra : dict of str to array
        Numbers per toy that ``unfold`` reported, for instance the iterations taken.
    timed_toys : int, optional
        Toys that ``wall_seconds`` stands for; all if None.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesunfold import CoverageStudy
    >>> rng = np.random.default_rng(1)
    >>> found = rng.normal(100, 10, (400, 1))  # 400 toys, each with a band of plus and minus 10
    >>> none = np.zeros((400, 1))
    >>> study = CoverageStudy({"x": np.array([0.0, 1.0])}, np.array([100.0]), (0.68,), found, none + 10.0,
    ...                       found[:, None] - 10, found[:, None] + 10, none, none, none, none[:, 0], np.arange(400))
    >>> bool(abs(study.coverage(0.68)[0] - 0.683) < 0.07)  # three standard errors
    True
    """

    edges: dict[str, Array]
    expected: Array
    levels: tuple[float, ...]
    nominal: Array
    std: Array
    lower: Array
    upper: Array
    pit: Array
    chi2: Array
    dof: Array
    seconds: Array
    seeds: NDArray[np.integer]
    wall_seconds: float = 0.0
    extra: dict[str, Array] = field(default_factory=dict)
    timed_toys: int | None = None

    @property
    def n_toys(self) -> int:
        """Number of pseudo-experiments."""
        return len(self.nominal)

    @property
    def core(self) -> NDArray[np.bool_]:
        """Bins with at least 20 expected events."""
        return self.expected >= CORE_EXPECTED

    def hits(self, level: float) -> NDArray[np.bool_]:
        """Whether each toy's interval holds the truth, shape (toys, bins)."""
        if level not in self.levels:
            msg = f"level {level} was not recorded; there are {self.levels}."
            raise InputError(msg)
        i = self.levels.index(level)
        return (self.lower[:, i] <= self.expected) & (self.expected <= self.upper[:, i])

    def coverage(self, level: float = 0.68) -> Array:
        """Coverage of every bin, shape (bins,)."""
        return self.hits(level).mean(axis=0)

    def mean_coverage(self, level: float = 0.68) -> tuple[float, float]:
        """Coverage averaged over core bins, and its standard error from toy to toy."""
        per_toy = self.hits(level)[:, self.core].mean(axis=1)
        return float(per_toy.mean()), float(per_toy.std(ddof=1) / np.sqrt(self.n_toys))

    def pulls(self) -> Array:
        """(Point estimate - truth) / band width, shape (toys, bins)."""
        return (self.nominal - self.expected) / self.std

    def spread(self) -> Array:
        """Standard deviation of the point estimates over toys: the true uncertainty, shape (bins,)."""
        return self.nominal.std(axis=0, ddof=1)

    def bias(self) -> Array:
        """Mean deviation from the truth in units of the spread, shape (bins,); NaN or infinite without spread."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.nominal.mean(axis=0) - self.expected) / self.spread()

    def width_ratio(self) -> Array:
        """Mean band width over the spread, shape (bins,)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.std.mean(axis=0) / self.spread()

    def joint_coverage(self, level: float = 0.68) -> float:
        """Share of toys whose chi-square is below its quantile, over all observables that have a core bin."""
        has_core = self.dof > 0
        return float(np.mean(stats.chi2.cdf(self.chi2[has_core], self.dof[has_core]) < level))

    def worst_bin(self, level: float = 0.68) -> float:
        """Lowest coverage of a core bin."""
        return float(self.coverage(level)[self.core].min())

    def summary(self) -> dict[str, float]:
        """The numbers of a row in the coverage table."""
        core = self.core
        out: dict[str, float] = {"toys": self.n_toys, "core bins": int(core.sum())}
        for level in self.levels:
            mean, error = self.mean_coverage(level)
            out |= {
                f"{level:g} mean": mean,
                f"{level:g} error": error,
                f"{level:g} worst": self.worst_bin(level),
                f"{level:g} joint": self.joint_coverage(level),
            }
        out["width / spread"] = float(self.width_ratio()[core].mean())
        out["rms bias"] = float(np.sqrt(np.mean(self.bias()[core] ** 2)))
        out["seconds per toy"] = float(self.seconds.mean())
        if self.wall_seconds:
            timed = self.n_toys if self.timed_toys is None else self.timed_toys
            out["toys per minute"] = 60.0 * timed / self.wall_seconds
        return out

    def to_dataframe(self) -> pd.DataFrame:
        """A row per bin: edges, expected truth, coverage with its 68 % Clopper-Pearson interval, bias and width.

        Returns
        -------
        pandas.DataFrame
            ``core`` says whether the bin has at least 20 expected events, as the summary and the table ask for.
        """
        import pandas as pd

        columns: dict[str, Any] = {
            "observable": [name for name, edges in self.edges.items() for _ in edges[1:]],
            "low": np.concatenate([edges[:-1] for edges in self.edges.values()]),
            "high": np.concatenate([edges[1:] for edges in self.edges.values()]),
            "expected": self.expected,
            "core": self.core,
        }
        for level in self.levels:
            covers = self.hits(level).sum(axis=0)
            low, high = clopper_pearson(covers, self.n_toys)
            columns |= {f"{level:g} covers": covers / self.n_toys, f"{level:g} low": low, f"{level:g} high": high}
        return pd.DataFrame(columns | {"bias/spread": self.bias(), "width/spread": self.width_ratio()})

    def table(self) -> str:
        """Bin by bin: coverage with 68 % Clopper-Pearson errors, bias, width over spread."""
        frame = self.to_dataframe()
        frame = frame[frame["core"]]
        bins = zip(frame["observable"], frame["low"], frame["high"], strict=True)
        columns = {
            "bin": [f"{name} [{low:.3g}, {high:.3g})" for name, low, high in bins],
            "expected": [f"{v:.1f}" for v in frame["expected"]],
        }
        for level in self.levels:
            columns[f"{level:g} covers"] = [f"{v:.3f}" for v in frame[f"{level:g} covers"]]
            intervals = zip(frame[f"{level:g} low"], frame[f"{level:g} high"], strict=True)
            columns[f"interval at {level:g}"] = [f"[{low:.3f}, {high:.3f}]" for low, high in intervals]
        columns |= {name: [f"{v:.2f}" for v in frame[name]] for name in ("bias/spread", "width/spread")}
        return "\n".join([as_text(columns), *(f"{name}: {value:.4g}" for name, value in self.summary().items())])

    def to_datatree(self) -> xr.DataTree:
        """Ranks of the truth in group ``prior_sbc``, for ``az.plot_ecdf_pit``."""
        data: dict[str, Any] = {}
        coords: dict[str, Any] = {"chain": [0], "draw": np.arange(self.n_toys)}
        start = 0
        for name, edges in self.edges.items():
            n = len(edges) - 1
            data[name] = (("chain", "draw", f"bin_{name}"), self.pit[None, :, start : start + n])
            coords[f"bin_{name}"] = 0.5 * (edges[1:] + edges[:-1])
            start += n
        return xr.DataTree.from_dict({"prior_sbc": xr.Dataset(data, coords)})

    def plot(self) -> Figure:
        """Coverage per bin, bias and width; see ``bayesunfold.plots.plot_coverage``."""
        from bayesunfold.plots import plot_coverage

        return plot_coverage(self)

    def save(self, path: str | Path) -> Path:
        """Write to a ``.npz`` file, atomically."""
        path = Path(path)
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        arrays |= {f"edges_{name}": edges for name, edges in self.edges.items()}
        arrays |= {f"extra_{name}": values for name, values in self.extra.items()}
        if self.timed_toys is not None:
            arrays["timed_toys"] = np.array(self.timed_toys)

        def write(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, levels=np.array(self.levels), wall_seconds=self.wall_seconds, **arrays)

        atomic_write(path, write)
        return path


_ARRAYS = ("expected", "nominal", "std", "lower", "upper", "pit", "chi2", "dof", "seconds", "seeds")


def load_coverage(path: str | Path) -> CoverageStudy:
    """Read a study that :meth:`CoverageStudy.save` wrote.

    Examples
    --------
    >>> import numpy as np
    >>> from bayesunfold import CoverageStudy
    >>> rng = np.random.default_rng(1)
    >>> found = rng.normal(100, 10, (400, 1))  # 400 toys, each with a band of plus and minus 10
    >>> none = np.zeros((400, 1))
    >>> study = CoverageStudy({"x": np.array([0.0, 1.0])}, np.array([100.0]), (0.68,), found, none + 10.0,
    ...                       found[:, None] - 10, found[:, None] + 10, none, none, none, none[:, 0], np.arange(400))
    >>> import tempfile
    >>> from pathlib import Path
    >>> path = study.save(Path(tempfile.mkdtemp()) / "study.npz")
    >>> load_coverage(path).n_toys
    400
    """
    arrays = read_npz(Path(path), "a coverage study", stored=True)
    missing = [name for name in (*_ARRAYS, "levels") if name not in arrays]
    if missing:
        msg = f"{path} is not a coverage study: it misses {', '.join(missing)}."
        raise FileFormatError(msg)
    prefix = {p: {k.removeprefix(p): v for k, v in arrays.items() if k.startswith(p)} for p in ("edges_", "extra_")}
    return CoverageStudy(
        edges=prefix["edges_"],
        extra=prefix["extra_"],
        levels=tuple(float(x) for x in arrays["levels"]),
        wall_seconds=float(arrays["wall_seconds"]),
        timed_toys=int(arrays["timed_toys"]) if "timed_toys" in arrays else None,
        **{name: arrays[name] for name in _ARRAYS},
    )
