"""evaluate: bits per byte of every task for every proxy."""

from olmix.faces.config import load_params, load_runtime
from olmix.faces.entry import run
from olmix.faces.progress import require_all, run_with_progress
from olmix.outputs.evaluations import evaluation_jobs, write_evaluations
from olmix.outputs.proxies import read_runs
from olmix.runs.journal import Journal


def main() -> None:
    params, records = load_params(), read_runs()
    paths = [params.task_path(task) for task in params.tasks.names]
    jobs = evaluation_jobs(records, paths, params.load_tokenizer())
    outcome = run_with_progress("evaluate", "runs", jobs, Journal(), load_runtime())
    write_evaluations(records, require_all(outcome))


if __name__ == "__main__":
    run(main)
