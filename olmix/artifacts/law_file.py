"""`build/fit/`: the law of all tasks with its runs and replicates, and what the swarm says of trusting it.

`law.json` holds everything that a proposal asks about, so that nothing is fitted twice and a law of any kind is read
back as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmix.files import read_json, write_json
from olmix.fit.diagnostics import design_rank, scores
from olmix.fit.fitting import FitSettings, SwarmFit
from olmix.laws.base import Law, LawKind
from olmix.laws.observations import observe
from olmix.laws.repeats import merge_repeats
from olmix.project import Project


@dataclass(frozen=True)
class Laws:
    """The law of every task, over the swarm's coordinates, with all that was fitted beside it, and every law by name
    under the settings of the fit.
    """

    coordinates: tuple[str, ...]
    tasks: tuple[str, ...]
    fit: SwarmFit
    kinds: Mapping[str, LawKind]


@dataclass(frozen=True)
class Fit:
    """Laws (None when the plan recomputes nothing), diagnostics, and warnings for a person."""

    laws: Laws | None
    diagnostics: Mapping[str, Any]
    warnings: tuple[str, ...]


def write_fit(project: Project, fit: Fit) -> None:
    """Write `law.json` (when there is a law) and `diagnostics.json`."""
    write_json(project.diagnostics, {**fit.diagnostics, "warnings": list(fit.warnings)})
    if fit.laws is not None:
        write_json(project.laws, laws_to_json(fit.laws))


def read_laws(project: Project, task_weights: Mapping[str, float], settings: FitSettings) -> Laws:
    """The laws of this pipeline, fitted under `settings`; `task_weights` weigh tasks in the scores of their mean."""
    return laws_from_json(read_json(project.laws), task_weights, settings)


def laws_to_json(laws: Laws) -> dict[str, Any]:
    """Laws as plain values."""
    fit = laws.fit
    return {
        "law": fit.kind.name,
        "coordinates": list(laws.coordinates),
        "tasks": list(laws.tasks),
        "runs": list(fit.runs),
        "mixtures": fit.newest.mixtures,
        "bpb": fit.newest.bpb,
        "weights": fit.newest.weights,
        "held_out": fit.held_out,
        "fit": _law_to_json(fit.law),
        "replicates": [_law_to_json(law) for law in fit.replicates],
    }


def laws_from_json(content: Mapping[str, Any], task_weights: Mapping[str, float], settings: FitSettings) -> Laws:
    """Laws from what `laws_to_json` made."""
    kinds = settings.kinds()
    kind = kinds[content["law"]]
    tasks = tuple(content["tasks"])
    weights = np.array([task_weights[task] for task in tasks])
    repeats = merge_repeats(
        observe(*(np.array(content[name]) for name in ("mixtures", "bpb", "weights"))), content["runs"]
    )
    newest = repeats.observations
    held_out = np.array(content["held_out"], dtype=np.float64)
    fit = SwarmFit(
        kind=kind,
        law=_law_from_json(kind.fitted, content["fit"]),
        replicates=tuple(_law_from_json(kind.fitted, law) for law in content["replicates"]),
        observations=newest,
        repeats=repeats,
        held_out=held_out,
        scores=scores(held_out, newest.bpb, weights, newest.weights),
        design=design_rank(newest.mixtures),
        choice=None,
        older=(),
    )
    return Laws(tuple(content["coordinates"]), tasks, fit, kinds)


def _law_to_json(law: Law) -> dict[str, Any]:
    """The fields of a fitted law: arrays, numbers, strings, tuples of strings."""
    fields = {field.name: getattr(law, field.name) for field in dataclasses.fields(law)}  # type: ignore[arg-type]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def _law_from_json(fitted: type[Law], content: Mapping[str, Any]) -> Law:
    return fitted(**{name: _field(value) for name, value in content.items()})


def _field(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if value and isinstance(value[0], str):
        return tuple(value)
    return np.array(value, dtype=np.float64)
