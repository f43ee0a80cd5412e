"""evaluate: bits per byte of every task for every proxy, measured here or read from external/."""

from olmix.artifacts.evaluations import MEASURED, evaluation_jobs, require_weights, share_runs, write_evaluations
from olmix.artifacts.external import read_metrics, write_external_evaluations
from olmix.artifacts.proxies import read_runs
from olmix.artifacts.swarm_file import read_swarm
from olmix.config.keys import params_for
from olmix.config.runtime import load_runtime
from olmix.pipeline import NO_REMOTE, RunCache
from olmix.runs.journal import Journal
from olmix.terminal.exits import run
from olmix.terminal.progress import require_all, run_with_progress, warn


def main() -> None:
    params = params_for("evaluate")
    if params.proxy.external:
        swarm = read_swarm()
        metrics = read_metrics(swarm, params.tasks.names)
        for warning in metrics.warnings:
            warn(warning)
        write_external_evaluations(swarm, metrics)
        return
    journal, shared, keep = Journal(), RunCache(warn, said=[NO_REMOTE]), params.proxy.keep_weights
    tokenizer = params.load_tokenizer()
    records = read_runs(keep, params.recipe(tokenizer.vocabulary))
    jobs = evaluation_jobs(records, params.task_paths(), tokenizer, journal)
    outcome = run_with_progress("evaluate", jobs, journal, load_runtime(), shared, require_weights)
    write_evaluations(jobs, records, require_all(outcome))
    share_runs(jobs, journal, MEASURED, shared, keep)


if __name__ == "__main__":
    run(main)
