"""Two laws with power laws of the domains' shares in them, after BiMix and AutoScale; both convex in the mixture.

BiMix (arXiv 2405.14908) fits the validation loss of one domain by a power law of that domain's own share r and of the
steps s, L = A / r^alpha (B / s^beta + C); the proxies of a swarm share their steps, which leaves a power law of the
share. AutoScale (arXiv 2407.20177) fits it, at N tokens of the domain, by L = (N0 + N)^-gamma + l, where N0 is how many
tokens the other domains are worth, with a gamma and an N0 for each domain. Both papers speak of a domain's own loss.

What is ours: a task is no domain, so every domain has its term in every task, with a coefficient >= 0.

    BiMix       f_j(p) = c_j + sum_i a_ij (p_i + e_j)^-alpha_j           the terms add up
    AutoScale   f_j(p) = exp(c_j) prod_i prod_s (p_i + n_s)^-g_ijs       the terms multiply

BiMix has one exponent and one shift a task, and a constant that no domain lowers. AutoScale has an exponent for each
task and domain, split over two equivalents n of other domains' data, 0.3% and 30% of the tokens: how it is split is how
much of the domain the others replace. In log BPB these exponents are the coefficients of a linear problem, which the
paper's additive form does not have; the price is l, which the product goes without. The share stands for the tokens,
since all proxies read equally many.

Coefficients are ridge solutions with the sign kept; exponent, shift and ridge are those of the least leave-one-out
error among the runs. Measured on 5 splits of the public DCLM swarm: from 24 runs the product orders unseen runs as well
as the log-linear law from 48. Gives up: domains that harm more than by the tokens that they take.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.errors import SwarmError
from olmix.laws.base import ExponentialObjective, MeanObjective
from olmix.laws.observations import Observations
from olmix.solver.objective import Curvature, task_weights

EXPONENTS = (0.3, 1.0)  # the lower one is near a logarithm
SHIFTS = (0.003, 0.03, 0.3, 1.0)
EQUIVALENTS = (0.003, 0.3)
RIDGES = (0.01, 0.1)  # in units of the features' mean variance
DOMAINS_AND_SHIFTS = ((-2, -1), (-2, -1))  # axes that a sum runs over
PATIENCE = 3  # block exchanges without progress before single ones
TINY = 1e-12


@dataclass(frozen=True)
class BiMix:
    """Laws of n tasks over m domains, f_j(p) = c_j + sum_i a_ij (p_i + e_j)^-alpha_j, in BPB.

    constant c (n,); amplitudes a (n, m) >= 0; exponent alpha (n,); shift e (n,); lower and upper (n,): the range of
    predictions.
    """

    constant: Array
    amplitudes: Array
    exponent: Array
    shift: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper]."""
        x = np.asarray(mixtures, dtype=np.float64)
        unclipped = np.empty((*x.shape[:-1], len(self.constant)))
        # Tasks share a few exponents and shifts, and with them the powers.
        kinds, kind = np.unique(np.stack([self.exponent, self.shift]), axis=1, return_inverse=True)
        for k, (alpha, e) in enumerate(kinds.T):
            tasks = kind == k
            unclipped[..., tasks] = self.constant[tasks] + (x + e) ** -alpha @ self.amplitudes[tasks].T
        return np.clip(unclipped, self.lower, self.upper)

    def objective(self, weights: Array | None = None) -> BiMixObjective:
        """The weighted mean over tasks as the solver wants it; weights (n,) >= 0, equal by default."""
        return BiMixObjective(self, task_weights(len(self.constant), weights))

    def _terms(self, mixture: Array, steeper: int) -> Array:
        """a_ij (p_i + e_j)^-(alpha_j + steeper) at `mixture` (m,), (n, m)."""
        shifted = np.asarray(mixture, dtype=np.float64) + self.shift[:, None]
        return np.asarray(self.amplitudes * shifted ** -(self.exponent + steeper)[:, None])


class BiMixObjective(MeanObjective[BiMix]):
    """The weighted mean of the law, a sum of convex functions of one share each."""

    def value(self, mixture: Array) -> float:
        """The weighted mean BPB at `mixture` (m,)."""
        return float(self.weights @ (self.law.constant + self.law._terms(mixture, 0).sum(axis=1)))

    def gradient(self, mixture: Array) -> Array:
        """d value / d q, (m,)."""
        return np.asarray(-(self.weights * self.law.exponent) @ self.law._terms(mixture, 1))

    def curvature(self, mixture: Array) -> Curvature:
        """The Hessian, which is diagonal."""
        bend = (self.weights * self.law.exponent * (self.law.exponent + 1)) @ self.law._terms(mixture, 2)
        return Curvature(np.zeros((0, len(mixture))), bend)


@dataclass(frozen=True)
class AutoScale:
    """Laws of n tasks over m domains, f_j(p) = exp(c_j) prod_i prod_s (p_i + n_s)^-g_ijs, in BPB.

    constant c (n,); exponents g (n, S, m) >= 0; equivalents n (S,), in shares; lower and upper (n,): the range of
    predictions.
    """

    constant: Array
    exponents: Array
    equivalents: Array
    lower: Array
    upper: Array

    def predict(self, mixtures: Array) -> Array:
        """BPB (..., n) at `mixtures` (..., m), clipped to [lower, upper]."""
        return np.clip(np.exp(self.log_growth(mixtures)), self.lower, self.upper)

    def objective(self, weights: Array | None = None) -> ExponentialObjective[AutoScale]:
        """The weighted mean over tasks as the solver wants it; weights (n,) >= 0, equal by default."""
        return ExponentialObjective(self, task_weights(len(self.constant), weights))

    def log_growth(self, mixture: Array) -> Array:
        """c_j - sum_i sum_s g_ijs log(p_i + n_s) at `mixture` (..., m), (..., n)."""
        return self.constant - np.tensordot(np.log(self._shifted(mixture)), self.exponents, DOMAINS_AND_SHIFTS)

    def slopes(self, mixture: Array) -> Array:
        """-sum_s g_ijs / (p_i + n_s), (n, m)."""
        return np.asarray(-(self.exponents / self._shifted(mixture)).sum(axis=1))

    def bend(self, mixture: Array, growth: Array) -> Array:
        """sum_j growth_j sum_s g_ijs / (p_i + n_s)^2, (m,)."""
        return np.asarray(growth @ (self.exponents / self._shifted(mixture) ** 2).sum(axis=1))

    def _shifted(self, mixtures: Array) -> Array:
        """p_i + n_s, (..., S, m)."""
        return np.asarray(mixtures, dtype=np.float64)[..., None, :] + self.equivalents[:, None]


def fit_bimix(observations: Observations) -> BiMix:
    """The additive power law of every task, by least squares on BPB.

    A domain that no run samples gets the mean amplitude of the others, as nothing says that it helps less.
    """
    _, m, n = observations.shape
    constant, amplitudes, exponent, shift = np.empty(n), np.empty((n, m)), np.empty(n), np.empty(n)
    for group in observations.groups():
        runs = _Runs.of(observations, group)
        least = np.full(len(group), np.inf)
        for alpha, e in [(alpha, e) for alpha in EXPONENTS for e in SHIFTS]:
            # From 1 at no share to 0 at all of it.
            top, bottom = e**-alpha, (1 + e) ** -alpha
            features = ((runs.mixtures + e) ** -alpha - bottom) / (top - bottom)
            found, level, error = runs.fitted(features, runs.bpb)
            better = error < least
            chosen, least = group[better], np.where(better, error, least)
            amplitudes[chosen] = found[better] / (top - bottom)
            constant[chosen] = level[better] - bottom * amplitudes[chosen].sum(axis=1)
            exponent[chosen], shift[chosen] = alpha, e
    return BiMix(constant, amplitudes, exponent, shift, *observations.bounds())


def fit_autoscale(observations: Observations) -> AutoScale:
    """The product of power laws of every task, by least squares on log BPB.

    A domain that no run samples gets the mean exponents of the others, as nothing says that it helps less.
    """
    _, m, n = observations.shape
    equivalents = np.array(EQUIVALENTS)
    height = np.log((1 + equivalents) / equivalents)[:, None]
    constant, exponents = np.empty(n), np.empty((n, len(equivalents), m))
    for group in observations.groups():
        runs = _Runs.of(observations, group)
        features = np.log((1 + equivalents[:, None]) / (runs.mixtures[:, None] + equivalents[:, None])) / height
        found, level, _ = runs.fitted(features.reshape(len(features), -1), np.log(runs.bpb))
        exponents[group] = found.reshape(len(group), -1, m) / height
        constant[group] = level + np.tensordot(exponents[group], np.log1p(equivalents), ((1,), (0,))).sum(axis=1)
    return AutoScale(constant, exponents, equivalents, *observations.bounds())


@dataclass(frozen=True)
class _Runs:
    """The runs that count for a group of tasks: mixtures (K, m), bpb (K, n), shares (K,) of sum 1."""

    mixtures: Array
    bpb: Array
    shares: Array

    @classmethod
    def of(cls, observations: Observations, group: NDArray[np.intp]) -> _Runs:
        shares = observations.shares[:, group[0]]
        rows = np.flatnonzero(shares > 0)
        return cls(observations.mixtures[rows], observations.bpb[np.ix_(rows, group)], shares[rows])

    def fitted(self, features: Array, targets: Array) -> tuple[Array, Array, Array]:
        """Coefficients (n, M) >= 0 of the features (K, M), intercepts (n,) and leave-one-out errors (n,).

        Features come as blocks of m, a column a domain, each 1 at no share. A run is left out with all its weight.
        """
        domains = self.mixtures.shape[1]
        sampled = np.tile((self.mixtures > 0).any(axis=0), features.shape[1] // domains)
        centre, level = self.shares @ features, self.shares @ targets
        x, y = features - centre, (targets - level).T
        weighted = self.shares[:, None] * x
        gram, right = weighted.T @ x, y @ weighted
        unit = max(np.trace(gram) / sampled.sum(), TINY)
        best, least = np.zeros(right.shape), np.full(len(right), np.inf)
        for ridge in RIDGES:
            coefficients, inverse = _nonnegative(gram + ridge * unit * np.eye(len(gram)), right)
            leverage = self.shares * (1 + ((x @ inverse) * x).sum(axis=2))
            left_out = (y - coefficients @ x.T) / np.maximum(1 - leverage, TINY)
            error = left_out**2 @ self.shares
            better = error < least
            best[better], least = coefficients[better], np.where(better, error, least)
        intercept = level - best @ centre
        if not sampled.all():
            blocks = np.where(sampled, best, 0).reshape(len(best), -1, domains)
            means = blocks.sum(axis=2) / sampled[:domains].sum()
            best = np.where(sampled, best, np.repeat(means, domains, axis=1))
            intercept = intercept - best[:, ~sampled].sum(axis=1)
        return best, intercept, least


def _nonnegative(gram: Array, right: Array) -> tuple[Array, Array]:
    """argmin_{a >= 0} a . gram a / 2 - right . a for each row of right (n, M), gram (M, M) positive definite, and the
    inverse of gram on the coefficients that are positive, (n, M, M), 0 elsewhere.

    Block principal pivoting (Judice and Pires 1994; Kim and Park 2011), all problems at once: whatever has the wrong
    sign changes sides, and when that makes no progress, the last of it alone, which ends.
    """
    problems, size = right.shape
    free = np.ones(right.shape, dtype=bool)
    inverse = np.broadcast_to(np.linalg.inv(gram), (problems, size, size)).copy()
    solution = right @ inverse[0]
    fewest, patience = np.full(problems, size + 1), np.full(problems, PATIENCE)
    active = np.arange(problems)
    tolerance = TINY * np.abs(right).max(axis=1, keepdims=True)
    for _ in range(100 * size):
        a, f = solution[active], free[active]
        wrong = np.where(f, a < 0, a @ gram - right[active] < -tolerance[active])
        count = wrong.sum(axis=1)
        active, f, wrong, count = active[count > 0], f[count > 0], wrong[count > 0], count[count > 0]
        if len(active) == 0:
            return solution, inverse
        progress = count < fewest[active]
        patience[active] = np.where(progress, PATIENCE, patience[active] - 1)
        fewest[active] = np.minimum(count, fewest[active])
        last = size - 1 - wrong[:, ::-1].argmax(axis=1)
        single = (patience[active] < 0)[:, None] & (np.arange(size) != last[:, None])
        f = f ^ (wrong & ~single)
        free[active] = f
        pairs = f[:, :, None] & f[:, None, :]
        inverse[active] = np.where(pairs, np.linalg.inv(np.where(pairs, gram, np.eye(size))), 0.0)
        solution[active] = (inverse[active] @ right[active][..., None])[..., 0]
    raise SwarmError("the mixtures are too similar for a power law", way_out="fit another law, or add runs")
