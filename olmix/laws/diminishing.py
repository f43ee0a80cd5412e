"""The law with diminishing returns, f_j(p) = c_j + exp(b_j - sum_i a_ij p_i^s), a >= 0, one for each task.

The first tokens of a domain teach most, and no domain does harm by itself: it only takes the place of others. Both are
true of most swarms, so the law needs about half the runs of the log-linear one; where a domain does harm (noise), or on
dense mixtures, it is biased, and cross-validation has to say which of them to trust. Convex in p, so that proposals
are certified as well. Fitted as `olmix.laws.exponential` says.

Gives up: an exponent for each domain. s = 0.6 for all of them, and a ridge of 1e-6 on a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.laws.base import ExponentialObjective
from olmix.laws.exponential import HUBER_DELTA, exponential, fit_exponential, refit_exponential
from olmix.laws.huber import Design
from olmix.laws.observations import Observations
from olmix.solver.objective import task_weights

EXPONENT = 0.6
RIDGE = 1e-6
LEAST_SHARE = 1e-300  # where the slope of p^s is cut


@dataclass(frozen=True)
class Diminishing:
    """Laws of n tasks over m domains, f_j(p) = c_j + exp(b_j - sum_i a_ij p_i^s), in BPB.

    floor c (n,); level b (n,); returns a (n, m) >= 0; exponent s; loss (n,): mean Huber loss without the ridge; lower
    and upper (n,): the range of predictions, that of `Observations.bounds`.
    """

    floor: Array
    level: Array
    returns: Array
    exponent: float
    loss: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper] and so always finite."""
        features = _features(np.asarray(mixtures, dtype=np.float64), self.exponent)
        coefficients = np.column_stack([self.returns, self.level])
        return np.clip(exponential(self.floor, coefficients, features), self.lower, self.upper)

    def objective(self, weights: Array | None = None) -> ExponentialObjective[Diminishing]:
        """The weighted mean over tasks as the solver wants it; weights (n,) >= 0, equal by default."""
        w = task_weights(len(self.floor), weights)
        return ExponentialObjective(self, w, float(w @ self.floor))

    def log_growth(self, mixture: Array) -> Array:
        """b_j - sum_i a_ij p_i^s at `mixture` (m,), (n,)."""
        return self.level - self.returns @ np.maximum(mixture, 0.0) ** self.exponent

    def slopes(self, mixture: Array) -> Array:
        """-a_ij s p_i^(s - 1), (n, m): steep where a share is near 0 and the domain teaches something."""
        s = self.exponent
        return -self.returns * (s * np.maximum(mixture, LEAST_SHARE) ** (s - 1))

    def bend(self, mixture: Array, growth: Array) -> Array:
        """sum_j growth_j a_ij s (1 - s) p_i^(s - 2), (m,), cut where it overflows."""
        s = self.exponent
        with np.errstate(over="ignore", invalid="ignore"):
            bend = (growth @ self.returns) * (s * (1 - s)) * np.maximum(mixture, LEAST_SHARE) ** (s - 2)
        return np.nan_to_num(bend, nan=0.0, posinf=np.finfo(np.float64).max)


def diminishing(
    observations: Observations, *, delta: float = HUBER_DELTA, ridge: float = RIDGE, exponent: float = EXPONENT
) -> Diminishing:
    """The law of every task: the least weighted mean Huber loss of width `delta` (BPB) + ridge / 2 |a|^2.

    A domain that no run of a task samples is neutral: at a share of 1 / m it teaches what the average run teaches.
    """
    design = _design(observations, ridge, exponent)
    floor, coefficients, loss = fit_exponential(design, observations, delta=delta)
    return _law(observations, exponent, floor, coefficients, loss, *observations.bounds(delta))


def refit_diminishing(
    observations: Observations,
    factors: Sequence[Array],
    near: Diminishing,
    *,
    delta: float = HUBER_DELTA,
    ridge: float = RIDGE,
) -> list[Diminishing]:
    """The law for every reweighting of the runs, factors (K,) each, from one near them, whose bounds they keep."""
    start = np.column_stack([near.returns[:, ~observations.never_sampled], near.level])
    design = _design(observations, ridge, near.exponent)
    fits = refit_exponential(design, observations, factors, (near.floor, start), delta=delta)
    return [_law(observations, near.exponent, *fit, near.lower, near.upper) for fit in fits]


def _features(mixtures: Array, exponent: float) -> Array:
    """-p^s for every domain, and 1: (..., m + 1)."""
    one = np.ones((*mixtures.shape[:-1], 1))
    return np.concatenate([-(np.maximum(mixtures, 0.0) ** exponent), one], axis=-1)


def _design(observations: Observations, ridge: float, exponent: float) -> Design:
    features = _features(observations.mixtures[:, ~observations.never_sampled], exponent)
    returns = np.arange(features.shape[1]) < features.shape[1] - 1
    return Design(features, ridge, np.diag(returns.astype(np.float64)), np.where(returns, 0.0, -np.inf))


def _law(
    observations: Observations,
    exponent: float,
    floor: Array,
    coefficients: Array,
    loss: Array,
    lower: Array,
    upper: Array,
) -> Diminishing:
    """The law over all domains, read-only."""
    level = coefficients[:, -1].copy()
    domains = observations.shape[1]
    returns = np.zeros((len(level), domains))
    returns[:, ~observations.never_sampled] = coefficients[:, :-1]
    taught = (returns * np.where(observations.unseen, 0.0, observations.average**exponent)).sum(axis=1)
    returns = np.where(observations.unseen, (taught * domains ** (exponent - 1))[:, None], returns)
    for array in (floor, level, returns, loss, lower, upper):
        array.flags.writeable = False
    return Diminishing(floor, level, returns, exponent, loss, lower, upper)
