"""The best mixture of a convex law, with a certificate: the minimum over the capped simplex of
law(q) + kl sum_i q_i log(q_i / reference_i).

With the usual KL term the method is Newton in the logarithms of the weights (`olmix.solver.entropic`: 64 domains in
about 2 ms). With little or none, and where the first method does not converge, it is an interior point
(`olmix.solver.interior`). Either answer is certified by its Frank-Wolfe gap, max over feasible s of g . (q - s), which
bounds what any feasible mixture could still gain; a gap above 1e-9 is an error. Gives up: laws that are not convex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.core.limits import at_cap
from olmix.errors import InfeasibleError, SolverError
from olmix.solver.entropic import Entropic
from olmix.solver.interior import interior_point
from olmix.solver.objective import ConvexObjective, Restricted
from olmix.solver.projection import least_vertex

LARGEST_GAP = 1e-9
# Below it a gap is rounding, which differs between machines: no other method is asked, and files give this bound.
ROUNDING_GAP = 1e-12
# Of the objective, for laws whose values are in the thousands: below it, a gap is rounding.
LARGEST_RELATIVE_GAP = 1e-12
STRONG_ENTROPY = 1e-2
NEWTON_STEPS, INTERIOR_STEPS = 60, 200
UNDERFLOW = 1e-300
_RIDGE = "refit with a larger ridge"


@dataclass(frozen=True)
class Certificate:
    """What a convex law proves of a mixture.

    gap: the Frank-Wolfe gap, the most that any feasible mixture could still gain; prices (d,): the shadow price of each
    cap, by how much the objective falls per unit of share when that cap rises, 0 where it does not bind, and inf for a
    cap of 0 under a KL term, whose slope is infinite at 0.
    """

    gap: float
    prices: Array

    @property
    def shown_gap(self) -> float:
        """The gap as reports and files give it, at least 1e-12."""
        return max(float(self.gap), ROUNDING_GAP)


@dataclass(frozen=True)
class Solution:
    """The best mixture over d domains.

    weights (d,), each at most its cap, which sum to 1 within 1e-12; objective: law + KL term at them, in BPB; predicted
    (n,): BPB of each task there; capped (d,): weights that equal a cap below 1, bit for bit; steps: Newton steps, or
    the mixtures that a search scored; certificate: None where the law is not convex and the mixture was searched for.
    """

    weights: Array
    objective: float
    predicted: Array
    capped: NDArray[np.bool_]
    steps: int
    certificate: Certificate | None

    @property
    def gap(self) -> float:
        """The gap of the certificate; inf without one, when nothing bounds what could still be gained."""
        return np.inf if self.certificate is None else self.certificate.gap


def solve(objective: ConvexObjective, *, reference: Array, kl: float, caps: Array) -> Solution:
    """Minimise objective(q) + kl sum q log(q / reference) over q >= 0, sum q = 1, q <= caps.

    reference (d,) > 0, of any sum; kl >= 0; caps (d,) >= 0, where 1 and more is no cap. Raises
    InfeasibleError, with the shortfall as a share, when the caps sum to less than 1, and SolverError for
    arguments that are not such numbers and when the gap stays above 1e-9.
    """
    problem = _Problem(objective, np.asarray(reference, np.float64), kl, np.asarray(caps, np.float64))
    reach = require_problem(problem.reference, kl, problem.caps)
    if reach <= 1 + 1e-12:
        # The one feasible mixture, but for rounding.
        return _accepted(problem.certified(np.minimum(problem.caps, 1.0), 0))
    problem.require_finite()
    try:
        return _accepted(problem.solved())
    except np.linalg.LinAlgError as error:
        raise SolverError(f"the law overflows inside the simplex ({error})", way_out=_RIDGE) from error


def require_problem(reference: Array, kl: float, caps: Array) -> float:
    """What the caps (d,), cut at 1, sum to: 1 or more, within 1e-12, where some mixture meets them.

    Raises InfeasibleError and SolverError as `solve` does.
    """
    if reference.ndim != 1 or reference.shape != caps.shape or len(reference) == 0:
        raise SolverError(
            f"the solver needs a reference and a cap for each domain, not shapes {reference.shape} and {caps.shape}"
        )
    for name, values, good in (
        ("reference", reference, np.isfinite(reference) & (reference > 0)),
        ("cap", caps, caps >= 0),
    ):
        if not good.all():
            worst = int(np.argmin(good))
            raise SolverError(f"the {name} of domain {worst} is {values[worst]}; it must be a positive number")
    if not (np.isfinite(kl) and kl >= 0):
        raise SolverError(f"the strength of the KL term is {kl}; it must be a finite number >= 0")
    reach = float(np.minimum(caps, 1.0).sum())
    if reach < 1 - 1e-12:
        raise InfeasibleError(
            f"the caps sum to {reach:.6g}, so no domain can supply {1 - reach:.6g} of the mixture",
            way_out="raise the caps",
        )
    return reach


@dataclass(frozen=True)
class _Problem:
    objective: ConvexObjective
    reference: Array
    kl: float
    caps: Array

    def require_finite(self) -> None:
        """Raise SolverError where the law overflows at a mixture well inside the simplex."""
        upper = np.minimum(self.caps, 1.0)
        even = upper / upper.sum()
        slopes = self.objective.gradient(even)[upper > 0]
        if not (np.isfinite(self.objective.value(even)) and np.isfinite(slopes).all()):
            raise SolverError("the law overflows inside the simplex", way_out=_RIDGE)

    def solved(self) -> Solution:
        """The better of the two methods' answers, the second asked only where the first is not good."""
        kept = self.caps > 0
        law = self.objective if kept.all() else Restricted(self.objective, kept)
        log_reference, caps = np.log(self.reference[kept]), self.caps[kept]
        first: Solution | None = None
        if self.kl >= STRONG_ENTROPY:
            q, steps = Entropic(law, log_reference, self.kl, caps).minimise(NEWTON_STEPS)
            first = self.certified(_embedded(q, kept), steps)
            if first.gap <= ROUNDING_GAP:
                return first
        q, steps = interior_point(law, log_reference, self.kl, caps, INTERIOR_STEPS)
        second = self.certified(_embedded(q, kept), steps + (first.steps if first else 0))
        return first if first is not None and first.gap <= second.gap else second

    def certified(self, q: Array, steps: int) -> Solution:
        """The solution at `q` with its gap and shadow prices, both measured there."""
        gradient = np.asarray(self.objective.gradient(q), dtype=np.float64)
        positive, usable = q > 0, self.caps > 0
        entropy = 0.0
        if self.kl > 0:
            # The slope at a weight that underflowed to 0 is below the slope at 1e-300; if even that one
            # attracts no share, the true one (at a weight like e^-4000) balances.
            slope = self.kl * (np.log(np.maximum(q, UNDERFLOW) / self.reference) + 1)
            gradient = gradient + np.where(usable, slope, -np.inf)
            entropy = self.kl * float(q[positive] @ np.log(q[positive] / self.reference[positive]))
        capped = at_cap(q, self.caps)
        free = positive & ~capped
        # The multiplier of the sum. Without a free weight it lies in an interval; its lower end makes prices least.
        sides = np.flatnonzero(free) if free.any() else positive.nonzero()[0][[np.argmax(gradient[positive])]]
        level = float(q[sides] @ gradient[sides] / q[sides].sum())
        vertex = least_vertex(gradient[usable], self.caps[usable])
        return Solution(
            weights=q,
            objective=self.objective.value(q) + entropy,
            predicted=self.objective.predict(q),
            capped=capped,
            steps=steps,
            certificate=Certificate(
                # Not max(): it would turn nan into 0.
                gap=float(np.maximum(gradient[usable] @ (q[usable] - vertex), 0.0)),
                prices=np.where(capped, np.maximum(level - gradient, 0.0), 0.0),
            ),
        )


def _embedded(mixture: Array, kept: NDArray[np.bool_]) -> Array:
    full = np.zeros(len(kept))
    full[kept] = mixture
    return full


def _accepted(solution: Solution) -> Solution:
    total = float(solution.weights.sum())
    limit = max(LARGEST_GAP, LARGEST_RELATIVE_GAP * abs(solution.objective))
    # Written so that a gap of nan is refused too.
    if not (solution.gap <= limit and abs(total - 1) <= 1e-12):
        raise SolverError(
            f"the solver stopped after {solution.steps} steps with a gap of {solution.gap:.3g} (limit "
            f"{limit:g}) and weights that sum to {total:.15g}",
            way_out=f"raise the strength of the KL term, or {_RIDGE}",
        )
    return solution
