"""A swarm that is trained elsewhere: `build/ratios.csv`, the runs to train, and `external/`, what was measured of them.

A run's id is `<index>-<hex>`. The digits digest what the run reads and nothing else: the content of its real domains
and their exact weights. So the metrics of another version of the data name no run of this swarm, while a renamed domain
renames no run. Gives up: the recipe and the seed of these proxies are not seen here; that they are the same for every
run is the team's word.
"""

from __future__ import annotations

import csv
import difflib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from olmix.core.swarm import Swarm
from olmix.errors import DataError, SwarmError
from olmix.files import output_folder, write_bytes, write_json
from olmix.project import Project
from olmix.tables.table import first_few, read_result_table

# What stands in the outputs of the stages that have nothing to do then.
ELSEWHERE = (
    "Nothing is trained here: proxy.external is true. The runs are in build/ratios.csv, their metrics in external/."
)


def run_ids(swarm: Swarm) -> dict[str, str]:
    """The id of every run, by its name in the swarm: `<name>-<8 hexadecimal digits>`."""
    return {run: f"{run}-{_digest(swarm, weights)}" for run, weights in swarm.rows().items()}


def _digest(swarm: Swarm, weights: Mapping[str, float]) -> str:
    # By content, not by name, and without the domains that the run does not read.
    read = sorted((row["digest"], row["weight"]) for row in swarm.expanded(weights).values())
    text = "\n".join(f"{digest} {weight!r}" for digest, weight in read)
    return xxhash.xxh3_128_hexdigest(text.encode())[:8]


def write_ratios(project: Project, swarm: Swarm) -> None:
    """Write `build/ratios.csv`: a row a run, its id and its weight on every real domain, so exact that it reads back
    as the same number."""
    ids, domains = run_ids(swarm), sorted(swarm.digests)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["run", *domains])
    for run, weights in swarm.rows().items():
        expanded = swarm.space.expand([weights[name] for name in swarm.space.names])
        rows.writerow([ids[run], *(repr(expanded[domain]) for domain in domains)])
    write_bytes(project.ratios, text.getvalue().encode())


@dataclass(frozen=True)
class ExternalMetrics:
    """What the metrics file says of a swarm.

    `scores` are BPB by run's name and task, of the runs that have every task; `missing` and `incomplete` (which lack a
    task) are ids of this swarm, `extra` are ids of no run of it.
    """

    path: Path
    scores: Mapping[str, Mapping[str, float]]
    missing: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    found: bool = True

    @property
    def warnings(self) -> list[str]:
        """What a person should know, whether or not it suffices."""
        said = []
        if self.extra:
            count = f"{len(self.extra)} {'id is' if len(self.extra) == 1 else 'ids are'}"
            said.append(f"{self.path}: {count} not in this swarm, perhaps from an earlier one: {first_few(self.extra)}")
        if self.incomplete:
            count = f"{len(self.incomplete)} run{'s' * (len(self.incomplete) != 1)}"
            said.append(f"{self.path}: {count} excluded, missing a task: {', '.join(self.incomplete)}")
        return said


def read_metrics(project: Project, swarm: Swarm, tasks: Sequence[str]) -> ExternalMetrics:
    """Match the metrics file with the runs of `swarm`.

    Raises DataError when there are two files, a task has no column, or a number is no BPB. A swarm without runs needs
    no file.
    """
    there = [path for path in project.external if path.exists()]
    if len(there) > 1:
        raise DataError("two files of metrics", file=" and ".join(map(str, there)), way_out="remove one")
    path = there[0] if there else project.external[0]
    ids = run_ids(swarm)
    if not ids or not there:
        return ExternalMetrics(path, {}, missing=tuple(ids.values()), found=bool(there))
    table = read_result_table(path)
    for task in tasks:
        if task not in table.columns:
            raise DataError(f"no column for task {task!r} of params.yaml{_near(task, table.columns)}", file=path)
    values = table.values[:, [table.columns.index(task) for task in tasks]]
    wrong = np.argwhere(values <= 0)
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"run {table.ids[row]}, column {tasks[column]!r}: {values[row, column]:g} is not a BPB, which is > 0",
            file=path,
            way_out="correct it or leave the cell empty",
        )
    row_of, known = {run: k for k, run in enumerate(table.ids)}, set(ids.values())
    present = {name: values[row_of[run]] for name, run in ids.items() if run in row_of}
    whole = {name: row for name, row in present.items() if not np.isnan(row).any()}
    return ExternalMetrics(
        path,
        scores={name: dict(zip(tasks, row.tolist(), strict=True)) for name, row in whole.items()},
        missing=tuple(run for run in ids.values() if run not in row_of),
        incomplete=tuple(ids[name] for name in present if name not in whole),
        extra=tuple(run for run in table.ids if run not in known),
    )


def _near(task: str, columns: Sequence[str]) -> str:
    close = difflib.get_close_matches(task, columns, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; the columns are {first_few(columns)}"


def write_external_evaluations(project: Project, swarm: Swarm, metrics: ExternalMetrics) -> None:
    """Write `build/evaluations/<id>.json` for every run that has every task.

    Raises SwarmError when a run has no row yet, or when too few are whole to fit a law.
    """
    ids, needed = run_ids(swarm), len(swarm.space.names) + 1
    if metrics.missing:
        state = "" if metrics.found else "no such file: "
        verb = "is" if len(metrics.missing) == 1 else "are"
        raise SwarmError(
            f"{state}{len(metrics.missing)} of {len(ids)} runs to train elsewhere {verb} missing: "
            f"{first_few(metrics.missing)}",
            file=metrics.path,
            way_out=f"add a row for each (weights in {project.ratios}): its id in the column run, and a column of bits "
            "per byte per task, empty if the run failed; then run `dvc repro`",
        )
    if ids and len(metrics.scores) < needed:
        raise SwarmError(
            f"{len(metrics.scores)} of {len(ids)} runs have every task, too few for the {needed} parameters of a law; "
            f"incomplete: {first_few(metrics.incomplete)}",
            file=metrics.path,
            way_out="fill in their cells, remove the missing task from tasks.families, or raise swarm.runs_per_domain",
        )
    output_folder(project.evaluations, empty=not ids)
    rows = swarm.rows()
    for run, scores in metrics.scores.items():
        tasks = {task: {"bpb": bpb, "identity": None} for task, bpb in scores.items()}
        row = {"run": run, "runs": [run], "weights": rows[run], "version": None, "tasks": tasks}
        write_json(project.evaluations / f"{ids[run]}.json", row)
