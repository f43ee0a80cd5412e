"""How far a fit can be trusted: predictions out of fold, their scores, and where a proposal lies among the
runs.

In-sample correlations flatter a law with as many parameters as a third of its runs, so nothing here scores a
prediction of a run that the law was fitted on. Gives up: a verdict. A number is reported for each question
(is the order of unseen runs right, is the design of full rank, is the proposal near a run), and a person
decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from olmix.core.seeds import named_key
from olmix.errors import SwarmError

Array = NDArray[np.float64]


class Law(Protocol):
    """Anything that predicts BPB (..., n) at mixtures (..., m)."""

    def predict(self, mixtures: Array) -> Array:
        """BPB of each task."""


@dataclass(frozen=True)
class Scores:
    """Agreement of predictions with observations, for each task (n,) and for the weighted mean over tasks.

    Correlations are nan where either side is constant; rmse in BPB.
    """

    spearman: Array
    pearson: Array
    rmse: Array
    mean_spearman: float
    mean_pearson: float
    mean_rmse: float


@dataclass(frozen=True)
class DesignRank:
    """Numeric rank of the mixtures (K, m), and the ratio of their largest to their m-th singular value (inf
    if none).
    """

    rank: int
    condition: float


def folds_of(ids: Sequence[str], folds: int, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The order of runs by a hash of (seed, id), and the fold of each run, (K,); both independent of the row
    order.

    Folds differ in size by one at most. Raises SwarmError for repeated ids and for fewer runs than folds or
    folds < 2.
    """
    if len(set(ids)) != len(ids):
        repeated = sorted({name for name in ids if list(ids).count(name) > 1})
        raise SwarmError(f"run id {repeated[0]} is there {list(ids).count(repeated[0])} times; ids must be distinct")
    if not 2 <= folds <= len(ids):
        raise SwarmError(f"{len(ids)} runs cannot be split into {folds} folds; use 2 to {len(ids)}")
    order = np.array(sorted(range(len(ids)), key=lambda i: named_key("fold", seed, ids[i])), dtype=np.intp)
    fold = np.empty(len(ids), dtype=np.intp)
    fold[order] = np.arange(len(ids)) % folds
    return order, fold


def out_of_fold(
    fit: Callable[[Array, Array], Law],
    mixtures: Array,
    bpb: Array,
    folds: int = 5,
    *,
    seed: int,
    ids: Sequence[str] | None = None,
) -> Array:
    """BPB (K, n) of each run as predicted by `fit` on the other folds; mixtures (K, m), bpb (K, n).

    `ids` name the runs (row numbers by default): with them, neither folds nor predictions depend on the row
    order. Errors of `folds_of` and of `fit`.
    """
    names = [str(i) for i in range(len(mixtures))] if ids is None else list(ids)
    if not len(names) == len(mixtures) == len(bpb):
        raise SwarmError(f"{len(names)} run ids, {len(mixtures)} mixtures and {len(bpb)} rows of BPB do not match")
    order, fold = folds_of(names, folds, seed)
    predicted = np.empty(np.shape(bpb))
    for k in range(folds):
        train = order[fold[order] != k]
        test = fold == k
        predicted[test] = fit(mixtures[train], bpb[train]).predict(mixtures[test])
    return predicted


def scores(predicted: Array, observed: Array, weights: Array | None = None) -> Scores:
    """Spearman, Pearson and RMSE of predictions (K, n) against observations (K, n).

    `weights` (n,) of the mean over tasks, equal by default; they are divided by their sum.
    """
    w = np.ones(predicted.shape[1]) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.sum()
    means = (predicted @ w)[:, None], (observed @ w)[:, None]
    return Scores(
        spearman=_pearson(_ranks(predicted), _ranks(observed)),
        pearson=_pearson(predicted, observed),
        rmse=_rmse(predicted, observed),
        mean_spearman=float(_pearson(_ranks(means[0]), _ranks(means[1]))[0]),
        mean_pearson=float(_pearson(*means)[0]),
        mean_rmse=float(_rmse(*means)[0]),
    )


def design_rank(mixtures: Array) -> DesignRank:
    """Whether the runs' mixtures (K, m) can tell all m domains apart: a law is identified at full rank m
    only.
    """
    values = np.linalg.svd(np.asarray(mixtures, dtype=np.float64), compute_uv=False)
    rank = int((values > values[0] * max(np.shape(mixtures)) * np.finfo(np.float64).eps).sum())
    full = rank == np.shape(mixtures)[1]
    return DesignRank(rank, float(values[0] / values[-1]) if full else float("inf"))


def nearest(mixture: Array, mixtures: Array) -> tuple[int, float]:
    """The row of `mixtures` (K, m) nearest to `mixture` (m,), and their total variation (0 to 1)."""
    distances = np.abs(np.asarray(mixtures) - mixture).sum(axis=1) / 2
    row = int(distances.argmin())
    return row, float(distances[row])


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
        _, inverse, counts = np.unique(column, return_inverse=True, return_counts=True)
        last = np.cumsum(counts)
        ranks[:, j] = (last - (counts - 1) / 2)[inverse]
    return ranks
