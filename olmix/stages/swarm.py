"""swarm: the mixtures to train, over the virtual domain and the affected ones."""

from __future__ import annotations

from olmix.artifacts.external import write_ratios
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.swarm_file import write_swarm
from olmix.config.keys import params_for
from olmix.project import Project
from olmix.terminal.exits import run_stage


def swarm(project: Project) -> None:
    """Write the swarm of this pipeline's plan, for olmix and for another trainer."""
    params = params_for(project, "swarm")
    made = params.swarm_of(read_plan(project))
    write_swarm(project, made)
    write_ratios(project, made)


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(swarm)
