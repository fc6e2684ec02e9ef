"""Linear unfolding: least squares with and without a penalty on the spectrum's shape.

All minimise ``(y - A x)' V^-1 (y - A x) + tau^2 |L (x - b)|^2``, so they share one solution, one covariance
and one derivative to the response; they differ in ``L``, ``b`` and how ``tau`` is chosen. ``docs/binned.md``
derives the equations, (B8) to (B13), (B17) and (B18).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular

from bayesunfold._support.checks import check_count, check_flag, check_instance, check_not_negative, check_seed
from bayesunfold.binned._axes import check_one_axis
from bayesunfold.binned._counts import filled_variances
from bayesunfold.binned._gaussian import gaussian_spectrum, statistics_covariance
from bayesunfold.binned.measured import among_all_bins, restricted
from bayesunfold.binned.response import ResponseMatrix
from bayesunfold.errors import InputError
from bayesunfold.spectrum import Spectrum

__all__ = ["MatrixInversion", "SVDUnfolding", "TauScan", "Tikhonov", "difference_matrix"]

Array = NDArray[np.floating]

REWEIGHTINGS = 3
"""Steps in which variances follow the fitted contents; each moves the solution by a fraction of the one before."""


def __dir__() -> list[str]:
    return __all__


def difference_matrix(
    bins: int | tuple[int, ...],
    kind: Literal["size", "derivative", "curvature"],
    kept: NDArray[np.bool_] | None = None,
) -> Array:
    """``L`` for size (0th), first or second differences of neighbouring bins, shape (rows, bins).

    Parameters
    ----------
    bins : int or tuple of int
        Of each axis; differences run along every axis by itself, and an axis that is too short has none.
    kind : {"size", "derivative", "curvature"}
    kept : boolean array, shape (bins,), optional
        Bins that there are, flattened; differences across others are left out.
    """
    order = {"size": 0, "derivative": 1, "curvature": 2}[kind]
    shape = (bins,) if isinstance(bins, int) else bins
    one = np.eye(int(np.prod(shape)))
    along = range(1 if order == 0 else len(shape))  # the size is the same along any axis
    parts = [np.diff(one.reshape(*shape, -1), n=order, axis=axis) for axis in along if shape[axis] > order]
    rows = np.concatenate([part.reshape(-1, len(one)) for part in parts]) if parts else np.zeros((0, len(one)))
    if kept is not None:
        rows = rows[~np.any(rows[:, ~kept] != 0, axis=1)][:, kept]
    if not len(rows):
        there = " x ".join(map(str, shape)) if kept is None else f"{int(kept.sum())} of {' x '.join(map(str, shape))}"
        msg = f"regularising the {kind} needs more than {order} bins in a row; there are {there}."
        raise InputError(msg)
    return rows


@dataclass(frozen=True)
class _Comparison:
    """How the solution moves with the simulated spectrum that the penalty compares it with.

    Attributes
    ----------
    prior : array, shape (gen, gen)
        Derivative to the simulated spectrum, with the response and the data as they are.
    direction : array, shape (gen,)
        Change of the solution with one number: the scale of the comparison (Tikhonov) or the strength (SVD).
    response : array, shape (reco, gen)
        Derivative of that number to the response.
    data : float
        Derivative of that number to each signal count.
    """

    prior: Array
    direction: Array
    response: Array
    data: float = 0.0


@dataclass(frozen=True)
class _Problem:
    """A linear unfolding problem in detector-level units without fakes."""

    response: ResponseMatrix
    signal: Array
    variances: Array
    penalty: Array
    bias: Array
    area: bool

    def solve(self, tau: float) -> tuple[Array, Array, Array]:
        """Spectrum (B9), its derivative to the signal counts, and to a shift of each bin's normal equation.

        By QR of the stacked ``(V^-1/2 A, tau L)``, whose condition is the square root of the normal equations'.
        """
        a = self.response.probabilities
        root = np.sqrt(self.variances)
        r = np.linalg.qr(np.vstack([a / root[:, None], tau * self.penalty]), mode="r")
        size = np.abs(np.diag(r))
        if size.min() <= 1e-14 * size.max():
            msg = (
                f"the response (condition number {self.response.condition_number:.3g}) does not determine all "
                f"{self.response.n_gen} particle-level bins. Use wider bins, more detector-level bins, or tau > 0."
            )
            raise InputError(msg)
        inverse_root = solve_triangular(r, np.eye(len(r)))
        inverse = inverse_root @ inverse_root.T
        estimator = inverse @ (a.T / self.variances)
        x = estimator @ self.signal + tau**2 * inverse @ (self.penalty.T @ (self.penalty @ self.bias))
        if self.area:
            # folded total equals the data's: (B10), TUnfold's area constraint (arXiv:1205.6201, eq. 3)
            e = self.response.probabilities.sum(axis=0)
            direction = inverse @ e / (e @ inverse @ e)
            x = x + direction * (self.signal.sum() - e @ x)
            estimator = estimator + np.outer(direction, 1.0 - e @ estimator)
            inverse = inverse - np.outer(direction, e @ inverse)
        return x, estimator, inverse

    def covariances(
        self,
        x: Array,
        estimator: Array,
        inverse: Array,
        raw_variances: Array,
        tau: float,
        comparison: _Comparison | None = None,
    ) -> dict[str, Array]:
        """Data statistics, and simulation statistics where they are known."""
        purity = 1 - self.response.fakes
        to_signal = estimator
        if comparison is not None:
            to_signal = estimator + comparison.data * comparison.direction[:, None]
        d = to_signal * purity
        out: dict[str, Array] = {"data": (d * raw_variances) @ d.T}
        if self.response.has_statistics:
            residual = (self.signal - self.response.probabilities @ x) / self.variances
            if self.area:
                # Lagrange multiplier of the constraint, which the column sums multiply
                penalised = tau**2 * self.penalty.T @ (self.penalty @ (x - self.bias))
                left = penalised - self.response.probabilities.T @ residual
                residual = residual + left.sum() / self.response.probabilities.sum()

            def derivative(c: int) -> Array:
                # (B11): dx = N^-1 (dA' V^-1 r - A' V^-1 dA x), for column c of A
                moved = np.outer(inverse[:, c], residual) - estimator * x[c]
                if comparison is not None:
                    moved += np.outer(comparison.direction, comparison.response[:, c])
                return moved

            prior = None if comparison is None else comparison.prior
            fakes = -to_signal * (self.signal / purity)
            out["simulation"] = statistics_covariance(self.response, derivative, prior, fakes)
        return out


class _Linear:
    """What the linear methods share."""

    method = "linear"

    def __init__(self, *, errors: bool = True, draws: int = 2000, random_seed: int = 0) -> None:
        self.errors = check_flag(errors, "errors")
        self.draws = check_count(draws, "draws", 2)
        self.random_seed = check_seed(random_seed)

    def _problem(self, response: ResponseMatrix, data: Any, penalty: Array, bias: Array, area: bool) -> Any:
        values, variances = response.counts(data)
        raw = filled_variances(values, variances)
        purity = 1 - response.fakes
        return _Problem(response, response.signal(values), raw * purity**2, penalty, bias, area), raw

    def _compared(self, problem: _Problem, x: Array, inverse: Array, tau: float) -> _Comparison | None:  # noqa: ARG002
        """Dependence on the simulated spectrum; none where the penalty does not know it."""
        return None

    def _finish(self, problem: _Problem, raw: Array, tau: float, start: float) -> Spectrum:
        x, estimator, inverse = problem.solve(tau)
        covariances: dict[str, Array] = {}
        if self.errors:
            comparison = self._compared(problem, x, inverse, tau)
            covariances = problem.covariances(x, estimator, inverse, raw, tau, comparison)
        return gaussian_spectrum(
            problem.response,
            x,
            covariances,
            self.method,
            self.draws if self.errors else 2,
            (self.random_seed, problem.signal),
            time.perf_counter() - start,
        )


class MatrixInversion(_Linear):
    """Unregularised unfolding: the inverse of a square response, least squares of a taller one.

    Parameters
    ----------
    errors, draws, random_seed
        As for :class:`IBU`.

    Notes
    -----
    Unbiased for a square response, with the largest variance of all methods; with more detector-level bins the
    variances are those of the fitted contents, which are found in three steps. A data bin without events has the
    variance of one event. The simulation's statistics enter to first order, which is too wide where they are as large
    as the smallest singular values: several times at condition numbers above a hundred.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> bu.MatrixInversion().fit(R, [100, 150]).nominal.round(3)
    array([ 83.333, 166.667])
    """

    method = "matrix inversion"

    def fit(self, response: ResponseMatrix, data: Any) -> Spectrum:
        """Unfold counts; warns above a condition number of 1e8."""
        start = time.perf_counter()
        check_instance(response, ResponseMatrix, "response")
        response.check_efficiency("matrix inversion")
        if response.measured is not response:
            counts = response.measured_counts(data)
            return among_all_bins(response, self.fit(response.measured, counts))
        if response.n_reco < response.n_gen:
            msg = (
                f"{response.n_reco} detector-level bins cannot determine {response.n_gen} particle-level bins without "
                "regularisation; use fewer particle-level bins, Tikhonov, IBU or FBU."
            )
            raise InputError(msg)
        response.warn_if_ill_conditioned()
        n = response.n_gen
        problem, raw = self._problem(response, data, np.zeros((1, n)), np.zeros(n), False)
        if response.n_reco > n:
            problem = _with_expected_variances(problem, raw)
        return self._finish(problem, raw, 0.0, start)


def _with_expected_variances(problem: _Problem, raw: Array) -> _Problem:
    """The same with variances of the fitted contents instead of the observed ones.

    Bins that fluctuate down would otherwise weigh more than those that fluctuate up, and pull the solution low.
    """
    purity = 1 - problem.response.fakes
    observed = np.maximum(problem.signal / purity, 0.0)
    one = raw.sum() / max(observed.sum(), 1.0)  # variance per content: one of counts, the weight of weighted events
    for _ in range(REWEIGHTINGS):
        expected = problem.response.fold(problem.solve(0.0)[0]) / purity
        # a content below one event has the variance of one: it may even be negative
        problem = replace(problem, variances=np.maximum(expected * one, one**2) * purity**2)
    return problem


@dataclass(frozen=True)
class TauScan:
    """Result of a scan of the regularisation strength.

    Attributes
    ----------
    tau : array
    chi2 : array
        ``(y - A x)' V^-1 (y - A x)``.
    penalty : array
        ``|L (x - b)|^2``.
    global_correlation : array
        Average global correlation coefficient of the unfolded bins.
    chosen : int
        Index of the strength taken.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.7, 0.1, 0.0], [0.3, 0.6, 0.2], [0.0, 0.3, 0.5], [0.0, 0.0, 0.3]])
    >>> scan = bu.Tikhonov("derivative").scan(R, [70, 120, 90, 30])
    >>> bool((scan.chi2[1:] >= scan.chi2[:-1] - 1e-9).all())  # a stronger penalty fits worse
    True
    """

    tau: Array
    chi2: Array
    penalty: Array
    global_correlation: Array
    chosen: int


class Tikhonov(_Linear):
    """Least squares with a penalty on size, slope or curvature, as TUnfold does.

    Parameters
    ----------
    regularize : {"curvature", "derivative", "size"}
        What is penalised: of the bins' contents, whatever their widths, along each axis.
    tau : float, "lcurve" or "correlation"
        Strength; or the corner of the L-curve (meant for more detector-level than particle-level bins), or the smallest
        average global correlation.
    area : bool
        Fix the folded total to the data's.
    bias : array, shape (gen,), or float, optional
        Spectrum around which the penalty vanishes; a number scales the simulated one to the data and then by it. Zero
        if omitted.
    errors, draws, random_seed
        As for :class:`IBU`.

    Notes
    -----
    The covariance holds the data's statistics and the simulation's; with a number for ``bias`` also those of the
    spectrum that it scales. It does not hold the choice of ``tau``, nor the penalty's bias. Memory is that of about ten
    (gen, reco) matrices.

    References
    ----------
    S. Schmitt, "TUnfold", JINST 7 (2012) T10003, arXiv:1205.6201, eqs. 2-3 and sections 6-7.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]])
    >>> bu.Tikhonov("size", tau=0.0).fit(R, [100, 150]).nominal.round(3)
    array([ 83.333, 166.667])
    """

    method = "Tikhonov"

    def __init__(
        self,
        regularize: Literal["curvature", "derivative", "size"] = "curvature",
        tau: float | Literal["lcurve", "correlation"] = "lcurve",
        *,
        area: bool = False,
        bias: ArrayLike | float | None = None,
        errors: bool = True,
        draws: int = 2000,
        random_seed: int = 0,
    ) -> None:
        super().__init__(errors=errors, draws=draws, random_seed=random_seed)
        if regularize not in ("curvature", "derivative", "size"):
            msg = f"regularize is {regularize!r}; it must be 'curvature', 'derivative' or 'size'."
            raise InputError(msg)
        if isinstance(tau, str):
            if tau not in ("lcurve", "correlation"):
                msg = f"tau is {tau!r}; it must be a number, 'lcurve' or 'correlation'."
                raise InputError(msg)
        else:
            check_not_negative(tau, "tau")
        self.regularize, self.tau, self.area, self.bias = regularize, tau, check_flag(area, "area"), bias

    def fit(self, response: ResponseMatrix, data: Any) -> Spectrum:
        """Unfold counts. The strength taken is in ``spectrum.settings["tau"]``."""
        start = time.perf_counter()
        check_instance(response, ResponseMatrix, "response")
        response.check_efficiency("Tikhonov")
        if response.measured is not response:
            counts = response.measured_counts(data)
            return among_all_bins(response, restricted(self, response, ("bias",)).fit(response.measured, counts))
        problem, raw = self._set_up(response, data)
        tau = self.tau
        if isinstance(tau, str):
            scan = self._scan(problem)
            tau = scan.tau[scan.chosen]
        if tau == 0:
            response.warn_if_ill_conditioned()
        spectrum = self._finish(problem, raw, float(tau), start)
        spectrum.settings["tau"] = float(tau)
        return spectrum

    def scan(self, response: ResponseMatrix, data: Any) -> TauScan:
        """Chi-square, penalty and global correlation over strengths, and which would be taken."""
        if response.measured is not response:
            return restricted(self, response, ("bias",)).scan(response.measured, response.measured_counts(data))
        return self._scan(self._set_up(response, data)[0])

    def _set_up(self, response: ResponseMatrix, data: Any) -> Any:
        shape, kept = response.gen_grid
        penalty = difference_matrix(shape, self.regularize, kept)
        return self._problem(response, data, penalty, self._bias(response, data), self.area)

    def _bias(self, response: ResponseMatrix, data: Any) -> Array:
        n = response.n_gen
        if self.bias is None:
            return np.zeros(n)
        if np.ndim(self.bias) == 0:
            values, _ = response.counts(data)
            scale = response.signal(values).sum() / response.fold(response.prior).sum()
            return float(self.bias) * scale * response.prior  # type: ignore[arg-type]
        bias = np.asarray(self.bias, dtype=np.float64)
        if bias.shape != (n,) or not np.all(np.isfinite(bias)):
            msg = f"bias has shape {bias.shape}; it needs {n} finite contents, or one factor."
            raise InputError(msg)
        return bias

    def _compared(self, problem: _Problem, x: Array, inverse: Array, tau: float) -> _Comparison | None:  # noqa: ARG002
        """A scaled simulated spectrum ``b = f n s`` with ``s = sum(d) / sum(R n)``: (B17)."""
        response = problem.response
        if self.bias is None or np.ndim(self.bias) > 0:
            return None
        simulated = response.prior
        smoothing = tau**2 * inverse @ (problem.penalty.T @ problem.penalty)
        folded, factor = response.fold(simulated).sum(), float(self.bias)  # type: ignore[arg-type]
        direction = factor * smoothing @ simulated / folded
        scale = problem.signal.sum() / folded
        prior = scale * (factor * smoothing - np.outer(direction, response.probabilities.sum(axis=0)))
        moved = np.broadcast_to(-scale * simulated, response.probabilities.shape)
        return _Comparison(prior, direction, moved, 1.0)

    def _scan(self, problem: _Problem, points: int = 60) -> TauScan:
        taus = _tau_range(problem, points)
        chi2, penalty, rho = np.empty(points), np.empty(points), np.empty(points)
        for k, tau in enumerate(taus):
            x, estimator, _ = problem.solve(tau)
            residual = problem.signal - problem.response.probabilities @ x
            chi2[k] = residual @ (residual / problem.variances)
            penalty[k] = np.sum((problem.penalty @ (x - problem.bias)) ** 2)
            rho[k] = _global_correlation((estimator * problem.variances) @ estimator.T)
        chosen = (
            int(np.argmin(rho)) if self.tau == "correlation" else _corner(taus, chi2, penalty, problem.response.n_reco)
        )
        return TauScan(taus, chi2, penalty, rho, chosen)


def _tau_range(problem: _Problem, points: int) -> Array:
    """Strengths from where the penalty does nothing to where it rules."""
    a = problem.response.probabilities
    fit = np.linalg.eigvalsh((a.T / problem.variances) @ a)
    size = np.linalg.eigvalsh(problem.penalty.T @ problem.penalty).max()
    low, high = max(fit.min(), 1e-10 * fit.max()), fit.max()
    return np.sqrt(np.geomspace(1e-2 * low / size, 1e2 * high / size, points))


def _corner(taus: Array, chi2: Array, penalty: Array, bins: int) -> int:
    """Point of largest curvature of (log chi2, log penalty) as functions of log tau (arXiv:1205.6201, section 6.1).

    Strengths whose chi-square exceeds its expectation by more than two standard deviations contradict the data
    and do not count: with as many bins at both levels the curve has a second corner there.
    """
    t = np.log(taus)
    x, y = np.log(np.maximum(chi2, 1e-300)), np.log(np.maximum(penalty, 1e-300))
    dx, dy = np.gradient(x, t), np.gradient(y, t)
    ddx, ddy = np.gradient(dx, t), np.gradient(dy, t)
    # (B12): with tau the curve runs down, then right; at the corner it turns left, which is positive curvature
    curvature = (dx * ddy - ddx * dy) / np.maximum((dx**2 + dy**2) ** 1.5, 1e-300)
    allowed = chi2 <= bins + 2.0 * np.sqrt(2.0 * bins)
    allowed[:2] = allowed[-2:] = False  # one-sided differences at the ends are unreliable
    return int(np.argmax(np.where(allowed, curvature, -np.inf))) if allowed.any() else 2


def _global_correlation(cov: Array) -> float:
    """Average over bins of ``sqrt(1 - 1 / (V_ii (V^-1)_ii))`` (arXiv:1205.6201, eq. 12)."""
    inverse = np.linalg.pinv(cov, hermitian=True)
    product = np.diag(cov) * np.diag(inverse)
    return float(np.mean(np.sqrt(np.clip(1.0 - 1.0 / np.maximum(product, 1.0), 0.0, 1.0))))


class SVDUnfolding(_Linear):
    """Singular value decomposition of the response, as Hoecker and Kartvelishvili.

    Parameters
    ----------
    k : int
        Effective rank: singular values around the ``k``-th are halved, those below it damped away. The number of bins
        regularises least; 1 halves the yield itself, so useful values start at 2.
    errors, draws, random_seed
        As for :class:`IBU`.

    Notes
    -----
    The unknowns are the bins' ratios to the simulated spectrum, whose curvature is damped; this is a Tikhonov
    penalty on the ratio, with the strength equal to the ``k``-th singular value of the rescaled problem (B13). The
    covariance holds the data's statistics and the simulation's, that of the simulated spectrum included. Memory is that
    of about ten (gen, reco) matrices.

    References
    ----------
    A. Hoecker, V. Kartvelishvili, Nucl. Instrum. Meth. A 372 (1996) 469, hep-ph/9509307, eqs. 38 and 44.

    Examples
    --------
    >>> import bayesunfold as bu
    >>> R = bu.ResponseMatrix([[0.8, 0.2], [0.2, 0.8]], truth=[900, 1600])
    >>> bu.SVDUnfolding(k=2).fit(R, [100, 150]).nominal.round(1)
    array([ 86.6, 163.2])
    """

    method = "SVD"

    def __init__(self, k: int, *, errors: bool = True, draws: int = 2000, random_seed: int = 0) -> None:
        super().__init__(errors=errors, draws=draws, random_seed=random_seed)
        self.k = check_count(k, "k")

    def fit(self, response: ResponseMatrix, data: Any) -> Spectrum:
        """Unfold counts. Singular values are in ``spectrum.settings["singular_values"]``."""
        start = time.perf_counter()
        check_instance(response, ResponseMatrix, "response")
        response.check_efficiency("SVDUnfolding")
        check_one_axis(response.gen_edges, "SVDUnfolding")
        if response.measured is not response:
            counts = response.measured_counts(data)
            return among_all_bins(response, self.fit(response.measured, counts))
        n = response.n_gen
        if self.k > min(n, response.n_reco):
            msg = f"k is {self.k}; it cannot exceed the {min(n, response.n_reco)} singular values of the response."
            raise InputError(msg)
        prior = response.prior
        low = np.flatnonzero(prior <= 0)
        if len(low):
            msg = f"the simulated spectrum is not positive in bins {low.tolist()}; ratios to it do not exist there."
            raise InputError(msg)
        scale = response.signal(response.counts(data)[0]).sum() / response.fold(prior).sum()
        if scale <= 0:
            msg = "the data counts are all zero; a ratio to the simulated spectrum does not exist. Check the histogram."
            raise InputError(msg)
        curvature = _svd_curvature(n)
        penalty = curvature / (prior * scale)
        problem, raw = self._problem(response, data, penalty, np.zeros(n), False)
        singular = np.linalg.svd(_rotated(problem), compute_uv=False)
        spectrum = self._finish(problem, raw, float(singular[self.k - 1]), start)
        spectrum.settings["singular_values"] = singular
        return spectrum

    def _compared(self, problem: _Problem, x: Array, inverse: Array, tau: float) -> _Comparison | None:
        """Unknowns are ratios to the simulated spectrum ``m``, and so is the ``k``-th singular value: (B18)."""
        response = problem.response
        if response.truth is None:
            return None
        # the penalty is L = C diag(1/m), with m the simulated spectrum scaled to the data
        m = np.diag(_svd_curvature(len(x))) / np.diag(problem.penalty)
        bent = problem.penalty.T @ (problem.penalty @ x)
        to_ratio = tau**2 * inverse @ (problem.penalty.T @ (problem.penalty * (x / m)) + np.diag(bent / m))
        direction = -2.0 * tau * inverse @ bent
        left, _, right = np.linalg.svd(_rotated(problem))
        moved = np.outer(
            left[:, self.k - 1] / np.sqrt(problem.variances), np.linalg.solve(problem.penalty, right[self.k - 1])
        )
        to_strength = (response.probabilities * moved).sum(axis=0) / m
        prior = (to_ratio + np.outer(direction, to_strength)) * (m / response.truth)
        return _Comparison(prior, direction, moved)


def _rotated(problem: _Problem) -> Array:
    """``V^-1/2 R L^-1``, whose singular values are the strengths that damp each component."""
    return (problem.response.probabilities / np.sqrt(problem.variances)[:, None]) @ np.linalg.inv(problem.penalty)


def _svd_curvature(n: int) -> Array:
    """Second differences with free ends, made invertible by a small diagonal (hep-ph/9509307, eq. 38)."""
    c = np.diag(np.full(n, -2.0)) + np.diag(np.ones(n - 1), 1) + np.diag(np.ones(n - 1), -1)
    c[0, 0] = c[-1, -1] = -1.0
    return c + np.diag(np.full(n, 1e-4))
