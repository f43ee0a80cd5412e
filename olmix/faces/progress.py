"""Progress of a long stage on the terminal: jobs done, tokens a second, time left.

A bar where there is a terminal; elsewhere (CI, a log file) a line now and then. All of it on standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from olmix.errors import TrainingError
from olmix.faces.config import Runtime
from olmix.progress import Progress
from olmix.runs.engine import Job, Outcome, run_jobs
from olmix.runs.journal import Journal

LINE_SECONDS = 10.0


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


def run_with_progress(what: str, unit: str, jobs: Sequence[Job], journal: Journal, runtime: Runtime) -> Outcome:
    """Run `jobs` on the engine that runtime.yaml names, and say on standard error what came of them."""
    start = time.monotonic()
    with ProgressDisplay(what, unit) as display:
        outcome = run_jobs(jobs, journal, runtime.processes, runtime.device, display)
    wanted = len({job.key for job in jobs})
    found = wanted - outcome.done - len(outcome.failed)
    print(
        f"{what}: {wanted} {unit}, {found} in the journal, {outcome.done} done now in {time.monotonic() - start:.0f} s",
        file=sys.stderr,
    )
    names = {job.key: job.name for job in jobs}
    for key, reason in outcome.failed.items():
        print(f"warning: {names[key]} was set aside: {reason}", file=sys.stderr)
    return outcome


def require_all(outcome: Outcome) -> dict[str, dict[str, Any]]:
    """The results, when none is missing; raises TrainingError with the first reason."""
    if outcome.failed:
        raise TrainingError(f"{len(outcome.failed)} jobs failed: {next(iter(outcome.failed.values()))}")
    return outcome.results
