"""Several swarms in one fit: how much the runs of an older swarm count, found by cross-validation on the newest one.

A run stays evidence as long as the content of every domain it drew from is unchanged. So an older swarm joins over
the union of the domains (zeros for those that a run did not know), counts with one weight a run, and may be off by a
constant a task (other proxies, another tokeniser). Weight and offset are those under which unseen runs of the newest
swarm are predicted best; weight 0 is among them, so that a swarm that hurts is left out. Gives up: a weight for each
old run, and trying all combinations of several swarms (they are settled one after another, in the order given).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.core.seeds import named_key
from olmix.fit.diagnostics import out_of_fold, scores
from olmix.fit.selection import combined
from olmix.laws.base import Law, LawKind
from olmix.laws.observations import Observations, stack

WEIGHTS = (0.1, 0.3, 1.0)
FOLDS, REPEATS = 5, 2
BACKFITTINGS = 3
# Of what the score lacks of 1: a smaller gain is the luck of the folds, which an old swarm of noise has as well.
LEAST_GAIN = 0.05
LEAST_SHIFTED = 0.01  # of an old BPB, what is left of it after any offset


@dataclass(frozen=True)
class Older:
    """An older swarm as it joins: its runs over the union of domains, shifted and weighted; weight 0 leaves it out.

    offsets (n,): what was taken from its BPB on each task, 0 where nothing was. scores: `selection.combined` on
    unseen runs of the newest swarm for every weight that was tried, offsets without and with.
    """

    observations: Observations
    weight: float
    offsets: Array
    scores: tuple[tuple[float, bool, float], ...]


def join(
    kind: LawKind,
    newest: Observations,
    older: Sequence[Observations],
    ids: Sequence[str],
    task_weights: Array,
    *,
    seed: int,
    report: Callable[[str], None] = lambda what: None,
) -> tuple[Older, ...]:
    """How each of `older` joins `newest`, over the same domains and tasks; ids (K,) name the newest runs."""
    joined: list[Older] = []
    for number, swarm in enumerate(older):
        before = [o.observations for o in joined if o.weight > 0]

        def score(
            weight: float, shifted: bool, before: list[Observations] = before, swarm: Observations = swarm
        ) -> float:
            beside = [*before, _counted(swarm, weight)] if weight else before
            fit = _shifting(kind, len(swarm.mixtures)) if shifted else kind.fit
            return _score(fit, newest, stack(beside) if beside else None, ids, task_weights, seed)

        report(f"swarm {number + 1} of {len(older)}")
        tried = [(0.0, False, score(0.0, False))]
        tried += [(weight, False, score(weight, False)) for weight in WEIGHTS]
        best = max(tried[1:], key=lambda t: t[2])
        tried.append((best[0], True, score(best[0], True)))
        if tried[-1][2] > max(t[2] for t in tried[:-1]):
            tried += [(weight, True, score(weight, True)) for weight in WEIGHTS if weight != best[0]]
        weight, shifted, reached = max(tried[1:], key=lambda t: (t[2], t[0], not t[1]))
        if reached < tried[0][2] + LEAST_GAIN * (1 - tried[0][2]):
            weight, shifted = 0.0, False
        old = _counted(swarm, weight or 1.0)
        offsets = np.zeros(newest.bpb.shape[1])
        if shifted:
            whole = stack([newest, *before, old])
            measured = (old.weights > 0).any(axis=0)
            offsets = np.where(measured, _offsets(kind, whole, len(old.mixtures))[0], 0.0)
        joined.append(Older(_shifted(old, offsets), weight, offsets, tuple(tried)))
    return tuple(joined)


def _score(
    fit: Callable[[Observations], Law],
    newest: Observations,
    beside: Observations | None,
    ids: Sequence[str],
    task_weights: Array,
    seed: int,
) -> float:
    folds = min(FOLDS, len(ids))
    held_out = [
        out_of_fold(fit, newest, ids, folds, named_key("join", seed, r) % 2**32, beside) for r in range(REPEATS)
    ]
    return float(np.mean([combined(scores(h, newest.bpb, task_weights, newest.weights)) for h in held_out]))


def _counted(swarm: Observations, weight: float) -> Observations:
    return replace(swarm, weights=swarm.weights * weight)


def _shifted(swarm: Observations, offsets: Array) -> Observations:
    return replace(swarm, bpb=np.maximum(swarm.bpb - offsets, LEAST_SHIFTED * swarm.bpb))


def _shifting(kind: LawKind, old: int) -> Callable[[Observations], Law]:
    """A fit whose last `old` runs are off by a constant a task that is fitted too."""
    return lambda observations: _offsets(kind, observations, old)[1]


def _offsets(kind: LawKind, observations: Observations, old: int) -> tuple[Array, Law]:
    """The offsets (n,) of the last `old` runs, and the law without them, by alternating fits.

    The law takes its share of any offset, so that each pass finds only a part of what is left.
    """
    split = len(observations.mixtures) - old
    last = np.arange(len(observations.mixtures)) >= split
    offsets = np.zeros(observations.bpb.shape[1])
    law = kind.fit(observations)
    for _ in range(BACKFITTINGS):
        shifted = np.where(last[:, None], observations.bpb - offsets, observations.bpb)
        residual = shifted - law.predict(observations.mixtures)
        offsets = offsets + _mean(residual, observations.weights, last) - _mean(residual, observations.weights, ~last)
        moved = np.where(last[:, None], _shifted(observations, offsets).bpb, observations.bpb)
        law = kind.fit(replace(observations, bpb=moved))
    return offsets, law


def _mean(residual: Array, weights: Array, rows: NDArray[np.bool_]) -> Array:
    """The weighted mean residual of each task over some runs, 0 where none of them counts."""
    total = weights[rows].sum(axis=0)
    return np.asarray((weights[rows] * residual[rows]).sum(axis=0) / np.where(total > 0, total, 1.0))
