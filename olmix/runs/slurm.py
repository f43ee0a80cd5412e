"""The Slurm engine: runs as jobs of job arrays, which keep running without the driver.

Workers put results straight into the journal, which has to be on a file system that the nodes see; the journal and
the queue decide what has ended, and each array leaves its files in a folder of its own, `.olmix/slurm/<name>/`:
`array.json` (what is at which place), the log of each job, its tokens done, its ending if it has no result.
When a driver was interrupted or killed, the next one continues: jobs that are still in the queue are waited for, not
submitted again. Jobs are submitted with submitit, which hands a job to its worker as a pickle and leaves one behind
when the worker ends; neither holds a result, and nothing here reads them.

What it gives up: a job starts its own Python and torch, 6 s from `sbatch` to the result of a run of 0.2 s on two busy
cores, where the local engine's workers start once; it is meant for runs of minutes. An end is seen up to two seconds
late.
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from olmix import errors
from olmix.errors import ConfigError, OlmixError
from olmix.files import read_json, write_json
from olmix.runs import slurm_queue
from olmix.runs.engine import Ending
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal
from olmix.runs.slurm_queue import SlurmUnavailable, Task
from olmix.runs.slurm_settings import SlurmSettings
from olmix.runs.slurm_worker import ending_path, tokens_path

__all__ = ["SlurmEngine", "SlurmSettings"]

POLL_SECONDS = 2.0
COUNT_SECONDS = 5.0
# A controller that is restarted or moved is away for a minute or two.
SILENCE_SECONDS = 300.0
# A file that a node has written may be seen this much later on another machine (attribute caches of NFS).
SIGHT_SECONDS = 60.0
# Logs of jobs that went wrong are kept this long.
LOG_SECONDS = 7 * 24 * 3600.0

_PREFIX = "olmix-"
_T = TypeVar("_T")


@dataclass
class _Place:
    """The place of a job in an array, and its last known state."""

    job: Job
    array: str
    place: int
    task: Task
    tokens_before: int = 0
    tokens: int = 0
    gone_since: float | None = None


class SlurmEngine:
    """Jobs of Slurm, at most `workers` of them running at once, or as many as the cluster gives.

    Arrays that were taken up from an earlier driver keep the limit that they were submitted with.
    """

    patience = 10

    def __init__(self, journal: Journal, setup: Setup, settings: SlurmSettings, workers: int | None = None) -> None:
        settings.validate()
        slurm_queue.require_slurm()
        self._folder = journal.folder.resolve() / "slurm"
        if "%" in str(self._folder) or not str(self._folder).isprintable():
            raise ConfigError("sbatch does not accept % or unprintable characters in a path", file=self._folder)
        self.advice = f"see {self._folder}"
        self._journal, self._setup, self._settings, self._workers = journal, setup, settings, workers
        self._largest: int | None = None
        self._places: dict[str, _Place] = {}
        self._waiting: list[Job] = []
        self._newest: tuple[str, str, int] | None = None  # name and number of the last array, and its limit
        self._troubled: set[str] = set()  # arrays whose logs are kept
        self._tokens_ended = 0
        self._look_at = self._count_at = 0.0
        self._unavailable_since: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing ends with the driver: the next one takes over its jobs."""

    def start(self, jobs: Sequence[Job]) -> None:
        """Take over jobs that are in the queue, and submit the rest; raises ConfigError when Slurm refuses them."""
        with self._alone():
            queue = self._patiently(slurm_queue.standing)
            known = self._known(queue)
            for job in jobs:
                if job.key in self._places:
                    continue
                place = known.get(job.entry.command)
                if place is None:
                    self._waiting.append(job)
                else:
                    array, number = place
                    before = _count(self._folder / array, number)
                    task = queue[array, number]
                    self._places[job.key] = _Place(job, array, number, task, before, before)
            self._submit_waiting()
        self._look_at = time.monotonic() + POLL_SECONDS

    def endings(self, seconds: float) -> list[Ending]:
        """Jobs that left the queue; raises any error that is not a job's own, and OlmixError when Slurm has not
        answered for minutes."""
        until = time.monotonic() + seconds
        while True:
            now = time.monotonic()
            if now >= self._look_at:
                self._look_at = now + POLL_SECONDS
                ended = self._look()
                if ended:
                    return ended
            if now >= until:
                return []
            time.sleep(max(0.0, min(until, self._look_at) - now))

    def tokens(self) -> int:
        """Tokens done since the engine was opened, a few seconds old."""
        if time.monotonic() >= self._count_at:
            self._count_at = time.monotonic() + COUNT_SECONDS
            for place in self._places.values():
                if place.task.state != "PENDING":
                    place.tokens = max(place.tokens, _count(self._folder / place.array, place.place))
        return self._tokens_ended + sum(place.tokens - place.tokens_before for place in self._places.values())

    def interrupt(self) -> str:
        """Leave jobs in the queue, and say how to end them."""
        return self._left()

    def _left(self) -> str:
        if not self._places:
            return ""
        arrays = sorted({place.task.array for place in self._places.values()}, key=int)
        count = len(self._places)
        return (
            f"{count} {'job continues' if count == 1 else 'jobs continue'} in Slurm; `dvc repro` collects the results, "
            f"`scancel {' '.join(arrays)}` cancels"
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """A lock among drivers, so that none submits what another has submitted."""
        path = self._folder / "lock"
        with contextlib.ExitStack() as stack:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("a"))
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                raise OlmixError(
                    f"cannot be locked: {error.strerror}",
                    file=path,
                    way_out="put .olmix on a file system with locks that the nodes share",
                ) from error
            yield

    def _known(self, queue: dict[tuple[str, int], Task]) -> dict[str, tuple[str, int]]:
        """The array and place of work in the queue, by its command; forgets arrays that ended long ago."""
        found = {}
        names = {name for name, _ in queue}
        for folder in sorted(self._folder.glob(f"{_PREFIX}*")):
            if folder.name in names:
                for number, command in enumerate(read_json(folder / "array.json")["work"]):
                    if (folder.name, number) in queue:
                        found[command] = folder.name, number
            elif time.time() - folder.stat().st_mtime > LOG_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        return found

    def _submit_waiting(self) -> None:
        """Submit what is waiting, as far as `workers` lets it run: then all that stands in the queue could run, and a
        new array gets the places that are left."""
        while self._waiting:
            if self._largest is None:
                self._largest = min(self._settings.array, self._patiently(slurm_queue.largest_array))
            free = len(self._waiting) if self._workers is None else self._workers - len(self._places)
            if free <= 0:
                return
            self._submit(self._waiting[: self._largest], free)
            del self._waiting[: self._largest]

    def _submit(self, jobs: Sequence[Job], free: int) -> None:
        name = f"{_PREFIX}{secrets.token_hex(4)}"
        folder = self._folder / name
        array = {"work": [job.entry.command for job in jobs], "names": [job.name for job in jobs]}
        write_json(folder / "array.json", array)
        limit = min(free, len(jobs))
        tried = False

        def submit() -> str:
            nonlocal tried
            if tried:
                slurm_queue.cancel(name)  # it may have been taken although Slurm did not say so
            tried = True
            return slurm_queue.submit(name, jobs, self._journal, self._setup, self._settings, folder, limit)

        try:
            number = self._patiently(submit)
        except OlmixError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        write_json(folder / "array.json", {**array, "job": number})
        for place, job in enumerate(jobs):
            task = Task(number if len(jobs) == 1 else f"{number}_{place}", "PENDING")
            self._places[job.key] = _Place(job, name, place, task)
        self._newest = name, number, limit

    def _widen(self) -> None:
        """Give the last array the places that older ones no longer need."""
        if self._workers is None or self._newest is None:
            return
        name, number, limit = self._newest
        own = sum(place.array == name for place in self._places.values())
        room = min(self._workers - (len(self._places) - own), own)
        if room > limit:
            with contextlib.suppress(SlurmUnavailable):  # it is asked again at the next look
                slurm_queue.widen(number, room)
                self._newest = name, number, room

    def _look(self) -> list[Ending]:
        try:
            queue = slurm_queue.standing()
            gone = []
            for place in self._places.values():
                task = queue.get((place.array, place.place))
                if task is None:
                    gone.append(place)
                else:
                    place.task, place.gone_since = task, None
            ended = self._ended(gone)
            self._unavailable_since = None
        except SlurmUnavailable as error:
            self._bear(error)
            return []
        self._widen()
        if self._waiting:
            with self._alone():
                self._submit_waiting()
        return ended

    def _ended(self, gone: Sequence[_Place]) -> list[Ending]:
        """How jobs ended that left the queue; jobs whose result may still appear are kept."""
        fates: dict[str, dict[int, str]] = {}
        ended = []
        for place in gone:
            ending = self._own_ending(place)
            if ending is None:
                array = place.task.array
                if array not in fates:
                    fates[array] = slurm_queue.fates(array)
                ending = self._lost(place, fates[array].get(place.place, ""))
            if ending is not None:
                ended.append((place, ending))
        for place, ending in ended:  # after the last question to Slurm, which may not be answered
            self._tokens_ended += max(place.tokens, _count(self._folder / place.array, place.place))
            self._tokens_ended -= place.tokens_before
            del self._places[place.job.key]
            if ending.how != "done":
                self._troubled.add(place.array)
        standing = Counter(place.array for place in self._places.values())
        for array in {place.array for place, _ in ended} - self._troubled:
            if not standing[array]:
                shutil.rmtree(self._folder / array, ignore_errors=True)
        return [ending for _, ending in ended]

    def _own_ending(self, place: _Place) -> Ending | None:
        """The ending according to the journal or the job itself; raises any error that is not the job's own."""
        key = place.job.key
        if place.job.find(self._journal) is not None:
            return Ending(key, "done")
        path = ending_path(self._folder / place.array, place.place)
        if not path.exists():
            return None
        told: dict[str, Any] = read_json(path)
        if told["how"] == "failed":
            return Ending(key, "failed", told["reason"])
        if told["how"] == "lost":
            return self._loss(place, told["reason"])
        del self._places[key]
        left = self._left()
        raised = getattr(errors, told["error"], None)
        if raised is None:  # a defect, whose traceback is in the log
            raise OlmixError(f"{place.job.name}: {told['reason']}", way_out=_both(f"see {self._log(place)}", left))
        raise raised(told["reason"], file=told["file"], key=told["key"], way_out=_both(told["way_out"], left))

    def _lost(self, place: _Place, fate: str) -> Ending | None:
        """The ending of a job that left the queue without reporting one; None when its result may still appear."""
        if fate.startswith("failed"):
            words = slurm_queue.last_words(self._log(place))
            fate = f"{fate}: {words}" if words else fate
        elif not fate and place.task.state == "PENDING":
            fate = "was cancelled before it started"
        elif not fate:
            now = time.monotonic()
            place.gone_since = place.gone_since or now
            if now - place.gone_since < SIGHT_SECONDS:
                return None
            fate = "ended without a result"
        return self._loss(place, fate)

    def _loss(self, place: _Place, reason: str) -> Ending:
        reason = f"job {place.task.id} {reason}"
        self.advice = f"{reason}; see {self._log(place)}"
        return Ending(place.job.key, "lost", reason)

    def _log(self, place: _Place) -> Path:
        return slurm_queue.log_path(self._folder / place.array, place.task.id)

    def _patiently(self, ask: Callable[[], _T]) -> _T:
        """The answer of Slurm, asked again while it is unavailable."""
        while True:
            try:
                answer = ask()
            except SlurmUnavailable as error:
                self._bear(error)
                time.sleep(POLL_SECONDS)
            else:
                self._unavailable_since = None
                return answer

    def _bear(self, error: SlurmUnavailable) -> None:
        """Raise OlmixError when Slurm has been unavailable for some minutes."""
        now = time.monotonic()
        self._unavailable_since = self._unavailable_since or now
        if now - self._unavailable_since >= SILENCE_SECONDS:
            left = self._left()
            raise OlmixError(
                f"Slurm has not answered for {SILENCE_SECONDS / 60:.0f} minutes: {error}",
                way_out=left or "run `dvc repro` when it is back",
            ) from None


def _both(*parts: str | None) -> str | None:
    return "; ".join(part for part in parts if part) or None


def _count(folder: Path, place: int) -> int:
    try:
        return int(tokens_path(folder, place).read_text())
    except (FileNotFoundError, ValueError):
        return 0  # it has not begun
