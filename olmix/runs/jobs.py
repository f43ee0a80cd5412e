"""The jobs of a stage: the runs to train and to evaluate, and what to share of them when they are done."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.files import read_json, write_bytes
from olmix.proxy.recipe import Recipe
from olmix.proxy.tasks import encode_task, read_task
from olmix.runs.evaluation_job import EvaluationJob, TaskFile, keep_task
from olmix.runs.journal import Journal, evaluations_to_bytes
from olmix.runs.record import RunSpec, content_of
from olmix.runs.sharing import Shared
from olmix.runs.training_job import TrainingJob, run_entry

NAMED = 8  # runs that a message names


def keep_tasks(
    paths: Iterable[Path], tokenizer: Tokenizer, sequence_length: int, journal: Journal
) -> tuple[TaskFile, ...]:
    """Read and tokenise the tasks; raises DataError for a task that is missing or has no text."""
    return tuple(keep_task(encode_task(read_task(path), tokenizer, sequence_length), journal) for path in paths)


def evaluation_jobs(
    runs: Mapping[str, tuple[Recipe, str, Path]], paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[EvaluationJob]:
    """A job for every run by key: its recipe, its name in the swarm, and its weights; tasks at `paths`."""
    lengths = sorted({recipe.sequence_length for recipe, _, _ in runs.values()})
    tasks = {length: keep_tasks(paths, tokenizer, length, journal) for length in lengths}
    return [
        EvaluationJob(key, weights, recipe, tasks[recipe.sequence_length], name)
        for key, (recipe, name, weights) in runs.items()
    ]


def require_weights(jobs: Sequence[EvaluationJob], journal: Journal) -> None:
    """Raise DataError, naming tasks and runs, when a run that must be measured has had its weights dropped, or has not
    the weights that its record names."""
    known = {job.key: journal.find_evaluations(job.key) for job in jobs}
    dropped = [job for job in jobs if not job.weights.exists() and known[job.key]]
    if dropped:
        tasks = sorted({task.name for job in dropped for task in job.tasks if task.identity not in known[job.key]})
        raise DataError(
            f"cannot evaluate {', '.join(tasks)} on {_named(dropped)}, whose weights were dropped",
            way_out="remove the tasks, or train the runs again with `dvc repro -f -s train` (params.yaml: "
            "proxy.keep_weights: true keeps weights)",
        )
    # What lies in build/proxies/ was looked over when it was read.
    broken = [job for job in jobs if job.weights == journal.weights_path(job.key) and not journal.find_run(job.key)]
    if broken:
        raise DataError(
            f"the weights of {_named(broken)} do not match their records", way_out="run `dvc repro -f -s train`"
        )


def _named(jobs: Sequence[EvaluationJob]) -> str:
    names = sorted(job.run_name for job in jobs)
    return (
        f"{len(names)} run{'s' * (len(names) != 1)} ({', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''})"
    )


def training_jobs(
    specs: Sequence[RunSpec], keep_weights: bool, paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[TrainingJob]:
    """A job for every run of `specs`. Where weights are not kept, a run that others have trained counts only if it was
    evaluated on all tasks."""
    tasks: frozenset[str] = frozenset()
    if specs and not keep_weights:
        kept = keep_tasks(paths, tokenizer, specs[0].recipe.sequence_length, journal)
        tasks = frozenset(task.identity for task in kept)
    return [TrainingJob(spec, keep_weights, tasks) for spec in specs]


def share_runs(
    evaluated: Sequence[EvaluationJob], journal: Journal, folder: Path, shared: Shared, keep_weights: bool
) -> None:
    """Store the evaluations of finished runs in the shared cache, and the same bytes in `folder`, from where
    `dvc push` takes them.

    The tasks of a run go in together. So do runs whose weights are not kept, whose weights are dropped when that has
    succeeded.
    """
    entries = []
    for job in evaluated:
        known = journal.find_evaluations(job.key)
        content = evaluations_to_bytes(job.key, {task.identity: known[task.identity] for task in job.tasks})
        write_bytes(journal.folder.parent / job.entry.outputs[0], content)
        write_bytes(folder / f"{job.key}.json", content)
        entries.append(job.entry)
        if not keep_weights and journal.record_path(job.key).exists():
            entries.append(run_entry(job.key, content_of(read_json(journal.record_path(job.key))), with_weights=False))
    if shared.store(entries) and not keep_weights:
        for job in evaluated:
            journal.drop_weights(job.key)
