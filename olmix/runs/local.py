"""The local engine: processes of this machine, one thread each, or one GPU each where there are GPUs.

A process a core with one thread is the fastest way to run small proxies on a CPU. A worker that dies takes only its
own job with it: the pool is made again for what is missing. Nothing keeps running when the driver is gone.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from ctypes import c_bool, c_int64
from types import TracebackType
from typing import Self

from olmix.errors import TrainingError
from olmix.runs.engine import Ending
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal
from olmix.runs.worker import do, start_worker


class LocalEngine:
    """`workers` processes; on a device named `cuda` each takes one of `gpus` in turn."""

    patience = 3
    advice = "lower runtime.yaml: workers if memory is short"

    def __init__(self, journal: Journal, setup: Setup, workers: int, gpus: int = 0) -> None:
        self._journal = journal
        self._setup = setup
        self._workers = workers
        self._gpus = gpus
        # The fork server imports torch once for all workers, and has neither threads nor locks when it forks.
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["olmix.proxy.training", "olmix.proxy.evaluation"])
        self._tokens = self._context.Value(c_int64, 0)
        self._stop = self._context.Value(c_bool, False)
        self._pool: ProcessPoolExecutor | None = None
        self._futures: dict[Future[None], str] = {}
        self._unstarted: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stop.value = True  # workers see it at their next step; what they had finished is in the journal
        self._close()

    def start(self, jobs: Sequence[Job]) -> None:
        """Queue `jobs` for the pool, which is made again if it broke."""
        if self._pool is None:
            taken = self._context.Value(c_int64, 0)
            self._pool = ProcessPoolExecutor(
                min(self._workers, len(jobs)),
                self._context,
                start_worker,
                (self._tokens, self._stop, taken, self._gpus),
            )
        for job in jobs:
            try:
                self._futures[self._pool.submit(do, job, self._journal, self._setup)] = job.key
            except (BrokenProcessPool, EOFError, ConnectionError):  # a worker, or the server that forks them, is dead
                self._unstarted.append(job.key)

    def endings(self, seconds: float) -> list[Ending]:
        """Jobs that ended; when the pool breaks, all jobs in it are lost."""
        if self._unstarted:
            seconds = 0.0
        done, _ = wait(self._futures, timeout=seconds, return_when=FIRST_COMPLETED)
        if self._unstarted or any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            done, _ = wait(self._futures)  # a broken pool breaks all of its futures at once
            self._close()
        lost = [Ending(key, "lost", "its process died") for key in self._unstarted]
        self._unstarted.clear()
        return lost + [_ending(self._futures.pop(future), future) for future in done]

    def tokens(self) -> int:
        """Tokens done, as workers report them after each step."""
        return int(self._tokens.value)

    def interrupt(self) -> str:
        """Tell the workers to stop; nothing keeps running."""
        self._stop.value = True
        return ""

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _ending(key: str, future: Future[None]) -> Ending:
    error = future.exception()
    if error is None:
        return Ending(key, "done")
    if isinstance(error, TrainingError):
        return Ending(key, "failed", str(error))
    if isinstance(error, BrokenProcessPool):
        return Ending(key, "lost", "its process died")
    raise error
