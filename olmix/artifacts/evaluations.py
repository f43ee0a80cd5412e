"""`build/evaluations/`: bits per byte of every task for every run, with the weights that the fit regresses on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.artifacts.proxies import weights_of
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.files import output_folder, read_json, write_bytes, write_json
from olmix.proxy.recipe import RECIPE_VERSION, Recipe
from olmix.proxy.tasks import encode_task, read_task
from olmix.runs.evaluation_job import EvaluationJob, TaskFile, keep_task
from olmix.runs.journal import Journal, evaluations_to_bytes
from olmix.runs.record import RunSpec, content_of
from olmix.runs.sharing import Shared
from olmix.runs.training_job import TrainingJob, run_entry

EVALUATIONS = Path("build/evaluations")
MEASURED = EVALUATIONS / "journal"
NAMED = 8  # runs that a message names


def keep_tasks(
    paths: Iterable[Path], tokenizer: Tokenizer, sequence_length: int, journal: Journal
) -> tuple[TaskFile, ...]:
    """Read and tokenise the tasks; raises DataError for a task that is missing or has no text."""
    return tuple(keep_task(encode_task(read_task(path), tokenizer, sequence_length), journal) for path in paths)


def evaluation_jobs(
    records: Mapping[str, Mapping[str, Any]], paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[EvaluationJob]:
    """A job for every run in `build/proxies/`."""
    runs = {key: (Recipe(**record["recipe"]), str(record["run"])) for key, record in records.items()}
    return _jobs(runs, paths, tokenizer, journal)


def spec_evaluation_jobs(
    specs: Sequence[RunSpec], paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[EvaluationJob]:
    """A job for every run of `specs`."""
    return _jobs({spec.key: (spec.recipe, spec.name) for spec in specs}, paths, tokenizer, journal)


def _jobs(
    runs: Mapping[str, tuple[Recipe, str]], paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[EvaluationJob]:
    lengths = sorted({recipe.sequence_length for recipe, _ in runs.values()})
    tasks = {length: keep_tasks(paths, tokenizer, length, journal) for length in lengths}
    return [
        EvaluationJob(key, weights_of(key, journal), recipe, tasks[recipe.sequence_length], name)
        for key, (recipe, name) in runs.items()
    ]


def require_weights(jobs: Sequence[EvaluationJob]) -> None:
    """Raise DataError, naming tasks and runs, when a run that must be measured has had its weights dropped, or has not
    the weights that its record names."""
    journal = Journal()
    known = {job.key: journal.find_evaluations(job.key) for job in jobs}
    dropped = [job for job in jobs if not job.weights.exists() and known[job.key]]
    if dropped:
        tasks = sorted({task.name for job in dropped for task in job.tasks if task.identity not in known[job.key]})
        raise DataError(
            f"{', '.join(tasks)} cannot be evaluated on {_named(dropped)}, whose weights were dropped: "
            "dvc repro -f -s train trains them again (params.yaml: proxy.keep_weights: true keeps weights), "
            "or take the tasks out"
        )
    # What lies in build/proxies/ was looked over when it was read.
    broken = [job for job in jobs if job.weights == journal.weights_path(job.key) and not journal.find_run(job.key)]
    if broken:
        raise DataError(
            f"{_named(broken)} have not the weights that their records name; dvc repro -f -s train trains them again"
        )


def _named(jobs: Sequence[EvaluationJob]) -> str:
    names = sorted(job.run_name for job in jobs)
    return f"{len(names)} runs ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"


def training_jobs(
    specs: Sequence[RunSpec], keep_weights: bool, paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[TrainingJob]:
    """A job for every run of `specs`; where weights are not kept, a run that others have trained counts only when it
    was measured on all tasks."""
    measured: frozenset[str] = frozenset()
    if specs and not keep_weights:
        tasks = keep_tasks(paths, tokenizer, specs[0].recipe.sequence_length, journal)
        measured = frozenset(task.identity for task in tasks)
    return [TrainingJob(spec, keep_weights, measured) for spec in specs]


def write_evaluations(
    jobs: Sequence[EvaluationJob], records: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write `<key>.json` for every run: its name, realised weights and seed, and its scores, each with the identity of
    what was measured."""
    output_folder(EVALUATIONS, empty=not jobs)
    for job in jobs:
        kept = {name: records[job.key][name] for name in ("run", "runs", "weights", "seed", "tokens", "version")}
        tasks = {task.name: {**scores[job.key][task.name], "identity": task.identity} for task in job.tasks}
        write_json(EVALUATIONS / f"{job.key}.json", {**kept, "tasks": tasks})


def share_runs(
    evaluated: Sequence[EvaluationJob], journal: Journal, folder: Path, shared: Shared, keep_weights: bool
) -> None:
    """Store what is known of finished runs in the shared cache, and the same bytes in `folder`, where DVC finds what
    a push must carry.

    Evaluations go in all tasks together; runs whose weights are not kept go in with them, and let their weights go
    once that has succeeded.
    """
    entries = []
    for job in evaluated:
        known = journal.find_evaluations(job.key)
        content = evaluations_to_bytes(job.key, {task.identity: known[task.identity] for task in job.tasks})
        write_bytes(Path(job.entry.outputs[0]), content)
        write_bytes(folder / f"{job.key}.json", content)
        entries.append(job.entry)
        if not keep_weights and journal.record_path(job.key).exists():
            entries.append(run_entry(job.key, content_of(read_json(journal.record_path(job.key))), with_weights=False))
    if shared.store(entries) and not keep_weights:
        for job in evaluated:
            journal.drop_weights(job.key)


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


def read_results(coordinates: Sequence[str], tasks: Sequence[str]) -> SwarmResults:
    """The evaluations as matrices, rows in the order of the runs' names, columns as named; raises DataError when they
    are not all of one task, tokeniser and version."""
    rows = sorted((_read_evaluation(path) for path in EVALUATIONS.glob("*.json")), key=lambda row: str(row["run"]))
    for task in tasks:
        measured = {row["tasks"][task]["identity"] for row in rows}
        if len(measured) > 1:
            raise DataError(
                f"{EVALUATIONS}: runs were measured on {len(measured)} versions of task {task} (of its text, its "
                "tokens, or the code); dvc repro -f -s evaluate measures them again, then dvc repro"
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
            f"{path}: a run of version {version}, and this olmix has {RECIPE_VERSION}; dvc repro -f -s train trains "
            "again, then dvc repro"
        )
    return row
