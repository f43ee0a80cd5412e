"""What the solver needs from a law: a convex function of the mixture, and its Hessian as a few rows plus a diagonal.

A weighted mean of n laws c + exp(linear) has the Hessian `factor^T factor` of rank n; a law with diminishing returns
adds a diagonal; a linear law has no rows. With 1000 domains and 200 tasks, a 1000 x 1000 system becomes 200 x 200.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy  # loads scipy.linalg where it is first used: most stages never do
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.errors import SwarmError

REFINEMENTS = 2  # solves, the first included


@dataclass(frozen=True)
class Curvature:
    """The matrix factor^T factor + diag(diagonal), (d, d), with factor (r, d) and diagonal (d,) >= 0."""

    factor: Array
    diagonal: Array

    def times(self, vector: Array) -> Array:
        """The matrix times a vector (d,)."""
        product: Array = self.factor.T @ (self.factor @ vector) + self.diagonal * vector
        return product

    def inverse(self, softness: Array, right: Array) -> Array:
        """(matrix + diag(1 / softness))^-1 right, for right (d, k) and softness (d,) >= 0; 0 holds a coordinate at 0.

        Solved in the smaller of the two dimensions, d or r (Woodbury's identity), scaled so that neither a vanishing
        nor a huge softness harms it.
        """
        scale = np.sqrt(softness / (1 + self.diagonal * softness))
        rows, scaled = self.factor * scale, scale[:, None] * right
        r, d = rows.shape
        if d <= r:
            small = scipy.linalg.cho_factor(_shifted(rows.T @ rows), check_finite=False)
            solution: Array = scipy.linalg.cho_solve(small, scaled, check_finite=False)
            return scale[:, None] * solution
        small = scipy.linalg.cho_factor(_shifted(rows @ rows.T), check_finite=False)
        solution = np.zeros_like(scaled)
        # Woodbury's difference cancels where the diagonal is weak; each refinement wins back the lost digits.
        for _ in range(REFINEMENTS):
            missing = scaled - solution - rows.T @ (rows @ solution)
            solution += missing - rows.T @ scipy.linalg.cho_solve(small, rows @ missing, check_finite=False)
        return scale[:, None] * solution


def _shifted(gram: Array) -> Array:
    """`gram` + identity, a little more where the entries of a wild law would swallow the identity."""
    gram[np.diag_indices(len(gram))] += 1 + 1e-15 * np.trace(gram)
    return gram


class ConvexObjective(Protocol):
    """A convex function of a mixture q (d,), in BPB."""

    def value(self, mixture: Array) -> float:
        """The function at `mixture`; inf where it overflows."""

    def gradient(self, mixture: Array) -> Array:
        """Its gradient, (d,)."""

    def curvature(self, mixture: Array) -> Curvature:
        """Its Hessian."""

    def predict(self, mixture: Array) -> Array:
        """The BPB of each task that it is made of, (n,)."""


@dataclass(frozen=True)
class Restricted:
    """An objective on the domains `kept` (d,), with weight 0 for the others."""

    whole: ConvexObjective
    kept: NDArray[np.bool_]

    def embedded(self, mixture: Array) -> Array:
        """`mixture` of the kept domains with zeros for the others, (d,)."""
        full = np.zeros(len(self.kept))
        full[self.kept] = mixture
        return full

    def value(self, mixture: Array) -> float:
        """The whole objective at the embedded mixture."""
        return self.whole.value(self.embedded(mixture))

    def gradient(self, mixture: Array) -> Array:
        """Its gradient in the kept domains."""
        return self.whole.gradient(self.embedded(mixture))[self.kept]

    def curvature(self, mixture: Array) -> Curvature:
        """Its Hessian in the kept domains."""
        whole = self.whole.curvature(self.embedded(mixture))
        return Curvature(whole.factor[:, self.kept], whole.diagonal[self.kept])

    def predict(self, mixture: Array) -> Array:
        """The tasks' BPB at the embedded mixture."""
        return self.whole.predict(self.embedded(mixture))


def task_weights(tasks: int, weights: Array | None) -> Array:
    """Weights (n,) divided by their sum, so that they never change the strength of a KL term; equal when None.

    Raises SwarmError unless they are finite, not negative, and not all 0.
    """
    w = np.ones(tasks) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (tasks,) or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise SwarmError(f"task weights must be {tasks} finite numbers >= 0 with a positive sum, not {w.tolist()}")
    return np.asarray(w / w.sum())
