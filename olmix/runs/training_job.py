"""Training one run, as a job of an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from olmix.data.tokenizer import Tokens
from olmix.data.tokensets import TokenSet, identity_of, read_tokens, rows_of
from olmix.errors import DataError
from olmix.project import STATE
from olmix.runs.evaluation_job import adopt_evaluations, evaluations_entry
from olmix.runs.job import Setup
from olmix.runs.journal import Journal
from olmix.runs.record import RunSpec
from olmix.runs.sharing import Candidate, Entry


def run_entry(key: str, content: bytes, with_weights: bool) -> Entry:
    """A run's entry in a shared cache: made from `content`, it left a record and, where they are kept, weights."""
    kinds = ("json", "safetensors") if with_weights else ("json",)
    return Entry(
        command=f"olmix run {key}",
        input_path=f"{STATE}/runs/{key}.spec.json",
        input=content,
        outputs=tuple(f"{STATE}/runs/{key}.{kind}" for kind in kinds),
    )


@dataclass(frozen=True)
class TrainingJob:
    """Trains `spec`; the result is the run's record, without the names of this pipeline.

    Without `keep_weights` a run whose weights were dropped after its evaluation on `tasks` (their identities) counts as
    done, and nothing is shared before that evaluation: a record alone is no evidence.
    """

    spec: RunSpec
    keep_weights: bool = True
    tasks: frozenset[str] = frozenset()

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

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The token sets that the run reads."""
        return tuple(self.spec.sets[name].path for name in self.spec.used)

    def moved(self, old: Path, new: Path) -> TrainingJob:
        """The same job where its token sets lie below `new` instead of `old`."""
        used = {name: self.spec.sets[name] for name in self.spec.used}
        sets = {name: replace(each, path=new / each.path.relative_to(old)) for name, each in used.items()}
        return replace(self, spec=replace(self.spec, sets={**self.spec.sets, **sets}))

    @property
    def entry(self) -> Entry:
        """The run's record, and its weights where they are kept."""
        return run_entry(self.key, self.spec.content, self.keep_weights)

    @property
    def sought(self) -> tuple[Entry, ...]:
        """The run, and its evaluations where its weights are not kept."""
        return (self.entry,) if self.keep_weights else (self.entry, evaluations_entry(self.key))

    @property
    def stores(self) -> bool:
        """Runs with weights are shared at once, others when they are evaluated."""
        return self.keep_weights

    def find(self, journal: Journal) -> dict[str, Any] | None:
        """The run's record, when it is whole and says itself that it was made from what this run is made from."""
        record = journal.find_run(self.key, with_weights=self.keep_weights)
        if record is None or not self._describes(record):
            return None
        if self.keep_weights or journal.weights_path(self.key).exists():
            return record
        known = journal.find_evaluations(self.key).keys()
        return record if known and self.tasks <= known else None

    def _describes(self, record: Mapping[str, Any]) -> bool:
        curves = record.get("set_curves")
        return (
            all(record.get(name) == value for name, value in self.spec.inputs.items())
            and record.get("tokens") == self.tokens
            and isinstance(record.get("curve"), list)
            and isinstance(curves, dict)
            and curves.keys() == self.spec.inputs["counts"].keys()
        )

    def adopt(self, journal: Journal, found: Mapping[Entry, Sequence[Candidate]]) -> None:
        """Take the first candidate that is this run and whole."""
        if not self.keep_weights:
            adopt_evaluations(self.key, journal, found)
        record_path, *weights_path = self.entry.outputs
        for candidate in found.get(self.entry, ()):
            journal.adopt_run(self.key, candidate[record_path], candidate[weights_path[0]] if weights_path else None)
            if self.find(journal) is not None:
                return

    def run(self, journal: Journal, setup: Setup, progress: Callable[[int], None]) -> None:
        """Train; raises TrainingError when the loss diverges and DataError when a token set is not what was planned."""
        from olmix.proxy.training import Checkpoint, save_weights, train

        spec, names = self.spec, self.spec.used
        checkpoint = Checkpoint(journal.checkpoint_path(spec.key), spec.key, setup.checkpoint_seconds)
        trained = train(
            spec.recipe,
            [_rows(spec.sets[name], spec.recipe.sequence_length) for name in names],
            [spec.sets[name].identity for name in names],
            [spec.counts[name] for name in names],
            spec.seed,
            in_order=spec.in_order,
            device=setup.device,
            on_progress=progress,
            checkpoint=checkpoint,
        )
        save_weights(trained.weights, journal.weights_path(spec.key))
        record = {
            **spec.inputs,
            "tokens": self.tokens,
            "curve": [[step, loss] for step, loss in trained.curve],
            "set_curves": {
                identity: [[step, loss] for step, loss in curve] for identity, curve in trained.set_curves.items()
            },
        }
        journal.finish_run(spec.key, record)
        checkpoint.clear()


def _rows(token_set: TokenSet, sequence_length: int) -> Tokens:
    tokens = read_tokens(token_set.path)
    if identity_of(tokens) != token_set.identity:
        raise DataError("changed since the run was planned", file=token_set.path, way_out="run `dvc repro` again")
    return rows_of(tokens, sequence_length)
