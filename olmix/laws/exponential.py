"""The robust fit that all laws f = c + exp(t . z(p)) share, whatever features z they make of a mixture.

For c on a grid of fractions of a task's least BPB, log(f - c) is linear in the features, so starts are weighted
least-squares solutions, batched over tasks and grid. The best starts go through the batched Newton of
`olmix.laws.huber`. A refit (the bootstrap) starts from a law that is near, so that its spread is that of the data and
not of local optima. Gives up: a proof that the best start is the best there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from olmix.core.arrays import Array
from olmix.laws.huber import Design, Problems
from olmix.laws.observations import Observations

HUBER_DELTA = 0.02
STARTS = 6
FLOOR_GRID = (0.0, 0.3, 0.6, 0.8, 0.9, 0.96)  # starts of c, as fractions of a task's least BPB
START_RIDGE = 1e-6
PASSES = 60  # steps that bring coefficients within their bounds
BATCH_BYTES = 1 << 26  # Hessians held at once


def fit_exponential(
    design: Design, observations: Observations, *, delta: float, starts: int = STARTS
) -> tuple[Array, Array, Array]:
    """Floors c (n,) >= 0, coefficients (n, d) and mean Huber losses (n,) of width `delta` (BPB), without the penalty.

    The `design` holds the features of all runs (K, d). Deterministic.
    """
    y, shares = observations.bpb, observations.shares
    tasks, d = y.shape[1], design.features.shape[1]
    starts = max(1, min(starts, len(FLOOR_GRID)))
    floor, coefficients, loss = np.empty(tasks), np.empty((tasks, d)), np.empty(tasks)
    chunk = max(1, BATCH_BYTES // (8 * starts * (d + 1) ** 2))
    for first in range(0, tasks, chunk):
        block = slice(first, min(first + chunk, tasks))
        problems = _started(design, y[:, block], shares[:, block], delta=delta, starts=starts)
        best, loss[block] = problems.solve()
        floor[block], coefficients[block] = problems.floor[best], problems.coefficients[best]
    return floor, coefficients, loss


def refit_exponential(
    design: Design,
    observations: Observations,
    factors: Sequence[Array],
    near: tuple[Array, Array],
    *,
    delta: float,
) -> list[tuple[Array, Array, Array]]:
    """`fit_exponential` for every reweighting of the runs, factors (K,) each, from floors and coefficients near it."""
    floor, coefficients = near
    tasks, d = coefficients.shape
    runs = len(observations.bpb)
    chunk = max(1, BATCH_BYTES // (8 * tasks * (d + 1) ** 2))
    fits: list[tuple[Array, Array, Array]] = []
    for first in range(0, len(factors), chunk):
        some = np.stack(list(factors[first : first + chunk]))
        weights = some[:, None, :] * observations.weights.T[None]
        weights /= weights.sum(axis=2, keepdims=True)
        problems = Problems(
            design,
            targets=np.tile(observations.bpb.T, (len(some), 1)),
            weights=weights.reshape(-1, runs),
            owner=np.arange(len(some) * tasks),
            floor=np.tile(floor, len(some)),
            coefficients=np.tile(coefficients, (len(some), 1)),
            delta=delta,
        )
        _, loss = problems.solve()
        for i in range(len(some)):
            block = slice(i * tasks, (i + 1) * tasks)
            fits.append((problems.floor[block].copy(), problems.coefficients[block].copy(), loss[block]))
    return fits


def exponential(floor: Array, coefficients: Array, features: Array) -> Array:
    """c + exp(t . z) of every task, (..., n), at features (..., d); inf where it overflows."""
    with np.errstate(over="ignore"):
        return np.asarray(floor + np.exp(features @ coefficients.T))


def _started(design: Design, y: Array, shares: Array, *, delta: float, starts: int) -> Problems:
    """The best `starts` weighted least-squares starts of every column of y (K, n), shares (K, n) of sum 1."""
    tasks = y.shape[1]
    d = design.features.shape[1]
    grid = np.array(FLOOR_GRID)
    least = np.where(shares > 0, y, np.inf).min(axis=0)
    floor = (least[:, None] * grid).ravel()
    targets = np.repeat(y.T, len(grid), axis=0)
    weights = np.repeat(shares.T, len(grid), axis=0)
    excess = np.maximum(targets - floor[:, None], np.finfo(np.float64).tiny)
    leverage = weights * excess * excess
    gram = design.gram(leverage)
    scale = np.trace(gram, axis1=1, axis2=2)[:, None, None] / d
    gram += START_RIDGE * design.direction + (1e-12 * scale + 1e-300) * np.eye(d)
    right = (leverage * np.log(excess)) @ design.features
    t = _bounded(np.linalg.solve(gram, right[..., None])[..., 0], gram, right, design.lowest)
    owner = np.repeat(np.arange(tasks), len(grid))
    problems = Problems(design, targets, weights, owner, floor, t, delta)
    merit = (problems.loss(floor, t, slice(None), delta) + problems.penalty(t)).reshape(tasks, len(grid))
    best = np.sort(np.argsort(merit, axis=1, kind="stable")[:, :starts], axis=1)
    kept = (np.arange(tasks)[:, None] * len(grid) + best).ravel()
    return Problems(design, targets[kept], weights[kept], owner[kept], floor[kept], t[kept], delta)


def _bounded(t: Array, gram: Array, right: Array, lowest: Array) -> Array:
    """The least-squares solutions t (P, d) brought within their bounds, by steps that all coordinates take at once.

    Cutting them alone would leave the others where they answered what was cut, and a fit that starts with no residual
    within the Huber width has no curvature to go by. The row sums of |gram| bound it by a diagonal, so every step
    descends; and since no coordinate goes first, the order of domains does not matter.
    """
    if not np.isfinite(lowest).any():
        return t
    t = np.maximum(t, lowest)
    bound = np.abs(gram).sum(axis=2)
    for _ in range(PASSES):
        t = np.maximum(t - ((gram @ t[..., None])[..., 0] - right) / bound, lowest)
    return t
