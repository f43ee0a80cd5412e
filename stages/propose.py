"""propose: the mixture that the laws and the limits ask for."""

from olmix.faces.entry import run
from olmix.faces.keys import params_for
from olmix.outputs.law_file import read_laws
from olmix.outputs.mixture_file import PROPOSED, write_mixture
from olmix.outputs.plan_file import read_plan
from olmix.outputs.proposal import HEADING, propose


def main() -> None:
    params, plan = params_for("propose"), read_plan()
    laws = read_laws(params.task_weights(), params.fit_settings()) if plan.affected else None
    proposal = propose(plan, laws, params.task_weights(), params.target_settings(), params.solve.kl)
    write_mixture(PROPOSED, proposal, HEADING)


if __name__ == "__main__":
    run(main)
