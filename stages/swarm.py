"""swarm: the mixtures to train, over the virtual domain and the affected ones."""

from olmix.artifacts.external import write_ratios
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.swarm_file import SWARM, make_swarm, swarm_to_json
from olmix.config.keys import params_for
from olmix.files import write_json
from olmix.terminal.exits import run


def main() -> None:
    params = params_for("swarm")
    swarm = make_swarm(read_plan(), params.swarm.runs_per_domain, params.sampling(), params.swarm.repeats)
    write_json(SWARM, swarm_to_json(swarm))
    write_ratios(swarm)


if __name__ == "__main__":
    run(main)
