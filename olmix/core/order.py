"""The order in which sequences are read: a plan that is known before the first step, not a stream.

A run reads `counts[i]` sequences of token set i. Which set comes next is a shuffle of labels; which of its
rows is a walk through permutations of them, a new one each epoch. Labels are drawn from a stream named by the
seed, rows from streams named by (seed, the set's identity, epoch). So repetition is exact and known up front,
any step can be taken up again, and neither names nor positions of sets nor workers matter; runs of one seed
read a set in the same order, so that their difference is the mixture. It costs memory: 12 bytes a sequence.

The virtual domain's set is drawn once and read by every run, so the walks through its members lie in the set:

    member a, rows walked    7 2 5 0 | 3 7 1 ...      every epoch is all of a's rows, shuffled
    member b, rows walked    4 1 3 ...
    the set, in order        a7 a2 b4 a5 b1 a0 a3 b3 a7 a1 ...

Members come in random order, as the sets of a run do, but keep their ratios along the way. So for every n the first n
rows hold each member's share, to a few rows, and of each member what a run that reads it directly would read: rows from
all over its sample, none a second time before all were read once. A run that wants n rows therefore reads the first n,
and its seed says at which of them it begins.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from olmix.core.seeds import generator
from olmix.errors import TrainingError

# The part of a set over which the order of its members is random: longer than a batch of any run of 16 steps.
STRETCH = 1 / 16


def plan_order(
    counts: Sequence[int],
    rows: Sequence[int],
    identities: Sequence[str],
    seed: int,
    in_order: Collection[str] = (),
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """For every sequence of a run, in order: the index of its token set, and the row in it; both (sum of
    counts,).

    `counts` are sequences to read of each set, `rows` the sequences it has, `identities` its content digest,
    `in_order` the identities of sets whose first rows are read as they lie. Sets of one identity are one content
    under several names: they share a walk, whichever of them a sequence is counted for. Raises TrainingError when a
    set that must be read has no rows.
    """
    for identity, count, available in zip(identities, counts, rows, strict=True):
        if count < 0 or (count and not available):
            raise TrainingError(
                f"token set {identity}: cannot read {count} sequences, it has {available}", way_out="run `dvc repro`"
            )
    by_identity = sorted(range(len(counts)), key=lambda i: identities[i])
    labels = np.repeat(np.array(by_identity, dtype=np.int32), [counts[i] for i in by_identity])
    labels = generator("proxy", "order", seed, "labels").permutation(labels)

    walked = np.empty(len(labels), dtype=np.int64)
    for identity in sorted(set(identities)):
        same = [i for i in by_identity if identities[i] == identity]
        places = np.flatnonzero(np.isin(labels, same))
        if len(places):
            names = ("proxy", "order", seed, "rows", identity)
            way = _rotated if identity in in_order else walk
            walked[places] = way(rows[same[0]], len(places), *names)
    return labels, walked


def walk(rows: int, count: int, *names: str | int) -> NDArray[np.int64]:
    """`count` of `rows` rows, (count,): permutations of all of them, one after another, from streams named `names`."""
    epochs = -(-count // rows)
    permutations = [generator(*names, epoch).permutation(rows) for epoch in range(epochs)]
    return np.concatenate(permutations)[:count] if permutations else np.empty(0, dtype=np.int64)


def _rotated(rows: int, count: int, *names: str | int) -> NDArray[np.int64]:
    """The first `count` of `rows` rows as they lie, (count,), rotated to begin at a row that `names` draw."""
    start = int(generator(*names).random() * count)
    return (start + np.arange(count)) % count % rows


def even_order(counts: Sequence[int], identities: Sequence[str]) -> NDArray[np.int64]:
    """For every sequence of a set that `counts[i]` sequences of member i make, in order: its member, (sum of counts,).

    Within any sixteenth of the set (STRETCH) the order is as good as random, so batches vary as much as those of a run
    that shuffles. Over longer parts members keep their ratios: the first n sequences hold n counts[i] / sum(counts) of
    member i, give or take a few. The random streams are named by the members' identities.
    """
    sizes = np.asarray(counts, dtype=np.int64)
    places = []
    for size, identity in zip(sizes, identities, strict=True):
        stream = generator("virtual", "order", identity)
        places.append((np.arange(size) + stream.random()) / max(size, 1) + stream.random(size) * STRETCH)
    members = np.repeat(np.arange(len(sizes)), sizes)
    return members[np.argsort(np.concatenate(places), kind="stable")]
