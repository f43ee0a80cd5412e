"""`build/proxies/`: the trained runs of the swarm.

`<key>.json` is a run under the names of this pipeline. Below `journal/` lie the journal's own files of it, record and
weights, byte for byte: what DVC's run-cache names single runs by, so that `dvc push --run-cache` carries them.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from olmix.core.swarm import Swarm
from olmix.errors import DataError, TrainingError
from olmix.files import copy_file, output_folder, read_json, write_json
from olmix.project import Project
from olmix.proxy.recipe import RECIPE_VERSION, Recipe
from olmix.runs.engine import Outcome
from olmix.runs.journal import Journal, file_digest
from olmix.runs.record import RunSpec, published

# Below an output's folder: the journal's own files of its runs.
KEPT = "journal"


def publish_runs(
    project: Project, specs: list[RunSpec], outcome: Outcome, swarm: Swarm, journal: Journal, keep_weights: bool
) -> None:
    """Write the finished runs of `specs` to `build/proxies/`.

    Raises TrainingError when so many were set aside that no law can be fitted: the stage has then not succeeded.
    """
    needed = len(swarm.space.names) + 1
    mixtures = {tuple(spec.weights.values()) for spec in specs if spec.key in outcome.results}
    if outcome.failed and len(mixtures) < needed:
        raise TrainingError(
            f"{len(outcome.failed)} runs failed; {len(mixtures)} mixtures have a run, but a law needs {needed}: "
            f"{next(iter(outcome.failed.values()))}"
        )
    output_folder(project.proxies, empty=not specs)
    names: dict[str, list[str]] = {}
    for spec in specs:
        names.setdefault(spec.key, []).append(spec.name)
    for spec in specs:
        if spec.key in outcome.results and spec.name == names[spec.key][0]:
            record = published(spec, names[spec.key], outcome.results[spec.key], swarm.expanded(spec.weights))
            keep_run(spec.key, journal, project.proxies / KEPT, keep_weights)
            write_json(project.proxies / f"{spec.key}.json", record)


def keep_run(key: str, journal: Journal, folder: Path, keep_weights: bool) -> None:
    """Copy a run's files out of the journal as they are."""
    copy_file(journal.record_path(key), folder / f"{key}.json")
    if keep_weights:
        copy_file(journal.weights_path(key), folder / f"{key}.safetensors")


def weights_of(project: Project, key: str, journal: Journal) -> Path:
    """Where a run's weights are: in `build/proxies/` when they are kept, else in the journal, if they still are."""
    kept = project.proxies / KEPT / f"{key}.safetensors"
    return kept if kept.exists() else journal.weights_path(key)


def read_runs(project: Project, keep_weights: bool, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """Records by key; raises DataError for a run of another recipe, or of another version of the training code, and
    when weights are not those that the record was written for."""
    records, again = {}, "run `dvc repro -f -s train`, then `dvc repro`"
    for path in sorted(project.proxies.glob("*.json")):
        record = read_json(path)
        if record["version"] != RECIPE_VERSION:
            message = f"a run of recipe version {record['version']}, but this olmix has {RECIPE_VERSION}"
            raise DataError(message, file=path, way_out=again)
        if record["recipe"] != asdict(recipe):
            raise DataError("trained with another recipe than params.yaml: proxy", file=path, way_out=again)
        weights = project.proxies / KEPT / f"{path.stem}.safetensors"
        if keep_weights and (not weights.exists() or file_digest(weights) != record["weights_digest"]):
            way_out = f"remove {path.parent} and run `dvc repro`"
            raise DataError(f"not the weights that {path.name} records", file=weights, way_out=way_out)
        records[path.stem] = record
    return records
