"""`build/fit/`: the law of all tasks with its runs and replicates, and what the swarm says of trusting it.

`law.json` holds everything that a proposal asks about, so that nothing is fitted twice and a law of any kind is read
back as it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from olmix.artifacts.evaluations import SwarmResults
from olmix.artifacts.fit_report import fit_values
from olmix.errors import SwarmError
from olmix.files import read_json, write_json
from olmix.fit.diagnostics import design_rank, scores
from olmix.fit.fitting import FitSettings, SwarmFit, fit_swarm
from olmix.laws.base import Law, LawKind
from olmix.laws.observations import observe
from olmix.laws.repeats import merge_repeats

FIT = Path("build/fit")
LAW, DIAGNOSTICS = FIT / "law.json", FIT / "diagnostics.json"
# A task whose best run is this close to a model that knows nothing says nothing about the mixture.
UNLEARNED = 0.9


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


def fit_laws(
    results: SwarmResults, wanted: Sequence[str], task_weights: Mapping[str, float], settings: FitSettings
) -> Fit:
    """Fit the law of every task and cross-validate it; raises SwarmError when too few runs are there."""
    if not wanted:
        return Fit(None, {"tasks": {}, "runs": {"used": 0, "missing": []}}, ())
    missing = [run for run in wanted if run not in results.named]
    parameters = len(results.coordinates) + 1
    if len(results.runs) < parameters:
        raise SwarmError(
            f"{len(results.runs)} distinct of {len(wanted)} runs are there; missing: {', '.join(missing) or 'none'}; "
            f"too few for the {parameters} parameters of a law; raise swarm.runs_per_domain, or dvc repro -f -s train"
        )
    weights = np.array([task_weights[task] for task in results.tasks])
    fit = fit_swarm(observe(results.weights, results.bpb), results.runs, weights / weights.sum(), settings)
    # nan, where nobody measured a model that knows nothing, compares as False.
    unlearned = [
        task
        for task, best, uniform in zip(results.tasks, results.bpb.min(axis=0), results.uniform, strict=True)
        if best > UNLEARNED * uniform
    ]
    values = fit_values(fit, results.tasks, results.coordinates)
    for task, uniform in zip(results.tasks, results.uniform, strict=True):
        values["tasks"][task]["uniform_model_bpb"] = float(uniform)
    diagnostics = {
        **values,
        "runs": {"used": len(results.runs), "missing": missing},
        "unlearned_tasks": unlearned,
    }
    warnings = []
    if missing:
        warnings.append(f"{len(missing)} runs are missing ({', '.join(missing)}); fitted on {len(results.runs)}")
    if fit.design.rank < len(results.coordinates):
        warnings.append(f"the mixtures have rank {fit.design.rank} for {len(results.coordinates)} domains")
    warnings += [
        f"domain {name} was never sampled: its coefficient is not from data" for name in values["never_sampled"]
    ]
    warnings += [
        f"task {task}: no run is much better than a model that knows nothing; no domain may hold its format"
        for task in unlearned
    ]
    return Fit(Laws(results.coordinates, results.tasks, fit, settings.kinds()), diagnostics, tuple(warnings))


def write_fit(fit: Fit) -> None:
    """Write `law.json` (when there is a law) and `diagnostics.json`."""
    FIT.mkdir(parents=True, exist_ok=True)
    write_json(DIAGNOSTICS, {**fit.diagnostics, "warnings": list(fit.warnings)})
    if fit.laws is not None:
        write_json(LAW, laws_to_json(fit.laws))


def read_laws(task_weights: Mapping[str, float], settings: FitSettings) -> Laws:
    """The laws of this pipeline, fitted under `settings`; `task_weights` weigh tasks in the scores of their mean."""
    return laws_from_json(read_json(LAW), task_weights, settings)


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
