"""Work on many pieces at once: processes, because parsing and hashing hold Python's lock; or this process alone.

Domains that are read together share the processes, a thread each: pieces of all of them are read at once, and a domain
whose tokens are being counted leaves the cores to those that are still read.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    FIRST_EXCEPTION,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import connection
from typing import Any, TypeVar

from olmix.cores import cores
from olmix.data.reading import Piece
from olmix.errors import DataError
from olmix.progress import Progress, Report

Item = TypeVar("Item")
Result = TypeVar("Result")

# Less than so many bytes are read by this process: starting others would take longer.
ALONE = 32 << 20
# Bytes of a shard that a process reads at once.
PIECE = 64 << 20


class Readers:
    """The processes that read for all domains of one command, started when there is enough to read; a context manager.

    `workers` is how many, one a core when it is None; with one, this process reads.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or cores()
        self._size = 0
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()
        self._stack = contextlib.ExitStack()
        self._stopped = False

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._stack.close()

    def stop(self) -> None:
        """Begin nothing more: who is reading in another thread gets a CancelledError."""
        self._stopped = True

    def each(
        self, function: Callable[..., Result], jobs: Iterator[tuple[Piece, tuple[Any, ...]]], size: int
    ) -> Iterator[tuple[Piece, Result]]:
        """`function` of the arguments of each job, as they are done; `size` bytes are read for all of them.

        This process does them, in order, when the bytes that were asked for so far are few. A job is asked for only
        when there is room for it, so that its arguments are those of that moment. Raises what `function` raises, and
        DataError when a process dies.
        """
        pool = self._pool_for(size)
        if pool is None:
            for piece, arguments in jobs:
                if self._stopped:
                    raise CancelledError
                yield piece, function(*arguments)
            return
        running: dict[Future[Result], Piece] = {}
        try:
            while True:
                while len(running) < 2 * self.workers and not self._stopped and (job := next(jobs, None)):
                    running[pool.submit(function, *job[1])] = job[0]
                if self._stopped:
                    raise CancelledError
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            raise DataError(
                "the process that read this shard or one beside it died, possibly out of memory",
                file=next(iter(running.values())).shard.place,
                way_out="try again, if possible with fewer --workers",
            ) from None
        finally:
            for future in running:
                future.cancel()

    def _pool_for(self, size: int) -> ProcessPoolExecutor | None:
        with self._lock:
            self._size += size
            if self._pool is None and self.workers > 1 and self._size > ALONE:
                # A process a core: polars must not start a thread a core in each of them.
                self._stack.enter_context(_environment("POLARS_MAX_THREADS", "1"))
                self._pool = ProcessPoolExecutor(self.workers, multiprocessing.get_context("spawn"), _set_up)
            return self._pool


def read_concurrently(
    function: Callable[[Item, Readers, Report], Result], items: Sequence[Item], workers: int | None, report: Report
) -> list[Result]:
    """`function` of every item (an entry that is read), some at once, which share the processes that read.

    What they report is added up. Raises the first error, and then begins nothing more.
    """
    with Readers(workers) as readers:
        sums = _Sum(report, len(items))
        if readers.workers == 1 or len(items) < 2:
            return [function(item, readers, sums.of(k)) for k, item in enumerate(items)]
        with ThreadPoolExecutor(readers.workers) as threads:
            futures = [threads.submit(function, item, readers, sums.of(k)) for k, item in enumerate(items)]
            try:
                done = wait(futures, return_when=FIRST_EXCEPTION).done
                return [future.result() for future in futures if future in done]
            except BaseException:
                readers.stop()
                threads.shutdown(wait=True, cancel_futures=True)
                raise


class _Sum:
    """Adds up what several readers report."""

    def __init__(self, report: Report, items: int) -> None:
        self._report = report
        self._latest = [Progress(0, 0, 0, 0, 0)] * items
        self._lock = threading.Lock()

    def of(self, k: int) -> Report:
        """The report of item `k`."""

        def report(progress: Progress) -> None:
            with self._lock:
                self._latest[k] = replace(progress, note="")
                self._report(replace(sum(self._latest, Progress(0, 0, 0, 0, 0)), note=progress.note))

        return report


def _set_up() -> None:
    """Set a process up that reads: who started it answers an interrupt, and when that one is gone it ends too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable for processes that are started in the block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
