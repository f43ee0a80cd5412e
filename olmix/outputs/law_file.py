"""`build/fit/`: the laws of all tasks with their bootstrap replicates, and what the swarm says about trusting them."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from olmix.core.diagnostics import design_rank, out_of_fold, scores
from olmix.core.loglinear import LogLinear, bootstrap_loglinear, fit_loglinear, never_sampled
from olmix.errors import SwarmError
from olmix.files import read_json, write_json
from olmix.outputs.evaluations import SwarmResults

FIT = Path("build/fit")
LAW, DIAGNOSTICS = FIT / "law.json", FIT / "diagnostics.json"
# A task whose best run is this close to a model that knows nothing says nothing about the mixture.
UNLEARNED = 0.9


@dataclass(frozen=True)
class FitSettings:
    """Huber delta in BPB, ridge, folds of the cross-validation, bootstrap replicates, and the seed of both."""

    delta: float = 0.02
    ridge: float = 1e-8
    folds: int = 5
    replicates: int = 60
    seed: int = 0


@dataclass(frozen=True)
class Laws:
    """The law of every task, over the swarm's coordinates, and its bootstrap replicates."""

    coordinates: tuple[str, ...]
    tasks: tuple[str, ...]
    law: LogLinear
    replicates: tuple[LogLinear, ...]


@dataclass(frozen=True)
class Fit:
    """Laws (None when the plan recomputes nothing), diagnostics, and warnings for a person."""

    laws: Laws | None
    diagnostics: Mapping[str, Any]
    warnings: tuple[str, ...]


def fit_laws(
    results: SwarmResults, wanted: Sequence[str], task_weights: Mapping[str, float], settings: FitSettings
) -> Fit:
    """Fit the log-linear law of every task and cross-validate it; raises SwarmError when too few runs are there."""
    if not wanted:
        return Fit(None, {"tasks": {}, "runs": {"used": 0, "missing": []}}, ())
    missing = [run for run in wanted if run not in results.named]
    parameters = len(results.coordinates) + 1
    if len(results.runs) < parameters:
        raise SwarmError(
            f"{len(results.runs)} distinct of {len(wanted)} runs are there; missing: {', '.join(missing) or 'none'}; "
            f"too few for the {parameters} parameters of a law; raise swarm.runs_per_domain, or dvc repro -f -s train"
        )
    fit = functools.partial(fit_loglinear, delta=settings.delta, ridge=settings.ridge)
    law = fit(results.weights, results.bpb)
    replicates = bootstrap_loglinear(
        results.weights,
        results.bpb,
        settings.replicates,
        settings.seed,
        law=law,
        delta=settings.delta,
        ridge=settings.ridge,
    )
    held_out = out_of_fold(
        # A fold of a swarm of m + 1 runs has fewer runs than domains; what it predicts then is honestly bad.
        functools.partial(fit, allow_underdetermined=True),
        results.weights,
        results.bpb,
        folds=min(settings.folds, len(results.runs)),
        seed=settings.seed,
        ids=results.runs,
    )
    weights = np.array([task_weights[task] for task in results.tasks])
    score = scores(held_out, results.bpb, weights)
    shape = design_rank(results.weights)
    never = [n for n, empty in zip(results.coordinates, never_sampled(results.weights), strict=True) if empty]
    unlearned = [
        task
        for task, best, uniform in zip(results.tasks, results.bpb.min(axis=0), results.uniform, strict=True)
        if best > UNLEARNED * uniform
    ]
    tasks = {
        task: {
            "loss": float(law.loss[j]),
            "spearman": float(score.spearman[j]),
            "pearson": float(score.pearson[j]),
            "rmse": float(score.rmse[j]),
            "coefficient_norm": float(np.linalg.norm(law.coefficients[j])),
            "lowest_bpb": float(results.bpb[:, j].min()),
            "highest_bpb": float(results.bpb[:, j].max()),
            "uniform_model_bpb": float(results.uniform[j]),
        }
        for j, task in enumerate(results.tasks)
    }
    diagnostics = {
        "tasks": tasks,
        "mean": {"spearman": score.mean_spearman, "pearson": score.mean_pearson, "rmse": score.mean_rmse},
        "design": {"rank": shape.rank, "coordinates": len(results.coordinates), "condition": shape.condition},
        "runs": {"used": len(results.runs), "missing": missing},
        "never_sampled": never,
        "unlearned_tasks": unlearned,
    }
    warnings = []
    if missing:
        warnings.append(f"{len(missing)} runs are missing ({', '.join(missing)}); fitted on {len(results.runs)}")
    if shape.rank < len(results.coordinates):
        warnings.append(f"the mixtures have rank {shape.rank} for {len(results.coordinates)} domains")
    warnings += [f"domain {name} was never sampled: its coefficient is not from data" for name in never]
    warnings += [
        f"task {task}: no run is much better than a model that knows nothing; no domain may hold its format"
        for task in unlearned
    ]
    return Fit(Laws(results.coordinates, results.tasks, law, tuple(replicates)), diagnostics, tuple(warnings))


def write_fit(fit: Fit) -> None:
    """Write `law.json` (when there is a law) and `diagnostics.json`."""
    FIT.mkdir(parents=True, exist_ok=True)
    write_json(DIAGNOSTICS, {**fit.diagnostics, "warnings": list(fit.warnings)})
    if fit.laws is not None:
        laws = fit.laws
        write_json(
            LAW,
            {
                "law": "log-linear",
                "coordinates": list(laws.coordinates),
                "tasks": list(laws.tasks),
                "fit": _law_to_json(laws.law),
                "replicates": [_law_to_json(law) for law in laws.replicates],
            },
        )


def read_laws() -> Laws:
    """The laws of this pipeline."""
    content = read_json(LAW)
    return Laws(
        tuple(content["coordinates"]),
        tuple(content["tasks"]),
        _law_from_json(content["fit"]),
        tuple(_law_from_json(law) for law in content["replicates"]),
    )


_FIELDS = ("floor", "coefficients", "loss", "lower", "upper")


def _law_to_json(law: LogLinear) -> dict[str, Any]:
    return {name: getattr(law, name).tolist() for name in _FIELDS}


def _law_from_json(content: Mapping[str, Any]) -> LogLinear:
    return LogLinear(**{name: np.array(content[name]) for name in _FIELDS})
