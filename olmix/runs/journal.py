"""The journal: finished runs and evaluations, kept outside the pipeline's outputs (`.olmix/`).

DVC deletes a stage's outputs before it runs the stage; an interrupted or extended swarm continues from the journal.
Of a run first its weights and then its record are written, each atomically; a record holds its key and the digest of
its weights, and a run whose record does not match is trained again. Weights may be dropped once a run is evaluated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import xxhash

from olmix.errors import OlmixError
from olmix.files import canonical_json, copy_file, read_json, sweep, write_bytes, write_json


def file_digest(path: Path) -> str:
    """xxh3_128 of a file's bytes."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def evaluations_to_bytes(key: str, scores: Mapping[str, Mapping[str, Any]]) -> bytes:
    """What was measured of a run, by the identity of the task, with a digest that binds it to the run."""
    content = {"run": key, "tasks": {task: dict(score) for task, score in sorted(scores.items())}}
    return canonical_json({**content, "digest": xxhash.xxh3_128_hexdigest(canonical_json(content))})


def evaluations_from_bytes(key: str, content: bytes) -> dict[str, dict[str, Any]]:
    """Scores by the identity of the task; none when they are of another run or damaged."""
    try:
        evaluations = orjson.loads(content)
        if evaluations["run"] == key and evaluations_to_bytes(key, evaluations["tasks"]) == content:
            scores: dict[str, dict[str, Any]] = evaluations["tasks"]
            return {task: score for task, score in scores.items() if _is_score(score)}
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError):
        pass  # another run's, another hand's, or damaged: it is evaluated again
    return {}


def _is_score(score: Mapping[str, Any]) -> bool:
    """Whether a score is one that a proxy can have: a digest says that it is whole, not that it is true."""
    numbers = [score.get(name) for name in ("bpb", "bytes", "uniform")]
    return all(isinstance(number, int | float) and 0 < number < math.inf for number in numbers)


class Journal:
    """Runs by key and evaluations by run and task."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def sweep(self) -> None:
        """Remove what killed writers left half-written."""
        sweep(self.folder)

    def record_path(self, key: str) -> Path:
        """Where a run's record is."""
        return self.folder / "runs" / f"{key}.json"

    def weights_path(self, key: str) -> Path:
        """Where a run's weights are."""
        return self.folder / "runs" / f"{key}.safetensors"

    def checkpoint_path(self, key: str) -> Path:
        """Where a run that is under way keeps its checkpoint."""
        return self.folder / "checkpoints" / f"{key}.safetensors"

    def task_path(self, identity: str) -> Path:
        """Where a task lies as proxies read it."""
        return self.folder / "tasks" / f"{identity}.npz"

    def find_run(self, key: str, with_weights: bool = True) -> dict[str, Any] | None:
        """The record of a finished run, or None when there is none or it is damaged.

        `with_weights` asks for its weights; else they may have been dropped, but not be another's.
        """
        record = self._record(key)
        if record is None:
            return None
        if not with_weights and not self.weights_path(key).exists():
            return record
        try:
            return record if record["weights_digest"] == file_digest(self.weights_path(key)) else None
        except OSError:
            return None

    def _record(self, key: str) -> dict[str, Any] | None:
        try:
            record: dict[str, Any] = read_json(self.record_path(key))
            return record if record["key"] == key and isinstance(record["weights_digest"], str) else None
        except (OlmixError, KeyError, TypeError):
            return None  # absent, half-written by another hand, or corrupted: the run is trained again

    def finish_run(self, key: str, record: Mapping[str, Any]) -> None:
        """Record a run whose weights are already in place."""
        digest = file_digest(self.weights_path(key))
        write_json(self.record_path(key), {**record, "key": key, "weights_digest": digest})

    def adopt_run(self, key: str, record: Path, weights: Path | None) -> None:
        """Copy the files of a run that was trained elsewhere; `find_run` says whether they are whole."""
        if weights is not None:
            copy_file(weights, self.weights_path(key))
        copy_file(record, self.record_path(key))

    def drop_weights(self, key: str) -> None:
        """Let a run's weights go; its record stays."""
        self.weights_path(key).unlink(missing_ok=True)

    def evaluations_path(self, key: str) -> Path:
        """Where what was measured of a run is."""
        return self.folder / "evaluations" / f"{key}.json"

    def find_evaluations(self, key: str) -> dict[str, dict[str, Any]]:
        """What was measured of a run, by the identity of the task."""
        try:
            return evaluations_from_bytes(key, self.evaluations_path(key).read_bytes())
        except OSError:
            return {}

    def store_evaluations(self, key: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep what was measured of a run, beside what is kept already."""
        write_bytes(self.evaluations_path(key), evaluations_to_bytes(key, {**self.find_evaluations(key), **scores}))
