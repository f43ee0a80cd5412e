"""validate: the proposal and its baselines, trained with fresh seeds and measured."""

from olmix.data.manifest import TOKENS
from olmix.data.tokensets import open_token_sets
from olmix.faces.config import load_params, load_runtime
from olmix.faces.entry import run
from olmix.faces.progress import require_all, run_with_progress
from olmix.files import write_json
from olmix.outputs.evaluations import journal_evaluation_jobs
from olmix.outputs.mixture_file import PROPOSED, read_mixture
from olmix.outputs.plan_file import read_plan
from olmix.outputs.validation import VALIDATION, contenders, summarise, validation_specs
from olmix.runs.journal import Journal
from olmix.runs.training_job import TrainingJob


def main() -> None:
    params, runtime, journal = load_params(), load_runtime(), Journal()
    if params.proxy.external:  # nothing of the proposal can be trained here
        write_json(VALIDATION, {})
        return
    tokenizer = params.load_tokenizer()
    recipe = params.recipe(tokenizer.vocabulary)
    sets = open_token_sets(TOKENS, recipe.sequence_length)
    mixtures = contenders(read_plan(), read_mixture(PROPOSED).mixture.weights)
    specs = validation_specs(mixtures, sets, recipe, params.proxy.seed, params.validation.seeds)
    runs = [spec for seeds in specs.values() for spec in seeds]
    require_all(run_with_progress("validate", "runs", [TrainingJob(spec) for spec in runs], journal, runtime))
    paths = [params.task_path(task) for task in params.tasks.names]
    jobs = journal_evaluation_jobs(runs, paths, tokenizer, journal)
    scores = require_all(run_with_progress("validate: evaluate", "runs", jobs, journal, runtime))
    write_json(VALIDATION, summarise(mixtures, specs, scores, params.task_weights()) if runs else {})


if __name__ == "__main__":
    run(main)
