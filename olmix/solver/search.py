"""The proposal for laws that are not convex: a search over the capped simplex for the least weighted mean of
law(q) + kl sum_i q_i log(q_i / reference_i).

Every observed run, the reference, and draws around the best of them are scored; the best few, of different kinds, are
then improved in two ways that take turns. A *glide* follows the slopes of the law, measured by finite differences, with
the KL term and the caps kept exact, along all step lengths and momenta of a grid at once: on a smooth law it converges
in some tens of turns. *Moves* shift mass from one domain to another, or scale one domain, with a step that shrinks
until none helps: on a law of steps, such as trees or the nearest run, they are what finds a better cell. All of it is
scored in batches, since a law predicts a thousand mixtures in little more time than one.

Gives up: a certificate. On 400 random convex laws the answer was within 2e-10 BPB of the certified optimum; elsewhere
it is only known to be no worse than every observed run that meets the caps, and that no move by 1e-6 improves it.
Trees are slow: 52 boosted tasks over 24 domains take 4 to 30 s, where a Gaussian process takes 1 to 3 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from olmix.core.arrays import Array
from olmix.core.limits import at_cap
from olmix.core.seeds import generator
from olmix.errors import SolverError, SwarmError
from olmix.solver.certified import Solution, require_problem
from olmix.solver.objective import task_weights as normalised
from olmix.solver.projection import kl_projection

BATCH_ROWS = 1024  # mixtures that the law predicts at once
CONCENTRATIONS = (6.0, 60.0, 600.0)  # of the draws, one round each
CENTRES, DRAWS, BLENDS = 8, 48, 128  # a round draws 48 times around each of 8 centres, and blends them 128 times
STARTS, APART = 4, 0.05  # starts of the local stage, and the least L1 distance between two
STEPS = tuple(0.25 / 4**k for k in range(10))  # of a move, in shares: from 0.25 to 1e-6
LENGTHS, MOMENTA = 4.0 ** np.arange(-8, 4), (0.0, 0.5, 1.0, 2.0)
COARSE, FINISHED = 5, 2  # after the steps down to 1e-3 only the best two starts go on
GLIDES = 200
DIFFERENCE = 1e-4  # share added to a domain to measure a slope
PAIRS = 4096  # the most pairs of domains that one turn of moves tries, all of them up to 64 domains
GAIN = 1e-12  # BPB below which nothing has improved
SAME = 1e-4  # L1 distance at which a start has reached an optimum that is known
TINY = 1e-250  # of the largest weight; what is less is absent
FLOOR = 1e-200  # weight of an absent domain that has to hold what the caps of the others do not let in
LEAST = 1e-12  # share of the reference from which an absent domain begins to glide


class Predictor(Protocol):
    """What is searched: anything that predicts n tasks."""

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at mixtures (..., d)."""


def search(
    law: Predictor,
    *,
    task_weights: Array | None,
    reference: Array,
    kl: float,
    caps: Array,
    observed: Array,
    seed: int,
) -> Solution:
    """A mixture of low task_weights . law.predict(q) + kl sum q log(q / reference) over q >= 0, sum q = 1, q <= caps.

    task_weights (n,) >= 0, equal when None, normalised; reference (d,) > 0, of any sum; kl >= 0; caps (d,) >= 0, where
    1 and more is no cap; observed (K, d): the mixtures of the runs, of which a run that meets the caps is never better
    than the answer. Deterministic for a seed, whatever the order of the runs. Raises InfeasibleError and SolverError as
    `certified.solve` does, SolverError too where the law is not finite, and SwarmError for runs that are no
    mixtures and task weights that are none.
    """
    prior, limits = np.asarray(reference, np.float64), np.asarray(caps, np.float64)
    reach = require_problem(prior, kl, limits)
    upper = np.minimum(limits, 1.0)
    scored = _Scored(law, task_weights, prior, kl)
    runs = _mixtures(observed, len(prior))
    only = reach <= 1 + 1e-12  # one feasible mixture, but for rounding
    best = scored.point(upper) if only else _Search(scored, upper, prior / prior.sum(), seed).best(runs)
    return Solution(
        weights=best.weights,
        objective=best.value,
        predicted=best.predicted,
        capped=at_cap(best.weights, limits),
        steps=scored.count,
        certificate=None,
    )


def within(weights: Array, caps: Array, reference: Array) -> Array:
    """The mixtures under `caps` that are nearest to `weights` in KL(q || weights), (B, d).

    weights (B, d) >= 0, of any positive sum, where less than 1e-250 of the largest is 0; caps (d,) <= 1, which sum to
    more than 1. Where the domains with weight cannot hold a whole mixture they are at their caps, and the others share
    the rest as `reference` (d,) > 0 does.
    """
    w = np.where(caps > 0, weights / weights.max(axis=1, keepdims=True), 0.0)
    w[w < TINY] = 0.0
    short = (caps * (w > 0)).sum(axis=1) < 1 + 1e-12
    w[short] = np.maximum(w[short], np.where(caps > 0, FLOOR * reference, 0.0))
    with np.errstate(divide="ignore"):
        return kl_projection(np.log(w), caps)[0]


def transferred(mixtures: Array, gives: NDArray[np.intp], takes: NDArray[np.intp], step: float, caps: Array) -> Array:
    """`mixtures` (B, d) under `caps` (d,) after, in each, up to `step` went from domain `gives` (B,) to `takes` (B,).

    As much as the one has and the other has room for; a weight that fills its cap equals it.
    """
    moved, rows = mixtures.copy(), np.arange(len(mixtures))
    given, room = mixtures[rows, gives], caps[takes] - mixtures[rows, takes]
    amount = np.minimum(np.minimum(step, given), room)
    moved[rows, gives] = given - amount
    # q + (cap - q) rounds to more or less than the cap in 2 cases of 100.
    moved[rows, takes] = np.where(amount >= room, caps[takes], mixtures[rows, takes] + amount)
    return moved


def _mixtures(observed: ArrayLike, domains: int) -> Array:
    """The distinct runs, (k, d), in an order of their own."""
    runs = np.asarray(observed, dtype=np.float64)
    if runs.ndim != 2 or runs.shape[1] != domains:
        raise SwarmError(f"the search needs runs (runs, {domains}), not {runs.shape}")
    totals = runs.sum(axis=1)
    bad = ~np.isfinite(runs).all(axis=1) | (runs < 0).any(axis=1) | ~(totals > 0)
    if bad.any():
        raise SwarmError(f"run {int(np.argmax(bad))} has an invalid mixture: its weights must be finite and >= 0")
    # A run that sums to 1 stays as it is, bit for bit.
    exact = np.abs(totals - 1) <= 1e-12
    return np.unique(np.where(exact[:, None], runs, runs / totals[:, None]), axis=0)


@dataclass(frozen=True)
class _Point:
    weights: Array
    value: float
    predicted: Array


@dataclass
class _Scored:
    """The function to minimise, and how many mixtures it was asked for."""

    law: Predictor
    task_weights: Array | None
    reference: Array
    kl: float
    count: int = 0

    def mean(self, mixtures: Array) -> Array:
        """The weighted mean BPB of `mixtures` (B, d), without the KL term, (B,)."""
        parts = [mixtures[i : i + BATCH_ROWS] for i in range(0, len(mixtures), BATCH_ROWS)]
        return np.concatenate([self._weighted(self._predicted(part)) for part in parts])

    def values(self, mixtures: Array) -> Array:
        """The objective of `mixtures` (B, d), (B,)."""
        return np.asarray(self.mean(mixtures) + self.kl * scipy.special.rel_entr(mixtures, self.reference).sum(axis=1))

    def point(self, mixture: Array) -> _Point:
        """`mixture` scored on its own: what the law says there may differ in the last bit in a batch."""
        predicted = self._predicted(mixture[None])[0]
        entropy = float(scipy.special.rel_entr(mixture, self.reference).sum())
        return _Point(mixture, float(self._weighted(predicted)) + self.kl * entropy, predicted)

    def _weighted(self, predicted: Array) -> Array:
        return np.asarray(predicted @ normalised(predicted.shape[-1], self.task_weights))

    def _predicted(self, mixtures: Array) -> Array:
        predicted = np.asarray(self.law.predict(mixtures), dtype=np.float64)
        self.count += len(mixtures)
        if not np.isfinite(predicted).all():
            raise SolverError(
                "the law is not finite inside the simplex", way_out="refit it with more runs, or use another law"
            )
        return predicted


@dataclass
class _Search:
    scored: _Scored
    caps: Array
    reference: Array
    seed: int

    def best(self, runs: Array) -> _Point:
        """The best optimum of all starts."""
        found = [self.scored.point(mixture) for mixture in self._starts(runs)]
        for steps, kept in ((STEPS[:COARSE], FINISHED), (STEPS[COARSE:], 1)):
            improved: list[_Point] = []
            for start in found:
                point = self._improved(start, steps, improved)
                improved += [point] if point is not None else []
            found = sorted(improved, key=lambda optimum: optimum.value)[:kept]
        return found[0]

    def _starts(self, runs: Array) -> Array:
        """The best run, the reference, and the best of all candidates, those that differ."""
        feasible = (runs <= self.caps).all(axis=1)
        pool = np.concatenate([runs[feasible], self._within(runs[~feasible]), self._within(self.reference[None])])
        values, n = self.scored.values(pool), len(pool)
        for place, concentration in enumerate(CONCENTRATIONS):
            drawn = self._drawn(pool[np.argsort(values, kind="stable")[:CENTRES]], place, concentration)
            pool = np.concatenate([pool, drawn])
            values = np.concatenate([values, self.scored.values(drawn)])
        order = [int(i) for i in np.argsort(values, kind="stable")]
        chosen = [order[0]]
        # The best run whatever the draws are like: it may lie at the rim of a basin that no draw falls into.
        chosen += [i for i in order if i < n - 1][:1]
        for i in [*order, n - 1]:
            far = np.abs(pool[chosen] - pool[i]).sum(axis=1).min() >= APART
            if far and (len(chosen) < STARTS or i == n - 1):
                chosen.append(i)
        return pool[list(dict.fromkeys(chosen))]

    def _drawn(self, centres: Array, place: int, concentration: float) -> Array:
        """Dirichlet draws around each centre and the reference, and blends of all of them, under the caps."""
        draws = generator("search", self.seed, place)
        reference = self._within(self.reference[None])
        middles = np.concatenate([centres, reference])
        # A little of the reference in each: an absent domain can come back.
        shape = concentration * (0.9 * middles + 0.1 * reference)
        around = draws.standard_gamma(np.repeat(shape, DRAWS, axis=0))
        blends = draws.dirichlet(np.full(len(middles), 0.5), size=BLENDS) @ middles
        return self._within(np.concatenate([around, blends]))

    def _within(self, weights: Array) -> Array:
        return within(weights, self.caps, self.reference)

    def _improved(self, point: _Point, steps: tuple[float, ...], known: list[_Point]) -> _Point | None:
        """Glides and moves until neither helps; None where that leads to a point that is known."""
        for step in steps:
            moved: _Point | None = point
            while moved is not None:
                point = self._glided(moved)
                if any(np.abs(other.weights - point.weights).sum() <= SAME for other in known):
                    return None
                moved = self._moved(point, step)
        return point

    def _better(self, point: _Point, mixtures: Array) -> _Point | None:
        """The best of `mixtures` (B, d), or None when it is not better than `point`."""
        values = self.scored.values(mixtures)
        i = int(np.argmin(values))
        if values[i] >= point.value - GAIN:
            return None
        found = self.scored.point(self._settled(mixtures[i]))
        return found if found.value < point.value - GAIN else None

    def _settled(self, mixture: Array) -> Array:
        """`mixture` with the rounding of its sum given to the weight that is farthest from its bounds."""
        settled = mixture.copy()
        i = int(np.argmax(np.minimum(self.caps - mixture, mixture)))
        settled[i] = min(max(mixture[i] + (1.0 - mixture.sum()), 0.0), self.caps[i])
        return settled

    def _glided(self, point: _Point) -> _Point:
        """The end of a descent along the slopes of the law."""
        before = self._logarithm(point.weights)
        for _ in range(GLIDES):
            now, slopes = self._logarithm(point.weights), self._slopes(point.weights)
            spread = float(np.ptp(slopes[self.caps > 0]))
            kl = self.scored.kl
            # argmin over q of slopes . q + kl KL(q || reference) + KL(q || now) / length, before the caps.
            lengths = (LENGTHS / max(kl, spread, 1e-9))[:, None]
            aims = (now + lengths * (kl * np.log(self.reference) - slopes)) / (1 + lengths * kl)
            paths = np.concatenate([aims + momentum * (now - before) for momentum in MOMENTA])
            paths -= paths[:, self.caps > 0].max(axis=1, keepdims=True)
            found = self._better(point, self._within(np.exp(np.minimum(paths, 0.0))))
            if found is None:
                return point
            before, point = now, found
        return point

    def _logarithm(self, mixture: Array) -> Array:
        return np.log(np.maximum(mixture, LEAST * self.reference))

    def _slopes(self, mixture: Array) -> Array:
        """The derivative of the law towards each domain, (d,), to second order."""
        h = DIFFERENCE
        pure = np.eye(len(mixture))
        rows = np.concatenate([mixture[None], (1 - h) * mixture + h * pure, (1 - 2 * h) * mixture + 2 * h * pure])
        means = self.scored.mean(rows)
        near, far = means[1:].reshape(2, -1)
        return np.asarray((4 * near - far - 3 * means[0]) / (2 * h))

    def _moved(self, point: _Point, step: float) -> _Point | None:
        """The best of the moves of one step, and of the best several of them together."""
        q = point.weights
        gives, takes = np.nonzero(~np.eye(len(q), dtype=bool) & (q > 0)[:, None] & (q < self.caps)[None, :])
        if len(gives) > PAIRS:
            some = np.sort(generator("search", "pairs", self.seed, str(step)).permutation(len(gives))[:PAIRS])
            gives, takes = gives[some], takes[some]
        moved = transferred(np.tile(q, (len(gives), 1)), gives, takes, step, self.caps)
        values = self.scored.values(moved)
        # One domain moves once at most, so the moves fit together.
        joint: list[Array] = []
        used = np.zeros(len(q), dtype=bool)
        for i in np.argsort(values, kind="stable"):
            if values[i] >= point.value - GAIN:
                break
            if not used[[gives[i], takes[i]]].any():
                used[[gives[i], takes[i]]] = True
                before = joint[-1] if joint else q
                joint.append(transferred(before[None], gives[[i]], takes[[i]], step, self.caps)[0])
        factors = np.concatenate([s * np.eye(len(q)) for s in (step, -step, 8 * step)])
        return self._better(point, np.concatenate([*(row[None] for row in joint), self._within(q * np.exp(factors))]))
