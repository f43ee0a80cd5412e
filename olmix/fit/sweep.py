"""How the proposal moves with lambda, the repetition limit and the target tokens: one law, many solves.

Cells whose mixtures are within a small total variation of one another are the same choice, so they are merged: the
table then says how many different mixtures there are to choose from. Gives up: an order of merging that would make
cells of one group close to each other and not only to its first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import InfeasibleError
from olmix.fit.trust import Problem
from olmix.laws.base import Law
from olmix.solver.certified import Solution

SAME_CHOICE = 0.01  # total variation


@dataclass(frozen=True)
class Cell:
    """One setting: kl, repetition limit k, target tokens R; its best mixture (None where the caps leave none), the
    predicted mean BPB, KL to the reference in nats, and the number of the group of cells that it belongs to (from 0).
    """

    kl: float
    repetition: float
    tokens: int
    best: Solution | None
    bpb: float
    divergence: float
    group: int | None


def sweep(
    law: Law,
    problem: Problem,
    caps: Callable[[int, float], Array],
    observed: Array,
    *,
    kls: Sequence[float],
    repetitions: Sequence[float],
    targets: Sequence[int],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Cell, ...]:
    """Every combination, in the order of targets, repetitions and kls; `caps` gives the caps (m,)
    at R target tokens and repetition limit k.

    `report` is called with the cells done and in all.
    """
    cells: list[Cell] = []
    total = len(kls) * len(repetitions) * len(targets)
    for tokens in targets:
        for repetition in repetitions:
            for kl in kls:
                setting = replace(problem, kl=kl, caps=caps(tokens, repetition))
                cells.append(_cell(law, setting, observed, repetition, tokens))
                report(len(cells), total)
    return _grouped(cells)


def _cell(law: Law, problem: Problem, observed: Array, repetition: float, tokens: int) -> Cell:
    try:
        best = problem.best(law, observed)
    except InfeasibleError:
        return Cell(problem.kl, repetition, tokens, None, np.nan, np.nan, None)
    q = best.weights
    held = q > 0
    divergence = float(q[held] @ np.log(q[held] / problem.reference[held]))
    return Cell(problem.kl, repetition, tokens, best, float(best.predicted @ problem.task_weights), divergence, None)


def _grouped(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Each cell in the first group whose first mixture is within the merging distance, else in a group of its own."""
    firsts: list[Array] = []
    grouped = []
    for cell in cells:
        if cell.best is None:
            grouped.append(cell)
            continue
        q = cell.best.weights
        group = next((g for g, first in enumerate(firsts) if np.abs(first - q).sum() / 2 <= SAME_CHOICE), None)
        if group is None:
            group = len(firsts)
            firsts.append(q)
        grouped.append(replace(cell, group=group))
    return tuple(grouped)


def groups(cells: Sequence[Cell]) -> Mapping[int, list[Cell]]:
    """The feasible cells by group."""
    found: dict[int, list[Cell]] = {}
    for cell in cells:
        if cell.group is not None:
            found.setdefault(cell.group, []).append(cell)
    return found
