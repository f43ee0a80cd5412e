"""fit: a law for every task, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from olmix.artifacts.evaluations import SwarmResults, read_results
from olmix.artifacts.fit_report import fit_values
from olmix.artifacts.law_file import Fit, Laws, write_fit
from olmix.artifacts.swarm_file import read_swarm
from olmix.config.keys import params_for
from olmix.errors import SwarmError
from olmix.fit.fitting import FitSettings, fit_swarm
from olmix.laws.observations import observe
from olmix.project import Project
from olmix.terminal.exits import run_stage
from olmix.terminal.progress import warn

# A task whose best run is this close to a model that knows nothing says nothing about the mixture.
UNLEARNED = 0.9


def fit(project: Project) -> None:
    """Fit the laws of this pipeline and write them with their diagnostics."""
    params, swarm = params_for(project, "fit"), read_swarm(project)
    weights = params.task_weights()
    results = read_results(project, swarm.space.names, sorted(weights))
    fitted = fit_laws(results, swarm.runs, weights, params.fit_settings())
    for warning in fitted.warnings:
        warn(warning)
    write_fit(project, fitted)


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(fit)


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
            f"only {len(results.runs)} distinct of {len(wanted)} runs for the {parameters} parameters of a law; "
            f"missing: {', '.join(missing) or 'none'}",
            way_out="raise swarm.runs_per_domain, or run `dvc repro -f -s train`",
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
        warnings.append(
            f"{len(missing)} runs are missing ({', '.join(missing)}); fitted on the other {len(results.runs)}"
        )
    if fit.design.rank < len(results.coordinates):
        warnings.append(f"the mixtures have rank {fit.design.rank} for {len(results.coordinates)} domains")
    warnings += [
        f"domain {name} was never sampled: its coefficient does not come from data" for name in values["never_sampled"]
    ]
    warnings += [
        f"task {task}: no run is much better than a model that knows nothing; perhaps no domain has text in its format"
        for task in unlearned
    ]
    return Fit(Laws(results.coordinates, results.tasks, fit, settings.kinds()), diagnostics, tuple(warnings))
