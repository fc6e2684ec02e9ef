"""What happened iteration by iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bayesunfold.errors import InputError
from bayesunfold.plots.style import CYCLE, figure, style

if TYPE_CHECKING:
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["plot_history"]


def __dir__() -> list[str]:
    return __all__


def plot_history(result: UnfoldingResult) -> Figure:
    """Change of the spectrum in units of its band, and losses, per iteration.

    The upper panel shows why ``iterations="auto"`` stopped; the lower one the fall of each
    classifier's objective from its first value.

    Raises
    ------
    InputError
        For a result of a method without iterations.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> toy = bu.datasets.gaussian_toy(300, 300, random_seed=1)
    >>> result = bu.unfold(toy.gen, toy.reco, toy.data, iterations=1, inference="laplace", draws=20,
    ...                    random_seed=1, progressbar=False)
    >>> len(plot_history(result).axes)
    2
    """
    from bayesunfold.omnifold.convergence import AUTO_CHANGE

    if not result.record.settings.iterates:
        msg = f"{result.record.settings.method} has no iterations to draw; result.summary() says how its fit ended."
        raise InputError(msg)
    history = result.history
    k = np.arange(1, len(history) + 1)
    with style():
        fig = figure(6.4, 5.4)
        top, bottom = fig.subplots(2, 1, sharex=True)
        top.semilogy(k, [entry["change"] for entry in history], "o-", color="#3f90da")
        top.axhline(AUTO_CHANGE, color="#bd1f01", ls="--", label='limit of iterations="auto"')
        top.set_ylabel("largest change / band")
        top.legend()
        for color, name in zip(CYCLE, history[0]["losses"], strict=False):
            loss = np.array([entry["losses"][name] for entry in history])
            bottom.plot(k, loss - loss[0], "o-", color=color, label=name)
        bottom.set_ylabel("objective - its first value")
        bottom.legend()
        bottom.set_xlabel("iteration")
        for ax in (top, bottom):
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
            ax.minorticks_off()
    return fig
