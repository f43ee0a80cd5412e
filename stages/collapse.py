"""collapse: the token sets that the swarm draws from, the virtual domain's included."""

from olmix.artifacts.collapsed import COLLAPSED, write_collapsed
from olmix.artifacts.external import ELSEWHERE
from olmix.artifacts.plan_file import read_plan
from olmix.config.keys import params_for
from olmix.files import output_folder
from olmix.terminal.exits import run
from olmix.terminal.progress import warn


def main() -> None:
    params = params_for("collapse")
    plan = read_plan()
    if plan.duplicates:
        warn(f"the same documents under several names: {'; '.join(map(' = '.join, plan.duplicates))}")
    if params.proxy.external:
        output_folder(COLLAPSED, empty=True, why=ELSEWHERE)
        return
    recipe = params.recipe(params.load_tokenizer().vocabulary)
    coarse = write_collapsed(plan, recipe.sequence_length, recipe.sequences, params.scale(recipe))
    for name, reason in coarse.items():
        warn(f"domain {name}: its repetition in a proxy is not that of the target: {reason}")


if __name__ == "__main__":
    run(main)
