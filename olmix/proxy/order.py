"""The data order of a run: a plan that is known before the first step, not a stream.

The run reads `counts[i]` sequences of token set i. Which set comes next is a shuffle of labels; which of its
rows is a walk through permutations of them, a new one each epoch. Labels are drawn from a stream named by the
seed, rows from streams named by (seed, the set's identity, epoch). So repetition is exact and known up front,
any step can be taken up again, and neither names nor positions of sets nor workers matter; runs of one seed
read a set in the same order, so that their difference is the mixture. It costs memory: 12 bytes a sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from olmix.core.seeds import generator
from olmix.errors import TrainingError


def plan_order(
    counts: Sequence[int], rows: Sequence[int], identities: Sequence[str], seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """For every sequence of a run, in order: the index of its token set, and the row in it; both (sum of
    counts,).

    `counts` are sequences to read of each set, `rows` the sequences it has, `identities` its content digest.
    Sets of one identity are one content under several names: they share a walk, whichever of them a sequence
    is counted for. Raises TrainingError when a set that must be read has no rows.
    """
    for identity, count, available in zip(identities, counts, rows, strict=True):
        if count < 0 or (count and not available):
            raise TrainingError(f"token set {identity}: cannot read {count} sequences of {available}; run dvc repro")
    by_identity = sorted(range(len(counts)), key=lambda i: identities[i])
    labels = np.repeat(np.array(by_identity, dtype=np.int32), [counts[i] for i in by_identity])
    labels = generator("proxy", "order", seed, "labels").permutation(labels)

    walked = np.empty(len(labels), dtype=np.int64)
    for identity in sorted(set(identities)):
        same = [i for i in by_identity if identities[i] == identity]
        places = np.flatnonzero(np.isin(labels, same))
        if len(places):
            walked[places] = _walk(identity, rows[same[0]], len(places), seed)
    return labels, walked


def _walk(identity: str, rows: int, count: int, seed: int) -> NDArray[np.int64]:
    """`count` rows of a set: permutations of all its rows, one after another."""
    epochs = -(-count // rows)
    walk = [generator("proxy", "order", seed, "rows", identity, epoch).permutation(rows) for epoch in range(epochs)]
    return np.concatenate(walk)[:count]
