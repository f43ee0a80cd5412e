"""validate: the proposal and its baselines, trained with fresh seeds and measured."""

from olmix.artifacts.collapsed import token_sets
from olmix.artifacts.evaluations import require_weights, share_runs, spec_evaluation_jobs, training_jobs
from olmix.artifacts.mixture_file import PROPOSED, read_mixture
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.validation import EVALUATED, contenders, keep_runs, summarise, validation_specs, write_validation
from olmix.config.keys import params_for
from olmix.config.runtime import load_runtime
from olmix.pipeline import NO_REMOTE, RunCache
from olmix.runs.journal import Journal
from olmix.terminal.exits import run
from olmix.terminal.progress import require_all, run_with_progress, warn


def main() -> None:
    params, runtime, journal = params_for("validate"), load_runtime(), Journal()
    shared = RunCache(warn, said=[NO_REMOTE])  # train has said that there is none
    keep, seeds = params.proxy.keep_weights, params.validation_seeds()
    if not seeds:  # also where proxies are trained elsewhere
        keep_runs([], journal, keep)
        write_validation({})
        return
    plan, tokenizer, paths = read_plan(), params.load_tokenizer(), params.task_paths()
    recipe = params.recipe(tokenizer.vocabulary)
    sets = token_sets(plan, recipe.sequence_length, params.scale(recipe))
    mixtures = contenders(plan, read_mixture(PROPOSED).mixture.weights, params.caps(plan.dataset), warn)
    specs = validation_specs(mixtures, sets, recipe, params.proxy.seed, seeds)
    runs = [spec for each in specs.values() for spec in each]
    jobs = training_jobs(runs, keep, paths, tokenizer, journal)
    require_all(run_with_progress("validate", jobs, journal, runtime, shared))
    keep_runs(runs, journal, keep)
    measuring = spec_evaluation_jobs(runs, paths, tokenizer, journal)
    outcome = run_with_progress("validate: evaluate", measuring, journal, runtime, shared, require_weights)
    share_runs(measuring, journal, EVALUATED, shared, keep)
    write_validation(summarise(mixtures, specs, require_all(outcome), params.task_weights()))


if __name__ == "__main__":
    run(main)
