"""The Hessian of a law as a few rows plus a diagonal: n tasks over d domains make it of rank n, and the solver uses it.

A weighted mean of n laws c + exp(linear) has the Hessian `factor^T factor`; a law with diminishing returns adds a
diagonal; a linear law has no rows. At 1000 domains and 200 tasks that is a 200 x 200 system in place of 1000 x 1000.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curvature:
    """The matrix factor^T factor + diag(diagonal), (d, d), with factor (r, d) and diagonal (d,) >= 0."""

    factor: Array
    diagonal: Array

    def times(self, vector: Array) -> Array:
        """The matrix times a vector (d,)."""
        return self.factor.T @ (self.factor @ vector) + self.diagonal * vector

    def dense(self) -> Array:
        """The matrix itself, (d, d)."""
        return self.factor.T @ self.factor + np.diag(self.diagonal)

    def scaled_inverse(self, scale: Array, ridge: float, right: Array) -> Array:
        """(S M S + ridge I)^-1 right for this matrix M, S = diag(scale), scale (d,), ridge > 0, right (d, k).

        Solved in the smaller of the two dimensions: d, or r by Woodbury's identity.
        """
        rows = self.factor * scale
        base = ridge + self.diagonal * scale * scale
        r, d = rows.shape
        if d <= r:
            matrix = rows.T @ rows
            matrix[np.diag_indices(d)] += base
            solution: Array = np.linalg.solve(matrix, right)
            return solution
        weighted = rows / base
        inner = weighted @ rows.T
        inner[np.diag_indices(r)] += 1.0
        first = right / base[:, None]
        correction: Array = first - weighted.T @ np.linalg.solve(inner, rows @ first)
        return correction
