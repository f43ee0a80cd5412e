"""A feasible primal-dual interior-point method, for a KL term that is weak or absent.

Minimises law(q) + kl sum q log(q / reference) over {q >= 0, sum q = 1, q <= caps} along the central path: z q = mu for
the multipliers z of q >= 0, and y (caps - q) = mu for those of the caps. Twenty steps are usual. At the end, weights
that their multipliers press against a bound are put on it, and Newton on the remaining face makes the others exact.
Gives up: a bound that is active with a multiplier near 0, where the weight is left just inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.solver.objective import ConvexObjective
from olmix.solver.projection import least_vertex

WANTED_GAP = 1e-13
LEAST_BARRIER = 1e-17
BOUNDARY = 0.995
BEHIND = 1e-3
PROXIMAL = 1e-8  # curvature added in every direction: a law of few tasks is flat in most of them
# How near a bound, and how many times larger than that its multiplier, makes a bound active; tried in order.
NEAR_BOUND, PRESSING = 1e-6, (1e3, 1e6, 1e9)
POLISHINGS = 4
LEAST_WEIGHT = 1e-300
ON_SIMPLEX = 1e-13


def interior_point(
    law: ConvexObjective, log_reference: Array, kl: float, caps: Array, iterations: int
) -> tuple[Array, int]:
    """The best weights found, (d,), and the steps taken; caps (d,) > 0 that sum to more than 1, kl >= 0."""
    u = np.minimum(caps, 1.0)
    # Inside every cap, since they sum to more than 1; between the even filling of the caps and the reference.
    even = u / u.sum()
    reference = np.exp(log_reference - log_reference.max())
    pulled = np.minimum(reference / reference.sum(), u)
    q = 0.5 * even + 0.5 * (pulled + (1 - pulled.sum()) * (u - pulled) / (u - pulled).sum())
    mu = 1e-2 / len(q)
    z, y = mu / q, mu / (u - q)
    best, bounds, least, used = q, (z, y), np.inf, 0

    def merit(point: Array, barrier: float) -> float:
        with np.errstate(invalid="ignore", divide="ignore"):
            entropy = kl * float(point @ (np.log(point) - log_reference)) if kl else 0.0
            return law.value(point) + entropy - barrier * float(np.log(point).sum() + np.log(u - point).sum())

    while used < iterations:
        used += 1
        gradient = law.gradient(q) + (kl * (np.log(q) - log_reference + 1) if kl else 0.0)
        gap = float(gradient @ (q - least_vertex(gradient, caps)))
        if gap < least:
            least, best, bounds = gap, q, (z, y)
        if gap <= WANTED_GAP or (mu <= LEAST_BARRIER and gap <= 1e-9):
            break
        slack = u - q
        softness = 1 / (PROXIMAL + (kl + z) / q + y / slack)
        pull = gradient - mu / q + mu / slack
        solved = law.curvature(q).inverse(softness, np.stack([pull, np.ones_like(q)], axis=1))
        change = solved[:, 1] * (solved[:, 0].sum() / solved[:, 1].sum()) - solved[:, 0]
        change -= change.sum() * softness / softness.sum()
        change_z = mu / q - z - z * change / q
        change_y = mu / slack - y + y * change / slack
        primal = min(1.0, BOUNDARY * _room(q, change), BOUNDARY * _room(slack, -change))
        dual = min(1.0, BOUNDARY * _room(z, change_z), BOUNDARY * _room(y, change_y))
        length, here = primal, merit(q, mu)
        slope = float(pull @ change)
        while length > 1e-12 and not merit(q + length * change, mu) <= here + 0.01 * length * slope + 1e-15 * abs(here):
            length /= 2
        q, z, y = q + length * change, z + dual * change_z, y + dual * change_y
        # A step that went far along the path may tighten the barrier more.
        along = min(length, dual)
        average = float(z @ q + y @ (u - q)) / (2 * len(q))
        mu = average * (0.05 if along > 0.9 else 0.3 if along > 0.5 else 0.9)
        # Never far ahead of the gap, or the bounds would stop every step before the law is flat.
        mu = max(mu, BEHIND * gap / len(q))
    return _Face(law, log_reference, kl, caps).polished(best, *bounds), used


def _room(value: Array, change: Array) -> float:
    """How many times `change` fits before a positive `value` reaches 0."""
    falling = change < 0
    return float((-value[falling] / change[falling]).min()) if falling.any() else np.inf


@dataclass(frozen=True)
class _Face:
    """The face of the feasible set that the end of the central path points at, and Newton on it."""

    law: ConvexObjective
    log_reference: Array
    kl: float
    caps: Array

    def polished(self, q: Array, z: Array, y: Array) -> Array:
        """`q` with the weights that press on a bound put on it, and the rest exact where Newton makes them so."""
        limits = np.where(self.caps < 1, self.caps, np.inf)
        at_cap = at_zero = np.zeros(len(q), dtype=np.bool_)
        for pressing in PRESSING:
            at_cap = (limits - q <= NEAR_BOUND) & (y > pressing * (limits - q))
            at_zero = (q <= NEAR_BOUND) & (z > pressing * q) & (self.kl == 0)
            moved = self._newton(q, at_cap | at_zero, np.where(at_cap, limits, 0.0), limits)
            if moved is not None and self._gap(moved) <= max(WANTED_GAP, self._gap(q)):
                return moved
        snapped = _repaired(np.where(at_cap, limits, np.where(at_zero, 0.0, q)), at_cap, limits)
        if abs(snapped.sum() - 1) <= ON_SIMPLEX:
            return snapped
        return _repaired(q, np.zeros_like(at_cap), limits)

    def _newton(self, q: Array, held: NDArray[np.bool_], bound: Array, limits: Array) -> Array | None:
        """The minimum with the `held` weights at `bound`, or None where it is not in the feasible set."""
        moved = np.where(held, bound, q)
        for _ in range(POLISHINGS):
            step = np.where(held, 0.0, self._step(moved, held))
            added = moved + step
            if self.kl:
                # Exact for the entropy, and positive, where a weight falls by orders of magnitude.
                with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                    shrunk = np.maximum(moved * np.exp(step / moved), LEAST_WEIGHT)
                added = np.where(held | (step >= 0), added, shrunk)
            moved = added
            if not (np.isfinite(moved) & (held | (moved > 0)) & (moved <= limits)).all():
                return None
        return moved if abs(moved.sum() - 1) <= ON_SIMPLEX else None

    def _step(self, q: Array, held: NDArray[np.bool_]) -> Array:
        """Newton's step with the `held` weights fixed, to a sum of 1."""
        entropy = self.kl / np.where(held, 1.0, q)
        softness = np.where(held, 0.0, 1 / (PROXIMAL + entropy))
        right = np.stack([self._slopes(q), np.ones_like(q)], axis=1)
        solved = self.law.curvature(q).inverse(softness, right)
        with np.errstate(divide="ignore", invalid="ignore"):
            level = (solved[:, 0].sum() + 1 - q.sum()) / solved[:, 1].sum()
            step: Array = level * solved[:, 1] - solved[:, 0]
        return step

    def _slopes(self, q: Array) -> Array:
        gradient = np.asarray(self.law.gradient(q))
        return gradient + self.kl * (np.log(q) - self.log_reference + 1) if self.kl else gradient

    def _gap(self, q: Array) -> float:
        slopes = self._slopes(q)
        return float(slopes @ (q - least_vertex(slopes, self.caps)))


def _repaired(q: Array, held: NDArray[np.bool_], limits: Array) -> Array:
    """`q` with what rounding took from its sum given back where there is room, but for the `held`."""
    room = np.where(held, 0.0, np.minimum(q, limits - q))
    given = (1 - q.sum()) * room / max(float(room.sum()), np.finfo(np.float64).tiny)
    return np.asarray(np.clip(q + given, 0.0, limits))
