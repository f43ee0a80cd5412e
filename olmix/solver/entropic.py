"""Newton in the logarithms of the weights, for a KL term of 0.01 BPB or more.

Minimises law(q) + kl sum q log(q / reference) over the capped simplex. A domain that a Newton step would carry past
its cap is held there; the others move by log q <- log q + (nu - g - H dq) / kl, which is exact for the entropy however
small a weight gets; the KL projection then puts the trial point back under the caps. Five to nine steps are usual.
Gives up: weak entropy, where the law's own nonlinearity divided by kl makes the steps short (see
`olmix.solver.interior`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.solver.objective import ConvexObjective
from olmix.solver.projection import kl_projection, least_vertex

WANTED_GAP = 1e-14
ROUNDING = 1e-15
PINNINGS = 12


@dataclass
class _Point:
    """A feasible point: log weights, weights, which sit at their cap, and the regularised value there."""

    log_weights: Array
    weights: Array
    capped: NDArray[np.bool_]
    value: float


@dataclass(frozen=True)
class Entropic:
    """The problem over d domains: caps (d,) > 0, where 1 and more is no cap; log_reference (d,); kl > 0."""

    law: ConvexObjective
    log_reference: Array
    kl: float
    caps: Array

    def minimise(self, iterations: int) -> tuple[Array, int]:
        """The best weights found, (d,), and the Newton steps taken: until the gap is rounding, at most `iterations`."""
        point = self._point(self.log_reference)
        for used in range(iterations):
            gradient = self.law.gradient(point.weights) + self.kl * (point.log_weights - self.log_reference + 1)
            if gradient @ (point.weights - least_vertex(gradient, self.caps)) <= WANTED_GAP:
                return point.weights, used
            moved = self._step(point, gradient)
            if moved is None:
                return point.weights, used
            point = moved
        return point.weights, iterations

    @functools.cached_property
    def _limits(self) -> Array:
        return np.where(self.caps < 1, self.caps, np.inf)

    def _point(self, log_weights: Array) -> _Point:
        q, log_q, capped = kl_projection(log_weights, self._limits)
        value = self.law.value(q) + self.kl * float(q @ (log_q - self.log_reference))
        return _Point(log_q, q, capped, value)

    def _step(self, point: _Point, gradient: Array) -> _Point | None:
        """A point on Newton's arc, else on that of mirror descent; None when neither descends beyond rounding."""
        tiny = ROUNDING * max(1.0, abs(point.value))
        mirror = -(gradient - gradient.min()) / self.kl
        for direction, shortest in ((self._newton(point, gradient), 2.0**-6), (mirror, 2.0**-40)):
            length = 1.0
            while length >= shortest:
                trial = self._point(point.log_weights + length * direction)
                expected = float(gradient @ (point.weights - trial.weights))
                if expected >= -tiny and point.value - trial.value >= max(0.1 * expected, 0.0) - tiny:
                    return trial if (trial.log_weights != point.log_weights).any() else None
                length /= 2
        return None

    def _newton(self, point: _Point, gradient: Array) -> Array:
        """Newton's change of log q, (d,)."""
        q, limits = point.weights, self._limits
        curvature = self.law.curvature(q)
        free = q[~point.capped]
        level = float(free @ gradient[~point.capped] / free.sum()) if free.sum() > 0 else float(gradient.max())
        held = point.capped & (gradient <= level)
        for _ in range(PINNINGS):
            change = _gap_to(limits, q, held)
            pull = gradient + curvature.times(change)
            softness = np.where(held, 0.0, q / self.kl)
            solved = curvature.inverse(softness, np.stack([pull, np.ones_like(q)], axis=1))
            share = float(solved[:, 1].sum())
            if share <= 0:
                break
            level = (float(solved[:, 0].sum()) - float(change.sum())) / share
            change = change + level * solved[:, 1] - solved[:, 0]
            beyond = ~held & (q + change > limits)
            if not beyond.any():
                break
            held = held | beyond
        moved = (level - gradient - curvature.times(change)) / self.kl
        # Beyond the cap, so that the projection puts them on it whatever its scaling is.
        return np.where(held, np.log(limits) - point.log_weights + 0.5, moved)


def _gap_to(limits: Array, q: Array, held: NDArray[np.bool_]) -> Array:
    """What takes the held domains to their caps, 0 for the others."""
    gap = np.zeros_like(q)
    gap[held] = limits[held] - q[held]
    return gap
