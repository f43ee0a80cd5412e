"""The log-linear law of Olmix, f_j(p) = c_j + exp(t_j . p), one for each task.

Convex in p, which makes the proposal a convex problem. No intercept: the rows of a mixture sum to 1, so a constant
is a shift of t. Fitted as `olmix.laws.exponential` says.

Gives up: identifiability by the data alone. On a sparse swarm the best |t| without a ridge reaches 50 to 240,
so a ridge on t - mean(t) pins it: 1e-8 moves no loss of the public DCLM swarm by more than 2e-5 of itself,
1e-7 already moves one by 1.5e-4, 1e-6 by 1%. Predictions are clipped to a range that the swarm supports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import SwarmError
from olmix.laws.exponential import HUBER_DELTA, STARTS, exponential, fit_exponential, refit_exponential
from olmix.laws.huber import Design
from olmix.laws.observations import Observations, observe
from olmix.solver.objective import Curvature, task_weights

RIDGE = 1e-8


@dataclass(frozen=True)
class LogLinear:
    """Laws of n tasks over m domains, f_j(p) = c_j + exp(t_j . p), in BPB.

    floor c (n,); coefficients t (n, m); loss (n,): mean Huber loss over the runs it was fitted on, without
    the ridge; lower and upper (n,): the range of predictions, that of `Observations.bounds`.
    """

    floor: Array
    coefficients: Array
    loss: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper] and so always finite."""
        features = np.asarray(mixtures, dtype=np.float64)
        return np.clip(exponential(self.floor, self.coefficients, features), self.lower, self.upper)

    def objective(self, weights: Array | None = None) -> LogLinearObjective:
        """The weighted mean over tasks as the solver wants it; weights (n,) >= 0, equal by default."""
        return LogLinearObjective(self, task_weights(len(self.floor), weights))


@dataclass(frozen=True)
class LogLinearObjective:
    """sum_j w_j f_j(q), unclipped and so convex, with w (n,) of sum 1; a ConvexObjective of the solver."""

    law: LogLinear
    weights: Array

    def value(self, mixture: Array) -> float:
        """The weighted mean BPB at `mixture` (m,); inf where the exponential overflows."""
        return float(self.weights @ self.law.floor + self._growth(mixture).sum())

    def gradient(self, mixture: Array) -> Array:
        """d value / d q, (m,)."""
        return self._growth(mixture) @ self.law.coefficients

    def curvature(self, mixture: Array) -> Curvature:
        """Hessian sum_j w_j exp(t_j . q) t_j t_j^T, of rank n at most."""
        rows = np.sqrt(self._growth(mixture))[:, None] * self.law.coefficients
        return Curvature(rows, np.zeros(len(mixture)))

    def predict(self, mixture: Array) -> Array:
        """BPB of each task, (n,), clipped as the law clips."""
        return self.law.predict(mixture)

    def _growth(self, mixture: Array) -> Array:
        """w_j exp(t_j . q), (n,)."""
        with np.errstate(over="ignore"):
            return np.asarray(self.weights * np.exp(self.law.coefficients @ mixture))


def fit_loglinear(
    mixtures: Array,
    bpb: Array,
    *,
    delta: float = HUBER_DELTA,
    ridge: float = RIDGE,
    starts: int = STARTS,
    weights: Array | None = None,
    allow_underdetermined: bool = False,
) -> LogLinear:
    """Fit the law of every task on K runs: mixtures (K, m), bpb (K, n); run weights (K,) or (K, n), equal by default.

    `loglinear` for matrices: raises SwarmError as `observe` does, and for fewer runs than sampled domains unless
    `allow_underdetermined`: then the ridge decides what the runs leave open.
    """
    observations = observe(mixtures, bpb, weights)
    sampled, used = int((~observations.never_sampled).sum()), int(observations.counted.sum())
    if used < sampled and not allow_underdetermined:
        raise SwarmError(
            f"{used} runs cannot fit the law of {sampled} sampled domains; "
            "train at least as many runs as domains (three times as many are enough)"
        )
    return loglinear(observations, delta=delta, ridge=ridge, starts=starts)


def loglinear(
    observations: Observations, *, delta: float = HUBER_DELTA, ridge: float = RIDGE, starts: int = STARTS
) -> LogLinear:
    """The law of every task: the least weighted mean Huber loss of width `delta` + ridge / 2 |t - mean(t)|^2.

    A domain that no run of a task samples gets the coefficient t . (mean mixture): to add it then predicts what a step
    towards the average run predicts, and no data entered it. Deterministic.
    """
    floor, t, loss = fit_exponential(_design(observations, ridge), observations, delta=delta, starts=starts)
    return _law(observations, floor, t, loss, *observations.bounds(delta))


def refit_loglinear(
    observations: Observations,
    factors: Sequence[Array],
    near: LogLinear,
    *,
    delta: float = HUBER_DELTA,
    ridge: float = RIDGE,
) -> list[LogLinear]:
    """The law for every reweighting of the runs, factors (K,) each, from one near them, whose bounds they keep."""
    start = near.floor, near.coefficients[:, ~observations.never_sampled]
    fits = refit_exponential(_design(observations, ridge), observations, factors, start, delta=delta)
    return [_law(observations, floor, t, loss, near.lower, near.upper) for floor, t, loss in fits]


def _design(observations: Observations, ridge: float) -> Design:
    features = np.ascontiguousarray(observations.mixtures[:, ~observations.never_sampled])
    m = features.shape[1]
    return Design(features, ridge, np.eye(m) - 1 / m, np.full(m, -np.inf))


def _law(observations: Observations, floor: Array, t: Array, loss: Array, lower: Array, upper: Array) -> LogLinear:
    """The law over all domains, read-only."""
    coefficients = np.zeros((len(t), observations.shape[1]))
    coefficients[:, ~observations.never_sampled] = t
    neutral = (coefficients * observations.average).sum(axis=1)
    coefficients = np.where(observations.unseen, neutral[:, None], coefficients)
    for array in (floor, coefficients, loss, lower, upper):
        array.flags.writeable = False
    return LogLinear(floor, coefficients, loss, lower, upper)
