"""A swarm of results: ratios and metrics joined by run id, and which of its runs to use.

Nothing is paired by position: runs are joined by id, and one that only one of the two files knows is an error, since
nobody can tell whether it was left out on purpose. Gives up: swarms in more than two files.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.errors import DataError
from olmix.laws.observations import RUN_SUM_TOLERANCE
from olmix.tables.table import ResultTable, first_few


@dataclass(frozen=True)
class SwarmTable:
    """K runs: mixtures (K, m), rows of sum 1, and bpb (K, n), nan where a run lacks a metric.

    `source` names the file of metrics in messages.
    """

    runs: tuple[str, ...]
    domains: tuple[str, ...]
    tasks: tuple[str, ...]
    mixtures: Array
    bpb: Array
    source: str = "swarm"

    def rows(self, which: Sequence[int] | NDArray[np.intp]) -> SwarmTable:
        """Some of the runs, in the order of `which`."""
        runs = tuple(self.runs[k] for k in which)
        return replace(self, runs=runs, mixtures=self.mixtures[which], bpb=self.bpb[which])

    def of_tasks(self, which: Sequence[int]) -> SwarmTable:
        """Some of the tasks, in the order of `which`."""
        return replace(self, tasks=tuple(self.tasks[j] for j in which), bpb=self.bpb[:, which])


def join(ratios: ResultTable, metrics: ResultTable, unused: Collection[str] = ()) -> SwarmTable:
    """The swarm of two tables that hold the same run ids, in the order of the ratios.

    Raises DataError, naming runs, for ids that only one table has, weights that are missing or negative, rows whose
    sum is not 1 within 1e-2 (the others are divided by their sum), and BPB that is not positive, except of metrics
    that are `unused` (an accuracy may be 0).
    """
    known = set(metrics.ids), set(ratios.ids)
    sides = [
        f"{len(alone)} only in {table.path} ({first_few(alone)})"
        for table, other in zip((ratios, metrics), known, strict=True)
        if (alone := [run for run in table.ids if run not in other])
    ]
    if sides:
        keys = f"{ratios.id_column!r} and {metrics.id_column!r}"
        raise DataError(
            f"runs joined by {keys}: {'; '.join(sides)}",
            file=f"{ratios.path}, {metrics.path}",
            way_out="remove these rows, or add the missing ones to the other file",
        )
    row = {run: k for k, run in enumerate(metrics.ids)}
    return SwarmTable(
        runs=ratios.ids,
        domains=ratios.columns,
        tasks=metrics.columns,
        mixtures=_mixtures(ratios),
        bpb=_positive(metrics, unused)[[row[run] for run in ratios.ids]],
        source=str(metrics.path),
    )


def _mixtures(ratios: ResultTable) -> Array:
    """Weights (K, m) divided by the sum of their row."""
    weights = ratios.values
    bad = np.argwhere(~(weights >= 0))
    if len(bad):
        k, i = bad[0]
        place = f"run {ratios.ids[k]!r}, domain {ratios.columns[i]!r}"
        if math.isnan(weights[k, i]):
            raise DataError(
                f"{place}: no weight", file=ratios.path, way_out="write 0 for a domain that a run does not read"
            )
        raise DataError(f"{place}: weight {weights[k, i]:g}; weights must be >= 0", file=ratios.path)
    sums = weights.sum(axis=1)
    off = np.abs(sums - 1)
    if off.max() > RUN_SUM_TOLERANCE:
        k = int(off.argmax())
        others = int((off > RUN_SUM_TOLERANCE).sum()) - 1
        raise DataError(
            f"run {ratios.ids[k]!r}: weights sum to {sums[k]:.6g}, not to 1 within {RUN_SUM_TOLERANCE:g}"
            + (f" (and {others} more like it)" if others else ""),
            file=ratios.path,
            way_out="add the missing domains, remove columns that are not domains, and check that this is the file of "
            "ratios",
        )
    return np.asarray(weights / sums[:, None])


def _positive(metrics: ResultTable, unused: Collection[str]) -> Array:
    matters = [name not in unused for name in metrics.columns]
    bad = np.argwhere((metrics.values <= 0) & matters)
    if len(bad):
        k, j = bad[0]
        raise DataError(
            f"run {metrics.ids[k]!r}, metric {metrics.columns[j]!r}: {metrics.values[k, j]:g} is not a BPB, "
            "which is > 0",
            file=metrics.path,
            way_out="leave the metric out with --drop, or the cell empty",
        )
    return metrics.values


def subset(table: SwarmTable, *, runs: int, seed: int) -> SwarmTable:
    """`runs` of the K runs, in the table's order, chosen as scikit-learn's `train_test_split(train_size=runs,
    random_state=seed)` chooses from them; raises DataError for numbers that cannot be.

    The rule: of `RandomState(seed).permutation(K)` the first K - runs are left out.
    """
    total = len(table.runs)
    if not 1 <= runs <= total:
        raise DataError(f"cannot choose {runs} of {total} runs", file=table.source, way_out=f"choose from 1 to {total}")
    if not 0 <= seed < 2**32:
        raise DataError(f"seed {seed} is out of range", file=table.source, way_out=f"choose one from 0 to {2**32 - 1}")
    # Not of olmix.core.seeds: published subsets are known by the seed of this generator alone.
    chosen = np.random.RandomState(seed).permutation(total)[total - runs :]
    return table.rows(np.sort(chosen))


def only(table: SwarmTable, ids: Sequence[str], source: str = "the ids") -> SwarmTable:
    """The runs that `ids` names, in the table's order; raises DataError, naming `source`, for ids it does not know."""
    known, wanted = set(table.runs), set(ids)
    unknown = [run for run in ids if run not in known]
    if unknown:
        raise DataError(
            f"{len(unknown)} of {len(ids)} ids are not in {table.source}: {first_few(map(repr, unknown))}",
            file=source,
            way_out=f"remove them, or use ids of its runs, such as {table.runs[0]!r}",
        )
    if not wanted:
        raise DataError("no ids", file=source, way_out="give at least one run")
    return table.rows([k for k, run in enumerate(table.runs) if run in wanted])
