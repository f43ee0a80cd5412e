"""The best mixture of a fitted law under the caps: certified where the law is convex, searched for where it is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.laws.base import ConvexLaw, Law
from olmix.solver.certified import solve
from olmix.solver.search import search


@dataclass(frozen=True)
class Best:
    """The best mixture over d domains.

    weights (d,), each at most its cap; objective: law + KL term, in BPB; predicted (n,): BPB of each task; capped (d,);
    steps: Newton steps, or mixtures that a search scored. gap, the duality gap that certifies it, and prices (d,), what
    the objective falls by per unit of share when a cap rises, are None for a law that is not convex.
    """

    weights: Array
    objective: float
    predicted: Array
    capped: NDArray[np.bool_]
    steps: int
    gap: float | None
    prices: Array | None


def best_mixture(
    law: Law, *, task_weights: Array, reference: Array, kl: float, caps: Array, observed: Array, seed: int = 0
) -> Best:
    """Minimise the weighted mean BPB + kl KL(q || reference) over q >= 0, sum q = 1, q <= caps.

    task_weights (n,), reference (d,) > 0, caps (d,), observed (K, d): the mixtures of the runs, where a search begins.
    Raises InfeasibleError for caps that sum to less than 1 and SolverError as the solver and the search do.
    """
    if isinstance(law, ConvexLaw):
        s = solve(law.objective(task_weights), reference=reference, kl=kl, caps=caps)
        return Best(s.weights, s.objective, s.predicted, s.capped, s.iterations, s.gap, s.multipliers)
    f = search(law, task_weights=task_weights, reference=reference, kl=kl, caps=caps, observed=observed, seed=seed)
    return Best(f.weights, f.objective, f.predicted, f.capped, f.evaluations, None, None)
