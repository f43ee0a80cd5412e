"""The tasks that a law is fitted to, made of the metrics that a swarm was measured by: dropped, kept, or averaged.

What a run lacks matters only where it is used: a run is set aside, by name, for a missing metric that is in a group or
kept, and never for one that is dropped. Gives up: a run counts for all tasks or for none; masks of single tasks are the
caller's, who has the nan.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from olmix.errors import DataError
from olmix.tables.swarm_results import SwarmTable
from olmix.tables.table import first_few

SAME_BPB = 1e-12  # relative spread up to which a metric is constant

Groups = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class SetAside:
    """A run that is not used, and the used metrics that it lacks."""

    run: str
    missing: tuple[str, ...]


def tasks_of(
    table: SwarmTable, groups: Groups | None = None, drop: Sequence[str] = ()
) -> tuple[SwarmTable, tuple[SetAside, ...]]:
    """The swarm by tasks, with the runs that it sets aside for a metric that is used and missing.

    A group is one task, the mean of its metrics weighted by {metric: weight > 0}; a metric of no group is a task of
    its own unless it is dropped, and tasks come in the order of the columns, then of the groups. A dropped metric
    leaves its group too. Raises DataError for unknown names, a metric in two groups, a group that nothing is left of
    or that is called like a task, no task or run left, and metrics that are constant over the runs.
    """
    groups = {} if groups is None else groups
    _check_names(table, groups, drop)
    members = {task: {name: w for name, w in group.items() if name not in drop} for task, group in groups.items()}
    grouped = {name for group in members.values() for name in group}
    single = [name for name in table.tasks if name not in drop and name not in grouped]
    for task, group in members.items():
        if not group:
            raise DataError(
                f"group {task!r}: all of its metrics are dropped",
                file=table.source,
                way_out="keep one, or remove the group",
            )
        if task in single:
            raise DataError(
                f"group {task!r} has the name of a metric outside it", file=table.source, way_out="rename the group"
            )
    if not single and not members:
        raise DataError(f"all {len(table.tasks)} metrics are dropped", file=table.source, way_out="keep at least one")
    used = [name for name in table.tasks if name in grouped or name in set(single)]
    kept, aside = _complete(table, used)
    _refuse_constant(kept, used)
    column = {name: kept.bpb[:, j] for j, name in enumerate(kept.tasks)}
    means = [np.average([column[name] for name in g], axis=0, weights=list(g.values())) for g in members.values()]
    bpb = np.column_stack([*(column[name] for name in single), *means])
    return replace(kept, tasks=(*single, *members), bpb=bpb), aside


def _check_names(table: SwarmTable, groups: Groups, drop: Sequence[str]) -> None:
    """Raises DataError for names that are no metric, with close ones, weights that weigh nothing, shared metrics."""
    home: dict[str, str] = {}
    for name in drop:
        refuse_unknown(table, name, "dropped")
    for task, group in groups.items():
        for name, weight in group.items():
            refuse_unknown(table, name, f"in group {task!r}")
            if not (math.isfinite(weight) and weight > 0):
                raise DataError(
                    f"group {task!r}: {name!r} has weight {weight:g}; weights must be > 0", file=table.source
                )
            if home.setdefault(name, task) != task:
                raise DataError(
                    f"metric {name!r} is in groups {home[name]!r} and {task!r}",
                    file=table.source,
                    way_out="keep it in one",
                )


def refuse_unknown(table: SwarmTable, name: str, said: str) -> None:
    """Raises DataError when the table has no metric `name`, with those that are spelt like it."""
    if name in table.tasks:
        return
    close = difflib.get_close_matches(name, table.tasks, n=3)
    way = f"did you mean {' or '.join(map(repr, close))}?" if close else f"the metrics are {first_few(table.tasks)}"
    raise DataError(f"no metric {name!r} ({said}); {way}", file=table.source)


def _complete(table: SwarmTable, used: Sequence[str]) -> tuple[SwarmTable, tuple[SetAside, ...]]:
    """The runs that have every used metric, and the others; raises DataError when no run is left."""
    missing = np.isnan(table.bpb[:, [table.tasks.index(name) for name in used]])
    whole = ~missing.any(axis=1)
    if not whole.any():
        worst = int(missing.sum(axis=0).argmax())
        raise DataError(
            f"none of {len(table.runs)} runs has all {len(used)} metrics that are used; {used[worst]!r} is missing in "
            f"{missing[:, worst].sum()}",
            file=table.source,
            way_out="fill it in, or leave it out with --drop",
        )
    aside = tuple(
        SetAside(run, tuple(name for name, gone in zip(used, lacks, strict=True) if gone))
        for run, lacks in zip(table.runs, missing, strict=True)
        if lacks.any()
    )
    return table.rows(np.flatnonzero(whole)), aside


def _refuse_constant(table: SwarmTable, used: Sequence[str]) -> None:
    if len(table.runs) < 2:
        return
    bpb = table.bpb[:, [table.tasks.index(name) for name in used]]
    flat = np.ptp(bpb, axis=0) <= SAME_BPB * bpb[0]
    if flat.any():
        names = [f"{used[j]!r} ({bpb[0, j]:g})" for j in range(len(used)) if flat[j]]
        raise DataError(
            f"metrics with the same value in all {len(table.runs)} runs, which teach a law nothing: {first_few(names)}",
            file=table.source,
            way_out="leave them out with --drop",
        )
