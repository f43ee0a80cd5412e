"""train: a proxy for every mixture of the swarm."""

from olmix.artifacts.collapsed import COLLAPSED
from olmix.artifacts.evaluations import training_jobs
from olmix.artifacts.external import ELSEWHERE
from olmix.artifacts.plan_file import PLAN, read_plan
from olmix.artifacts.proxies import PROXIES, publish_runs, swarm_specs
from olmix.artifacts.swarm_file import read_swarm
from olmix.cli.current import require_limits
from olmix.config.keys import params_for
from olmix.config.runtime import load_runtime
from olmix.data.tokensets import open_token_sets
from olmix.files import output_folder
from olmix.pipeline import RunCache
from olmix.runs.journal import Journal
from olmix.terminal.exits import run
from olmix.terminal.progress import SWARM, run_with_progress, warn


def main() -> None:
    params, journal, swarm = params_for("train"), Journal(), read_swarm()
    if params.proxy.external:
        output_folder(PROXIES, empty=True, why=ELSEWHERE)
        return
    if PLAN.exists():  # no dependency: it can stop the stage, and changes nothing of what it writes
        require_limits(params, read_plan())
    tokenizer, keep = params.load_tokenizer(), params.proxy.keep_weights
    recipe = params.recipe(tokenizer.vocabulary)
    sets = open_token_sets(COLLAPSED, recipe.sequence_length)
    specs = swarm_specs(swarm, sets, recipe, params.proxy.seed)
    jobs = training_jobs(specs, keep, params.task_paths(), tokenizer, journal)
    outcome = run_with_progress(SWARM, jobs, journal, load_runtime(), RunCache(warn))
    publish_runs(specs, outcome, swarm, journal, keep)


if __name__ == "__main__":
    run(main)
