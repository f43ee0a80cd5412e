"""Progress of a long stage on the terminal: jobs done, tokens a second, time left.

A bar where there is a terminal; elsewhere (CI, a log file) a line now and then. All of it on standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from olmix.config.runtime import Runtime
from olmix.errors import TrainingError
from olmix.progress import Progress
from olmix.project import Project
from olmix.runs.engine import Outcome, run_jobs
from olmix.runs.job import Job
from olmix.runs.journal import Journal
from olmix.runs.sharing import Shared
from olmix.runs.speed import remember_speed
from olmix.runs.training_job import TrainingJob

AnyJob = TypeVar("AnyJob", bound=Job)

LINE_SECONDS = 10.0
# What the stage that trains the swarm calls itself.
SWARM = "train"


class ProgressDisplay:
    """A context manager that is called with Progress: the items and the work that it counts are named by the caller."""

    def __init__(self, what: str, items: str = "runs", work: str = "tokens") -> None:
        self._what = what
        self._items = items
        self._work = work
        self._console = Console(file=sys.stderr)
        self._start = self._last = time.monotonic()
        self._bar: Bar | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn(f"{{task.fields[done]}} {self._items}"),
                TextColumn("{task.fields[speed]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._what, total=None, done="", speed="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        if progress.note:
            self._console.print(f"note: {progress.note}", markup=False, highlight=False, soft_wrap=True)
        now = time.monotonic()
        speed = progress.work / max(now - self._start, 1e-9)
        done = f"{progress.found + progress.finished}/{progress.items}"
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task,
                total=progress.total_work,
                completed=min(progress.work, progress.total_work),
                done=done,
                speed=f"{speed:,.0f} {self._work}/s",
            )
        elif now - self._last >= LINE_SECONDS:
            self._last = now
            left = f"{(progress.total_work - progress.work) / speed:,.0f} s left" if speed > 0 else "starting"
            self._console.print(f"{self._what}: {done} {self._items}, {speed:,.0f} {self._work}/s, {left}")


def warn(line: str) -> None:
    """Say on standard error what went otherwise than expected."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def run_with_progress(
    what: str,
    jobs: Sequence[AnyJob],
    project: Project,
    runtime: Runtime,
    shared: Shared,
    check: Callable[[Sequence[AnyJob], Journal], None] | None = None,
) -> Outcome:
    """Run `jobs` on the engine that runtime.yaml names, and say on standard error what came of them."""
    start, journal = time.monotonic(), Journal(project.state)
    with ProgressDisplay(what) as display:
        outcome = run_jobs(jobs, journal, lambda: runtime.open_engine(journal), display, shared, check)
    elapsed = time.monotonic() - start
    cached = f"{outcome.in_cache} in the cache, " if outcome.in_cache else ""
    print(
        f"{what}: {len({job.key for job in jobs})} runs, {outcome.in_journal} in the journal, {cached}"
        f"{outcome.done} done now in {elapsed:.0f} s",
        file=sys.stderr,
    )
    if what == SWARM:  # a validation is too small to fill every worker
        training = [job for job in jobs if isinstance(job, TrainingJob)]
        remember_speed(project.speeds, training, outcome, elapsed, runtime.place)
    names = {job.key: job.name for job in jobs}
    for key, reason in outcome.failed.items():
        warn(f"{names[key]} failed and was left out: {reason}")
    return outcome


def require_all(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """The results, when none is missing; raises TrainingError with the first reason."""
    if outcome.failed:
        raise TrainingError(f"{len(outcome.failed)} jobs failed: {next(iter(outcome.failed.values()))}")
    return outcome.results
