"""Work on many pieces at once: processes, because parsing and hashing hold Python's lock; or this process alone."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from olmix.data.reading import Piece
from olmix.errors import DataError

Result = TypeVar("Result")

# Less than so many bytes are read by this process: starting others would take longer.
ALONE = 32 << 20
# Bytes of a shard that a process reads at once.
PIECE = 64 << 20


def each(
    function: Callable[..., Result], jobs: Iterator[tuple[Piece, tuple[Any, ...]]], workers: int
) -> Iterator[tuple[Piece, Result]]:
    """`function` of the arguments of each job, as they are done; with one worker in this process, and in order.

    A job is asked for only when there is room for it, so that its arguments are those of that moment. Raises what
    `function` raises, and DataError when a process dies.
    """
    if workers == 1:
        for piece, arguments in jobs:
            yield piece, function(*arguments)
        return
    # A process a core: polars must not start a thread a core in each of them.
    with _environment("POLARS_MAX_THREADS", "1"):
        pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
        running: dict[Future[Result], Piece] = {}
        try:
            while True:
                while len(running) < 2 * workers and (job := next(jobs, None)):
                    running[pool.submit(function, *job[1])] = job[0]
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    result = future.result()
                    yield running.pop(future), result
        except BrokenProcessPool:
            raise DataError(
                f"{next(iter(running.values())).shard.place}: a process that read it or a shard beside it died, "
                "perhaps for want of memory; run it again"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


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
