"""An older swarm beside the newest one: its domains and metrics in the newest one's terms.

Domains are the same when they bear the same name, or when a map says so. A domain that only the older swarm knows (it
was removed, or it is an earlier version of one) is kept as a column of its own, so that its runs stay evidence. What an
older run was not measured on is nan, and is masked in the fit. Gives up: telling a revised domain that kept its name;
the map has to say so (`code: code-2024`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.arrays import Array
from olmix.errors import DataError
from olmix.tables.swarm_results import SwarmTable
from olmix.tables.table import first_few
from olmix.tables.tasks import Groups


@dataclass(frozen=True)
class Aligned:
    """Swarms over one set of domains: the newest swarm's first, then those that only older ones know, by name."""

    domains: tuple[str, ...]
    mixtures: tuple[Array, ...]


def renamed(table: SwarmTable, names: Mapping[str, str]) -> SwarmTable:
    """The table with its domains under other names, {its own: the newest swarm's}; raises DataError for unknown ones
    and for two domains that would bear one name.
    """
    unknown = [name for name in names if name not in table.domains]
    if unknown:
        raise DataError(
            f"the map of domains names {first_few(unknown)}, which this swarm does not have", file=table.source
        )
    domains = tuple(names.get(name, name) for name in table.domains)
    twice = sorted({name for name in domains if domains.count(name) > 1})
    if twice:
        raise DataError(
            f"two domains would be called {first_few(twice)}",
            file=table.source,
            way_out="map one of them to another domain",
        )
    return SwarmTable(table.runs, domains, table.tasks, table.mixtures, table.bpb, table.source)


def refuse_shared(newest: SwarmTable, older: SwarmTable, where: str) -> None:
    """Raise DataError for runs of the newest swarm that the older one holds too: they would be seen twice."""
    place = {run: k for k, run in enumerate(newest.runs)}
    shared = [
        run for k, run in enumerate(older.runs) if run in place and _shares(older, k) == _shares(newest, place[run])
    ]
    if shared:
        raise DataError(
            f"{len(shared)} runs are also in the newest swarm: {first_few(shared)}",
            file=where,
            way_out="leave them out of the older swarm",
        )


def _shares(table: SwarmTable, run: int) -> dict[str, float]:
    """The domains that a run reads, with shares rounded as files may have rounded them."""
    weights = zip(table.domains, table.mixtures[run], strict=True)
    return {name: round(float(share), 6) for name, share in weights if share > 0}


def align(newest: SwarmTable, older: Sequence[SwarmTable]) -> Aligned:
    """Mixtures of all swarms, the newest first, over the union of their domains, with zeros for unknown ones.

    Raises DataError for an older swarm that shares no domain with the newest one.
    """
    for table in older:
        if not set(table.domains) & set(newest.domains):
            raise DataError(
                f"shares no domain with {newest.source}: it has {first_few(table.domains)}, the newest swarm has "
                f"{first_few(newest.domains)}",
                file=table.source,
                way_out="map its domains to those of the newest swarm",
            )
    extra = sorted({name for table in older for name in table.domains} - set(newest.domains))
    domains = (*newest.domains, *extra)
    mixtures = []
    for table in (newest, *older):
        place = {name: i for i, name in enumerate(table.domains)}
        spread = np.zeros((len(table.runs), len(domains)))
        for column, name in enumerate(domains):
            if name in place:
                spread[:, column] = table.mixtures[:, place[name]]
        mixtures.append(spread)
    return Aligned(domains, tuple(mixtures))


def bpb_of(table: SwarmTable, tasks: Sequence[str], groups: Groups) -> Array:
    """BPB (K, n) of `tasks` in an older swarm: a metric, or the group of that name; nan where a metric is missing.

    Raises DataError when none of them was measured.
    """
    place = {name: j for j, name in enumerate(table.tasks)}
    columns = []
    for task in tasks:
        group = groups.get(task, {task: 1.0})
        if all(name in place for name in group):
            values = table.bpb[:, [place[name] for name in group]]
            columns.append(np.average(values, axis=1, weights=list(group.values())))
        else:
            columns.append(np.full(len(table.runs), np.nan))
    bpb = np.column_stack(columns)
    if np.isnan(bpb).all():
        raise DataError(
            f"was measured on none of the {len(tasks)} tasks: it has {first_few(table.tasks)}; the tasks are "
            f"{first_few(tasks)}",
            file=table.source,
        )
    return bpb


def masked(bpb: Array, runs: Sequence[str], tasks: Sequence[str], mask: Mapping[str, Mapping[str, float]]) -> Array:
    """`bpb` (K, n) with nan where `mask`, {run: {task: 0 or 1}}, is 0."""
    kept = np.array([[mask.get(run, {}).get(task, 1.0) for task in tasks] for run in runs])
    return np.where(kept > 0, bpb, np.nan)
