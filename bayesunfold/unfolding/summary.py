"""What a result says of itself, as text: convergence, p-values, effective sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayesunfold._support.checks import effective_size
from bayesunfold.unfolding.record import BLIND

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["summary_of"]


def __dir__() -> list[str]:
    return __all__


def summary_of(result: UnfoldingResult) -> str:
    """See :meth:`bayesunfold.UnfoldingResult.summary`."""
    lines = [repr(result), *([BLIND] if result.record.blind else [])]
    if not result.record.settings.iterates:
        (entry,) = result.history
        lines.append(
            f"chi-square of {entry['directions'][0]} moments {entry['losses']['moments']:.1f}; remaining step "
            f"{entry['decrements']['moments']:.2f} posterior standard deviations; effective size "
            f"{entry['effective_size']:.0f}"
        )
        found = entry.get("criticism")
        if found is not None:
            lines.append(
                f"p-value of the moments {found['chi2_p_value']:.2g}; second classifier: AUC {found['auc']:.3f} +- "
                f"{found['auc_std']:.3f}, p-value {found['p_value']:.2g}, {found['rounds']:.0f} rounds"
            )
    if result.measurement.nuisances is not None:
        for name, row in result.nuisances.iterrows():
            lines.append(f"nuisance parameter {name}: {row['mean']:.2f} +- {row['std']:.2f}")
    for k, entry in enumerate(result.history if result.record.settings.iterates else (), start=1):
        losses = ", ".join(f"{n} {v:.2f}" for n, v in entry["losses"].items())
        lines.append(
            f"iteration {k}: loss {losses}; largest change {entry['change']:.2f} of the band; "
            f"effective size {entry['effective_size']:.0f}"
        )
    weight = result.simulation.weight
    if np.any(weight < 0):
        lines.append(
            f"{100 * np.mean(weight < 0):.1f} % of the generator weights are negative: {len(weight)} events are "
            f"worth {effective_size(weight):.0f}"
        )
    if result.simulation.unused:
        lines.append(f"{result.simulation.unused} simulated events pass neither level and take no part")
    lines.append(
        "event fluctuations moved below -1 by the posterior draws: "
        f"{100 * result.members.negative_fraction():.2f} % (simulation), "
        f"{100 * result.members.negative_data:.2f} % (data)"
    )
    lines.append("seconds: " + ", ".join(f"{n} {v:.1f}" for n, v in result.seconds.items()))
    return "\n".join(lines)
