"""The journal: finished runs and evaluations, kept outside the pipeline's outputs (`.olmix/`).

DVC deletes a stage's outputs before it runs the stage; the journal is what an interrupted or extended swarm is taken up
from. An entry is its weights and then its record, each renamed into place whole; a record carries the digest of
its weights, and an entry that does not match is trained again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import xxhash

from olmix.errors import OlmixError
from olmix.files import canonical_json, read_json, sweep, write_bytes, write_json

JOURNAL = Path(".olmix")


def file_digest(path: Path) -> str:
    """xxh3_128 of a file's bytes."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _digest_of(key: str, task: str, score: Mapping[str, Any]) -> str:
    return xxhash.xxh3_128_hexdigest(f"{key}{task}".encode() + canonical_json(dict(score)))


class Journal:
    """Runs by key and evaluations by run and task."""

    def __init__(self, folder: Path = JOURNAL) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Remove what killed writers left half-written."""
        for kept in ("runs", "evaluations"):
            sweep(self.folder / kept)

    def weights_path(self, key: str) -> Path:
        """Where a run's weights are."""
        return self.folder / "runs" / f"{key}.safetensors"

    def _record_path(self, key: str) -> Path:
        return self.folder / "runs" / f"{key}.json"

    def find_run(self, key: str) -> dict[str, Any] | None:
        """The record of a finished run, or None when there is none or it is damaged."""
        weights = self.weights_path(key)
        try:
            record: dict[str, Any] = read_json(self._record_path(key))
            if record["key"] == key and record["weights_digest"] == file_digest(weights):
                return record
        except (OlmixError, OSError, KeyError, TypeError):
            pass  # absent, half-written by another hand, or corrupted: the run is trained again
        return None

    def finish_run(self, key: str, record: Mapping[str, Any]) -> None:
        """Record a run whose weights are already in place."""
        write_json(
            self._record_path(key),
            {**record, "key": key, "weights_digest": file_digest(self.weights_path(key))},
        )

    def _evaluation_path(self, key: str, task: str) -> Path:
        return self.folder / "evaluations" / key / f"{task}.json"

    def find_evaluation(self, key: str, task: str) -> dict[str, Any] | None:
        """What was measured for a run on the task (and tokeniser) with digest `task`, or None."""
        try:
            score: dict[str, Any] = read_json(self._evaluation_path(key, task))
        except OlmixError:
            return None
        if not isinstance(score, dict) or score.pop("digest", None) != _digest_of(key, task, score):
            return None  # another run's, another task's, or damaged: it is evaluated again
        return score

    def store_evaluation(self, key: str, task: str, score: Mapping[str, Any]) -> None:
        """Keep what was measured for a run on a task."""
        write_json(self._evaluation_path(key, task), {**score, "digest": _digest_of(key, task, score)})

    def publish(self, key: str, record: Mapping[str, Any], folder: Path) -> None:
        """Write a run's record and a copy of its weights to an output folder."""
        write_bytes(folder / f"{key}.safetensors", self.weights_path(key).read_bytes())
        write_json(folder / f"{key}.json", dict(record))
