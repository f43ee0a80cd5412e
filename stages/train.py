"""train: a proxy for every mixture of the swarm."""

from olmix.data.tokensets import open_token_sets
from olmix.faces.config import load_params, load_runtime
from olmix.faces.entry import run
from olmix.faces.progress import run_with_progress
from olmix.files import output_folder
from olmix.outputs.collapsed import COLLAPSED
from olmix.outputs.external import ELSEWHERE
from olmix.outputs.proxies import PROXIES, publish_runs, swarm_specs
from olmix.outputs.swarm_file import read_swarm
from olmix.runs.journal import Journal
from olmix.runs.training_job import TrainingJob


def main() -> None:
    params, journal, swarm = load_params(), Journal(), read_swarm()
    if params.proxy.external:
        output_folder(PROXIES, empty=True, why=ELSEWHERE)
        return
    recipe = params.recipe(params.load_tokenizer().vocabulary)
    sets = open_token_sets(COLLAPSED, recipe.sequence_length)
    specs = swarm_specs(swarm, sets, recipe, params.proxy.seed)
    outcome = run_with_progress("train", "runs", [TrainingJob(spec) for spec in specs], journal, load_runtime())
    publish_runs(specs, outcome, swarm, journal)


if __name__ == "__main__":
    run(main)
