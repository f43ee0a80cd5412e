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
from olmix.laws.base import ExponentialObjective
from olmix.laws.exponential import HUBER_DELTA, STARTS, exponential, fit_exponential, refit_exponential
from olmix.laws.huber import Design
from olmix.laws.observations import Observations, observe
from olmix.solver.objective import task_weights

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

    def objective(self, weights: Array | None = None) -> ExponentialObjective[LogLinear]:
        """The weighted mean over tasks as the solver wants it; weights (n,) >= 0, equal by default."""
        w = task_weights(len(self.floor), weights)
        return ExponentialObjective(self, w, float(w @ self.floor))

    def log_growth(self, mixture: Array) -> Array:
        """t_j . p at `mixture` (m,), (n,)."""
        return self.coefficients @ mixture

    def slopes(self, mixture: Array) -> Array:
        """t, (n, m)."""
        return self.coefficients

    def bend(self, mixture: Array, growth: Array) -> Array:
        """None: the exponents are linear."""
        return np.zeros(len(mixture))


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
            f"{used} runs cannot fit the law of {sampled} sampled domains",
            way_out="train at least as many runs as domains (three times as many are enough)",
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
