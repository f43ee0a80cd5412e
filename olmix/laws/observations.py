"""What a law is fitted to: K runs, each a mixture and its BPB on n tasks, with how much each of them counts.

A run that was made twice, an older swarm, a task that a run could not have learned: all of them are weights, one a
run and task, so that every law deals with them in the same way. Gives up: noise that the laws would have to tell from
weight; a run of weight 2 is a run that was seen twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.errors import SwarmError

RUN_SUM_TOLERANCE = 1e-2  # of a run's weights: tables of swarms carry three decimals at times
FARTHEST = 9.0  # standard deviations of a task from its mean that a prediction may reach


@dataclass(frozen=True)
class Observations:
    """mixtures (K, m), rows of sum 1; bpb (K, n), the mean of the task where a run is masked; weights (K, n), where 1
    is one run and 0 is masked, each column with a positive sum.
    """

    mixtures: Array
    bpb: Array
    weights: Array

    @property
    def shape(self) -> tuple[int, int, int]:
        """Runs K, domains m and tasks n."""
        return (*self.mixtures.shape, self.bpb.shape[1])

    @property
    def shares(self) -> Array:
        """Weights (K, n) divided by the sum of their task."""
        return np.asarray(self.weights / self.weights.sum(axis=0))

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which runs count for some task, (K,)."""
        return np.asarray((self.weights > 0).any(axis=1))

    @property
    def never_sampled(self) -> NDArray[np.bool_]:
        """Which domains have no weight in any run that counts, (m,)."""
        return np.asarray(~np.any(self.mixtures[self.counted] > 0, axis=0))

    @property
    def unseen(self) -> NDArray[np.bool_]:
        """Which domains have no weight in any run that counts for a task, (n, m)."""
        return np.asarray((self.weights > 0).T.astype(np.float64) @ (self.mixtures > 0) == 0)

    @property
    def average(self) -> Array:
        """The mean mixture of the runs of each task, (n, m)."""
        return np.asarray(self.shares.T @ self.mixtures)

    def rows(self, which: NDArray[np.intp] | NDArray[np.bool_]) -> Observations:
        """The observations of some runs; raises SwarmError when a task is left without a run."""
        return observe(self.mixtures[which], self.bpb[which], self.weights[which])

    def weighted(self, factors: Array) -> Observations:
        """The same runs, each counted `factors` (K,) times; raises SwarmError when a task is left without a run."""
        return observe(self.mixtures, self.bpb, self.weights * np.asarray(factors)[:, None])

    def groups(self) -> list[NDArray[np.intp]]:
        """Tasks whose runs count alike, each group an index array; most swarms are one group."""
        _, group = np.unique(self.weights, axis=1, return_inverse=True)
        return [np.flatnonzero(group == g) for g in range(int(group.max()) + 1)]

    def tasks(self, which: NDArray[np.intp]) -> Observations:
        """The observations of some tasks."""
        return replace(self, bpb=self.bpb[:, which], weights=self.weights[:, which])

    def bounds(self, least_margin: float = 0.0) -> tuple[Array, Array]:
        """The range of predictions of each task, (n,) and (n,), that these runs support.

        The observed range, widened on both sides by its own length (at least by `least_margin`), never below 0 and
        never farther than nine standard deviations from the mean.
        """
        seen = self.weights > 0
        low = np.where(seen, self.bpb, np.inf).min(axis=0)
        high = np.where(seen, self.bpb, -np.inf).max(axis=0)
        margin = np.maximum(high - low, least_margin)
        mean = (self.shares * self.bpb).sum(axis=0)
        spread = FARTHEST * np.sqrt((self.shares * (self.bpb - mean) ** 2).sum(axis=0))
        lower = np.maximum(np.maximum(low - margin, 0.0), mean - spread)
        return lower, np.minimum(high + margin, mean + spread)


def observe(mixtures: Array, bpb: Array, weights: Array | None = None, *, partial: bool = False) -> Observations:
    """Checked observations: mixtures (K, m), bpb (K, n), weights (K,) or (K, n), all 1 by default.

    Where a weight is 0 the BPB may be nan. Raises SwarmError, naming run and column, for shapes that do not match,
    values that are not finite or not positive, rows that do not sum to 1, and tasks without a run, unless these are
    `partial`: a part of what a law is fitted to.
    """
    x, y = np.array(mixtures, dtype=np.float64), np.array(bpb, dtype=np.float64)
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or 0 in x.shape or 0 in y.shape:
        raise SwarmError(f"a fit needs mixtures (runs, domains) and BPB (runs, tasks), not {x.shape} and {y.shape}")
    w = np.ones(len(x)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape not in (x.shape[:1], y.shape) or not np.isfinite(w).all() or (w < 0).any():
        raise SwarmError(f"run weights must be {len(x)} finite numbers >= 0, or one for each run and task")
    w = np.array(np.broadcast_to(w[:, None] if w.ndim == 1 else w, y.shape))
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise SwarmError(f"the mixture of run {row}, column {column} is {x[row, column]}, which is not finite")
    off = np.where((x < 0).any(axis=1), np.inf, np.abs(x.sum(axis=1) - 1))
    if off.max() > RUN_SUM_TOLERANCE:
        raise SwarmError(f"run {int(off.argmax())} has an invalid mixture: its weights must be >= 0 and sum to 1")
    bad = (w > 0) & ~(np.isfinite(y) & (y > 0))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise SwarmError(f"the BPB of run {row}, task {column} is {y[row, column]:g}, which is not positive and finite")
    total = w.sum(axis=0)
    if (total <= 0).any() and not partial:
        raise SwarmError(
            f"task {int(np.argmin(w.sum(axis=0)))} has no run: the sum of its run weights must be positive"
        )
    filled = np.where(w > 0, y, 0.0)
    mean = np.divide((w * filled).sum(axis=0), total, out=np.ones_like(total), where=total > 0)
    return Observations(x, np.where(w > 0, filled, mean), w)


def stack(parts: Sequence[Observations]) -> Observations:
    """All runs of `parts`, which share domains and tasks, in their order."""
    return Observations(
        np.concatenate([part.mixtures for part in parts]),
        np.concatenate([part.bpb for part in parts]),
        np.concatenate([part.weights for part in parts]),
    )
