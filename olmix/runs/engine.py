"""The local engine: one process a core, one thread each, which is the fastest way to run small proxies on a CPU.

It takes jobs and sees them into the journal. A worker that dies takes only its own job with it: the pool is made again
and what is missing is done; a job that fails twice by itself (a run that diverges) is set aside and named.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_bool, c_int64
from dataclasses import dataclass, field
from typing import Any, Protocol

from olmix.errors import TrainingError
from olmix.progress import Progress, Report
from olmix.runs.journal import Journal
from olmix.runs.worker import do, start_worker

ATTEMPTS = 2
DEATHS = 3
POLL_SECONDS = 0.2


class Job(Protocol):
    """A unit of work whose result is an entry of the journal."""

    @property
    def key(self) -> str:
        """Identifies the result; equal keys are done once."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def tokens(self) -> int:
        """Its cost, in tokens that a model reads."""

    def find(self, journal: Journal) -> dict[str, Any] | None:
        """The result, when the journal holds it."""

    def run(self, journal: Journal, device: str, progress: Callable[[int], None]) -> None:
        """Put the result into the journal, calling `progress` with tokens done since the last call."""


@dataclass
class Outcome:
    """Results by key, the reason by key for jobs that were set aside, and how many jobs were done now."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    done: int = 0


def run_jobs(jobs: Sequence[Job], journal: Journal, workers: int, device: str, report: Report) -> Outcome:
    """Do what the journal does not hold; raises the first error that is not a job's own, and TrainingError when
    workers keep dying."""
    journal.sweep()
    outcome = Outcome()
    wanted = {job.key: job for job in jobs}
    for key, job in wanted.items():
        result = job.find(journal)
        if result is not None:
            outcome.results[key] = result
    todo = {key: job for key, job in wanted.items() if key not in outcome.results}
    if todo:
        _run(todo, journal, workers, device, report, outcome)
    for key, job in todo.items():
        result = job.find(journal)
        if result is not None:
            outcome.results[key] = result
            outcome.done += 1
        elif key not in outcome.failed:
            raise TrainingError(f"{job.name}: its entry in {journal.folder} was lost; run dvc repro again")
    return outcome


def _run(
    todo: Mapping[str, Job],
    journal: Journal,
    workers: int,
    device: str,
    report: Report,
    outcome: Outcome,
) -> None:
    # The fork server imports torch once for all workers, and has neither threads nor locks when it forks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["olmix.proxy.training", "olmix.proxy.evaluation"])
    tokens, stop = context.Value(c_int64, 0), context.Value(c_bool, False)
    found, total = len(outcome.results), sum(job.tokens for job in todo.values())
    attempts = dict.fromkeys(todo, 0)
    waiting = list(todo)
    finished = deaths = 0
    starter = os.getppid()
    while waiting:
        pool = ProcessPoolExecutor(min(workers, len(waiting)), context, start_worker, (tokens, stop))
        before, died = finished, False
        try:
            futures = {pool.submit(do, todo[key], journal, device): key for key in waiting}
            waiting = []
            pending = set(futures)
            while pending:
                if os.getppid() != starter:
                    raise KeyboardInterrupt  # whoever started this stage is gone, and may have started another
                done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
                for future in done:
                    key = futures[future]
                    try:
                        future.result()
                        finished += 1
                    except TrainingError as error:
                        attempts[key] += 1
                        if attempts[key] < ATTEMPTS:
                            waiting.append(key)
                        else:
                            outcome.failed[key] = str(error)
                    except BrokenProcessPool:
                        died = True
                        if todo[key].find(journal) is None:  # it may have died after its last write
                            waiting.append(key)
                report(Progress(found, finished, found + len(todo), int(tokens.value), total))
        except BaseException:
            stop.value = True  # workers see it at their next step; what they had finished is in the journal
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        deaths = deaths + 1 if died and finished == before else 0
        if deaths == DEATHS:
            raise TrainingError(
                f"a worker died {deaths} times without finishing a job; {len(waiting)} are left: lower "
                "runtime.yaml: workers if memory is short, then run dvc repro again"
            )


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
