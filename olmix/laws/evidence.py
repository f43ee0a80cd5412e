"""Three laws of log BPB whose strength of shrinkage the runs decide themselves: empirical Bayes.

    linear             log f_j(p) = c_j + b_j . p
    square root        log f_j(p) = c_j + b_j . r(p)              r_i(p) = sqrt(p_i + 1e-5) - sqrt(1e-5)
    Gaussian process   log f_j(p) = c_j + g_j(r(p))

The coefficients are normal around a mean that is normal itself, and g_j is a Gaussian process with a squared
exponential kernel, so each law is a kernel between runs. The intercept is free. The variances of prior and noise, and
the lengthscale of the process, are those of the largest marginal likelihood (MacKay 1992, Neural Computation 4(3);
Rasmussen and Williams 2006, section 5.4), each task's own, on a grid that one eigendecomposition serves for all tasks.
The noise of a run of weight w has the variance noise / w: only ratios of weights matter. A run seen twice differs from
one of weight 2 in that its repetition also says how small noise is, which in bootstrap replicates it must not.

Measured on 5 splits of the public swarms, seeds 100 to 104: log BPB orders unseen runs at least as well as BPB does and
never misses the level by more; the shift 1e-5 costs nothing and makes every slope at weight 0 finite. Gives up:
convexity, but for the linear law, whose f_j is the exponential of a linear function; and robustness, since noise is
normal here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.laws.base import ExponentialObjective
from olmix.laws.observations import Observations
from olmix.solver.objective import task_weights

SHIFT = 1e-5  # a tenth of the least weight that a dense swarm draws
SHARED_ROOT = 0.3  # variance of the coefficients' common mean, in variances of a coefficient around it
SHARED_PROCESS = 0.1  # the same, in variances of the process
LENGTHSCALES = (0.5, 1.0, 2.0, 4.0)  # two mixtures are at most sqrt(2) apart in square roots
# Ratios of noise to prior variance, in units of the trace of the kernel.
RATIOS = np.logspace(-9, 5, 141)
NULL = 1e-13  # eigenvalues below this part of the kernel's trace are 0
TINY = 1e-300


@dataclass(frozen=True)
class LinearEvidence:
    """Laws of n tasks over m domains, f_j(p) = exp(c_j + b_j . p), in BPB; convex.

    intercept c (n,); coefficients b (n, m); lower and upper (n,): the range of predictions.
    """

    intercept: Array
    coefficients: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper]."""
        return _clipped(self.intercept + np.asarray(mixtures) @ self.coefficients.T, self.lower, self.upper)

    def objective(self, weights: Array | None = None) -> ExponentialObjective[LinearEvidence]:
        """The weighted mean over tasks as the solver wants it; weights (n,) >= 0, equal by default."""
        return ExponentialObjective(self, task_weights(len(self.intercept), weights))

    def log_growth(self, mixture: Array) -> Array:
        """c_j + b_j . p at `mixture` (m,), (n,)."""
        return self.intercept + self.coefficients @ mixture

    def slopes(self, mixture: Array) -> Array:
        """b, (n, m)."""
        return self.coefficients

    def bend(self, mixture: Array, growth: Array) -> Array:
        """None: the exponents are linear."""
        return np.zeros(len(mixture))


@dataclass(frozen=True)
class RootEvidence:
    """Laws of n tasks over m domains, f_j(p) = exp(c_j + b_j . r(p)), in BPB; not convex.

    intercept c (n,); coefficients b (n, m); lower and upper (n,): the range of predictions.
    """

    intercept: Array
    coefficients: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper]."""
        return _clipped(self.intercept + _roots(mixtures) @ self.coefficients.T, self.lower, self.upper)


@dataclass(frozen=True)
class ProcessEvidence:
    """Gaussian processes of n tasks over m domains, f_j(p) = exp(c_j + sum_k a_kj k_j(p, p_k)), in BPB; not convex.

    k_j(p, q) = exp(-|r(p) - r(q)|^2 / 2 l_j^2) + 0.1 sum r(p) sum r(q). mixtures (K, m) of the runs; dual a
    (K, n), 0 where a run is masked; intercept c, lengthscale l, lower and upper (the range of predictions), each (n,).
    """

    mixtures: Array
    dual: Array
    intercept: Array
    lengthscale: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper]."""
        return _clipped(self._logs(np.asarray(mixtures, dtype=np.float64)), self.lower, self.upper)

    def _logs(self, mixtures: Array) -> Array:
        points, runs = _roots(mixtures).reshape(-1, mixtures.shape[-1]), _roots(self.mixtures)
        shared = SHARED_PROCESS * np.outer(points.sum(axis=1), runs.sum(axis=1))
        logs = np.empty((len(points), len(self.intercept)))
        for length in np.unique(self.lengthscale):
            tasks = self.lengthscale == length
            logs[:, tasks] = (_nearness(points, runs, length) + shared) @ self.dual[:, tasks]
        return (logs + self.intercept).reshape(*mixtures.shape[:-1], logs.shape[1])


def fit_linear_evidence(observations: Observations) -> LinearEvidence:
    """The linear law of every task, by evidence.

    A domain that no run samples gets the prior mean, coefficient 0: that is the unweighted mean of the sampled ones.
    """
    x = observations.mixtures
    found = _best(observations, [x @ x.T])
    return LinearEvidence(found.intercept, found.dual.T @ x, *observations.bounds())


def fit_root_evidence(observations: Observations) -> RootEvidence:
    """The square-root law of every task, by evidence.

    The coefficients' common mean has its own normal prior, since most domains help more when they are mixed; a
    domain that no run samples gets that mean.
    """
    r = _roots(observations.mixtures)
    total = r.sum(axis=1)
    found = _best(observations, [r @ r.T + SHARED_ROOT * np.outer(total, total)])
    coefficients = found.dual.T @ r + SHARED_ROOT * (found.dual.T @ total)[:, None]
    return RootEvidence(found.intercept, coefficients, *observations.bounds())


def fit_process_evidence(observations: Observations) -> ProcessEvidence:
    """The Gaussian process of every task, by evidence."""
    r = _roots(observations.mixtures)
    shared = SHARED_PROCESS * np.outer(r.sum(axis=1), r.sum(axis=1))
    found = _best(observations, [_nearness(r, r, length) + shared for length in LENGTHSCALES])
    lengthscale = np.array(LENGTHSCALES)[found.kernel]
    return ProcessEvidence(observations.mixtures, found.dual, found.intercept, lengthscale, *observations.bounds())


@dataclass(frozen=True)
class _Posterior:
    """What the runs say about n tasks under one kernel (or the best of several): log f(p) = intercept + k(p) . dual."""

    dual: Array  # (K, n)
    intercept: Array  # (n,)
    evidence: Array  # (n,), up to a constant
    kernel: NDArray[np.intp]  # (n,)


def _best(observations: Observations, kernels: list[Array]) -> _Posterior:
    """The posterior of each task under the kernel (K, K) of the largest evidence, the first of equals."""
    runs, _, tasks = observations.shape
    best = _Posterior(
        dual=np.zeros((runs, tasks)),
        intercept=np.zeros(tasks),
        evidence=np.full(tasks, -np.inf),
        kernel=np.zeros(tasks, dtype=np.intp),
    )
    for group in observations.groups():
        weights = observations.weights[:, group[0]]
        rows = np.flatnonzero(weights > 0)
        logs = np.log(observations.bpb[np.ix_(rows, group)])
        for number, kernel in enumerate(kernels):
            found = _posterior(kernel[np.ix_(rows, rows)], logs, weights[rows])
            better = found.evidence > best.evidence[group]
            chosen = group[better]
            best.dual[np.ix_(rows, chosen)] = found.dual[:, better]
            for name in ("intercept", "evidence"):
                getattr(best, name)[chosen] = getattr(found, name)[better]
            best.kernel[chosen] = number
    return best


def _posterior(kernel: Array, logs: Array, weights: Array) -> _Posterior:
    """The posterior of tasks that share the weights (K,) > 0 of their runs, whatever their unit; kernel (K, K), logs
    (K, n).
    """
    runs, tasks = logs.shape
    root = np.sqrt(weights)
    # The rows of `basis` span what is orthogonal to the intercept: a Householder reflection without its first row.
    mirror = root / np.sqrt(weights.sum())
    mirror[0] += 1
    basis = (np.eye(runs) - np.outer(mirror, mirror) / mirror[0])[1:] * root
    values, vectors = np.linalg.eigh(basis @ kernel @ basis.T)
    # What is left of the kernel's null space is rounding, and dividing by it would make it a law.
    scale = float(weights @ np.diag(kernel))
    known = values > NULL * scale
    values = np.where(known, values, 0.0)
    rotated = vectors.T @ (basis @ logs)
    ratios = RATIOS * max(float(values.sum()), NULL * scale)
    spread = values[:, None] + ratios
    degrees = max(runs - 1, 1)
    squares = np.maximum((rotated * rotated).T @ (1 / spread), TINY)
    evidence = -0.5 * (degrees * np.log(squares) + np.log(spread).sum(axis=0))
    at = evidence.argmax(axis=1)
    dual = basis.T @ (vectors @ (known[:, None] * rotated / spread[:, at]))
    intercept = weights @ (logs - kernel @ dual) / weights.sum()
    return _Posterior(dual, intercept, evidence.max(axis=1), np.zeros(tasks, np.intp))


def _roots(mixtures: Array) -> Array:
    """sqrt(p + 1e-5) - sqrt(1e-5), which is 0 at 0 and has a slope there."""
    return np.asarray(np.sqrt(np.asarray(mixtures, dtype=np.float64) + SHIFT) - np.sqrt(SHIFT))


def _nearness(a: Array, b: Array, length: float) -> Array:
    """exp(-|a_i - b_k|^2 / 2 length^2), (A, B), of rows a (A, m) and b (B, m)."""
    squared = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * a @ b.T
    return np.asarray(np.exp(-np.maximum(squared, 0) / (2 * length**2)))


def _clipped(logs: Array, lower: Array, upper: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.clip(np.exp(logs), lower, upper)
