"""How far a fit can be trusted: predictions out of fold, their scores, and where a proposal lies among the runs.

In-sample correlations flatter a law that has a parameter for every three runs, so no prediction is scored on a run that
the law was fitted on. Gives up: a verdict. Each question gets a number (are unseen runs ranked right, does the design
have full rank, is the proposal near a run), and a person decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.core.seeds import named_key
from olmix.errors import SwarmError
from olmix.laws.base import Law
from olmix.laws.observations import Observations, stack


@dataclass(frozen=True)
class Scores:
    """Agreement of predictions with observations, for each task (n,) and for the weighted mean over tasks.

    Correlations are nan where either side is constant; rmse in BPB; relative_error (n,): rmse over the standard
    deviation of what was observed.
    """

    spearman: Array
    pearson: Array
    rmse: Array
    relative_error: Array
    mean_spearman: float
    mean_pearson: float
    mean_rmse: float


@dataclass(frozen=True)
class DesignRank:
    """Numeric rank of the mixtures (K, m), and the ratio of their largest to their m-th singular value, inf if none."""

    rank: int
    condition: float


def folds_of(ids: Sequence[str], folds: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order of runs by a hash of (seed, id), and the fold of each run, (K,); both independent of the row order.

    Folds differ in size by one at most. Raises SwarmError for repeated ids, fewer runs than folds, and folds < 2.
    """
    if len(set(ids)) != len(ids):
        repeated = sorted({name for name in ids if list(ids).count(name) > 1})
        raise SwarmError(f"run id {repeated[0]} occurs {list(ids).count(repeated[0])} times; ids must be distinct")
    if not 2 <= folds <= len(ids):
        raise SwarmError(f"cannot split {len(ids)} runs into {folds} folds", way_out=f"use 2 to {len(ids)}")
    order = np.array(sorted(range(len(ids)), key=lambda i: named_key("fold", seed, ids[i])), dtype=np.intp)
    fold = np.empty(len(ids), dtype=np.intp)
    fold[order] = np.arange(len(ids)) % folds
    return order, fold


def out_of_fold(
    fit: Callable[[Observations], Law],
    observations: Observations,
    ids: Sequence[str],
    folds: int,
    seed: int,
    beside: Observations | None = None,
) -> Array:
    """BPB (K, n) of each run as predicted by `fit` on the other folds and on all runs `beside` them.

    `ids` (K,) name the runs: neither folds nor predictions depend on the row order. A task whose runs all fall into one
    fold is nan there. Errors of `folds_of` and of `fit`.
    """
    if len(ids) != len(observations.mixtures):
        raise SwarmError(f"{len(ids)} run ids and {len(observations.mixtures)} runs do not match")
    order, fold = folds_of(ids, folds, seed)
    predicted = np.full(observations.bpb.shape, np.nan)
    for k in range(folds):
        test = fold == k
        train = _training(observations, order[fold[order] != k], beside)
        known = np.flatnonzero((train.weights > 0).any(axis=0))
        law = fit(train.tasks(known))
        predicted[np.ix_(test, known)] = law.predict(observations.mixtures[test])
    return predicted


def _training(observations: Observations, rows: NDArray[np.intp], beside: Observations | None) -> Observations:
    parts = [
        Observations(observations.mixtures[rows], observations.bpb[rows], observations.weights[rows]),
        *([] if beside is None else [beside]),
    ]
    return stack(parts)


def scores(predicted: Array, observed: Array, weights: Array | None = None, seen: Array | None = None) -> Scores:
    """Spearman, Pearson and RMSE of predictions (K, n) against observations (K, n).

    `weights` (n,) of the mean over tasks, equal by default; they are divided by their sum. Where `seen` (K, n) is not
    positive, or nothing is predicted, the task is not scored, nor is the run's mean over tasks.
    """
    w = np.ones(predicted.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    there = np.isfinite(predicted) if seen is None else np.isfinite(predicted) & (seen > 0)
    whole = there[:, w > 0].all(axis=1)
    means = [(values[whole][:, w > 0] @ w[w > 0])[:, None] for values in (predicted, observed)]
    tasks = [_agreement(predicted, observed)] if there.all() else []
    if not tasks:
        tasks = [
            _agreement(predicted[rows, j : j + 1], observed[rows, j : j + 1]) for j, rows in enumerate(there.T.copy())
        ]
    spearman, pearson, rmse = (np.concatenate(parts) for parts in zip(*tasks, strict=True))
    mean = _agreement(*means)
    spread = np.array(
        [np.std(column[rows]) if rows.any() else np.nan for column, rows in zip(observed.T, there.T, strict=True)]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = rmse / spread
    return Scores(spearman, pearson, rmse, relative, float(mean[0][0]), float(mean[1][0]), float(mean[2][0]))


def design_rank(mixtures: Array) -> DesignRank:
    """Whether the runs' mixtures (K, m) can tell all m domains apart: a law is identified only at full rank m."""
    values = np.linalg.svd(np.asarray(mixtures, dtype=np.float64), compute_uv=False)
    rank = int((values > values[0] * max(np.shape(mixtures)) * np.finfo(np.float64).eps).sum())
    full = rank == np.shape(mixtures)[1]
    return DesignRank(rank, float(values[0] / values[-1]) if full else float("inf"))


def nearest(mixture: Array, mixtures: Array) -> tuple[int, float]:
    """The row of `mixtures` (K, m) nearest to `mixture` (m,), and their total variation (0 to 1)."""
    distances = np.abs(np.asarray(mixtures) - mixture).sum(axis=1) / 2
    row = int(distances.argmin())
    return row, float(distances[row])


def _agreement(predicted: Array, observed: Array) -> tuple[Array, Array, Array]:
    """Spearman, Pearson and RMSE of every column; nan where there are fewer than two rows."""
    if len(predicted) < 2:
        nothing = np.full(predicted.shape[1], np.nan)
        return nothing, nothing, nothing
    ranks = _ranks(predicted), _ranks(observed)
    return _pearson(*ranks), _pearson(predicted, observed), _rmse(predicted, observed)


def _rmse(predicted: Array, observed: Array) -> Array:
    error: Array = np.sqrt(np.mean((predicted - observed) ** 2, axis=0))
    return error


def _pearson(a: Array, b: Array) -> Array:
    # Rounding in the mean must not make a constant column look as if it varied.
    constant = (np.ptp(a, axis=0) == 0) | (np.ptp(b, axis=0) == 0)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = (a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    return np.where(constant, np.nan, np.clip(correlation, -1, 1))


def _ranks(values: Array) -> Array:
    """Ranks within each column, ties sharing their mean rank."""
    ranks = np.empty(values.shape)
    for j, column in enumerate(values.T):
        ordered = np.sort(column)
        ranks[:, j] = (np.searchsorted(ordered, column) + np.searchsorted(ordered, column, side="right") + 1) / 2
    return ranks
