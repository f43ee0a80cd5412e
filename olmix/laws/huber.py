"""Many small Huber problems at once: f = c + exp(t . z) fitted by a batched, damped Newton method.

The features z of a run are its mixture (log-linear law) or a function of it, and coefficients may have lower bounds
(a law with a sign).

Every problem (a task, a start, a bootstrap replicate) shares the design, so that one matrix product
`curvature @ (rows of x outer x)` forms all Hessians, one call solves all systems, and problems retire as they
converge: 342 problems in 24 domains and 127 runs take about 0.15 s on one core. Gives up: bit-identity across
batch sizes (BLAS may round a wider product otherwise), and global optimality, which no method promises here
(the loss is not convex in (c, t)); the starts are the caller's.

The Huber width is small against the residuals of a swarm, which makes L-BFGS and reweighting crawl. So it is
annealed over 8, 2 and 1 times delta, and the curvature is that of the Huber loss itself, with what is
negative of it cut to zero: max(0, h w^2 + psi w), where w = exp(t . z), psi the clipped residual and h = 1
inside delta. Coefficients at their bound whose gradient points out of it are frozen for the step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array

ANNEALING = ((8.0, 10), (2.0, 10), (1.0, 80))  # (times delta, most iterations)
FINAL_TOLERANCE = 1e-6  # predicted decrease over the objective at which a problem retires
EARLY_TOLERANCE = 1e-2
# Starts of one task that agree this well in the objective (relative) and in c (BPB) end in the same optimum.
SAME_OBJECTIVE, SAME_FLOOR = 1e-2, 3e-2
LARGEST_EXPONENT = 300.0
PAIRS_BYTES = 1 << 27  # products of columns are kept up to 128 MiB; above, each Hessian is a product of its own


def huber(residual: Array, delta: float) -> Array:
    """e^2 / 2 for |e| <= delta, else delta (|e| - delta / 2); residuals of any shape, in BPB."""
    inside = np.minimum(np.abs(residual), delta)
    return inside * (np.abs(residual) - inside / 2)


class Design:
    """The features (K, d) of the runs and what every iteration needs of them.

    Coefficients t cost ridge / 2 (t . direction t), direction (d, d); lowest (d,): their lower bounds, -inf for none.
    """

    def __init__(self, features: Array, ridge: float, direction: Array, lowest: Array) -> None:
        self.features, self.direction, self.lowest = features, direction, lowest
        self.penalty = ridge * direction
        runs, d = features.shape
        rows, columns = np.triu_indices(d)
        self._pairs: Array | None = None
        if runs * len(rows) * 8 <= PAIRS_BYTES:
            self._pairs = features[:, rows] * features[:, columns]
            position = np.zeros((d, d), dtype=np.intp)
            position[rows, columns] = position[columns, rows] = np.arange(len(rows))
            self._unpack = position.ravel()

    def exponents(self, coefficients: Array) -> Array:
        """t . z of every problem and run, (P, K)."""
        return np.minimum(coefficients @ self.features.T, LARGEST_EXPONENT)

    def gram(self, curvature: Array) -> Array:
        """sum_k curvature[:, k] z_k z_k^T, (P, d, d), from curvatures (P, K)."""
        d = self.features.shape[1]
        if self._pairs is not None:
            packed: Array = curvature @ self._pairs
            return packed[:, self._unpack].reshape(-1, d, d)
        return np.stack([self.features.T @ (row[:, None] * self.features) for row in curvature])


@dataclass
class Problems:
    """P problems: targets (P, K) in BPB, run weights (P, K) of sum 1, owner (P,), and their current solutions."""

    design: Design
    targets: Array
    weights: Array
    owner: NDArray[np.intp]
    floor: Array
    coefficients: Array
    delta: float

    def loss(self, floor: Array, coefficients: Array, which: NDArray[np.intp] | slice, delta: float) -> Array:
        """Weighted mean Huber loss of the problems `which` at (floor, coefficients), no penalty, (P,)."""
        return self._state(floor, coefficients, which, delta)[0]

    def penalty(self, coefficients: Array) -> Array:
        """What the coefficients cost: it pins what the runs leave open, (P,)."""
        penalty: Array = (coefficients @ self.design.penalty * coefficients).sum(axis=1) / 2
        return penalty

    def solve(self) -> tuple[NDArray[np.intp], Array]:
        """Minimise in place; returns the best problem of each owner, in the order of owners, and its loss."""
        alive = np.arange(len(self.floor))
        objective = np.zeros(len(self.floor))
        for stage, (width, iterations) in enumerate(ANNEALING):
            last = stage == len(ANNEALING) - 1
            tolerance = FINAL_TOLERANCE if last else EARLY_TOLERANCE
            objective[alive] = self._anneal(alive, width * self.delta, iterations, tolerance)
            if not last:
                alive = self._distinct(alive, objective)
        ranked = alive[np.lexsort((objective[alive], self.owner[alive]))]
        best = ranked[np.unique(self.owner[ranked], return_index=True)[1]]
        return best, self.loss(self.floor[best], self.coefficients[best], best, self.delta)

    def _distinct(self, alive: NDArray[np.intp], objective: Array) -> NDArray[np.intp]:
        """`alive` without the starts that have met a better one of the same owner."""
        kept: list[int] = []
        for p in alive[np.lexsort((objective[alive], self.owner[alive]))]:
            q = kept[-1] if kept else -1
            same = (
                bool(kept)
                and self.owner[p] == self.owner[q]
                and objective[p] - objective[q] <= SAME_OBJECTIVE * objective[q]
                and abs(self.floor[p] - self.floor[q]) < SAME_FLOOR
            )
            if not same:
                kept.append(int(p))
        return np.array(sorted(kept), dtype=np.intp)

    def _state(
        self, floor: Array, coefficients: Array, which: NDArray[np.intp] | slice, delta: float
    ) -> tuple[Array, Array, Array]:
        with np.errstate(over="ignore", invalid="ignore"):
            growth = np.exp(self.design.exponents(coefficients))
            residual = growth + (floor[:, None] - self.targets[which])
            return (huber(residual, delta) * self.weights[which]).sum(axis=1), growth, residual

    def _anneal(self, active: NDArray[np.intp], delta: float, iterations: int, tolerance: float) -> Array:
        """Damped Newton at one Huber width on the problems `active`; returns their objectives."""
        everyone = active
        d = self.coefficients.shape[1]
        objective, growth, residual = (
            np.zeros(len(self.floor)),
            np.zeros_like(self.targets),
            np.zeros_like(self.targets),
        )
        loss, growth[active], residual[active] = self._state(
            self.floor[active], self.coefficients[active], active, delta
        )
        objective[active] = loss + self.penalty(self.coefficients[active])
        damping = np.full(len(self.floor), 1e-2)
        for _ in range(iterations):
            if len(active) == 0:
                break
            t, c = self.coefficients[active], self.floor[active]
            gradient, hessian = self._expansion(active, growth[active], residual[active], delta)
            step = _damped_step(gradient, hessian, damping[active])
            predicted = -(gradient * step).sum(axis=1) / 2
            new_t, new_c = np.maximum(t + step[:, :d], self.design.lowest), np.maximum(c + step[:, d], 0.0)
            loss, new_growth, new_residual = self._state(new_c, new_t, active, delta)
            new = loss + self.penalty(new_t)
            old = objective[active]
            accepted = new < old
            moved = active[accepted]
            self.coefficients[moved], self.floor[moved] = new_t[accepted], new_c[accepted]
            growth[moved], residual[moved] = new_growth[accepted], new_residual[accepted]
            objective[moved] = new[accepted]
            faithful = accepted & (old - new > 0.25 * predicted)
            factor = np.where(faithful, 0.1, np.where(accepted, 2.0, 8.0))
            damping[active] = np.clip(damping[active] * factor, 1e-9, 1e8)
            retired = (accepted & (predicted < tolerance * old)) | (predicted < 1e-16) | (damping[active] > 1e7)
            active = active[~retired]
        return objective[everyone]

    def _expansion(self, active: NDArray[np.intp], growth: Array, residual: Array, delta: float) -> tuple[Array, Array]:
        """Gradient (P, d + 1) and convexified Hessian (P, d + 1, d + 1) in (t, c)."""
        d = self.coefficients.shape[1]
        t, weights = self.coefficients[active], self.weights[active]
        psi = np.clip(residual, -delta, delta) * weights
        inside = (np.abs(residual) <= delta) * weights
        slope, stiffness = psi * growth, inside * growth
        gradient = np.empty((len(active), d + 1))
        gradient[:, :d] = slope @ self.design.features + t @ self.design.penalty
        gradient[:, d] = psi.sum(axis=1)
        hessian = np.empty((len(active), d + 1, d + 1))
        hessian[:, :d, :d] = self.design.gram(np.maximum(stiffness * growth + slope, 0.0)) + self.design.penalty
        hessian[:, :d, d] = hessian[:, d, :d] = stiffness @ self.design.features
        hessian[:, d, d] = inside.sum(axis=1)
        # What is at its bound while the gradient pushes it beyond stays there.
        frozen = np.empty((len(active), d + 1), dtype=np.bool_)
        frozen[:, :d] = t <= self.design.lowest
        frozen[:, d] = self.floor[active] <= 0
        frozen &= gradient > 0
        gradient[frozen] = 0.0
        hessian[frozen[:, :, None] | frozen[:, None, :]] = 0.0
        problem, place = np.nonzero(frozen)
        hessian[problem, place, place] = 1.0
        return gradient, hessian


def _damped_step(gradient: Array, hessian: Array, damping: Array) -> Array:
    """Levenberg-Marquardt step; `hessian` is overwritten. The additions keep a problem without curvature solvable."""
    diagonal = np.arange(hessian.shape[1])
    hessian[:, diagonal, diagonal] += damping[:, None] * (hessian[:, diagonal, diagonal] + 1e-9) + 1e-14
    return np.asarray(-np.linalg.solve(hessian, gradient[..., None])[..., 0], dtype=np.float64)
