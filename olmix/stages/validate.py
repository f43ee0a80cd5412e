"""validate: the proposal and its baselines, trained with fresh seeds and measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from olmix.artifacts.collapsed import token_sets
from olmix.artifacts.mixture_file import read_mixture
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.proxies import weights_of
from olmix.artifacts.validation import EVALUATED, gain_of, keep_runs, standard_error, write_validation
from olmix.config.keys import params_for
from olmix.config.runtime import load_runtime
from olmix.core.contenders import PROPOSAL, contenders, validation_size
from olmix.data.tokensets import TokenSet
from olmix.pipeline import NO_REMOTE, RunCache
from olmix.project import Project
from olmix.proxy.recipe import Recipe
from olmix.runs.jobs import evaluation_jobs, require_weights, share_runs, training_jobs
from olmix.runs.journal import Journal
from olmix.runs.record import RunSpec, spec_for
from olmix.terminal.exits import run_stage
from olmix.terminal.progress import require_all, run_with_progress, warn


def validate(project: Project) -> None:
    """Train and evaluate the proposal and its baselines, and write how much better it is."""
    params, journal = params_for(project, "validate"), Journal(project.state)
    shared = RunCache(project.root, warn, quiet=[NO_REMOTE])  # train has warned already
    keep, seeds = params.proxy.keep_weights, params.validation_seeds()
    plan = read_plan(project)
    if not validation_size(plan, seeds):  # also where proxies are trained elsewhere
        keep_runs(project, [], journal, keep)
        write_validation(project, {})
        return
    tokenizer, paths = params.load_tokenizer(), params.task_paths()
    runtime = load_runtime(project)
    recipe = params.recipe(tokenizer.vocabulary)
    sets = token_sets(project, plan, recipe.sequence_length, params.scale(recipe))
    mixtures = contenders(plan, read_mixture(project.proposed).mixture.weights, params.caps(plan.dataset), warn)
    specs = validation_specs(mixtures, sets, recipe, params.proxy.seed, seeds)
    runs = [spec for each in specs.values() for spec in each]
    training = training_jobs(runs, keep, paths, tokenizer, journal)
    require_all(run_with_progress("validate", training, project, runtime, shared))
    keep_runs(project, runs, journal, keep)
    trained = {spec.key: (spec.recipe, spec.name, weights_of(project, spec.key, journal)) for spec in runs}
    jobs = evaluation_jobs(trained, paths, tokenizer, journal)
    outcome = run_with_progress("validate: evaluate", jobs, project, runtime, shared, require_weights)
    share_runs(jobs, journal, project.validated / EVALUATED, shared, keep)
    write_validation(project, summarise(mixtures, specs, require_all(outcome), params.task_weights()))


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(validate)


def validation_specs(
    mixtures: Mapping[str, Mapping[str, float]],
    sets: Mapping[str, TokenSet],
    recipe: Recipe,
    swarm_seed: int,
    seeds: int,
) -> dict[str, list[RunSpec]]:
    """Runs by mixture: seeds that follow the swarm's, the same for every mixture, so that gains are paired."""
    return {
        name: [spec_for(f"{name}-{k}", weights, sets, recipe, swarm_seed + 1 + k) for k in range(seeds)]
        for name, weights in mixtures.items()
    }


def summarise(
    mixtures: Mapping[str, Mapping[str, float]],
    specs: Mapping[str, Sequence[RunSpec]],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    task_weights: Mapping[str, float],
) -> dict[str, Any]:
    """Mean BPB and its standard error over seeds by mixture, and the proposal's gain over each other mixture.

    `scores` are by run key and task. With one seed there is no standard error (null).
    """
    total = math.fsum(task_weights.values())
    tasks = sorted(task_weights)
    share = np.array([task_weights[task] / total for task in tasks])
    result: dict[str, Any] = {}
    for name, runs in specs.items():
        bpb = np.array([[scores[run.key][task]["bpb"] for task in tasks] for run in runs])
        result[name] = {
            "mean_bpb": float((bpb @ share).mean()),
            "standard_error": standard_error(bpb @ share),
            "seeds": [run.seed for run in runs],
            "by_seed": (bpb @ share).tolist(),
            "weights": dict(mixtures[name]),
            "tasks": dict(zip(tasks, bpb.mean(axis=0).tolist(), strict=True)),
        }
    for name in [name for name in specs if name != PROPOSAL]:
        result[name]["gain_of_proposal"] = gain_of(result, PROPOSAL, name)
    return result
