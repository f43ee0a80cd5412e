"""Evaluating one run on the tasks that it has not been evaluated on, as a job of an engine."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import xxhash

from olmix.files import canonical_json, write_bytes
from olmix.project import STATE
from olmix.proxy.recipe import RECIPE_VERSION, Recipe
from olmix.proxy.tasks import EncodedTask, load_task, task_to_bytes
from olmix.runs.job import Setup
from olmix.runs.journal import Journal, evaluations_from_bytes
from olmix.runs.sharing import Candidate, Entry


@dataclass(frozen=True)
class TaskFile:
    """A task as proxies read it, in a file: its name, its identity (content as this tokeniser and this code see it,
    whatever it is called), its tokens, and where it lies."""

    name: str
    identity: str
    tokens: int
    path: Path


def keep_task(task: EncodedTask, journal: Journal) -> TaskFile:
    """Write a task into the journal, for workers to read."""
    identity = xxhash.xxh3_128_hexdigest(f"{RECIPE_VERSION}\x1f{task.digest}\x1f{task.tokenizer}".encode())
    content = task_to_bytes(task)
    path = journal.task_path(xxhash.xxh3_128_hexdigest(content))
    if not path.exists() or path.read_bytes() != content:
        write_bytes(path, content)
    return TaskFile(task.name, identity, task.tokens, path)


def evaluations_entry(key: str) -> Entry:
    """The entry of a run's evaluations in a shared cache; several people may have evaluated it on different tasks."""
    return Entry(
        command=f"olmix evaluate {key}",
        input_path=f"{STATE}/shared/{key}.run.json",
        input=canonical_json({"evaluations": key, "version": RECIPE_VERSION}),
        outputs=(f"{STATE}/shared/{key}.json",),
    )


def adopt_evaluations(key: str, journal: Journal, found: Mapping[Entry, Sequence[Candidate]]) -> None:
    """Take all candidates for the evaluations of a run into the journal: people measure it on different tasks."""
    entry = evaluations_entry(key)
    for candidate in found.get(entry, ()):
        scores = evaluations_from_bytes(key, candidate[entry.outputs[0]].read_bytes())
        if scores:
            journal.store_evaluations(key, scores)


def scores_of(scores: Mapping[str, Any], tasks: Sequence[TaskFile]) -> dict[str, Any] | None:
    """Scores by the name of the task, from scores by its identity; None when one is missing."""
    if any(task.identity not in scores for task in tasks):
        return None
    return {task.name: scores[task.identity] for task in tasks}


@dataclass(frozen=True)
class EvaluationJob:
    """Evaluates the run `key` on `tasks`; the result is `{task: {bpb, bytes, uniform}}`."""

    key: str
    weights: Path
    recipe: Recipe
    tasks: tuple[TaskFile, ...]
    run_name: str = ""

    @property
    def name(self) -> str:
        """What the job is called in messages."""
        return f"evaluation of run {self.run_name or self.key}"

    @property
    def tokens(self) -> int:
        """Tokens of all tasks."""
        return sum(task.tokens for task in self.tasks)

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The run's weights and the tasks."""
        return (self.weights, *(task.path for task in self.tasks))

    def moved(self, old: Path, new: Path) -> EvaluationJob:
        """The same job where the weights and the tasks lie below `new` instead of `old`."""
        tasks = tuple(replace(task, path=new / task.path.relative_to(old)) for task in self.tasks)
        return replace(self, weights=new / self.weights.relative_to(old), tasks=tasks)

    @property
    def entry(self) -> Entry:
        """What has been measured of the run."""
        return evaluations_entry(self.key)

    @property
    def sought(self) -> tuple[Entry, ...]:
        """What has been measured of the run."""
        return (self.entry,)

    @property
    def stores(self) -> bool:
        """Evaluations are shared all tasks together, when the stage is through."""
        return False

    def find(self, journal: Journal) -> dict[str, Any] | None:
        """Scores of every task, or None when one is missing."""
        return scores_of(journal.find_evaluations(self.key), self.tasks)

    def adopt(self, journal: Journal, found: Mapping[Entry, Sequence[Candidate]]) -> None:
        """Take everything that others have measured of this run."""
        adopt_evaluations(self.key, journal, found)

    def run(self, journal: Journal, setup: Setup, progress: Callable[[int], None]) -> None:
        """Evaluate the tasks that the journal does not hold; raises DataError when the weights are gone."""
        from olmix.proxy.evaluation import evaluate
        from olmix.proxy.training import load_weights

        known = journal.find_evaluations(self.key)
        missing = [task for task in self.tasks if task.identity not in known]
        weights = load_weights(self.weights)
        scores = {}
        for task in self.tasks:
            if task in missing:
                score = evaluate(weights, self.recipe, _encoded(task.path), device=setup.device)
                scores[task.identity] = {"bpb": score.bpb, "bytes": score.bytes, "uniform": score.uniform_bpb}
            progress(task.tokens)
        journal.store_evaluations(self.key, scores)


@functools.lru_cache(maxsize=512)
def _encoded(path: Path) -> EncodedTask:
    """A worker evaluates many runs on the same tasks."""
    return load_task(path)
