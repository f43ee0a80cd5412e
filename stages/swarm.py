"""swarm: the mixtures to train, over the virtual domain and the affected ones."""

from olmix.faces.entry import run
from olmix.faces.keys import params_for
from olmix.files import write_json
from olmix.outputs.external import write_ratios
from olmix.outputs.plan_file import read_plan
from olmix.outputs.swarm_file import SWARM, make_swarm, swarm_to_json


def main() -> None:
    params = params_for("swarm")
    swarm = make_swarm(read_plan(), params.swarm.runs_per_domain, params.sampling(), params.swarm.repeats)
    write_json(SWARM, swarm_to_json(swarm))
    write_ratios(swarm)


if __name__ == "__main__":
    run(main)
