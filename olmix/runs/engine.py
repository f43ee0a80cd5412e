"""Run jobs to completion: skip results already in the journal, retry failures once, resubmit lost jobs.

An engine gives jobs to workers and reports how they end; engine, number of workers and device never change a result.
What is particular to an engine (processes, a scheduler, a cluster) is in its own module, what all share is here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from olmix.errors import TrainingError
from olmix.progress import Progress, Report
from olmix.runs.job import Job
from olmix.runs.journal import Journal
from olmix.runs.sharing import Shared, Unshared
from olmix.runs.starter import starter

AnyJob = TypeVar("AnyJob", bound=Job)

ATTEMPTS = 2
POLL_SECONDS = 0.2
# Finished runs wait this long, or for this many others, before they are stored together.
STORE_SECONDS = 30.0
STORE_BATCH = 32


@dataclass(frozen=True)
class Ending:
    """How a job ended: `done`, its result in the journal; `failed` by itself, and why; or `lost` with its worker."""

    key: str
    how: Literal["done", "failed", "lost"]
    reason: str = ""


class Engine(Protocol):
    """Gives jobs to workers. A context manager: on leaving it, what cannot outlive the driver ends."""

    patience: int
    """How many times one job may be lost while no other job is done."""

    advice: str
    """What to do about workers that keep dying."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Give out `jobs` beside those that are running; one that runs already is not given out twice."""

    def endings(self, seconds: float) -> list[Ending]:
        """Jobs that ended, waiting up to `seconds` for the first; raises any error that is not a job's own."""

    def tokens(self) -> int:
        """Tokens done since the engine was opened, as far as its workers have reported."""

    def interrupt(self) -> str:
        """Stop what cannot outlive the driver; returns a line about what keeps running, or an empty one."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Interrupted(KeyboardInterrupt):
    """The driver was interrupted; the message says what keeps running."""


@dataclass
class Outcome:
    """Results by key, the reason by key for jobs that were set aside; how many jobs were found in the journal and in
    the shared cache, and the keys of those that were done now. `shared` are keys whose results the shared cache is
    known to hold."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    in_journal: int = 0
    in_cache: int = 0
    done_keys: frozenset[str] = frozenset()
    shared: set[str] = field(default_factory=set)

    @property
    def done(self) -> int:
        """How many jobs were done now."""
        return len(self.done_keys)


def run_jobs(
    jobs: Sequence[AnyJob],
    journal: Journal,
    open_engine: Callable[[], Engine],
    report: Report,
    shared: Shared | None = None,
    check: Callable[[Sequence[AnyJob], Journal], None] | None = None,
) -> Outcome:
    """Run the jobs whose results neither the journal nor the shared cache holds, on the engine of `open_engine`.

    `check` is called with the jobs to run before any of them starts, and may raise. Raises the first error that is not
    a job's own, TrainingError when workers keep dying, and Interrupted.
    """
    shared = shared or Unshared()
    journal.sweep()
    outcome = Outcome()
    wanted = {job.key: job for job in jobs}
    outcome.in_journal = _collect(wanted, journal, outcome)
    missing = [job for key, job in wanted.items() if key not in outcome.results]
    if missing:
        found = shared.find([entry for job in missing for entry in job.sought])
        for job in missing:
            job.adopt(journal, {entry: found[entry] for entry in job.sought if entry in found})
        outcome.in_cache = _collect(wanted, journal, outcome)
        outcome.shared |= {job.key for job in missing if job.key in outcome.results}
    todo = {key: job for key, job in wanted.items() if key not in outcome.results}
    if todo:
        if check is not None:
            check(list(todo.values()), journal)
        with open_engine() as engine:
            _Driver(todo, journal, engine, shared, outcome, report).run()
        _collect(todo, journal, outcome)
        outcome.done_keys = frozenset(todo) & frozenset(outcome.results)
        lost = [job.name for key, job in todo.items() if key not in outcome.results and key not in outcome.failed]
        if lost:
            raise TrainingError(
                f"the files of {lost[0]} were lost", file=journal.folder, way_out="run `dvc repro` again"
            )
    # What the journal held may never have been stored, or not in this cache.
    unsure = [wanted[key] for key in outcome.results if key not in outcome.shared]
    shared.store([job.entry for job in unsure if job.stores])
    return outcome


def _collect(jobs: Mapping[str, Job], journal: Journal, outcome: Outcome) -> int:
    """Add the results that the journal holds to `outcome`; returns how many were new."""
    before = len(outcome.results)
    for key, job in jobs.items():
        if key not in outcome.results:
            result = job.find(journal)
            if result is not None:
                outcome.results[key] = result
    return len(outcome.results) - before


class _Driver:
    """Runs the jobs of one engine until all are done or set aside."""

    def __init__(
        self,
        todo: Mapping[str, Job],
        journal: Journal,
        engine: Engine,
        shared: Shared,
        outcome: Outcome,
        report: Report,
    ) -> None:
        self._todo = todo
        self._journal = journal
        self._engine = engine
        self._shared = shared
        self._outcome = outcome
        self._report = report
        self._failures: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()
        self._unstored: list[str] = []
        self._stored_at = time.monotonic()
        self._finished = 0

    def run(self) -> None:
        started_by = starter()
        pending = set(self._todo)
        total = sum(job.tokens for job in self._todo.values())
        found = len(self._outcome.results)
        try:
            self._engine.start(list(self._todo.values()))
            while pending:
                if starter() != started_by:
                    raise KeyboardInterrupt  # whoever started this stage is gone, and may have started another
                again = []
                for ending in self._engine.endings(POLL_SECONDS):
                    if self._is_over(ending):
                        pending.discard(ending.key)
                    else:
                        again.append(self._todo[ending.key])
                if again:
                    self._require_patience()
                    self._engine.start(again)
                self._store(STORE_BATCH, STORE_SECONDS)
                self._report(Progress(found, self._finished, found + len(self._todo), self._engine.tokens(), total))
        except KeyboardInterrupt:
            raise Interrupted(self._engine.interrupt()) from None
        finally:
            self._store(1, 0.0)  # what an error or an interrupt leaves behind is as finished as the rest

    def _is_over(self, ending: Ending) -> bool:
        """Count an ending; returns False when the job is to be given out again."""
        if ending.how == "done" or (ending.how == "lost" and self._is_found(ending.key)):
            self._finished += 1
            self._losses.clear()
            if self._todo[ending.key].stores:
                self._unstored.append(ending.key)
            return True
        if ending.how == "failed":
            self._failures[ending.key] += 1
            if self._failures[ending.key] < ATTEMPTS:
                return False
            self._outcome.failed[ending.key] = ending.reason
            return True
        self._losses[ending.key] += 1
        return False

    def _is_found(self, key: str) -> bool:
        # A worker may have died after its last write.
        return self._todo[key].find(self._journal) is not None

    def _require_patience(self) -> None:
        worst = max(self._losses.values(), default=0)
        if worst >= self._engine.patience:
            raise TrainingError(
                f"workers died {worst} times without finishing a job; jobs left: {len(self._losses)}",
                way_out=f"{self._engine.advice}, then run `dvc repro` again",
            )

    def _store(self, batch: int, seconds: float) -> None:
        now = time.monotonic()
        if self._unstored and (len(self._unstored) >= batch or now - self._stored_at >= seconds):
            if self._shared.store([self._todo[key].entry for key in self._unstored]):
                self._outcome.shared |= set(self._unstored)
            self._unstored.clear()
            self._stored_at = now
