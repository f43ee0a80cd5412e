"""Evaluating one run on the tasks that it has not been evaluated on, as a job of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from olmix.proxy.recipe import RECIPE_VERSION, Recipe
from olmix.proxy.tasks import EncodedTask
from olmix.runs.journal import Journal


@dataclass(frozen=True)
class EvaluationJob:
    """Evaluates the run `key` on `tasks`; the result is `{task: {bpb, bytes, uniform}}`."""

    key: str
    weights: Path
    recipe: Recipe
    tasks: tuple[EncodedTask, ...]

    @property
    def name(self) -> str:
        """What the job is called in messages."""
        return f"evaluation of run {self.key}"

    @property
    def tokens(self) -> int:
        """Tokens of all tasks."""
        return sum(task.tokens for task in self.tasks)

    def find(self, journal: Journal) -> dict[str, Any] | None:
        """Scores of every task, or None when one is missing."""
        scores = {task.name: journal.find_evaluation(self.key, _identity(task)) for task in self.tasks}
        return None if any(score is None for score in scores.values()) else scores

    def run(self, journal: Journal, device: str, progress: Callable[[int], None]) -> None:
        """Evaluate the tasks that the journal does not hold."""
        from olmix.proxy.evaluation import evaluate
        from olmix.proxy.training import load_weights

        weights = load_weights(self.weights)
        for task in self.tasks:
            if journal.find_evaluation(self.key, _identity(task)) is None:
                score = evaluate(weights, self.recipe, task, device=device)
                entry = {"bpb": score.bpb, "bytes": score.bytes, "uniform": score.uniform_bpb}
                journal.store_evaluation(self.key, _identity(task), entry)
            progress(task.tokens)


def _identity(task: EncodedTask) -> str:
    """A task's content as this tokeniser and this code see it; its name does not matter."""
    return xxhash.xxh3_128_hexdigest(f"{RECIPE_VERSION}\x1f{task.digest}\x1f{task.tokenizer}".encode())
