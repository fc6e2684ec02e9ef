"""Goodness of fit of a direct posterior, with nulls from pseudo-experiments of its answer."""

from __future__ import annotations

import warnings
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bayesunfold._support.checks import check_count, check_seed
from bayesunfold._support.progress import Progress
from bayesunfold.direct.estimator import UnbinnedFBU
from bayesunfold.direct.moment_unfolding import LinearFBU
from bayesunfold.direct.settings import DirectSettings
from bayesunfold.errors import BayesUnfoldWarning, InputError
from bayesunfold.events import Background
from bayesunfold.studies.resampled import ResampledToys
from bayesunfold.unfolding.functions import Functions, FunctionScale
from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["GoodnessOfFit", "goodness_of_fit"]

Array = NDArray[np.floating]

MOST_EXPERIMENTS, MOST_WORKERS = 100_000, 1000


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class GoodnessOfFit:
    """Two tests of an answer at detector level.

    Attributes
    ----------
    moments, classifier : float
        p-values in closed form, equations (D9) and (D10): of the chi-square of the moments, and of a cross-fitted
        second classifier of data and refolded simulation.
    null_moments, null_classifier : array, shape (experiments,)
        The same of pseudo-experiments whose truth is the answer.

    Examples
    --------
    >>> print(GoodnessOfFit(0.3, 0.2, np.array([0.1, 0.5, 0.9]), np.array([0.4, 0.6, 0.7])))
    moments: p = 0.5; second classifier: p = 0.25 (3 pseudo-experiments)
    """

    moments: float
    classifier: float
    null_moments: Array = field(default_factory=lambda: np.zeros(0))
    null_classifier: Array = field(default_factory=lambda: np.zeros(0))

    @property
    def p_moments(self) -> float:
        """p-value of the moments among the pseudo-experiments; in closed form without any."""
        return _calibrated(self.moments, self.null_moments)

    @property
    def p_classifier(self) -> float:
        """p-value of the second classifier among the pseudo-experiments; in closed form without any."""
        return _calibrated(self.classifier, self.null_classifier)

    def __str__(self) -> str:
        n = len(self.null_moments)
        source = f"{n} pseudo-experiments" if n else "closed form"
        second = "not tested" if np.isnan(self.classifier) else f"p = {self.p_classifier:.3g}"
        return f"moments: p = {self.p_moments:.3g}; second classifier: {second} ({source})"


def _calibrated(value: float, null: Array) -> float:
    """Share of the null, the value itself included, that is at most the value (Beran, JASA 83 (1988) 687).

    NaN if the test was not made.
    """
    if np.isnan(value):
        return value
    return float((1 + np.sum(null <= value)) / (1 + len(null))) if len(null) else value


def goodness_of_fit(
    result: UnfoldingResult,
    experiments: int = 100,
    *,
    random_seed: int = 0,
    workers: int = 0,
    progressbar: bool = True,
) -> GoodnessOfFit:
    """See :meth:`bayesunfold.UnfoldingResult.goodness_of_fit`."""
    settings = result.record.settings
    if not isinstance(settings, DirectSettings):
        msg = (
            'goodness of fit is that of a direct posterior; unfold with method="direct". Of the loop, the report has '
            "the closure at detector level."
        )
        raise InputError(msg)
    linear = result.measurement.moments
    if experiments and linear is not None and linear.hyperprior:
        msg = (
            f"the hyperprior of this result is the function {linear.hyperprior!r}, which the "
            "pseudo-experiments do not have; take goodness_of_fit(0), or unfold without model=."
        )
        raise InputError(msg)
    check_count(experiments, "experiments", 0, MOST_EXPERIMENTS)
    check_count(workers, "workers", 0, MOST_WORKERS)
    check_seed(random_seed)
    found = result.history[0]["criticism"]
    observed = found["chi2_p_value"], found["p_value"]
    if experiments == 0:
        return GoodnessOfFit(*observed)
    scale = result.members.events.scales.gen
    functions = scale.functions if isinstance(scale, FunctionScale) else None
    one = partial(_one, pseudo_experiments(result), settings, functions)
    progress = Progress(experiments, "pseudo-experiments", show=progressbar)
    null = []
    pool: Executor | nullcontext[None] = ProcessPoolExecutor(workers) if workers else nullcontext()
    with pool as started:
        seeds = range(random_seed, random_seed + experiments)
        for values in map(one, seeds) if started is None else started.map(one, seeds):
            null.append(values)
            progress.update(len(null))
    progress.close(f"{experiments} pseudo-experiments")
    moments, classifier = np.array(null).T
    return GoodnessOfFit(*observed, moments, classifier)


def pseudo_experiments(result: UnfoldingResult) -> ResampledToys:
    """Makes pseudo-experiments of an answer: data drawn from it refolded, and a simulation drawn with replacement.

    Weighted data become unweighted ones of the same information.
    """
    for b in result.backgrounds:
        if (b.weight < 0).any():
            msg = (
                f"{int((b.weight < 0).sum())} events of {b.name} have negative weights, so there are no "
                "pseudo-experiments; a profiled variation whose events are others than the nominal ones makes such "
                "weights. Give it as other weights of the same events, or take goodness_of_fit(0), which needs none."
            )
            raise InputError(msg)
    u = result.data.weight
    size = float((u**2).sum() / u.sum())
    push = np.where(result.simulation.used, result.members.push, 0.0)
    backgrounds = [
        Background(
            b.columns_for(result.simulation),
            b.weight / size,
            b.name,
            0.0 if b.profile else b.relative_uncertainty,
            b.undefined,
        )
        for b in result.backgrounds
    ]
    return ResampledToys(result.simulation, float(u.sum()) / size, push, backgrounds)


def _one(make: ResampledToys, settings: DirectSettings, functions: Functions | None, seed: int) -> tuple[float, float]:
    """Both p-values of a pseudo-experiment."""
    toy = make(seed)
    make_unfolder = UnbinnedFBU if functions is None else partial(LinearFBU, functions)
    unfolder = make_unfolder(
        network=settings.network,
        moments=settings.moments,
        inference="laplace",
        draws=2,
        prior=settings.prior,
        restarts=settings.restarts,
        rounds=settings.rounds,
        efficiency=settings.efficiency,
        event_groups=settings.event_groups,
        random_seed=seed,
        progressbar=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesUnfoldWarning)  # the result has warned of what its samples are like
        found = unfolder.fit(toy.simulation, toy.measurement, toy.backgrounds).history[0]["criticism"]
    return found["chi2_p_value"], found["p_value"]
