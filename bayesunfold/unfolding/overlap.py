"""Checks of the samples before anything is trained, and of what the networks learned of them.

Each function warns or raises, and names the feature, the value and the cure.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bayesunfold._support.checks import effective_size, uncovered_share
from bayesunfold.classifier.standardize import isolated
from bayesunfold.classifier.two_class import Classifier
from bayesunfold.errors import BlindFeatureWarning, ConvergenceWarning, InputError, OverlapWarning, SmallSampleWarning
from bayesunfold.events import Background, Data, Simulation
from bayesunfold.unfolding.standardized import StandardizedEvents

__all__ = [
    "FAR_EVENTS",
    "check_distance",
    "check_learned",
    "check_samples",
    "hard_edge",
    "outside_range",
    "warn_of_far_background",
    "warn_without_overlap",
]

Array = NDArray[np.floating]

FARTHEST = 1000.0
"""Data farther from the simulation than this, in standard deviations after the feature's transform, are an error."""

FEW_DATA, FEW_SIMULATED = 100, 100
"""Effective sizes below which bands of OmniFold, and any bands, are known to be too narrow."""

TESTED_DATA = 20
"""Effective size of the data below which bands of a direct posterior were not tested."""

NO_SIMULATION = 5.0
"""Effective size of a simulation from which nothing can be learned."""

LARGE_BACKGROUND = 0.9
"""Share of the data above which backgrounds are warned of."""
FAR_EVENTS, FAR_SHARE = 10.0, 0.5
"""A background is warned of if it expects more events beyond all data and simulated events than the first number, or
has a larger part there than the second. Data that hold it lie beyond the range with so many expected in fewer than one
of 10 000 cases. Varied ones are judged by their part alone: a scale moves events over the edge of a cut, which has a
warning of its own."""

BLIND_P_VALUE, BLIND_EVENTS, BLIND_BINS = 1e-3, 200, 5
"""A particle-level feature is blind if its table of ``BLIND_BINS`` quantile bins against those of each detector-level
feature looks independent: a p-value above the first number, with at least as many events as the second."""


NOTHING_LEARNED, FEW_TO_LEARN = 1e-3, 500
"""Weights that differ by less than this are the generator's; warned of with fewer data than this."""

UNLEARNED_PULL, UNLEARNED_SIZE, UNLEARNED_BINS, UNLEARNED_EVENTS = 5.0, 0.2, 10, 10
"""Step 1 has not learned the data if a quantile bin of a feature is off by more standard deviations than the first
number and by a larger part of its content than the second."""


EDGE_WIDTH, EDGE_SHARE, EDGE_EVENTS = 0.02, 0.002, 5
"""A feature has a hard edge if, within this part of its interquartile range of its end, there are more than this share
of the events and more than this number of them."""


def __dir__() -> list[str]:
    return __all__


def check_samples(
    simulation: Simulation,
    data: Data,
    backgrounds: Sequence[Background],
    events: StandardizedEvents,
    *,
    direct: bool = False,
) -> None:
    """All checks of the samples but those of their ranges; ``direct`` says that no loop unfolds them.

    Raises
    ------
    InputError
        Data or background events so far from the simulation that no network can say anything of them; simulated events
        that are worth fewer than five.

    Warns
    -----
    OverlapWarning
        Simulated events far from all others; backgrounds that are nearly all of the data.
    SmallSampleWarning
        Few data or simulated events.
    BlindFeatureWarning
        Particle-level features of which detector level tells nothing.
    """
    for level, values, rows, names in (
        ("gen", simulation.gen, simulation.pass_gen, simulation.gen_names),
        ("reco", simulation.reco, simulation.pass_reco, simulation.reco_names),
    ):
        _warn_of_far(values[rows], names, f"simulated events at {level} level")
    _warn_of_far(data.features, data.names, "data events")
    _warn_of_sizes(simulation, events, direct=direct)
    samples = {"data": data.features} | {f"background {b.name!r}": b.columns_for(simulation) for b in backgrounds}
    for what, values in samples.items():
        check_distance(events.scales.reco.each(values), simulation.reco_names, what)
    _warn_of_blind(simulation)


def _warn_of_far(values: Array, names: tuple[str, ...], what: str) -> None:
    """Warn of events that lie far from all others: placeholders, or broken values."""
    for name, column in zip(names, values.T, strict=True):
        far = isolated(column)
        if not far.any():
            continue
        found, counts = np.unique(column[far], return_counts=True)
        farthest = column[far][np.argmax(np.abs(column[far] - np.median(column[~far & np.isfinite(column)])))]
        value = f"{found[np.argmax(counts)]:.6g}" if counts.max() > 1 else f"the farthest at {farthest:.6g}"
        msg = (
            f"{int(far.sum())} of {len(column)} {what} lie far from all others in {name} ({value}). They have no say "
            'in its scale. If the value means "does not exist", pass NaN with undefined="indicator"; if it is broken, '
            "remove the events."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=4)


def hard_edge(values: Array) -> tuple[float, float] | None:
    """Lower end of a feature, and a small width beside it, if a selection seems to have cut there; None if not.

    Examples
    --------
    >>> hard_edge(np.linspace(0.0, 100.0, 1000)), hard_edge(np.random.default_rng(1).normal(size=1000))
    ((0.0, 1.0), None)
    """
    if len(values) < 2 * EDGE_EVENTS:
        return None
    width = EDGE_WIDTH * float(np.subtract(*np.quantile(values, [0.75, 0.25])))
    edge = float(values.min())
    hard = int((values <= edge + width).sum()) > max(EDGE_EVENTS, EDGE_SHARE * len(values))
    return (edge, width) if hard else None


def check_distance(z: Array, names: tuple[str, ...], what: str) -> None:
    """Raise for events far from the simulated ones; ``z`` are transformed features in standard deviations."""
    far = np.abs(z) > FARTHEST
    if far.any():
        row, column = (int(i) for i in np.argwhere(far)[0])
        msg = (
            f"{int(far.any(axis=1).sum())} events of {what} lie more than {FARTHEST:g} standard deviations from "
            f"the simulated ones (first at row {row}, in {names[column]}); no simulated event says anything of them. "
            'Remove them, or pass NaN with undefined="indicator" if the value means "does not exist".'
        )
        raise InputError(msg)


def _warn_of_sizes(simulation: Simulation, events: StandardizedEvents, *, direct: bool) -> None:
    size = events.data.size
    if direct and size < TESTED_DATA:
        msg = (
            f"the data are worth {size:.0f} events; bands of a direct posterior are tested down to {TESTED_DATA}. "
            "Compare with bu.FBU in a few bins."
        )
        warnings.warn(msg, SmallSampleWarning, stacklevel=4)
    if not direct and size < FEW_DATA:
        msg = (
            f"the data are worth {size:.0f} events; below {FEW_DATA} the bands of OmniFold are too narrow (with 50 "
            "events the 68 % band holds the truth in 59 % of the bins). Use bu.UnbinnedFBU, tested down to 20 "
            "events, and compare with bu.FBU in a few bins."
        )
        warnings.warn(msg, SmallSampleWarning, stacklevel=4)
    _warn_of_simulated_size(simulation.weight, simulation.used, "simulated events")
    if simulation.reco_factor is not None:
        what = "simulated events at detector level, with their scale factors,"
        _warn_of_simulated_size(simulation.reco_weight, simulation.pass_reco, what)
    total = float(events.data.weight.sum())
    share = 1 - events.signal_yield / total
    if share > LARGE_BACKGROUND:
        msg = (
            f"backgrounds are {100 * share:.1f} % of the data; the signal is the difference of two large numbers. Cut "
            "harder, and check the backgrounds' normalisation."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=4)


def _warn_of_simulated_size(weights: Array, used: NDArray[np.bool_], what: str) -> None:
    weight = weights[used]
    size = effective_size(weight)
    if size >= FEW_SIMULATED:
        return
    largest = int(np.argmax(np.where(used, np.abs(weights), 0.0)))
    msg = (
        f"the {len(weight)} {what} are worth {size:.1f}: the largest weight is "
        f"{weights[largest]:.3g} at row {largest}, the median {np.median(weight):.3g}. Bands of fewer "
        f"than {FEW_SIMULATED} are unreliable; use more events, or remove those of huge weight."
    )
    if size < NO_SIMULATION:
        raise InputError(msg)
    warnings.warn(msg, SmallSampleWarning, stacklevel=5)


def _warn_of_blind(simulation: Simulation) -> None:
    """Warn of particle-level features that no detector-level feature depends on."""
    rows = simulation.both & (simulation.reco_weight != 0)
    if rows.sum() < BLIND_EVENTS:
        return
    reco = [_quantile_bins(x) for x in simulation.reco[rows].T]
    for name, column in zip(simulation.gen_names, simulation.gen[rows].T, strict=True):
        gen = _quantile_bins(column)
        if gen.max() == gen.min():
            continue
        best = min((_independence(gen, other) for other in reco), default=1.0)
        if best > BLIND_P_VALUE:
            msg = (
                f"no detector-level feature depends on {name} (p-value of independence {best:.2g}): the detector tells "
                "nothing of it. OmniFold leaves its spectrum at the generator's, with a band that does not hold that: "
                "do not publish it. The band of UnbinnedFBU is then its prior's."
            )
            warnings.warn(msg, BlindFeatureWarning, stacklevel=4)


def _quantile_bins(values: Array) -> NDArray[np.integer]:
    """Bin of each value; undefined ones have a bin of their own."""
    exists = np.isfinite(values)
    out = np.full(len(values), -1)
    if exists.any():
        edges = np.unique(np.quantile(values[exists], np.linspace(0, 1, BLIND_BINS + 1)[1:-1]))
        out[exists] = np.searchsorted(edges, values[exists], side="right")
    return out


def _independence(a: NDArray[np.integer], b: NDArray[np.integer]) -> float:
    """P-value of the independence of two binned quantities (Pearson's chi-square)."""
    table = np.zeros((a.max() + 2, b.max() + 2))
    np.add.at(table, (a + 1, b + 1), 1.0)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    if min(table.shape) < 2:
        return 1.0
    return float(stats.chi2_contingency(table, correction=False).pvalue)


def check_learned(
    events: StandardizedEvents, step1: Classifier, push: Array, names: tuple[str, ...], covered: NDArray[np.bool_]
) -> None:
    """Whether the networks found what there is to find.

    Parameters
    ----------
    events : StandardizedEvents
    step1 : Classifier
        Of the first iteration, which has the largest ratio to learn.
    push : array, shape (n,)
        Push weights of the last iteration.
    names : tuple of str
        Detector-level features.
    covered : boolean array
        Features in which simulated events cover the data. Of gaps was warned before, and no network closes them.

    Warns
    -----
    BlindFeatureWarning
        If all weights are the generator's, with few data.
    ConvergenceWarning
        If the simulation, reweighted by step 1, still differs from the data in a feature, in bins that hold simulated
        events.
    """
    spread = float(np.ptp(np.log(push[events.passes.gen])))
    if spread < NOTHING_LEARNED and events.data.size < FEW_TO_LEARN:
        msg = (
            f"the unfolded weights are the generator's to {100 * spread:.1g} %: with {events.data.size:.0f} data "
            "events the networks found no difference. The band lacks what the data leave open. Compare with bu.FBU."
        )
        warnings.warn(msg, BlindFeatureWarning, stacklevel=3)
    if not covered.all():
        return
    expected = [sample for sample in step1.classes.samples if sample.name != "data"]
    x = np.concatenate([sample.x for sample in expected])
    zeros = np.concatenate([sample.zeros for sample in expected]) * np.exp(step1.log_ratio(x))
    ones = step1.classes.sample("data").ones
    for j, name in enumerate(names):
        edges = np.unique(np.quantile(events.data.x[:, j], np.linspace(0, 1, UNLEARNED_BINS + 1)[1:-1]))
        there, here = np.searchsorted(edges, events.data.x[:, j]), np.searchsorted(edges, x[:, j])
        n = len(edges) + 1
        a, va = np.bincount(there, ones, n) / ones.sum(), np.bincount(there, ones**2, n) / ones.sum() ** 2
        b, vb = np.bincount(here, zeros, n) / zeros.sum(), np.bincount(here, zeros**2, n) / zeros.sum() ** 2
        off = np.where(np.bincount(here, zeros != 0, n) >= UNLEARNED_EVENTS, np.abs(a - b), 0.0)
        error = np.sqrt(va + vb)
        worst = int(np.argmax(np.divide(off, error, out=np.zeros(n), where=error > 0)))
        if off[worst] > UNLEARNED_PULL * error[worst] and off[worst] > UNLEARNED_SIZE * a[worst]:
            msg = (
                f"step 1 did not learn the data in {name}: a bin with {100 * a[worst]:.2g} % of the data has "
                f"{100 * b[worst]:.2g} % of the reweighted simulation. The simulation may lack such events in "
                "several features together; else pass a transformed feature (logarithm, arcsinh), or a larger network."
            )
            warnings.warn(msg, ConvergenceWarning, stacklevel=3)


def outside_range(simulation: Simulation, data: Data) -> tuple[Array, Array, Array]:
    """Share of the data where the simulation has no events, and its detector-level range, per feature.

    Events of weight zero count for nothing. See :func:`bayesunfold._support.checks.uncovered_share`.
    """
    rows = simulation.pass_reco & (simulation.reco_weight != 0)
    reco, weight = simulation.reco[rows], simulation.reco_weight[rows]
    low, high = np.nanmin(reco, axis=0), np.nanmax(reco, axis=0)
    shares = [uncovered_share(data.features[:, j], reco[:, j], weight) for j in range(reco.shape[1])]
    return np.array(shares), low, high


def warn_without_overlap(simulation: Simulation, data: Data) -> NDArray[np.bool_]:
    """Warn, naming the feature, where data lie where the simulation has no events.

    A few data events in a hundred are expected there from fluctuations; more than 5 % are reported.

    Returns
    -------
    boolean array, shape (d_reco,)
        Features without such a gap.

    Raises
    ------
    InputError
        If a feature has one and the same value in all simulated events and others in the data.
    """
    data = data.matched_to(simulation)
    outside, low, high = outside_range(simulation, data)
    for j in np.flatnonzero(low == high):
        other = int(np.sum(data.features[:, j] != low[j]))
        if other and np.isfinite(simulation.reco[simulation.pass_reco, j]).all():
            msg = (
                f"{simulation.reco_names[j]} is {low[j]:.6g} in every simulated event and something else in {other} "
                "data events; no weights can describe them. Leave the feature out."
            )
            raise InputError(msg)
    for j in np.flatnonzero(outside > 0.05):
        msg = (
            f"{100 * outside[j]:.1f} % of the data lie outside the simulation's detector-level distribution of "
            f"{simulation.reco_names[j]} (range [{low[j]:.4g}, {high[j]:.4g}]); nothing can be learned there. "
            "Use a simulation that covers the data, or cut both to the common range."
        )
        warnings.warn(msg, OverlapWarning, stacklevel=3)
    return outside <= 0.05


def warn_of_far_background(
    simulation: Simulation,
    data: Data,
    samples: Iterable[tuple[str, Array, NDArray[np.floating]]],
    most: float = FAR_EVENTS,
) -> None:
    """Warn, naming sample and feature, of backgrounds beyond the range of data and simulation.

    A background may lie where the signal does not: there it has data. Placeholders have no say in the range.

    Parameters
    ----------
    simulation : Simulation
    data : Data
        With the columns of the simulation.
    samples : iterable of (str, array, array)
        What each is, its features in the order of the simulation's, and its weights.
    most : float
        Expected events there that are warned of; a larger part than ``FAR_SHARE`` is in any case.
    """
    every = list(samples)
    if not every:
        return
    rows = simulation.pass_reco & (simulation.reco_weight != 0)
    for j, name in enumerate(simulation.reco_names):
        values = np.concatenate([simulation.reco[rows, j], data.features[:, j]])
        values = values[np.isfinite(values) & ~isolated(values)]
        if not len(values):
            continue
        low, high = values.min(), values.max()
        for what, features, weight in every:
            far = (features[:, j] < low) | (features[:, j] > high)
            far &= ~isolated(features[:, j]) if far.any() else False
            expected, share = float(weight[far].sum()), float(np.abs(weight[far]).sum() / np.abs(weight).sum())
            if expected > most or share > FAR_SHARE:
                msg = (
                    f"{100 * share:.3g} % of the {what} ({expected:.4g} expected events) lie beyond all data and all "
                    f"simulated events in {name} (range [{low:.4g}, {high:.4g}]). Check its unit and the order of its "
                    "features, and that it passed the data's selection."
                )
                warnings.warn(msg, OverlapWarning, stacklevel=4)
