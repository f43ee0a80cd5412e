"""The certified solver against one that knows nothing of it: cvxpy with Clarabel, on the same convex problems."""

from __future__ import annotations

import numpy as np
import pytest

from olmix.core.seeds import generator
from olmix.laws.diminishing import Diminishing
from olmix.laws.evidence import LinearEvidence
from olmix.laws.loglinear import LogLinear
from olmix.solver.certified import solve

cp = pytest.importorskip("cvxpy")
pytest.importorskip("clarabel")

LAWS = ("log-linear", "diminishing", "linear")
SEEDS = 15
EXACT = {"tol_gap_abs": 1e-9, "tol_gap_rel": 1e-9, "tol_feas": 1e-9}


def drawn(name, domains, tasks, *seed):
    """A law, and its tasks' BPB at a cvxpy variable."""
    g = generator("cvxpy law", name, domains, tasks, *seed)
    floor, level = g.uniform(0.1, 1.0, tasks), g.normal(0, 0.3, tasks)
    nothing, slopes = np.zeros(tasks), g.normal(0, 1.5, (tasks, domains))
    if name == "log-linear":
        law = LogLinear(floor, slopes, nothing, nothing, nothing + 1e9)
        return law, lambda q: floor + cp.exp(slopes @ q)
    if name == "diminishing":
        returns = np.maximum(slopes, 0.0)
        law = Diminishing(floor, level, returns, 0.6, nothing, nothing, nothing + 1e9)
        return law, lambda q: floor + cp.exp(level - returns @ cp.power(q, 0.6))
    law = LinearEvidence(level, slopes, nothing, nothing + 1e9)
    return law, lambda q: cp.exp(level + slopes @ q)


def by_cvxpy(bpb, weights, reference, kl, caps):
    """The least objective, and where it is."""
    q = cp.Variable(len(reference), nonneg=True)
    objective = weights / weights.sum() @ bpb(q)
    if kl:
        objective = objective + kl * cp.sum(cp.rel_entr(q, reference))
    asked = cp.Problem(cp.Minimize(objective), [cp.sum(q) == 1, q <= caps])
    least = asked.solve(solver=cp.CLARABEL, **EXACT)
    assert asked.status == cp.OPTIMAL
    return least, q.value


def agreed(name, domains, tasks, kl, tightness, *seed):
    """How many caps bind in a problem that both solve alike; the smaller the tightness (> 1), the more."""
    law, bpb = drawn(name, domains, tasks, *seed)
    g = generator("cvxpy setting", domains, tasks, *seed)
    weights, reference = g.uniform(0.2, 3.0, tasks), g.dirichlet(np.full(domains, 0.7)) + 1e-4
    share = g.uniform(0.2, 1.0, domains)
    caps = tightness * share / share.sum()
    ours = solve(law.objective(weights), reference=reference, kl=kl, caps=caps)
    least, where = by_cvxpy(bpb, weights, reference, kl, caps)
    assert ours.gap <= 1e-9
    assert ours.objective == pytest.approx(least, rel=1e-6)
    if kl:  # without it a flat law has many best mixtures
        assert ours.weights == pytest.approx(where, abs=1e-3)
    return int(ours.capped.sum())


@pytest.mark.parametrize("kl", [0.05, 0.0])
@pytest.mark.parametrize("name", LAWS)
def test_small_problems(name, kl):
    binding = []
    for seed in range(SEEDS):
        g = generator("cvxpy sizes", seed)
        domains, tasks = int(g.integers(3, 13)), int(g.integers(1, 15))
        binding.append(agreed(name, domains, tasks, kl, (1.1, 2.0, 4.0)[seed % 3], seed))
    assert np.mean(np.array(binding) > 0) >= 0.6  # or the caps would not be tested


@pytest.mark.parametrize("kl", [0.05, 0.0])
@pytest.mark.parametrize("name", LAWS)
def test_without_caps(name, kl):
    assert agreed(name, 7, 5, kl, 100.0, "free") == 0


def test_the_size_of_a_real_swarm():
    assert agreed("log-linear", 64, 52, 0.05, 3.0) >= 5
