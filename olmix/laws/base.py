"""What every law has in common: it is fitted to all tasks at once, predicts BPB, and may be convex in the mixture.

A fitted law is a frozen dataclass of arrays, numbers and strings, so that any of them can be written to a file and
read back without code of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from olmix.core.arrays import Array
from olmix.laws.observations import Observations
from olmix.solver.objective import ConvexObjective, Curvature


class Law(Protocol):
    """A fitted law of n tasks over m domains."""

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at mixtures (..., m), finite and within the range that the runs support."""


@runtime_checkable
class ConvexLaw(Law, Protocol):
    """A law that is convex in the mixture, so that its best mixture can be certified."""

    def objective(self, weights: Array | None = None) -> ConvexObjective:
        """The weighted mean over tasks, with gradient and curvature; weights (n,) >= 0, equal by default."""


class ExponentialLaw(Law, Protocol):
    """Tasks f_j(p) = c_j + exp(g_j(p)), each g_j a convex sum of functions of one share each."""

    def log_growth(self, mixture: Array) -> Array:
        """g_j at `mixture` (m,), (n,)."""

    def slopes(self, mixture: Array) -> Array:
        """dg_j / dp_i at `mixture` (m,), (n, m)."""

    def bend(self, mixture: Array, growth: Array) -> Array:
        """sum_j growth_j d2g_j / dp_i2 at `mixture` (m,), (m,), for growth (n,)."""


SomeLaw = TypeVar("SomeLaw", bound=Law)
SomeExponentialLaw = TypeVar("SomeExponentialLaw", bound=ExponentialLaw)


@dataclass(frozen=True)
class MeanObjective(Generic[SomeLaw]):
    """sum_j w_j f_j(q), unclipped and so convex, with w (n,) of sum 1; value and derivatives are each law's own."""

    law: SomeLaw
    weights: Array

    def predict(self, mixture: Array) -> Array:
        """BPB of each task, (n,), clipped as the law clips."""
        return self.law.predict(mixture)


@dataclass(frozen=True)
class ExponentialObjective(MeanObjective[SomeExponentialLaw]):
    """The weighted mean of an exponential law; constant: sum_j w_j c_j."""

    constant: float = 0.0

    def value(self, mixture: Array) -> float:
        """The weighted mean BPB at `mixture` (m,); inf where the exponential overflows."""
        return float(self.constant + self._growth(mixture).sum())

    def gradient(self, mixture: Array) -> Array:
        """d value / d q, (m,)."""
        return self._growth(mixture) @ self.law.slopes(mixture)

    def curvature(self, mixture: Array) -> Curvature:
        """The Hessian sum_j w_j exp(g_j) (s_j s_j^T + diag(g_j'')), s_j the gradient of g_j."""
        growth = self._growth(mixture)
        return Curvature(np.sqrt(growth)[:, None] * self.law.slopes(mixture), self.law.bend(mixture, growth))

    def _growth(self, mixture: Array) -> Array:
        """w_j exp(g_j), (n,)."""
        with np.errstate(over="ignore"):
            return np.asarray(self.weights * np.exp(self.law.log_growth(mixture)))


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
