"""`build/proxies/`: the trained runs of the swarm, a record and its weights each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmix.data.tokensets import TokenSet
from olmix.errors import DataError, TrainingError
from olmix.files import output_folder, read_json
from olmix.outputs.swarm_file import Swarm
from olmix.proxy.recipe import Recipe
from olmix.runs.engine import Outcome
from olmix.runs.journal import Journal, file_digest
from olmix.runs.record import RunSpec, published, spec_for

PROXIES = Path("build/proxies")


def swarm_specs(swarm: Swarm, sets: Mapping[str, TokenSet], recipe: Recipe, seed: int) -> list[RunSpec]:
    """The run of every mixture of the swarm."""
    return [spec_for(run, weights, sets, recipe, seed) for run, weights in swarm.rows().items()]


def publish_runs(specs: list[RunSpec], outcome: Outcome, swarm: Swarm, journal: Journal) -> None:
    """Write the finished runs of `specs` to `build/proxies/`.

    Raises TrainingError when so many were set aside that no law can be fitted: the stage has then not succeeded.
    """
    needed = len(swarm.space.names) + 1
    if outcome.failed and len(outcome.results) < needed:
        raise TrainingError(
            f"{len(outcome.failed)} runs failed and {len(outcome.results)} did not, and a law needs {needed}: "
            f"{next(iter(outcome.failed.values()))}"
        )
    output_folder(PROXIES, empty=not specs)
    names: dict[str, list[str]] = {}
    for spec in specs:
        names.setdefault(spec.key, []).append(spec.name)
    for spec in specs:
        if spec.key in outcome.results and spec.name == names[spec.key][0]:
            record = published(spec, names[spec.key], outcome.results[spec.key], swarm.expanded(spec.weights))
            journal.publish(spec.key, record, PROXIES)


def read_runs() -> dict[str, dict[str, Any]]:
    """Records by key; raises DataError when weights are not those that the record was written for."""
    records = {}
    for path in sorted(PROXIES.glob("*.json")):
        record = read_json(path)
        weights = path.with_suffix(".safetensors")
        if not weights.exists() or file_digest(weights) != record["weights_digest"]:
            raise DataError(f"{weights}: not the weights that {path.name} names; remove {PROXIES} and run dvc repro")
        records[path.stem] = record
    return records
