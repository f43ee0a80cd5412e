"""How far a proposal can be trusted: what the runs, other laws, the design and the caps say about it.

Each number answers one question and none is a verdict: how far would the proposal move with other runs (bootstrap) or
another law (spread across laws), does the swarm reach that far (leverage, nearest run), does the law promise more than
any run has shown (mirage), and what do the caps cost (prices)? Gives up: a probability that the proposal is good; only
training it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.fit.diagnostics import nearest
from olmix.fit.fitting import SwarmFit
from olmix.fit.proposing import best_mixture
from olmix.laws.base import ConvexLaw, Law, LawKind
from olmix.solver.certified import Solution

LOW, HIGH = 0.05, 0.95
ROUNDING = 1e-9
# Limits of doubt: the rank correlation of the mean BPB, total variation by resampling, share outside of the runs.
LEAST_RANK, MOST_MOVED, MOST_OUTSIDE = 0.8, 0.1, 0.05
QUESTIONS = 8


@dataclass(frozen=True)
class Problem:
    """What a proposal minimises: task_weights (n,) of sum 1, reference (m,), kl in BPB, caps (m,).

    baseline (m,): the mixture that a gain is measured against, None for no gain.
    """

    task_weights: Array
    reference: Array
    kl: float
    caps: Array
    baseline: Array | None

    def best(self, law: Law, observed: Array, caps: Array | None = None) -> Solution:
        """The best mixture of a law."""
        return best_mixture(
            law,
            task_weights=self.task_weights,
            reference=self.reference,
            kl=self.kl,
            caps=self.caps if caps is None else caps,
            observed=observed,
        )

    def mean(self, law: Law, mixture: Array) -> float:
        """The predicted mean BPB of a mixture."""
        return float(law.predict(mixture) @ self.task_weights)


@dataclass(frozen=True)
class Interval:
    """An estimate, its standard error, and its 5 to 95% interval, from bootstrap replicates; nan without them.

    The interval is the estimate plus the distance of each percentile of the replicates from their median: a resample
    holds fewer distinct runs, so its law is steeper and its estimates are shifted; only their spread says anything.
    """

    value: float
    standard_error: float
    low: float
    high: float


@dataclass(frozen=True)
class OtherLaw:
    """What another law predicts for the proposal, BPB and gain (None without a baseline), and how far its own one is.

    distance: total variation between the two proposals, None for a law that would have to be searched.
    """

    name: str
    bpb: float
    gain: float | None
    distance: float | None


@dataclass(frozen=True)
class Trust:
    """What is known about a proposal over m coordinates; BPB is the weighted mean over tasks."""

    proposal: Solution
    """The best mixture under the caps."""
    unconstrained: Solution
    """The best mixture without them."""
    mean_bpb: dict[str, Interval]
    """Predicted BPB of "proposal", "unconstrained" and, where the problem has one, "baseline"."""
    gain: Interval | None
    """Predicted BPB of the baseline minus that of the proposal; None without a baseline."""
    weights_low: Array | None
    """The 5% end of each weight (m,) over the replicates' proposals, within the caps; None for a searched law."""
    weights_high: Array | None
    """The 95% end."""
    moved: float | None
    """Median total variation between the proposal and those of the replicates; None for a searched law."""
    laws: tuple[OtherLaw, ...]
    """What other laws predict."""
    leverage: float
    """q (X'X)^-1 q of the proposal q, for the runs' mixtures X."""
    unsupported: float
    """L1 norm of the part of the proposal in directions that the runs never varied."""
    largest_leverage: float
    """The largest leverage of a run."""
    nearest_run: str
    """The run whose mixture is nearest to the proposal."""
    distance: float
    """Total variation between the two."""
    best_run: str | None
    """The run with the lowest observed BPB; None when no run has every task."""
    best_bpb: float
    """Its BPB; inf when there is none."""
    error: float
    """Out-of-fold RMSE of the BPB."""
    mirage: bool
    """Whether the proposal is predicted to beat every run by more than that error."""

    def doubts(self, fit: SwarmFit) -> tuple[str, ...]:
        """The reasons not to believe the proposal, in a few words each; docs/fit.md lists the questions and limits."""
        gain = self.gain.value if self.gain is not None else 0.0
        others = [law.gain for law in self.laws if law.gain is not None]
        spread = max(gain, *others) - min(gain, *others) if others else 0.0
        ranked, beyond = fit.scores.mean_spearman, self.leverage > self.largest_leverage
        asked = {
            f"unseen runs are ranked poorly (Spearman {ranked:.2f})": not ranked >= LEAST_RANK,
            "the gain may be 0": self.gain is not None and self.gain.low <= 0,
            f"resampling the runs moves it by {self.moved or 0:.2f}": (self.moved or 0.0) > MOST_MOVED,
            "another law predicts a loss": self.gain is not None and min(others, default=1.0) <= 0,
            f"the laws disagree by {spread:#.2g} on a gain of {gain:#.2g}": spread > max(gain, 0.0),
            "the runs cannot tell all domains apart": fit.design.rank < len(self.proposal.weights),
            "the proposal is outside the mixtures that were tried": beyond or self.unsupported > MOST_OUTSIDE,
            "the prediction beats every run by more than its error": self.mirage,
        }
        return tuple(said for said, doubtful in asked.items() if doubtful)


def examine(
    fit: SwarmFit,
    problem: Problem,
    others: Mapping[str, LawKind],
    *,
    report: Callable[[str], None] = lambda what: None,
) -> Trust:
    """Propose a mixture and gather everything that bears on trusting it; `others` are laws to compare with.

    Raises InfeasibleError and SolverError as the solver and the search do.
    """
    observed = fit.newest.mixtures
    report("solve")
    proposal = problem.best(fit.law, observed)
    unconstrained = problem.best(fit.law, observed, np.where(problem.caps > 0, 1.0, 0.0))
    named = {"proposal": proposal.weights, "unconstrained": unconstrained.weights}
    if problem.baseline is not None:
        named["baseline"] = problem.baseline
    spread = {name: [problem.mean(law, q) for law in fit.replicates] for name, q in named.items()}
    report("solve the replicates")
    moved = _replicate_weights(fit, problem)
    laws = []
    for name in sorted(others):
        if name != fit.kind.name:
            report(f"ask {name}")
            laws.append(_other(others[name], fit, problem, proposal.weights))
    runs = fit.observations.mixtures[fit.observations.counted]
    leverage = _leverage(runs)
    row, distance = nearest(proposal.weights, observed)
    best_run, best_bpb = _best_run(fit, problem.task_weights)
    predicted = problem.mean(fit.law, proposal.weights)
    gain = None
    if problem.baseline is not None:
        gains = [r - p for r, p in zip(spread["baseline"], spread["proposal"], strict=True)]
        gain = _interval(problem.mean(fit.law, problem.baseline) - predicted, gains)
    return Trust(
        proposal=proposal,
        unconstrained=unconstrained,
        mean_bpb={name: _interval(problem.mean(fit.law, q), spread[name]) for name, q in named.items()},
        gain=gain,
        weights_low=None if moved is None else _within(proposal.weights + _spread(moved, LOW), problem.caps),
        weights_high=None if moved is None else _within(proposal.weights + _spread(moved, HIGH), problem.caps),
        moved=None if moved is None else float(np.median(np.abs(moved - proposal.weights).sum(axis=1) / 2)),
        laws=tuple(laws),
        leverage=float(leverage(proposal.weights[None])[0]),
        unsupported=_unsupported(runs, proposal.weights),
        largest_leverage=float(leverage(observed[fit.newest.counted]).max()),
        nearest_run=fit.runs[row],
        distance=distance,
        best_run=best_run,
        best_bpb=best_bpb,
        error=fit.scores.mean_rmse,
        mirage=bool(predicted < best_bpb - fit.scores.mean_rmse),
    )


def _interval(value: float, replicates: Sequence[float]) -> Interval:
    if len(replicates) < 2:
        return Interval(value, np.nan, np.nan, np.nan)
    low, high = (value + float(_spread(np.array(replicates), share)) for share in (LOW, HIGH))
    return Interval(value, float(np.std(replicates, ddof=1)), low, high)


def _spread(replicates: Array, share: float) -> Array:
    """How far a quantile of replicates (R, ...) is from their median."""
    return np.asarray(np.quantile(replicates, share, axis=0) - np.median(replicates, axis=0))


def _within(weights: Array, caps: Array) -> Array:
    return np.asarray(np.clip(weights, 0.0, np.minimum(caps, 1.0)))


def _replicate_weights(fit: SwarmFit, problem: Problem) -> Array | None:
    """The proposal of every replicate, (R, m); None where there are none, or each would have to be searched."""
    if len(fit.replicates) < 2 or not isinstance(fit.law, ConvexLaw):
        return None
    return np.stack([problem.best(law, fit.newest.mixtures).weights for law in fit.replicates])


def _other(kind: LawKind, fit: SwarmFit, problem: Problem, proposal: Array) -> OtherLaw:
    law = kind.fit(fit.observations)
    bpb = problem.mean(law, proposal)
    gain = None if problem.baseline is None else problem.mean(law, problem.baseline) - bpb
    if not isinstance(law, ConvexLaw):
        return OtherLaw(kind.name, bpb, gain, None)
    own = problem.best(law, fit.newest.mixtures).weights
    return OtherLaw(kind.name, bpb, gain, float(np.abs(own - proposal).sum() / 2))


def _leverage(mixtures: Array) -> Callable[[Array], Array]:
    """q (X'X)^+ q for rows q (L, m): 1 and more is a mixture that the runs do not support."""
    inverse = np.asarray(np.linalg.pinv(mixtures.T @ mixtures, hermitian=True), dtype=np.float64)

    def of(rows: Array) -> Array:
        return np.asarray(((rows @ inverse) * rows).sum(axis=1))

    return of


def _unsupported(mixtures: Array, q: Array) -> float:
    """The L1 norm of the part of q outside of the row space of the mixtures, 0 for a design of full rank."""
    _, values, rows = np.linalg.svd(mixtures, full_matrices=False)
    spanned = rows[values > values[0] * max(mixtures.shape) * np.finfo(np.float64).eps]
    outside = float(np.abs(q - (spanned @ q) @ spanned).sum())
    return outside if outside > ROUNDING else 0.0


def _best_run(fit: SwarmFit, task_weights: Array) -> tuple[str | None, float]:
    """The run with the least observed mean BPB among those that have every task, and that BPB; inf without one."""
    newest = fit.newest
    whole = (newest.weights[:, task_weights > 0] > 0).all(axis=1)
    if not whole.any():
        return None, float("inf")
    means = np.where(whole, newest.bpb @ task_weights, np.inf)
    row = int(means.argmin())
    return fit.runs[row], float(means[row])
