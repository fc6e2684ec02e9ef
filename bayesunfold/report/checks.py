"""The verdict line: each check with its value, its threshold, and what to do if it fails."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier

from bayesunfold._support.checks import effective_size
from bayesunfold.direct.estimator import LARGE_STEP
from bayesunfold.errors import InputTypeError
from bayesunfold.omnifold.convergence import AUTO_CHANGE
from bayesunfold.omnifold.settings import Settings
from bayesunfold.reweighting.closure import auc_error, cross_fitted_scores, roc_curve, weighted_auc
from bayesunfold.unfolding.overlap import outside_range
from bayesunfold.unfolding.standardized import to_yield

if TYPE_CHECKING:
    import xarray as xr

    from bayesunfold.studies.bottom_line import BottomLine
    from bayesunfold.studies.goodness import GoodnessOfFit
    from bayesunfold.unfolding.result import UnfoldingResult

__all__ = ["Check", "DetectorClosure", "check_result", "checks_of_tests", "detector_closure", "verdicts"]

Array = NDArray[np.floating]

MAX_R_HAT, MIN_ESS, MAX_OUTSIDE, MAX_NEGATIVE, MIN_KISH = 1.01, 400, 0.05, 0.05, 0.05
LEAST_P_VALUE = 1e-3
CLOSURE_ROWS = 40_000
MARKS = {True: "pass", False: "look", None: "n/a"}
"""Words for a check that passes, fails or does not apply."""

ABOUT = {
    "iterations have converged": (
        "Each iteration brings a part of what the data want. While the last one still moves the spectrum, the "
        "result leans to the simulation."
    ),
    "the fit has converged": (
        "Bands are made around the most probable weights of the particle-level network. A fit that stops short of"
        " them has its centre, and so its bands, off by about as much."
    ),
    "closure at detector level": (
        "A second classifier of another kind looks for differences between the data and the unfolded simulation. "
        "What it finds the answer lacks; where it guesses worse than by chance, it has met events that both "
        "share."
    ),
    "overlap of data and simulation": "Weights move simulated events, and cannot put any where there are none.",
    "effective size of the weights": "How many events of equal weight would fluctuate as the weighted ones do.",
    "members with negative weights": (
        "Members follow posterior draws by moving the fluctuations of events. Far-off draws of small samples "
        "drive some below zero, which no sample of events does."
    ),
    "bias at the result": (
        "The unfolding of refolded pseudo-data whose answer is known shows what stopping early leaves."
    ),
    "moments of data and refolded result": (
        "The quantities that the posterior was fitted to agree with the data within their covariance, if the "
        "model can describe the data."
    ),
    "second classifier, cross-fitted": (
        "Looks for what the fitted quantities may have missed, on events that it was not trained with."
    ),
    "bottom line": (
        "Unfolding adds no information: two models must not be told apart better by the unfolded spectrum than by the "
        "data at detector level."
    ),
    "goodness of fit, moments": "The fitted quantities, ranked among pseudo-experiments whose truth is the answer.",
    "goodness of fit, second classifier": "The second classifier, ranked among the same pseudo-experiments.",
    "R-hat of unfolded bins": "Chains from different starts agree if they have forgotten where they began.",
    "effective sample size": "How many independent draws the correlated ones of the chains are worth.",
}
"""What each check looks at, for those who read the page alone."""

WORSE_FIT = "the simulation's response, or a feature that it lacks, differs from the data's"
"""What to do where data and refolded result differ."""

TOO_ALIKE = -2.0
"""Standard deviations of the closure below which a note is made."""


def __dir__() -> list[str]:
    return __all__


@dataclass(frozen=True)
class Check:
    """One line of the verdict.

    Attributes
    ----------
    name, value, threshold, cure : str
    passed : bool or None
        None if the check does not apply.
    """

    name: str
    value: str
    threshold: str
    passed: bool | None
    cure: str

    @property
    def about(self) -> str:
        """What the check looks at, and why."""
        return ABOUT.get(self.name, "")

    def __str__(self) -> str:
        """One line: the mark, what was found and wanted, and what to do if it fails."""
        wanted = f", wanted {self.threshold}" if self.threshold else ""
        cure = f": {self.cure}" if self.passed is False else ""
        return f"[{MARKS[self.passed]}] {self.name}: {self.value}{wanted}{cure}"


@dataclass(frozen=True)
class DetectorClosure:
    """A second classifier tells data from the refolded result at detector level.

    Attributes
    ----------
    auc, auc_std : float
    auc_before : float
        For the generator without unfolding.
    roc, roc_before : pair of arrays
        Share of the simulation and of the data accepted.
    """

    auc: float
    auc_std: float
    auc_before: float
    roc: tuple[Array, Array]
    roc_before: tuple[Array, Array]


def detector_closure(result: UnfoldingResult, seed: int = 0) -> DetectorClosure:
    """Cross-fitted boosted trees on at most 40 000 events of each sample; background joins the refolded result."""
    m = result.members
    events = m.events
    rng = np.random.default_rng(seed)
    rows = _some(np.flatnonzero(events.passes.reco), rng)
    data = _some(np.arange(len(events.data.x)), rng)
    after = (events.reco_weight * m.push)[rows]
    before = events.reco_weight[rows]
    extra = [b.x for b in events.backgrounds]
    a = np.concatenate([events.reco[rows], *extra])
    b, wb = events.data.x[data], events.data.weight[data]
    out = []
    for weight in (after, before):
        scaled = weight * to_yield(weight, slice(None), events.signal_yield)
        w = np.concatenate([scaled, *(x.weight for x in events.backgrounds)])
        model = HistGradientBoostingClassifier(max_iter=60, random_state=seed)
        score = cross_fitted_scores(model, a.astype(np.float64), b.astype(np.float64), w, wb)
        label = np.repeat([0, 1], [len(a), len(b)])
        both = np.concatenate([w, wb])
        out.append((weighted_auc(score, label, both), effective_size(w), roc_curve(score, label, both)))
    error = auc_error(out[0][1], effective_size(wb))
    return DetectorClosure(out[0][0], error, out[1][0], out[0][2], out[1][2])


def _some(rows: NDArray[np.integer], rng: np.random.Generator) -> NDArray[np.integer]:
    return rows if len(rows) <= CLOSURE_ROWS else np.sort(rng.choice(rows, CLOSURE_ROWS, replace=False))


def _convergence_check(result: UnfoldingResult) -> Check:
    """Whether the loop, or the fit of the direct posterior, has ended where it should."""
    last = result.history[-1]
    if not result.record.settings.iterates:
        step = last["decrements"]["moments"]
        return Check(
            "the fit has converged",
            f"{step:.2f} posterior standard deviations remain",
            f"below {LARGE_STEP:g}",
            step < LARGE_STEP,
            "use fewer features or a smaller network",
        )
    cure = "take more iterations"
    if isinstance(result.record.settings, Settings):  # the bias is that of OmniFold's loop
        cure += ", or quote the bias from result.estimate_bias()"
    return Check(
        "iterations have converged",
        f"last change {last['change']:.2f} of the band",
        f"below {AUTO_CHANGE}",
        bool(last["change"] < AUTO_CHANGE),
        cure,
    )


def check_result(result: UnfoldingResult) -> list[Check]:
    """All checks of a result; the closure at detector level trains a second classifier, which takes seconds."""
    return verdicts(result, result.to_datatree(), detector_closure(result))


def _closure_check(closure: DetectorClosure, *, iterates: bool = True) -> Check:
    """Whether a second classifier tells data from the refolded result of a loop, or of a direct posterior."""
    deviation = (closure.auc - 0.5) / closure.auc_std
    value = f"AUC {closure.auc:.3f} +- {closure.auc_std:.3f} ({closure.auc_before:.3f} before unfolding)"
    more, less = ("more iterations", "fewer iterations") if iterates else ("more rounds", "a smaller network")
    cure = f"data hold what the simulation lacks: {more}, more features, or another simulation"
    if deviation < TOO_ALIKE:
        value += "; below one half: the result follows fluctuations of these data, or samples share events"
        cure = f"take {less}; look for events that are in data and simulation, or twice in one, and shuffle them"
    return Check(
        "closure at detector level", value, "within 3 standard deviations of 0.5", bool(abs(deviation) < 3), cure
    )


def verdicts(result: UnfoldingResult, tree: xr.DataTree, closure: DetectorClosure) -> list[Check]:
    """All checks of a result."""
    outside = float(outside_range(result.simulation, result.data)[0].max())
    kish = effective_size(result.nominal) / effective_size(result.simulation.weight[result.simulation.pass_gen])
    checks = [
        _convergence_check(result),
        _closure_check(closure, iterates=result.record.settings.iterates),
        Check(
            "overlap of data and simulation",
            f"{100 * outside:.2f} % of the data outside",
            f"below {100 * MAX_OUTSIDE:.0f} %",
            bool(outside < MAX_OUTSIDE),
            "cut both to their common range, or extend the simulation",
        ),
        Check(
            "effective size of the weights",
            f"{100 * kish:.1f} % of the simulation's",
            f"above {100 * MIN_KISH:.0f} %",
            bool(kish > MIN_KISH),
            "few events decide: use a simulation closer to the data",
        ),
        _negative_check(result),
        _bias_check(result),
        *_criticism_checks(result),
    ]
    return checks + _sampler_checks(result, tree)


def _negative_check(result: UnfoldingResult) -> Check:
    """Whether few fluctuations were moved below -1, where any were moved onto posterior draws."""
    name, wanted = "members with negative weights", f"below {100 * MAX_NEGATIVE:.0f} %"
    if result.members.multiplier is None:
        return Check(name, "none: no fluctuation was moved onto a posterior draw", wanted, None, "")
    negative = max(result.members.negative_fraction(), result.members.negative_data)
    cure = "the sample is small for its network; compare with inference='laplace'"
    return Check(name, f"{100 * negative:.2f} % of fluctuations", wanted, bool(negative < MAX_NEGATIVE), cure)


def _criticism_checks(result: UnfoldingResult) -> list[Check]:
    """Tests of a direct posterior at detector level, which it made itself."""
    found = result.history[0].get("criticism")
    if found is None:
        return []
    checks = [
        Check(
            "moments of data and refolded result",
            f"chi-square {found['chi2']:.0f} of {found['moments']:.0f} moments, p = {found['chi2_p_value']:.2g}",
            f"p above {LEAST_P_VALUE:g}",
            found["chi2_p_value"] > LEAST_P_VALUE,
            WORSE_FIT,
        )
    ]
    if np.isfinite(found["p_value"]):
        joined = f", after {found['rounds']:.0f} round" if found["rounds"] else ""
        checks.append(
            Check(
                "second classifier, cross-fitted",
                f"AUC {found['auc']:.3f} +- {found['auc_std']:.3f}, p = {found['p_value']:.2g}{joined}",
                f"p above {LEAST_P_VALUE:g}",
                found["p_value"] > LEAST_P_VALUE,
                WORSE_FIT + "; or raise rounds",
            )
        )
    return checks


def checks_of_tests(tests: BottomLine | GoodnessOfFit | Sequence[BottomLine | GoodnessOfFit]) -> list[Check]:
    """Lines of the verdict of tests that the user made.

    Raises
    ------
    InputTypeError
        For anything but what ``result.bottom_line`` and ``result.goodness_of_fit`` return.
    """
    from bayesunfold.studies.bottom_line import TOLERANCE, BottomLine
    from bayesunfold.studies.goodness import GoodnessOfFit

    given: Any = [tests] if isinstance(tests, BottomLine | GoodnessOfFit) else tests
    out = []
    for test in given if isinstance(given, Iterable) else [given]:
        if isinstance(test, BottomLine):
            largest = max(test.unfolded, key=lambda name: test.unfolded[name])
            out.append(
                Check(
                    "bottom line",
                    f"chi-square between two models: {test.unfolded[largest]:.1f} unfolded ({largest}), "
                    f"{test.detector:.1f} at detector level",
                    f"unfolded below {TOLERANCE:g} times that at detector level",
                    test.passed,
                    "the prior adds what the data do not hold: see the sources of uncertainty, take wider bins",
                )
            )
        elif isinstance(test, GoodnessOfFit):
            n = len(test.null_moments)
            source = f"{n} pseudo-experiments" if n else "closed form"
            for name, p, closed in (
                ("moments", test.p_moments, test.moments),
                ("second classifier", test.p_classifier, test.classifier),
            ):
                made = np.isfinite(p)
                value = f"p = {p:.2g} ({source})" if made else "not tested"
                # a rank among few is never small: then the least one counts if the closed form is small too
                small = p <= LEAST_P_VALUE or (p < 1.5 / (1 + n) and closed <= LEAST_P_VALUE)
                passed = not small if made else None
                out.append(Check(f"goodness of fit, {name}", value, f"p above {LEAST_P_VALUE:g}", passed, WORSE_FIT))
        else:
            msg = (
                f"tests holds an object of type {type(test).__name__}; pass what result.bottom_line and "
                "result.goodness_of_fit return."
            )
            raise InputTypeError(msg)
    return out


def _bias_check(result: UnfoldingResult) -> Check:
    from bayesunfold.omnifold.bias import LARGE_BIAS, reference_bias

    if result.closure_weights is None:
        return Check("bias at the result", "not estimated", f"below {LARGE_BIAS} of the band", None, "")
    cure = "take more iterations, or quote the bias beside the band"  # only a loop's is estimated
    worst = max(reference_bias(result).values())
    return Check(
        "bias at the result", f"{worst:.2f} of the band", f"below {LARGE_BIAS} of the band", worst < LARGE_BIAS, cure
    )


def _sampler_checks(result: UnfoldingResult, tree: xr.DataTree) -> list[Check]:
    """R-hat and effective sample size on unfolded bins, for NUTS; ADVI and Laplace draws are independent."""
    cure = "take more draws; divergences or large R-hat mean that the chains disagree"
    if result.record.settings.sampling.chains == 1:
        name = f"{result.record.settings.inference}: independent draws, MCMC diagnostics do not apply"
        return [Check("sampler", name, "", None, "")]
    import arviz as az  # seconds, which other samplers are spared

    posterior = tree["posterior"].to_dataset()
    bins = posterior[[v for v in posterior.data_vars if str(v).startswith("unfolded_")]]
    r_hat = max(float(v.max()) for v in az.rhat(bins).data_vars.values())
    ess = min(float(v.min()) for v in az.ess(bins).data_vars.values())
    return [
        Check("R-hat of unfolded bins", f"{r_hat:.3f}", f"below {MAX_R_HAT}", r_hat < MAX_R_HAT, cure),
        Check("effective sample size", f"{ess:.0f}", f"above {MIN_ESS}", ess > MIN_ESS, cure),
    ]
