"""evaluate: bits per byte of every task for every proxy, measured here or read from external/."""

from olmix.faces.config import load_params, load_runtime
from olmix.faces.entry import run
from olmix.faces.progress import require_all, run_with_progress
from olmix.outputs.evaluations import evaluation_jobs, write_evaluations
from olmix.outputs.external import read_metrics, write_external_evaluations
from olmix.outputs.proxies import read_runs
from olmix.outputs.swarm_file import read_swarm
from olmix.runs.journal import Journal


def main() -> None:
    params = load_params()
    if params.proxy.external:
        swarm = read_swarm()
        metrics = read_metrics(swarm, params.tasks.names)
        for warning in metrics.warnings:
            print(f"warning: {warning}", flush=True)
        write_external_evaluations(swarm, metrics)
        return
    records = read_runs()
    paths = [params.task_path(task) for task in params.tasks.names]
    jobs = evaluation_jobs(records, paths, params.load_tokenizer())
    outcome = run_with_progress("evaluate", "runs", jobs, Journal(), load_runtime())
    write_evaluations(records, require_all(outcome))


if __name__ == "__main__":
    run(main)
