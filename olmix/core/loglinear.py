"""The log-linear law of Olmix, f_j(p) = c_j + exp(t_j . p), one for each task, and its robust fit.

Convex in p, which makes the proposal a convex problem; linear in log(f - c), which makes starts cheap: for c
on a grid of fractions of the least observed BPB, t is a weighted least-squares solution. The best starts go
through the batched Newton of `olmix.core.huber`. No intercept: the rows of a mixture sum to 1, so a constant
is a shift of t.

Gives up: identifiability by the data alone. On a sparse swarm the best |t| without a ridge reaches 50 to 240,
so a ridge on t - mean(t) pins it: 1e-8 moves no loss of the public DCLM swarm by more than 2e-5 of itself,
1e-7 already moves one by 1.5e-4, 1e-6 by 1%. Predictions are clipped to a range that the swarm supports.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.huber import Array, Design, Problems, huber
from olmix.core.objective import Curvature
from olmix.core.seeds import generator
from olmix.errors import SwarmError

HUBER_DELTA = 0.02
RIDGE = 1e-8
FLOOR_GRID = (0.0, 0.3, 0.6, 0.8, 0.9, 0.96)  # starts of c, as fractions of a task's least BPB
START_RIDGE = 1e-6
BATCH_BYTES = 1 << 26  # Hessians held at once


@dataclass(frozen=True)
class LogLinear:
    """Laws of n tasks over m domains, f_j(p) = c_j + exp(t_j . p), in BPB.

    floor c (n,); coefficients t (n, m); loss (n,): mean Huber loss over the runs it was fitted on, without
    the ridge; lower and upper (n,): the range of predictions, the observed range of the task widened on both
    sides by its own length (at least by delta), never below 0.
    """

    floor: Array
    coefficients: Array
    loss: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper] and so always finite."""
        return np.clip(_evaluate(self.floor, self.coefficients, mixtures), self.lower, self.upper)

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


def task_weights(tasks: int, weights: Array | None) -> Array:
    """Weights (n,) divided by their sum, so that they never change the strength of a KL term; equal when
    None.
    """
    w = np.ones(tasks) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (tasks,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise SwarmError(f"task weights must be {tasks} finite numbers >= 0 with a positive sum, not {w.tolist()}")
    return np.asarray(w / w.sum())


def never_sampled(mixtures: Array) -> NDArray[np.bool_]:
    """Which domains, (m,), have no weight in any run of `mixtures` (K, m)."""
    return np.asarray(~np.any(np.asarray(mixtures) > 0, axis=0))


def fit_loglinear(
    mixtures: Array,
    bpb: Array,
    *,
    delta: float = HUBER_DELTA,
    ridge: float = RIDGE,
    starts: int = 6,
    weights: Array | None = None,
    allow_underdetermined: bool = False,
) -> LogLinear:
    """Fit the law of every task on K runs: mixtures (K, m), bpb (K, n); run weights (K,), equal by default.

    Minimises, a task, the weighted mean Huber loss of width `delta` (BPB) + ridge / 2 |t - mean(t)|^2 over c
    >= 0 and t, from the best `starts` of six starts. A domain that no run samples gets the coefficient t .
    (mean mixture): to add it then predicts what a step towards the average run predicts, and no data entered
    it. Deterministic.

    Raises SwarmError for values that are not finite or not positive, rows that do not sum to 1, and fewer
    runs than sampled domains, unless `allow_underdetermined`: then the ridge decides what the runs leave
    open.
    """
    x, y, w = _checked(mixtures, bpb, weights)
    sampled = ~never_sampled(x[w > 0])
    used = int((w > 0).sum())
    if used < sampled.sum() and not allow_underdetermined:
        raise SwarmError(
            f"{used} runs cannot fit the law of {int(sampled.sum())} sampled domains; "
            "train at least as many runs as domains (three times as many are enough)"
        )
    design = Design(np.ascontiguousarray(x[:, sampled]))
    tasks, m = y.shape[1], int(sampled.sum())
    starts = max(1, min(starts, len(FLOOR_GRID)))
    floor, t, loss = np.empty(tasks), np.empty((tasks, m)), np.empty(tasks)
    chunk = max(1, BATCH_BYTES // (8 * starts * (m + 1) ** 2))
    for first in range(0, tasks, chunk):
        block = slice(first, min(first + chunk, tasks))
        problems = _started(design, y[:, block], w, delta=delta, ridge=ridge, starts=starts)
        best, loss[block] = problems.solve()
        floor[block], t[block] = problems.floor[best], problems.coefficients[best]
    return _law(floor, _expanded(t, sampled, w @ x), loss, *_bounds(y[w > 0], delta))


def bootstrap_loglinear(
    mixtures: Array,
    bpb: Array,
    replicates: int,
    seed: int,
    *,
    law: LogLinear | None = None,
    delta: float = HUBER_DELTA,
    ridge: float = RIDGE,
) -> list[LogLinear]:
    """Refits on `replicates` resamples of the runs, drawn with replacement (named by `seed` and the
    replicate).

    Each starts from `law`, the fit on all runs (computed when None), so that the spread is that of the data
    and not of local optima; it does not cover the error of the law itself. Bounds are those of `law`; errors
    as the fit.
    """
    x, y, w = _checked(mixtures, bpb, None)
    law = fit_loglinear(x, y, delta=delta, ridge=ridge) if law is None else law
    sampled = ~never_sampled(x)
    design = Design(np.ascontiguousarray(x[:, sampled]))
    runs, tasks = y.shape
    m = int(sampled.sum())
    chunk = max(1, BATCH_BYTES // (8 * tasks * (m + 1) ** 2))
    laws: list[LogLinear] = []
    for first in range(0, replicates, chunk):
        names = range(first, min(first + chunk, replicates))
        drawn = np.stack([generator("bootstrap", seed, r).integers(runs, size=runs) for r in names])
        counts = np.stack([np.bincount(row, minlength=runs) for row in drawn]) / runs
        problems = Problems(
            design,
            targets=np.tile(y.T, (len(names), 1)),
            weights=np.repeat(counts, tasks, axis=0),
            owner=np.arange(len(names) * tasks),
            floor=np.tile(law.floor, len(names)),
            coefficients=np.tile(law.coefficients[:, sampled], (len(names), 1)),
            delta=delta,
            ridge=ridge,
        )
        _, loss = problems.solve()
        for i in range(len(names)):
            block = slice(i * tasks, (i + 1) * tasks)
            t = _expanded(problems.coefficients[block], sampled, w @ x)
            laws.append(_law(problems.floor[block].copy(), t, loss[block], law.lower, law.upper))
    return laws


def _started(design: Design, y: Array, w: Array, *, delta: float, ridge: float, starts: int) -> Problems:
    """The best `starts` weighted least-squares starts of every column of y (K, n)."""
    runs, tasks = y.shape
    m = design.mixtures.shape[1]
    grid = np.array(FLOOR_GRID)
    floor = (y.min(axis=0)[:, None] * grid).ravel()
    targets = np.repeat(y.T, len(grid), axis=0)
    excess = targets - floor[:, None]
    leverage = w * excess * excess
    gram = design.gram(leverage)
    scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / m
    gram += START_RIDGE * (np.eye(m) - 1 / m) + (1e-12 * scale + 1e-300) * np.eye(m)
    t = np.linalg.solve(gram, ((leverage * np.log(excess)) @ design.mixtures)[..., None])[..., 0]
    owner = np.repeat(np.arange(tasks), len(grid))
    problems = Problems(design, targets, np.broadcast_to(w, targets.shape), owner, floor, t, delta, ridge)
    merit = (problems.loss(floor, t, slice(None), delta) + problems.penalty(t)).reshape(tasks, len(grid))
    best = np.sort(np.argsort(merit, axis=1, kind="stable")[:, :starts], axis=1)
    kept = (np.arange(tasks)[:, None] * len(grid) + best).ravel()
    return Problems(
        design,
        targets[kept],
        np.broadcast_to(w, (len(kept), runs)),
        owner[kept],
        floor[kept],
        t[kept],
        delta,
        ridge,
    )


def _checked(mixtures: Array, bpb: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    x, y = np.asarray(mixtures, dtype=np.float64), np.asarray(bpb, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or 0 in x.shape or 0 in y.shape:
        raise SwarmError(f"a fit needs mixtures (runs, domains) and BPB (runs, tasks), not {x.shape} and {y.shape}")
    for name, values in (("mixture", x), ("BPB", y)):
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            raise SwarmError(
                f"the {name} of run {row}, column {column} is {values[row, column]}; every one must be finite"
            )
    if (y <= 0).any():
        row, column = np.argwhere(y <= 0)[0]
        raise SwarmError(f"the BPB of run {row}, task {column} is {y[row, column]:g}; a BPB is positive")
    off = np.abs(x.sum(axis=1) - 1)
    if (x < 0).any() or off.max() > 1e-2:
        raise SwarmError(f"the mixture of run {int(off.argmax())} is no mixture: weights >= 0 that sum to 1 are needed")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(x),) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise SwarmError(f"run weights must be {len(x)} finite numbers >= 0 with a positive sum")
    return x, y, w / w.sum()


def _bounds(y: Array, delta: float) -> tuple[Array, Array]:
    low, high = y.min(axis=0), y.max(axis=0)
    margin = np.maximum(high - low, delta)
    return np.maximum(low - margin, 0.0), high + margin


def _expanded(t: Array, sampled: NDArray[np.bool_], mean: Array) -> Array:
    """Coefficients of all domains from those of the sampled ones; `mean` is the average mixture, (m,)."""
    full = np.empty((len(t), len(sampled)))
    full[:, sampled] = t
    full[:, ~sampled] = (t @ mean[sampled])[:, None]
    return full


def _evaluate(floor: Array, coefficients: Array, mixtures: Array) -> Array:
    with np.errstate(over="ignore"):
        return floor + np.exp(np.asarray(mixtures, dtype=np.float64) @ coefficients.T)


def _law(floor: Array, coefficients: Array, loss: Array, lower: Array, upper: Array) -> LogLinear:
    for array in (floor, coefficients, loss, lower, upper):
        array.flags.writeable = False
    return LogLinear(floor, coefficients, loss, lower, upper)


__all__ = [
    "LogLinear",
    "LogLinearObjective",
    "bootstrap_loglinear",
    "fit_loglinear",
    "huber",
    "never_sampled",
    "task_weights",
]
