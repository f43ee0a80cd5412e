"""The proposal: min over the capped simplex of law(q) + kl sum_i q_i log(q_i / reference_i), with a certificate.

Newton in the logarithms of the weights. With entropy, the step of the domains that are not held at a cap is
log q <- log q + (nu - g - H dq) / kl, where dq solves the equality-constrained Newton system; it is exact for the
entropy however small a weight gets, and the KL projection puts the trial point back under the caps, many at once.
Line search on the objective; a mirror step when Newton's arc does not descend. Without entropy (or with little), a
proximal entropy towards the last iterate is added and shrunk, which converges faster than linearly.

The certificate is the Frank-Wolfe gap max_s g . (q - s) over the feasible set: an upper bound of what any feasible
mixture could still gain. It is measured at the answer that is returned, and an answer above 1e-9 is an error. Gives
up: laws that are not convex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from olmix.core.curvature import Curvature
from olmix.core.projection import kl_projection, least_vertex
from olmix.errors import InfeasibleError, SolverError

Array = NDArray[np.float64]

LARGEST_GAP = 1e-9
WANTED_GAP = 1e-14
ITERATIONS = 400
ENTROPY = 1e-2  # entropy below which a proximal one helps
SMALLEST_LOG = -690.0  # weights under e^-690 are 0 to every sum; without entropy nothing tells them apart
ROUNDING = 1e-15


class ConvexObjective(Protocol):
    """A convex function of a mixture q (d,): what the solver needs of a law, in BPB."""

    def value(self, mixture: Array) -> float: ...

    def gradient(self, mixture: Array) -> Array: ...

    def curvature(self, mixture: Array) -> Curvature: ...

    def predict(self, mixture: Array) -> Array: ...


@dataclass(frozen=True)
class Solution:
    """The best mixture over d domains and its certificate.

    weights (d,), which sum to 1 within 1e-12; objective: law + KL term at them; predicted (n,): BPB of each task;
    gap: the Frank-Wolfe gap; iterations: Newton steps; capped (d,): weights that equal their cap, bit for bit;
    multipliers (d,): shadow price of each cap, by how much the objective would fall per unit of share when that cap
    rises, 0 where none binds, and inf for a cap of 0 under a KL term (the first share of a domain is worth the most).
    """

    weights: Array
    objective: float
    predicted: Array
    gap: float
    iterations: int
    capped: NDArray[np.bool_]
    multipliers: Array


def solve(objective: ConvexObjective, *, reference: Array, kl: float, caps: Array) -> Solution:
    """Minimise objective(q) + kl sum q log(q / reference) over q >= 0, sum q = 1, q <= caps.

    reference (d,) > 0, of any sum; kl >= 0; caps (d,) >= 0, where 1 and more is no cap. Raises InfeasibleError, with
    the shortfall as a share, when the caps sum to less than 1, and SolverError for arguments that are not such
    numbers and when the gap stays above 1e-9.
    """
    r, u = np.asarray(reference, dtype=np.float64), np.asarray(caps, dtype=np.float64)
    if r.ndim != 1 or r.shape != u.shape or len(r) == 0:
        raise SolverError(f"the solver needs a reference and a cap for each domain, not shapes {r.shape} and {u.shape}")
    if not (np.isfinite(r).all() and (r > 0).all()):
        raise SolverError(f"the reference of domain {int(np.argmin(r > 0))} must be a positive number")
    if np.isnan(u).any() or (u < 0).any():
        raise SolverError(f"the cap of domain {int(np.argmin(u >= 0))} must be a number >= 0")
    if not (np.isfinite(kl) and kl >= 0):
        raise SolverError(f"the strength of the KL term must be a finite number >= 0, not {kl}")
    reach = float(np.minimum(u, 1.0).sum())
    if reach < 1 - 1e-12:
        raise InfeasibleError(f"the caps sum to {reach:.6g}, so {1 - reach:.6g} of the mixture has no domain to come from")
    problem = _Problem(objective, np.log(r), kl, u)
    if reach <= 1 + 1e-12:
        # The one feasible mixture, but for rounding.
        return problem.certified(np.where(u >= 1, 1.0, u), 0)
    return problem.solve()


@dataclass
class _Point:
    """A feasible point: log weights, weights, which sit at their cap, and the regularised value there."""

    log_weights: Array
    weights: Array
    capped: NDArray[np.bool_]
    value: float


class _Problem:
    def __init__(self, law: ConvexObjective, log_reference: Array, kl: float, caps: Array) -> None:
        self.law, self.log_reference, self.kl, self.caps = law, log_reference, kl, caps
        self.open = caps > 0
        self.binding = caps < 1
        with np.errstate(divide="ignore"):
            self.log_caps = np.where(self.binding, np.log(caps), np.inf)[self.open]

    def solve(self) -> Solution:
        """Minimise with entropy kl, or with a proximal entropy that shrinks when kl is small."""
        centre = self.log_reference[self.open]
        proximal = 0.0 if self.kl >= ENTROPY else ENTROPY
        point, iterations = self._point(centre, 0.0, centre), 0
        best: Solution | None = None
        while iterations < ITERATIONS:
            entropy = self.kl + proximal
            anchor = (self.kl * centre + proximal * point.log_weights) / entropy
            point, used = self._newton(point, entropy, anchor, ITERATIONS - iterations)
            iterations += used
            candidate = self.certified(self._full(point, proximal > 0), iterations, check=False)
            if best is None or candidate.gap < best.gap:
                best = candidate
            if proximal == 0 or best.gap <= WANTED_GAP:
                break
            stalled = proximal <= 1e-9 and candidate.gap >= best.gap
            if stalled and best.gap <= LARGEST_GAP:
                break
            proximal = max(proximal / 8, 1e-9)
        assert best is not None  # ITERATIONS > 0
        return self._accepted(best)

    def certified(self, weights: Array, iterations: int, check: bool = True) -> Solution:
        """The solution at `weights` with its gap and shadow prices; raises SolverError above the largest gap."""
        gradient = self._gradient(weights)
        usable = self.open
        vertex = least_vertex(gradient[usable], self.caps[usable])
        gap = float(gradient[usable] @ (weights[usable] - vertex))
        capped = self.binding & (weights == self.caps)
        free = usable & ~capped & (weights > 0)
        if free.any():
            level = float(weights[free] @ gradient[free] / weights[free].sum())
        else:
            level = float(gradient[usable & (weights > 0)].max())
        prices = np.where(capped, np.maximum(level - gradient, 0.0), 0.0)
        solution = Solution(
            weights=weights,
            objective=self.law.value(weights) + self._entropy(weights),
            predicted=self.law.predict(weights),
            gap=max(gap, 0.0),
            iterations=iterations,
            capped=capped,
            multipliers=prices,
        )
        return self._accepted(solution) if check else solution

    def _accepted(self, solution: Solution) -> Solution:
        total = float(solution.weights.sum())
        if not solution.gap <= LARGEST_GAP or abs(total - 1) > 1e-12:
            raise SolverError(
                f"the solver stopped after {solution.iterations} steps with a gap of {solution.gap:.3g} (limit "
                f"{LARGEST_GAP:g}) and a sum of {total:.15g}; raise the strength of the KL term, or refit with a larger ridge"
            )
        return solution

    def _gradient(self, weights: Array) -> Array:
        gradient = np.asarray(self.law.gradient(weights), dtype=np.float64)
        if self.kl == 0:
            return gradient
        with np.errstate(divide="ignore"):
            return gradient + self.kl * (np.log(weights) - self.log_reference + 1)

    def _entropy(self, weights: Array) -> float:
        positive = weights > 0
        if self.kl == 0:
            return 0.0
        terms = weights[positive] * (np.log(weights[positive]) - self.log_reference[positive])
        return self.kl * float(terms.sum())

    def _embed(self, weights: Array) -> Array:
        full = np.zeros(len(self.caps))
        full[self.open] = weights
        return full

    def _point(self, log_weights: Array, entropy: float, anchor: Array) -> _Point:
        """The projection of exp(log_weights), and law + entropy sum q (log q - anchor) there."""
        log_q, capped = kl_projection(log_weights, self.log_caps)
        q = np.exp(log_q)
        q[capped] = self.caps[self.open][capped]
        value = self.law.value(self._embed(q)) + entropy * float(q @ (log_q - anchor))
        return _Point(log_q, q, capped, value)

    def _newton(self, point: _Point, entropy: float, anchor: Array, iterations: int) -> tuple[_Point, int]:
        """Minimise law + entropy sum q (log q - anchor) from `point` until its gap is at rounding."""
        point = self._point(point.log_weights, entropy, anchor)
        caps = self.caps[self.open]
        for used in range(iterations):
            full = self._embed(point.weights)
            gradient = self.law.gradient(full)[self.open] + entropy * (point.log_weights - anchor + 1)
            slack = gradient @ (point.weights - least_vertex(gradient, caps))
            if slack <= WANTED_GAP:
                return point, used
            curvature = self.law.curvature(full)
            curvature = Curvature(curvature.factor[:, self.open], curvature.diagonal[self.open])
            moved = self._step(point, gradient, curvature, entropy, anchor)
            if moved is None:
                return point, used
            point = moved
        return point, iterations

    def _step(
        self, point: _Point, gradient: Array, curvature: Curvature, entropy: float, anchor: Array
    ) -> _Point | None:
        """Newton's arc, else a mirror step; None when neither descends by more than rounding."""
        change = self._direction(point, gradient, curvature, entropy)
        tiny = ROUNDING * max(1.0, abs(point.value))
        for direction, shortest in ((change, 2.0**-6), (-(gradient - gradient.min()) / entropy, 2.0**-40)):
            length = 1.0
            while length >= shortest:
                trial = self._point(point.log_weights + length * direction, entropy, anchor)
                decrease = point.value - trial.value
                expected = float(gradient @ (point.weights - trial.weights))
                if decrease >= 0.1 * expected - tiny and expected >= -tiny and decrease >= -tiny:
                    if np.abs(trial.log_weights - point.log_weights).max() == 0:
                        break
                    return trial
                length /= 2
        return None

    def _direction(self, point: _Point, gradient: Array, curvature: Curvature, entropy: float) -> Array:
        """Change of log q: Newton on the domains that no cap holds, found by pinning those that would pass theirs."""
        q, caps = point.weights, np.where(self.binding, self.caps, np.inf)[self.open]
        free = ~point.capped
        level = float(q[free] @ gradient[free] / q[free].sum()) if q[free].sum() > 0 else float(gradient.max())
        held = point.capped & (gradient <= level)
        change = np.zeros(len(q))
        for _ in range(12):
            moving = ~held
            # A held domain that is not at its cap yet goes there.
            change = np.where(held & ~point.capped, caps - q, 0.0)
            pull = gradient + curvature.times(change)
            scale = np.sqrt(q) * moving
            right = np.stack([scale * pull, scale], axis=1)
            solved = scale[:, None] * curvature.scaled_inverse(scale, entropy, right)
            share = float(solved[:, 1].sum())
            if share <= 0:
                break
            level = (float(solved[:, 0].sum()) - float(change.sum())) / share
            change = change + level * solved[:, 1] - solved[:, 0]
            beyond = moving & (q + change > caps)
            if not beyond.any():
                break
            held = held | beyond
        log_change = (level - gradient - curvature.times(change)) / entropy
        with np.errstate(divide="ignore"):
            to_cap = np.log(caps) - point.log_weights
        return np.where(held, np.where(point.capped, 0.0, to_cap), log_change)

    def _full(self, point: _Point, drop: bool) -> Array:
        """All d weights; what a vanishing entropy left under e^-34 of the mixture becomes 0 when `drop`."""
        q = point.weights.copy()
        if drop and self.kl == 0:
            q[q < 1e-15] = 0.0
        loose = ~point.capped
        total = float(q[loose].sum())
        if total > 0:
            q[loose] *= (1 - float(q[point.capped].sum())) / total
            caps = self.caps[self.open]
            q[loose] = np.minimum(q[loose], np.where(self.binding[self.open], caps, np.inf)[loose])
        return self._embed(q)
