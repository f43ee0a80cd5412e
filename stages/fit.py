"""fit: a law for every task, and how far to trust it."""

from olmix.artifacts.evaluations import read_results
from olmix.artifacts.law_file import fit_laws, write_fit
from olmix.artifacts.swarm_file import read_swarm
from olmix.config.keys import params_for
from olmix.terminal.exits import run
from olmix.terminal.progress import warn


def main() -> None:
    params, swarm = params_for("fit"), read_swarm()
    weights = params.task_weights()
    results = read_results(swarm.space.names, sorted(weights))
    fit = fit_laws(results, swarm.runs, weights, params.fit_settings())
    for warning in fit.warnings:
        warn(warning)
    write_fit(fit)


if __name__ == "__main__":
    run(main)
