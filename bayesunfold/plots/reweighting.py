"""The two figures of every talk on reweighting."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bayesunfold.plots.style import COLORS, figure, steps, style
from bayesunfold.reweighting.closure import roc_curve

if TYPE_CHECKING:
    from bayesunfold.reweighting.closure import Closure

__all__ = ["plot_closure"]

Array = NDArray[np.floating]
BINS = 40


def __dir__() -> list[str]:
    return __all__


def plot_closure(closure: Closure, feature: int = 0) -> Figure:
    """Source, weighted source and target of one feature with ratios to the target; ROC before and after."""
    s = closure.samples
    a, b = s["source"][:, feature], s["target"][:, feature]
    low, high = np.quantile(np.concatenate([a, b]), [0.001, 0.999])
    edges = np.linspace(low, high, BINS + 1)
    shapes = {
        "target": (b, s["target_weight"], COLORS["data"], "-"),
        "source": (a, s["source_weight"], COLORS["generator"], "--"),
        "weighted source": (a, s["source_weight"] * s["weights"], COLORS["unfolded"], "-"),
    }
    with style():
        fig = figure(6.4, 9.2)
        upper, lower = cast("Any", fig.subfigures(2, 1, height_ratios=(4.8, 4.4)))
        top, bottom = upper.subplots(2, 1, sharex=True, height_ratios=(3, 1.2))
        contents = {name: np.histogram(x, edges, weights=w)[0] / w.sum() for name, (x, w, _, _) in shapes.items()}
        reference = np.where(contents["target"] > 0, contents["target"], np.nan)
        for name, (_, _, color, dashes) in shapes.items():
            steps(top, edges, contents[name], color=color, ls=dashes, lw=1.4, label=name)
            steps(bottom, edges, contents[name] / reference, color=color, ls=dashes, lw=1.4)
        top.legend()
        top.set_ylabel("fraction of events / bin")
        top.set_ylim(bottom=0.0)
        bottom.set_ylim(0.7, 1.3)
        bottom.set_ylabel("ratio to\ntarget")
        bottom.set_xlabel(s["names"][feature])
        bottom.set_xlim(edges[0], edges[-1])
        ax = lower.subplots()
        label = np.repeat([0, 1], [len(a), len(b)])
        for name, score, w, color, auc in (
            ("before", s["before"], s["source_weight"], COLORS["generator"], closure.auc_before),
            ("after", s["after"], s["source_weight"] * s["weights"], COLORS["unfolded"], closure.auc),
        ):
            x, y = roc_curve(score, label, np.concatenate([w, s["target_weight"]]))
            ax.plot(x, y, color=color, lw=1.6, label=f"{name}: AUC {auc:.3f}")
        ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls=":")
        ax.set_xlabel("source accepted")
        ax.set_ylabel("target accepted")
        ax.set_aspect("equal")
        ax.legend(title="second classifier")
    return fig
