"""Figures of the dashboard that exist nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesunfold._support.checks import effective_size
from bayesunfold.plots.style import COLORS, figure, style
from bayesunfold.reweighting.calibration import reliability
from bayesunfold.reweighting.closure import roc_curve, weighted_auc

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes

    from bayesunfold.classifier.two_class import Classifier
    from bayesunfold.report.checks import DetectorClosure
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["plot_classifiers", "plot_detector_closure", "plot_draws", "plot_weights"]

Array = NDArray[np.floating]
ROWS = 100_000


def __dir__() -> list[str]:
    return __all__


def plot_classifiers(result: UnfoldingResult) -> Figure:
    """Calibration and ROC of the first step 1 and the last step 2, on the events they were trained on."""
    samples = {
        "step 1, first iteration": _two_classes(result.measurement.step1),
        "step 2, last iteration": _two_classes(result.members.step2.classifier),
    }
    with style():
        fig = figure(6.4, 7.6)
        upper, lower = fig.subplots(2, 1)
        for color, (name, (z, y, w)) in zip((COLORS["unfolded"], COLORS["simulation"]), samples.items(), strict=True):
            curve = reliability(z, y, w)
            low, high = np.percentile(curve.observed, [16, 84], axis=0)
            upper.fill_between(curve.predicted, low, high, color=color, alpha=0.4, lw=0)
            upper.plot(curve.predicted, curve.observed.mean(axis=0), color=color, lw=1.4, label=name)
            _draw_roc(lower, roc_curve(z, y, w), color, f"AUC {weighted_auc(z, y, w):.3f}")
        for ax in (upper, lower):
            ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
        low, high = upper.get_xlim()
        upper.set_ylim(low, high)
        upper.set_xlabel("predicted probability of class 1")
        upper.set_ylabel("observed share")
        lower.set_xlabel("class 0 accepted")
        lower.set_ylabel("class 1 accepted")
        upper.legend(fontsize="small")
        lower.legend(fontsize="small")
    return fig


def plot_detector_closure(closure: DetectorClosure) -> Figure:
    """ROC of a second classifier that tells data from simulation at detector level, before and after unfolding."""
    lines = {
        f"generator, AUC {closure.auc_before:.3f}": (closure.roc_before, COLORS["simulation"]),
        f"unfolded, AUC {closure.auc:.3f} ± {closure.auc_std:.3f}": (closure.roc, COLORS["unfolded"]),
    }
    with style():
        fig = figure(6.4, 4.2)
        ax = fig.subplots()
        for label, (curve, color) in lines.items():
            _draw_roc(ax, curve, color, label)
        ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
        ax.set_xlabel("refolded simulation accepted")
        ax.set_ylabel("data accepted")
        ax.legend(fontsize="small")
    return fig


def _draw_roc(ax: Axes, curve: tuple[Array, Array], color: str, label: str) -> None:
    """A few hundred of its points: the page holds every point it draws."""
    keep = np.linspace(0, len(curve[0]) - 1, min(len(curve[0]), 400)).astype(int)
    ax.plot(curve[0][keep], curve[1][keep], color=color, lw=1.4, label=label)


def _two_classes(classifier: Classifier) -> tuple[Array, Array, Array]:
    """Log ratios, labels and weights; an event of both classes appears twice."""
    classes = classifier.classes.joined()
    ones, zeros = classes.ones, classes.zeros
    one, zero = np.flatnonzero(ones), np.flatnonzero(zeros)
    step = max(1, (len(one) + len(zero)) // ROWS)
    one, zero = one[::step], zero[::step]
    rows = np.concatenate([zero, one])
    label = np.repeat([0, 1], [len(zero), len(one)])
    return classifier.log_ratio(classes.x[rows]), label, np.concatenate([zeros[zero], ones[one]])


def plot_weights(result: UnfoldingResult) -> Figure:
    """Distribution of push weights, and Kish effective sizes of the members."""
    gen = result.members.events.passes.gen
    push = result.members.push[gen]
    sizes = result.members.effective_sizes()
    with style():
        fig = figure(6.4, 6.4)
        upper, lower = fig.subplots(2, 1)
        upper.hist(push, bins=60, color=COLORS["unfolded"], log=True)
        upper.set_xlabel("push weight, point estimate")
        upper.set_ylabel("simulated events")
        lower.hist(sizes, bins=30, color=COLORS["simulation"], label="members")
        lower.axvline(effective_size(result.nominal), color="black", lw=1.4, label="point estimate")
        lower.set_xlabel("Kish effective size")
        lower.set_ylabel("members")
        lower.legend(fontsize="small")
    return fig


def plot_draws(tree: xr.DataTree) -> Figure:
    """ELBO of ADVI, or trace, ranks and energy of NUTS, for the posterior of step 1."""
    with style():
        if "elbo" in tree["fit"].data_vars and tree["fit"]["elbo"].size:
            fig = figure(6.4, 3.4)
            ax = fig.subplots()
            ax.plot(np.asarray(tree["fit"]["elbo"]), color=COLORS["unfolded"], lw=1.0)
            ax.set_xlabel("ADVI step")
            ax.set_ylabel("negative ELBO")
            return fig
    return _plot_chains(tree)


def _plot_chains(tree: xr.DataTree) -> Figure:
    """Trace and ranks of the probe with the least effective size, energy, and effective size as draws come in."""
    import arviz as az

    posterior = np.asarray(tree["posterior"]["log_ratio"])
    n_chains, n_draws, n_probes = posterior.shape

    def size(values: Array) -> float:
        return float(az.ess(values)) if values.shape[1] >= 10 else float("nan")

    worst = int(np.argmin([size(posterior[:, :, k]) for k in range(n_probes)]))
    chosen = posterior[:, :, worst]
    with style():
        fig = figure(8.4, 6.4)
        (trace, rank), (energy, evolution) = fig.subplots(2, 2)
        ranks = chosen.ravel().argsort().argsort().reshape(chosen.shape)
        for chain, values in enumerate(chosen):
            trace.plot(values, lw=0.6, label=f"chain {chain}")
            rank.hist(ranks[chain], bins=20, range=(0, ranks.size), histtype="step")
        trace.set_xlabel("draw")
        trace.set_ylabel(f"log ratio at probe {worst}, the least mixed")
        rank.set_xlabel("rank")
        rank.set_ylabel("draws")
        trace.legend(fontsize="small")
        if "energy" in tree["sample_stats"].data_vars:
            values = np.asarray(tree["sample_stats"]["energy"]).reshape(n_chains, -1)
            energy.hist((values - values.mean()).ravel(), bins=40, histtype="step", density=True, label="energy")
            energy.hist(np.diff(values, axis=1).ravel(), bins=40, histtype="step", density=True, label="change a step")
            energy.legend(fontsize="small")
        energy.set_xlabel("energy, centred")
        steps = np.unique(np.linspace(max(10, n_draws // 10), n_draws, 10).astype(int))
        evolution.plot(steps * n_chains, [size(chosen[:, :n]) for n in steps], "o-")
        evolution.axhline(400, color="black", lw=0.8, ls="--")
        evolution.set_xlabel("draws")
        evolution.set_ylabel("effective size")
    return fig
