"""evaluate: bits per byte of every task for every proxy, measured here or read from external/."""

from olmix.faces.entry import run
from olmix.faces.keys import params_for
from olmix.faces.progress import require_all, run_with_progress, warn
from olmix.faces.runtime import load_runtime
from olmix.outputs.evaluations import MEASURED, evaluation_jobs, require_weights, share_runs, write_evaluations
from olmix.outputs.external import read_metrics, write_external_evaluations
from olmix.outputs.proxies import read_runs
from olmix.outputs.swarm_file import read_swarm
from olmix.pipeline import NO_REMOTE, RunCache
from olmix.runs.journal import Journal


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
