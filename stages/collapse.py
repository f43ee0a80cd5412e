"""collapse: the token sets that the swarm draws from, the virtual domain's included."""

from olmix.faces.config import load_params
from olmix.faces.entry import run
from olmix.files import output_folder
from olmix.outputs.collapsed import COLLAPSED, write_collapsed
from olmix.outputs.external import ELSEWHERE
from olmix.outputs.plan_file import read_plan


def main() -> None:
    params = load_params()
    plan = read_plan()
    if plan.duplicates:
        print("warning: the same documents under several names:", "; ".join(map(" = ".join, plan.duplicates)))
    if params.proxy.external:
        output_folder(COLLAPSED, empty=True, why=ELSEWHERE)
        return
    write_collapsed(plan, params.proxy.sequence_length, params.proxy_sequences())


if __name__ == "__main__":
    run(main)
