"""collapse: the token sets that the swarm draws from, the virtual domain's included."""

from __future__ import annotations

from olmix.artifacts.collapsed import write_collapsed
from olmix.artifacts.external import ELSEWHERE
from olmix.artifacts.plan_file import read_plan
from olmix.config.keys import params_for
from olmix.files import output_folder
from olmix.project import Project
from olmix.terminal.exits import run_stage
from olmix.terminal.progress import warn


def collapse(project: Project) -> None:
    """Write the token sets of this pipeline's plan."""
    params, plan = params_for(project, "collapse"), read_plan(project)
    if plan.duplicates:
        warn(f"the same documents under several names: {'; '.join(map(' = '.join, plan.duplicates))}")
    if params.proxy.external:
        output_folder(project.collapsed, empty=True, why=ELSEWHERE)
        return
    recipe = params.recipe(params.load_tokenizer().vocabulary)
    coarse = write_collapsed(project, plan, recipe.sequence_length, recipe.sequences, params.scale(recipe))
    for name, reason in coarse.items():
        warn(f"domain {name}: proxies do not repeat it as often as the target run will: {reason}")


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(collapse)
