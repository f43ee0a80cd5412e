"""The proposal over lambda, repetition limit and target tokens: each cell, its caps, and which are one choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from olmix.core.seeds import generator
from olmix.fit import sweep as sweep_module
from olmix.fit.sweep import SAME_CHOICE, groups, sweep
from olmix.fit.trust import Problem
from olmix.laws.loglinear import LogLinear
from olmix.laws.nearest_run import NearestRun
from olmix.solver.certified import Solution

TOKENS = np.array([4e9, 1e9, 5e8, 2e9])
NATURAL = TOKENS / TOKENS.sum()
WEIGHTS = np.array([0.4, 0.6])
KLS, REPETITIONS, TARGETS = (0.0, 0.01, 0.05, 1.0), (1.0, 4.0, 8.0), (10**9, 10**10, 4 * 10**10)
OBSERVED = generator("sweep observed").dirichlet(np.ones(4), size=12)
PROBLEM = Problem(WEIGHTS, NATURAL, 0.05, np.ones(4), NATURAL)


def law(seed: int = 0) -> LogLinear:
    g = generator("sweep", seed)
    nothing = np.zeros(2)
    return LogLinear(g.uniform(0.3, 0.8, 2), g.normal(0, 0.4, (2, 4)), nothing, nothing, np.full(2, np.inf))


def caps(tokens: int, repetition: float) -> np.ndarray:
    return np.minimum(1.0, repetition * TOKENS / tokens)


def swept(of=None, **changes):
    arguments = {"kls": KLS, "repetitions": REPETITIONS, "targets": TARGETS, **changes}
    return sweep(law() if of is None else of, PROBLEM, caps, OBSERVED, **arguments)


def test_every_combination_is_solved_under_its_own_caps():
    cells = swept()
    assert [(c.tokens, c.repetition, c.kl) for c in cells] == [
        (tokens, repetition, kl) for tokens in TARGETS for repetition in REPETITIONS for kl in KLS
    ]
    for cell in cells:
        limits = caps(cell.tokens, cell.repetition)
        if cell.best is None:
            continue
        alone = replace(PROBLEM, kl=cell.kl, caps=limits).best(law(), OBSERVED)
        assert (cell.best.weights == alone.weights).all()
        assert (cell.best.weights <= limits).all()
        assert cell.best.gap <= 1e-9
        q = cell.best.weights
        assert cell.bpb == pytest.approx(law().predict(q) @ WEIGHTS)
        assert cell.divergence == pytest.approx(
            sum(w * np.log(w / r) for w, r in zip(q, NATURAL, strict=True) if w > 0)
        )
        assert cell.best.objective == pytest.approx(cell.bpb + cell.kl * cell.divergence)


def test_a_cell_without_room_is_infeasible_and_alone():
    # 7.5e9 tokens: enough for 1e10 from two repetitions on, and for 4e10 from six on.
    cells = swept()
    for cell in cells:
        feasible = caps(cell.tokens, cell.repetition).sum() >= 1
        assert (cell.best is not None) == feasible
        if not feasible:
            assert np.isnan([cell.bpb, cell.divergence]).all()
            assert cell.group is None
    infeasible = {(c.tokens, c.repetition) for c in cells if c.best is None}
    assert infeasible == {(10**10, 1.0), (4 * 10**10, 1.0), (4 * 10**10, 4.0)}
    nothing = swept(repetitions=(0.1,), targets=(4 * 10**10,))
    assert [c.best for c in nothing] == [None] * 4
    assert groups(nothing) == {}


def test_progress_is_told_cell_by_cell():
    told = []
    swept(report=lambda done, total: told.append((done, total)))
    assert told == [(k, 36) for k in range(1, 37)]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_a_stronger_pull_comes_nearer_and_more_room_never_costs(seed):
    cells = {(c.tokens, c.repetition, c.kl): c for c in swept(law(seed)) if c.best is not None}
    for (tokens, repetition, kl), cell in cells.items():
        for stronger in (k for k in KLS if k > kl):
            other = cells[tokens, repetition, stronger]
            assert other.divergence <= cell.divergence + 1e-7
            assert other.bpb >= cell.bpb - 1e-7
        for more in (r for r in REPETITIONS if r > repetition):
            assert cells[tokens, more, kl].best.objective <= cell.best.objective + 1e-9


def fixed(mixtures, monkeypatch):
    """Cells whose best mixtures are these, in the order of the sweep; None is infeasible."""
    left = list(mixtures)

    def best(self, of, observed, limits=None):
        q = left.pop(0)
        if q is None:
            raise sweep_module.InfeasibleError("no room")
        return Solution(np.array(q), 0.0, np.ones(2), np.zeros(len(q), dtype=bool), 1, None)

    monkeypatch.setattr(Problem, "best", best)
    reference = np.full(len(mixtures[0]), 1 / len(mixtures[0]))
    return sweep(
        law(),
        replace(PROBLEM, reference=reference),
        caps,
        OBSERVED,
        kls=range(len(mixtures)),
        repetitions=(1.0,),
        targets=(1,),
    )


def test_cells_within_a_hundredth_of_total_variation_are_one_choice(monkeypatch):
    def moved(by):
        return [0.5 + by, 0.5 - by]

    assert SAME_CHOICE == 0.01
    # The third is near the second, but not near the first of that group.
    cells = fixed([moved(0), moved(0.0099), None, moved(0.0101), moved(-0.0099), moved(0.02), moved(0.3)], monkeypatch)
    assert [c.group for c in cells] == [0, 0, None, 1, 0, 1, 2]
    found = groups(cells)
    assert {g: [c.kl for c in members] for g, members in found.items()} == {0: [0, 1, 4], 1: [3, 5], 2: [6]}


def test_groups_hold_all_feasible_cells_once_and_are_numbered_as_they_come():
    cells = swept()
    found = groups(cells)
    assert list(found) == list(range(len(found)))
    members = [c for group in found.values() for c in group]
    assert sorted(map(id, members)) == sorted(id(c) for c in cells if c.best is not None)
    firsts = [group[0].best.weights for group in found.values()]
    for number, group in found.items():
        for cell in group:
            assert np.abs(cell.best.weights - firsts[number]).sum() / 2 <= 0.01
            assert all(np.abs(cell.best.weights - first).sum() / 2 > 0.01 for first in firsts[:number])
    # The same setting twice is no new choice.
    twice = swept(kls=(0.05, 0.05), repetitions=(8.0,), targets=(10**9,))
    assert [c.group for c in twice] == [0, 0]


def test_a_law_that_is_searched_is_swept_too():
    values = law().predict(OBSERVED)
    nearest = NearestRun(OBSERVED, values, np.ones_like(values))
    cells = swept(nearest, kls=(0.05,), repetitions=(1.0, 8.0), targets=(10**10,))
    assert cells[0].best is None
    assert cells[1].best.certificate is None
    assert (cells[1].best.weights <= caps(10**10, 8.0)).all()
    assert cells[1].group == 0
