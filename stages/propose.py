"""propose: the mixture that the laws and the limits ask for."""

from olmix.artifacts.law_file import read_laws
from olmix.artifacts.mixture_file import PROPOSED, write_mixture
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.proposal import HEADING, propose
from olmix.config.keys import params_for
from olmix.terminal.exits import run


def main() -> None:
    params, plan = params_for("propose"), read_plan()
    laws = read_laws(params.task_weights(), params.fit_settings()) if plan.affected else None
    proposal = propose(plan, laws, params.task_weights(), params.target_settings(), params.solve.kl)
    write_mixture(PROPOSED, proposal, HEADING)


if __name__ == "__main__":
    run(main)
