"""train: a proxy for every mixture of the swarm."""

from __future__ import annotations

from olmix.artifacts.external import ELSEWHERE
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.proxies import publish_runs
from olmix.artifacts.swarm_file import read_swarm
from olmix.config.keys import params_for
from olmix.config.preflight import require_limits
from olmix.config.runtime import load_runtime
from olmix.data.tokensets import open_token_sets
from olmix.files import output_folder
from olmix.pipeline import RunCache
from olmix.project import Project
from olmix.runs.jobs import training_jobs
from olmix.runs.journal import Journal
from olmix.runs.record import swarm_specs
from olmix.terminal.exits import run_stage
from olmix.terminal.progress import SWARM, run_with_progress, warn


def train(project: Project) -> None:
    """Train the swarm: what neither the journal nor the run-cache holds."""
    params, swarm, journal = params_for(project, "train"), read_swarm(project), Journal(project.state)
    if params.proxy.external:
        output_folder(project.proxies, empty=True, why=ELSEWHERE)
        return
    if project.plan.exists():  # no dependency: it can stop the stage, and changes nothing of what it writes
        require_limits(params, read_plan(project))
    tokenizer, keep = params.load_tokenizer(), params.proxy.keep_weights
    recipe = params.recipe(tokenizer.vocabulary)
    sets = open_token_sets(project.collapsed, recipe.sequence_length)
    specs = swarm_specs(swarm, sets, recipe, params.proxy.seed)
    jobs = training_jobs(specs, keep, params.task_paths(), tokenizer, journal)
    outcome = run_with_progress(SWARM, jobs, project, load_runtime(project), RunCache(project.root, warn))
    publish_runs(project, specs, outcome, swarm, journal, keep)


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(train)
