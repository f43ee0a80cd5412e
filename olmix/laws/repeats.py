"""Runs of one mixture that were made more than once: one observation that counts as often, and the noise they show.

Averaging loses nothing for a fit by squares, and little for a Huber loss; it keeps repeats of a run out of the folds
that are to test it. Gives up: noise that depends on the mixture; it is pooled over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.laws.observations import Observations, observe

SAME_DECIMALS = 9


@dataclass(frozen=True)
class Repeats:
    """Observations with one row a distinct mixture, its first id in sorted order, and what the repeats say.

    counts (K',): runs behind each row; noise (n,): standard deviation of one run about its mixture's mean, in BPB, nan
    where no mixture was repeated; freedom (n,): the degrees of freedom behind it.
    """

    observations: Observations
    ids: tuple[str, ...]
    counts: Array
    noise: Array
    freedom: Array


def merge_repeats(observations: Observations, ids: Sequence[str]) -> Repeats:
    """Average the runs that share a mixture (to nine decimals), in the order in which the mixtures come."""
    x, y, w = observations.mixtures, observations.bpb, observations.weights
    _, first, group = np.unique(np.round(x, SAME_DECIMALS), axis=0, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first, kind="stable"), kind="stable")[group.ravel()]
    distinct = len(first)
    total = np.zeros((distinct, y.shape[1]))
    np.add.at(total, place, w)
    weighted = np.zeros_like(total)
    np.add.at(weighted, place, w * y)
    mean = np.divide(weighted, total, out=np.full_like(total, np.nan), where=total > 0)
    squares = (np.where(w > 0, y - mean[place], 0.0) ** 2).sum(axis=0)
    there = np.zeros_like(total)
    np.add.at(there, place, (w > 0).astype(np.float64))
    freedom = np.maximum(there - 1, 0).sum(axis=0)
    noise = np.sqrt(np.divide(squares, freedom, out=np.full(y.shape[1], np.nan), where=freedom > 0))
    names = [min(ids[int(i)] for i in np.flatnonzero(place == g)) for g in range(distinct)]
    merged = observe(x[np.sort(first)], mean, total, partial=True)
    return Repeats(merged, tuple(names), np.bincount(place, minlength=distinct).astype(np.float64), noise, freedom)
