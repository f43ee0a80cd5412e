"""`build/evaluations/`: bits per byte of every task for every run, with the weights that the fit regresses on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.errors import DataError
from olmix.files import output_folder, read_json, write_json
from olmix.project import Project
from olmix.proxy.recipe import RECIPE_VERSION
from olmix.runs.evaluation_job import EvaluationJob


def write_evaluations(
    project: Project,
    jobs: Sequence[EvaluationJob],
    records: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write `<key>.json` for every run: its name, realised weights and seed, and its scores, each with the identity of
    what was measured."""
    output_folder(project.evaluations, empty=not jobs)
    for job in jobs:
        kept = {name: records[job.key][name] for name in ("run", "runs", "weights", "seed", "tokens", "version")}
        tasks = {task.name: {**scores[job.key][task.name], "identity": task.identity} for task in job.tasks}
        write_json(project.evaluations / f"{job.key}.json", {**kept, "tasks": tasks})


@dataclass(frozen=True)
class SwarmResults:
    """What a law is fitted to: K runs by name, their weights (K, m), and their BPB on n tasks (K, n).

    `uniform` (n,) is the BPB of a model that knows nothing, on each task; nan where nobody measured it. `named` are
    all runs of the swarm that these rows stand for: mixtures that come to the same sequences are one run.
    """

    runs: tuple[str, ...]
    coordinates: tuple[str, ...]
    tasks: tuple[str, ...]
    weights: NDArray[np.float64]
    bpb: NDArray[np.float64]
    uniform: NDArray[np.float64]
    named: frozenset[str]


def read_results(project: Project, coordinates: Sequence[str], tasks: Sequence[str]) -> SwarmResults:
    """The evaluations as matrices, rows in the order of the runs' names, columns as named; raises DataError when they
    are not all of one task, tokeniser and version."""
    folder = project.evaluations
    rows = sorted((_read_evaluation(path) for path in folder.glob("*.json")), key=lambda row: str(row["run"]))
    for task in tasks:
        measured = {row["tasks"][task]["identity"] for row in rows}
        if len(measured) > 1:
            raise DataError(
                f"runs were measured on {len(measured)} versions of task {task} (of its text, its tokens, or the code)",
                file=folder,
                way_out="run `dvc repro -f -s evaluate`, then `dvc repro`",
            )
    return SwarmResults(
        runs=tuple(row["run"] for row in rows),
        named=frozenset(run for row in rows for run in row["runs"]),
        coordinates=tuple(coordinates),
        tasks=tuple(tasks),
        weights=np.array([[row["weights"][name] for name in coordinates] for row in rows]),
        bpb=np.array([[row["tasks"][task]["bpb"] for task in tasks] for row in rows]),
        uniform=np.array([rows[0]["tasks"][task].get("uniform", math.nan) for task in tasks])
        if rows
        else np.zeros(len(tasks)),
    )


def _read_evaluation(path: Path) -> dict[str, Any]:
    """One run's scores; the version is null where the proxy was trained elsewhere."""
    row: dict[str, Any] = read_json(path)
    version = row.get("version", "unknown")
    if version not in (None, RECIPE_VERSION):
        raise DataError(
            f"a run of recipe version {version}, but this olmix has {RECIPE_VERSION}",
            file=path,
            way_out="run `dvc repro -f -s train`, then `dvc repro`",
        )
    return row
