"""The best mixture of a fitted law under the caps: certified where the law is convex, searched for where it is not."""

from __future__ import annotations

from olmix.core.arrays import Array
from olmix.laws.base import ConvexLaw, Law
from olmix.solver.certified import Solution, solve
from olmix.solver.search import search


def best_mixture(
    law: Law, *, task_weights: Array, reference: Array, kl: float, caps: Array, observed: Array, seed: int = 0
) -> Solution:
    """Minimise the weighted mean BPB + kl KL(q || reference) over q >= 0, sum q = 1, q <= caps.

    task_weights (n,), reference (d,) > 0, caps (d,), observed (K, d): the mixtures of the runs, where a search begins.
    Raises InfeasibleError for caps that sum to less than 1 and SolverError as the solver and the search do.
    """
    if isinstance(law, ConvexLaw):
        return solve(law.objective(task_weights), reference=reference, kl=kl, caps=caps)
    return search(law, task_weights=task_weights, reference=reference, kl=kl, caps=caps, observed=observed, seed=seed)
