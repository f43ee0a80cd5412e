"""The Ray engine: jobs as tasks of a local Ray, or of an existing cluster.

Nothing is shared but Ray itself. What a job reads goes through Ray's object store, each file once; what a job leaves in
its journal comes home as bytes and is written into the project's journal by the driver alone, weights before records. A
run that is given out again on the node where it died goes on from its checkpoint there.

What that gives up: a result goes through the driver's memory, and tasks end with their driver: what had come home is
kept, and when the driver is killed they end 2 s later (a Ray of its own within a minute). Ray moves values between
processes in its own way, which is pickle: whoever can reach a cluster can run code on it. On two
cores, starting a Ray of one's own took 4 s and ending it 1.4 s, joining a cluster 2 s, the first run of a worker 2 s
(torch is imported), and every run 6 to 10 ms more than with processes of this machine.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np

from olmix.cores import cores
from olmix.errors import ConfigError, DataError, TrainingError
from olmix.files import write_bytes
from olmix.runs.engine import Ending
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal
from olmix.runs.ray_connection import connect, import_ray, one_line
from olmix.runs.ray_node import METER_SECONDS, VERSION, Meter, Parcel, Returned, do

# How long a cluster may be without a node that is large enough: one that grows needs minutes for its first.
ROOM_SECONDS = 600.0
ROOM_POLL_SECONDS = 5.0


@dataclass(frozen=True)
class RaySettings:
    """Where the Ray is (None: one of this machine, started and ended with the engine; else `auto` or `host:port`, and
    this machine one of its nodes), and the CPUs and GPUs that one run is given.

    Raises ConfigError for shares that Ray does not give.
    """

    address: str | None = None
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.cpus) and self.cpus > 0):
            _refuse("cpus", self.cpus, "write a number above 0")
        if not (math.isfinite(self.gpus) and self.gpus >= 0 and (self.gpus < 1 or float(self.gpus).is_integer())):
            _refuse("gpus", self.gpus, "write a fraction below 1, or a whole number")


def _refuse(name: str, value: float, way_out: str) -> NoReturn:
    raise ConfigError(f"{value:g} is not valid", file="runtime.yaml", key=f"ray.{name}", way_out=way_out)


class RayEngine:
    """At most `workers` runs at once on the Ray of `settings`, or as many as it has room for.

    Ray shows each run its own GPU, and a process that had one ends with its run, so the device is `cuda` by itself.
    """

    patience = 3
    advice = "raise runtime.yaml: ray.cpus, or lower runtime.yaml: workers, if memory is short"

    def __init__(self, journal: Journal, setup: Setup, settings: RaySettings, workers: int | None = None) -> None:
        if setup.device.startswith("cuda") and (setup.device != "cuda" or not settings.gpus):
            raise ConfigError(
                f"{setup.device} with ray.gpus {settings.gpus:g}, but Ray assigns the GPUs",
                file="runtime.yaml",
                key="device",
                way_out="write device: cuda, and the GPUs per run in ray.gpus",
            )
        self._ray = import_ray()
        self._journal = journal
        self._setup = setup
        self._settings = settings
        self._workers = workers
        self._queue: deque[Job] = deque()
        self._running: dict[Any, Job] = {}  # by the reference of its result
        self._sent: dict[Path, Any] = {}  # references to the bytes of files
        self._readers: Counter[Path] = Counter()
        self._ended_tokens = 0
        self._told: dict[str, int] = {}
        self._asked_at = -math.inf
        self._answer: Any = None
        self._room = 0
        self._room_at = self._fitting_at = -math.inf

    def __enter__(self) -> Self:
        ray, settings = self._ray, self._settings
        connect(ray, settings.address, max(cores(), math.ceil((self._workers or 0) * settings.cpus)))
        try:
            self._fitting_at = time.monotonic()
            # A task that dies is given out again by the driver, which counts how often.
            self._do = ray.remote(num_cpus=settings.cpus, num_gpus=settings.gpus, max_retries=0)(do)
            home = ray.get_runtime_context().get_node_id()
            beside = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(home, soft=True)
            meter = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=beside)(Meter)
            self._meter = meter.remote()
        except BaseException:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._cancel()
        finally:
            self._ray.shutdown()  # ends a Ray of our own, leaves another's

    def start(self, jobs: Sequence[Job]) -> None:
        """Queue `jobs`; raises DataError when a file that one of them reads is not there."""
        for job in jobs:
            self._queue.append(job)
            self._readers.update(set(job.inputs))
        self._fill()

    def endings(self, seconds: float) -> list[Ending]:
        """Jobs that ended; the files of those that are done are in the journal."""
        self._fill()
        self._require_room()
        waited = list(self._running)
        ready, _ = self._ray.wait(waited, timeout=seconds) if waited else ([], [])
        if ready:
            ready, _ = self._ray.wait(waited, num_returns=len(waited), timeout=0)
        endings, errors = [], []
        for reference in ready:
            try:
                endings.append(self._ending(reference))
            except Exception as error:  # the others' results come home first
                errors.append(error)
        if errors:
            raise errors[0]
        return endings

    def tokens(self) -> int:
        """Tokens done: exact for jobs that have ended, a second or two old for those under way."""
        now = time.monotonic()
        if self._answer is None and now - self._asked_at >= METER_SECONDS:
            self._answer, self._asked_at = self._meter.read.remote(), now
        elif self._answer is not None and self._ray.wait([self._answer], timeout=0)[0]:
            under_way = {job.key for job in self._running.values()}
            with contextlib.suppress(self._ray.exceptions.RayError):  # a meter that died starts again, and tells then
                told = self._ray.get(self._answer)
                self._told.update({key: tokens for key, tokens in told.items() if key in under_way})
            self._answer = None
        return self._ended_tokens + sum(self._told.values())

    def interrupt(self) -> str:
        """End what runs; nothing keeps running."""
        self._cancel()
        return ""

    def _cancel(self) -> None:
        self._queue.clear()
        for reference in self._running:
            self._ray.cancel(reference, force=True)

    def _fill(self) -> None:
        while self._queue and len(self._running) < self._limit():
            job = self._queue.popleft()
            self._running[self._give_out(job)] = job

    def _limit(self) -> int:
        # Twice the room, so that no worker waits for the driver and a cluster that can grow sees why it should.
        return self._workers or max(1, 2 * self._count_room())

    def _count_room(self) -> int:
        """Runs that fit on the cluster at once, counted every few seconds: nodes come and go."""
        if time.monotonic() - self._room_at >= ROOM_POLL_SECONDS:
            asked = {"CPU": self._settings.cpus, "GPU": self._settings.gpus}
            self._room = sum(
                int(min(node["Resources"].get(kind, 0.0) / share for kind, share in asked.items() if share))
                for node in self._nodes()
            )
            self._room_at = time.monotonic()
        return self._room

    def _require_room(self) -> None:
        now = time.monotonic()
        where = self._settings.address
        if self._count_room():
            self._fitting_at = now
        elif where is None or now - self._fitting_at >= ROOM_SECONDS:
            nodes = "; ".join(sorted({_size(node["Resources"]) for node in self._nodes()})) or "none"
            raise TrainingError(
                f"the Ray {f'cluster at {where}' if where else 'of this machine'} has no node for a run of "
                f"{self._settings.cpus:g} CPUs and {self._settings.gpus:g} GPUs (its nodes: {nodes})",
                way_out="change runtime.yaml: ray, or the cluster, then run `dvc repro` again",
            )

    def _nodes(self) -> list[dict[str, Any]]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _give_out(self, job: Job) -> Any:
        """Start a job; the reference of its result."""
        paths = list(job.inputs)
        for path in paths:
            if path not in self._sent:
                self._sent[path] = self._put(path)
        contents = [self._sent[path] for path in paths]
        # A run's evaluations are one file: what was measured goes along, and comes home with what is new.
        known = self._journal.evaluations_path(job.key)
        if known.exists():
            paths.append(known)
            contents.append(self._put(known))
        parcel = Parcel(
            job.moved(self._root, Path()), self._setup, tuple(path.relative_to(self._root) for path in paths)
        )
        return self._do.remote(VERSION, parcel, self._meter, *contents)

    @property
    def _root(self) -> Path:
        return self._journal.folder.parent

    def _put(self, source: Path) -> Any:
        if not source.is_relative_to(self._root) or ".." in source.relative_to(self._root).parts:
            raise DataError("is outside the project; Ray workers only receive files of the project", file=source)
        try:
            return self._ray.put(np.fromfile(source, dtype=np.uint8))  # read in place by workers, as bytes are not
        except FileNotFoundError:
            raise DataError("no such file, but a run reads it", file=source, way_out="run `dvc repro` again") from None

    def _ending(self, reference: Any) -> Ending:
        job = self._running.pop(reference)
        told = self._told.pop(job.key, 0)
        for path in set(job.inputs):
            self._readers[path] -= 1
            if not self._readers[path]:
                self._sent.pop(path, None)  # its memory on the cluster is free when no job reads it any more
        errors = self._ray.exceptions
        try:
            returned: Returned = self._ray.get(reference)
        except errors.RayTaskError as error:
            raise _told_by_ray(error) from error
        except errors.RayError as error:
            self._ended_tokens += told
            return Ending(job.key, "lost", one_line(error))
        self._ended_tokens += returned.tokens
        if isinstance(returned.error, TrainingError):
            return Ending(job.key, "failed", str(returned.error))
        if returned.error is not None:
            raise returned.error
        for path in sorted(returned.files, key=lambda path: (path.suffix == ".json", path)):  # records last
            write_bytes(self._journal.folder / path, returned.files[path])
        return Ending(job.key, "done")


def _told_by_ray(error: Any) -> Exception:
    """The error that a task raised; a node that could not even load it has no olmix, or another version."""
    cause = error.cause if isinstance(error.cause, Exception) else error
    if "olmix" in str(cause) and ("No module named" in str(cause) or isinstance(cause, ImportError)):
        return ConfigError(
            f"a node has no olmix, or another version ({_last_line(cause)})",
            file="runtime.yaml",
            key="ray",
            way_out=f"install olmix {VERSION} on every node",
        )
    return cause


def _last_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1]


def _size(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
