"""What every law has in common: it is fitted to all tasks at once, predicts BPB, and may be convex in the mixture.

A fitted law is a frozen dataclass of arrays, numbers and strings, so that any of them can be written to a file and
read back without code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from olmix.core.arrays import Array
from olmix.laws.observations import Observations
from olmix.solver.objective import ConvexObjective


class Law(Protocol):
    """A fitted law of n tasks over m domains."""

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at mixtures (..., m), finite and within the range that the runs support."""


@runtime_checkable
class ConvexLaw(Law, Protocol):
    """A law that is convex in the mixture, so that its best mixture can be certified."""

    def objective(self, weights: Array | None = None) -> ConvexObjective:
        """The weighted mean over tasks, with gradient and curvature; weights (n,) >= 0, equal by default."""


@dataclass(frozen=True)
class LawKind:
    """A law as a user names it.

    fit: observations to a fitted law, for any number of runs K >= 2 (a prior or a ridge decides what few runs leave
    open), raising SwarmError for observations it cannot use. refit: the same for reweighted observations, from a law
    that is near; it is what the bootstrap calls. least_runs: how many runs over m domains a proposal asks for.
    most_replicates: a bound on bootstrap replicates, for a law whose fit takes seconds. dense: whether fitting it takes
    a matrix of domains by domains for every task.
    """

    name: str
    summary: str
    fitted: type[Law]
    fit: Callable[[Observations], Law]
    least_runs: Callable[[int], int]
    refit: Callable[[Observations, Sequence[Array], Law], Sequence[Law]] | None = None
    most_replicates: int | None = None
    dense: bool = False

    @property
    def settings(self) -> dict[str, float]:
        """What `fit` was bound to, by name; empty for a law without settings."""
        return dict(getattr(self.fit, "keywords", {}))

    def refitted(self, observations: Observations, factors: Sequence[Array], near: Law) -> list[Law]:
        """A fit for every reweighting of the runs, factors (K,) each, from a law `near` them."""
        if self.refit is not None:
            return list(self.refit(observations, factors, near))
        return [self.fit(observations.weighted(f)) for f in factors]
