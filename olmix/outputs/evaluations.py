"""`build/evaluations/`: bits per byte of every task for every run, with the weights that the fit regresses on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.data.tokenizer import Tokenizer
from olmix.files import output_folder, read_json, write_json
from olmix.outputs.proxies import PROXIES
from olmix.proxy.recipe import Recipe
from olmix.proxy.tasks import EncodedTask, encode_task, read_task
from olmix.runs.evaluation_job import EvaluationJob
from olmix.runs.journal import Journal
from olmix.runs.record import RunSpec

EVALUATIONS = Path("build/evaluations")


def encode_tasks(paths: Iterable[Path], tokenizer: Tokenizer, sequence_length: int) -> tuple[EncodedTask, ...]:
    """Read and tokenise the tasks; raises DataError for a task that is missing or has no text."""
    return tuple(encode_task(read_task(path), tokenizer, sequence_length) for path in paths)


def evaluation_jobs(
    records: Mapping[str, Mapping[str, Any]], paths: Sequence[Path], tokenizer: Tokenizer
) -> list[EvaluationJob]:
    """A job for every run in `build/proxies/`."""
    runs = {key: (PROXIES / f"{key}.safetensors", Recipe(**record["recipe"])) for key, record in records.items()}
    return _jobs(runs, paths, tokenizer)


def journal_evaluation_jobs(
    specs: Sequence[RunSpec], paths: Sequence[Path], tokenizer: Tokenizer, journal: Journal
) -> list[EvaluationJob]:
    """A job for every run of `specs`, from its weights in the journal."""
    return _jobs({spec.key: (journal.weights_path(spec.key), spec.recipe) for spec in specs}, paths, tokenizer)


def _jobs(runs: Mapping[str, tuple[Path, Recipe]], paths: Sequence[Path], tokenizer: Tokenizer) -> list[EvaluationJob]:
    lengths = sorted({recipe.sequence_length for _, recipe in runs.values()})
    encoded = {length: encode_tasks(paths, tokenizer, length) for length in lengths}
    return [
        EvaluationJob(key, weights, recipe, encoded[recipe.sequence_length]) for key, (weights, recipe) in runs.items()
    ]


def write_evaluations(records: Mapping[str, Mapping[str, Any]], scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Write `<key>.json` for every run: its name, realised weights and seed, and its scores."""
    output_folder(EVALUATIONS, empty=not records)
    for key, record in records.items():
        kept = {name: record[name] for name in ("run", "runs", "weights", "seed", "tokens")}
        write_json(EVALUATIONS / f"{key}.json", {**kept, "tasks": scores[key]})


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
    """The evaluations as matrices, rows in the order of the runs' names, columns as named."""
    rows = sorted((read_json(path) for path in EVALUATIONS.glob("*.json")), key=lambda row: str(row["run"]))
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
