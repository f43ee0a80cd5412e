"""Training one run, as a job of an engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from olmix.data.tokenizer import Tokens
from olmix.data.tokensets import TokenSet, identity_of, read_tokens, rows_of
from olmix.errors import DataError
from olmix.runs.journal import Journal
from olmix.runs.record import RunSpec


@dataclass(frozen=True)
class TrainingJob:
    """Trains `spec`; the result is the run's record, without the names of this pipeline."""

    spec: RunSpec

    @property
    def key(self) -> str:
        """The run's key."""
        return self.spec.key

    @property
    def name(self) -> str:
        """The run's name in its swarm."""
        return f"run {self.spec.name}"

    @property
    def tokens(self) -> int:
        """Tokens that the run trains on."""
        return self.spec.recipe.sequences * self.spec.recipe.sequence_length

    def find(self, journal: Journal) -> dict[str, Any] | None:
        """The run's record."""
        return journal.find_run(self.key)

    def run(self, journal: Journal, device: str, progress: Callable[[int], None]) -> None:
        """Train; raises TrainingError when the loss diverges and DataError when a token set is not what was planned."""
        from olmix.proxy.training import save_weights, train

        spec, names = self.spec, self.spec.used
        trained = train(
            spec.recipe,
            [_rows(spec.sets[name], spec.recipe.sequence_length) for name in names],
            [spec.sets[name].identity for name in names],
            [spec.counts[name] for name in names],
            spec.seed,
            device=device,
            on_progress=progress,
        )
        save_weights(trained.weights, journal.weights_path(spec.key))
        record = {
            "seed": spec.seed,
            "tokens": self.tokens,
            "recipe": asdict(spec.recipe),
            "curve": [[step, loss] for step, loss in trained.curve],
        }
        journal.finish_run(spec.key, record)


def _rows(token_set: TokenSet, sequence_length: int) -> Tokens:
    tokens = read_tokens(token_set.path)
    if identity_of(tokens) != token_set.identity:
        raise DataError(f"{token_set.path}: changed since the run was planned; run dvc repro again")
    return rows_of(tokens, sequence_length)
