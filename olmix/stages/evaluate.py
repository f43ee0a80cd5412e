"""evaluate: bits per byte of every task for every proxy, measured here or read from external/."""

from __future__ import annotations

from olmix.artifacts.evaluations import write_evaluations
from olmix.artifacts.external import read_metrics, write_external_evaluations
from olmix.artifacts.proxies import KEPT, read_runs, weights_of
from olmix.artifacts.swarm_file import read_swarm
from olmix.config.keys import params_for
from olmix.config.params import Params
from olmix.config.runtime import load_runtime
from olmix.pipeline import NO_REMOTE, RunCache
from olmix.project import Project
from olmix.proxy.recipe import Recipe
from olmix.runs.jobs import evaluation_jobs, require_weights, share_runs
from olmix.runs.journal import Journal
from olmix.terminal.exits import run_stage
from olmix.terminal.progress import require_all, run_with_progress, warn


def evaluate(project: Project) -> None:
    """Evaluate every run of the swarm on the tasks that it was not evaluated on."""
    params = params_for(project, "evaluate")
    if params.proxy.external:
        _evaluate_external(project, params)
        return
    journal, keep = Journal(project.state), params.proxy.keep_weights
    shared = RunCache(project.root, warn, quiet=[NO_REMOTE])  # train has warned already
    tokenizer = params.load_tokenizer()
    records = read_runs(project, keep, params.recipe(tokenizer.vocabulary))
    runs = {
        key: (Recipe(**record["recipe"]), str(record["run"]), weights_of(project, key, journal))
        for key, record in records.items()
    }
    jobs = evaluation_jobs(runs, params.task_paths(), tokenizer, journal)
    outcome = run_with_progress("evaluate", jobs, project, load_runtime(project), shared, require_weights)
    write_evaluations(project, jobs, records, require_all(outcome))
    share_runs(jobs, journal, project.evaluations / KEPT, shared, keep)


def _evaluate_external(project: Project, params: Params) -> None:
    swarm = read_swarm(project)
    metrics = read_metrics(project, swarm, params.tasks.names)
    for warning in metrics.warnings:
        warn(warning)
    write_external_evaluations(project, swarm, metrics)


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(evaluate)
