"""Which law to trust for a swarm: repeated cross-validation inside its runs, and a learning curve.

A law is scored by what it predicts for runs it has not seen: the rank correlation of the tasks and that of their
weighted mean, in equal parts, less a quarter of the error relative to the spread of what was seen. Ranks are what a
choice between mixtures needs; with few runs they are noisy, and the error says more. (The quarter was settled on splits
of the public swarms that no table reports.) How sure a choice is, is read from resamples of the
runs over the same predictions. Gives up: a choice for each task, which costs more in noise than it wins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.core.seeds import generator, named_key
from olmix.errors import SwarmError
from olmix.fit.diagnostics import Scores, out_of_fold, scores
from olmix.laws.base import LawKind
from olmix.laws.observations import Observations

FOLDS, REPEATS = 5, 3
RESAMPLES = 100
ERROR_WEIGHT = 0.25


@dataclass(frozen=True)
class Assessment:
    """How a law predicts unseen runs: held_out (R, K, n) BPB of R repeats, and the scores of each repeat."""

    name: str
    held_out: Array
    repeats: tuple[Scores, ...]

    @property
    def score(self) -> float:
        """The mean over repeats of `combined`."""
        return float(np.mean([combined(s) for s in self.repeats]))

    @property
    def spearman(self) -> float:
        """Mean over tasks and repeats."""
        return float(np.mean([_mean(s.spearman) for s in self.repeats]))

    @property
    def mean_spearman(self) -> float:
        """That of the weighted mean BPB, mean over repeats; what is undefined counts 0."""
        return float(np.nan_to_num([s.mean_spearman for s in self.repeats]).mean())


@dataclass(frozen=True)
class Choice:
    """The chosen law, all assessments (best first), and how sure it is.

    margin: score of the best above that of the reference, with its standard error over resamples of the runs;
    confidence: the share of resamples in which the best scores above the reference; 1 when the reference is the best.
    """

    best: str
    reference: str
    assessments: tuple[Assessment, ...]
    margin: float
    standard_error: float
    confidence: float


def combined(score: Scores) -> float:
    """Half the mean of the tasks' rank correlations and half that of their weighted mean, less a quarter of the mean
    relative error; what is undefined counts 0. Above 1, the error of a constant, it counts 2 - 1 / error, so that no
    single task decides.
    """
    whole = score.mean_spearman if np.isfinite(score.mean_spearman) else 0.0
    error = np.nan_to_num(score.relative_error, nan=1.0, posinf=np.inf)
    error = np.where(error <= 1, error, 2 - 1 / np.maximum(error, 1.0))
    return (_mean(score.spearman) + whole) / 2 - ERROR_WEIGHT * float(error.mean())


def _mean(spearman: Array) -> float:
    return float(np.nan_to_num(spearman).mean())


def assess(
    kind: LawKind,
    observations: Observations,
    ids: Sequence[str],
    weights: Array,
    *,
    seed: int,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    beside: Observations | None = None,
) -> Assessment:
    """Repeated cross-validation of one law; weights (n,) of the tasks in the mean; `beside`: runs in every training.

    Raises SwarmError as folds do.
    """
    held_out = [
        out_of_fold(kind.fit, observations, ids, folds, named_key("repeat", seed, r) % 2**32, beside)
        for r in range(repeats)
    ]
    scored = tuple(scores(h, observations.bpb, weights, observations.weights) for h in held_out)
    return Assessment(kind.name, np.stack(held_out), scored)


def choose(
    kinds: Mapping[str, LawKind],
    reference: str,
    observations: Observations,
    ids: Sequence[str],
    weights: Array,
    *,
    seed: int,
    folds: int = FOLDS,
    repeats: int = REPEATS,
    beside: Observations | None = None,
    report: Callable[[str], None] = lambda name: None,
) -> Choice:
    """The law of `kinds` that predicts unseen runs best, and how far it is ahead of the law `reference`.

    `report` is called with the name of each law before its turn.
    """
    folds = min(folds, len(ids))
    assessments = []
    for name in sorted(kinds):
        report(name)
        assessments.append(
            assess(kinds[name], observations, ids, weights, seed=seed, folds=folds, repeats=repeats, beside=beside)
        )
    ranked = sorted(assessments, key=lambda a: (-a.score, a.name))
    base = next(a for a in assessments if a.name == reference)
    best = ranked[0] if ranked[0].score > base.score else base
    if best is base:
        return Choice(reference, reference, tuple(ranked), 0.0, 0.0, 1.0)
    ahead = [_ahead(best, base, observations, weights, seed, r) for r in range(RESAMPLES)]
    return Choice(
        best.name,
        reference,
        tuple(ranked),
        best.score - base.score,
        float(np.std(ahead, ddof=1)),
        float(np.mean(np.array(ahead) > 0)),
    )


def _ahead(best: Assessment, base: Assessment, observations: Observations, weights: Array, seed: int, r: int) -> float:
    """The margin on one resample of the runs."""
    runs = len(observations.bpb)
    rows = generator("choice", seed, r).integers(runs, size=runs)
    k = r % len(best.held_out)
    observed, seen = observations.bpb[rows], observations.weights[rows]
    first, second = (combined(scores(a.held_out[k][rows], observed, weights, seen)) for a in (best, base))
    return first - second


@dataclass(frozen=True)
class CurvePoint:
    """Held-out rank correlations at `runs` training runs, means over splits and their standard errors."""

    runs: int
    spearman: float
    spearman_error: float
    mean_spearman: float
    mean_spearman_error: float


@dataclass(frozen=True)
class Curve:
    """The learning curve of a law: its points, and the fall A n^-a of 1 - mean_spearman (nan with < 3 points)."""

    name: str
    points: tuple[CurvePoint, ...]
    amplitude: float
    rate: float

    def at(self, runs: float) -> float:
        """The extrapolated rank correlation of the mean BPB at `runs`."""
        return float(1 - self.amplitude * runs**-self.rate)


def curve_sizes(runs: int, domains: int) -> list[int]:
    """Sizes of a learning curve: up to six steps from half the number of domains to four fifths of the runs.

    Raises SwarmError when fewer than eight runs are there.
    """
    largest = int(0.8 * runs)
    if runs < 8:
        raise SwarmError(f"a learning curve needs at least 8 runs, not {runs}")
    least = min(max(4, domains // 2), largest)
    return sorted({round(least * (largest / least) ** (k / 5)) for k in range(6)})


def learning_curve(
    kind: LawKind, observations: Observations, ids: Sequence[str], weights: Array, *, seed: int, splits: int = 4
) -> Curve:
    """Held-out rank correlation against the number of training runs, over `splits` random splits a size.

    The splits go by the runs' ids (K,), not by their order. Raises SwarmError when fewer than eight runs are there.
    """
    runs, domains, _ = observations.shape
    points = []
    for size in curve_sizes(runs, domains):
        scored = []
        for k in range(splits):
            order = np.array(sorted(range(runs), key=lambda i: named_key("curve", seed, k, ids[i])), dtype=np.intp)
            train, test = order[:size], order[size:]
            known = np.flatnonzero((observations.weights[train] > 0).any(axis=0))
            law = kind.fit(observations.tasks(known).rows(train))
            predicted = np.full((len(test), len(weights)), np.nan)
            predicted[:, known] = law.predict(observations.mixtures[test])
            scored.append(scores(predicted, observations.bpb[test], weights, observations.weights[test]))
        tasks = np.array([_mean(s.spearman) for s in scored])
        means = np.nan_to_num(np.array([s.mean_spearman for s in scored]))
        error = 1 / np.sqrt(splits)
        points.append(
            CurvePoint(
                size,
                float(tasks.mean()),
                float(tasks.std(ddof=1) * error),
                float(means.mean()),
                float(means.std(ddof=1) * error),
            )
        )
    return Curve(kind.name, tuple(points), *_fall(points))


def _fall(points: Sequence[CurvePoint]) -> tuple[float, float]:
    """A and a of 1 - rho = A n^-a by least squares of the logarithms; a is not negative."""
    known = [(p.runs, 1 - p.mean_spearman) for p in points if 0 < p.mean_spearman < 1]
    if len(known) < 3:
        return float("nan"), float("nan")
    n, gap = np.log(np.array(known)).T
    rate = max(0.0, -float(np.polyfit(n, gap, 1)[0]))
    return float(np.exp(np.mean(gap + rate * n))), rate
