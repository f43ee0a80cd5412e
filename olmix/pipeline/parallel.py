"""Calling a remote many times in parallel, when it may be slow, or dead without saying so.

Threads make the calls, and the caller gives up when nothing at all has been heard for `patience` seconds: no result, no
byte. The threads are daemons, so a call that never returns delays neither the caller nor the end of the process. Given
up: the thread that hangs, which Python cannot end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Seconds for the threads that do not hang to end what they are at, and to remove their temporary files.
_TO_TIDY_UP = 1.0


def call_in_parallel(
    call: Callable[[Item, Callable[[], None]], Result], items: Iterable[Item], threads: int, patience: float
) -> Iterator[tuple[Item, Result | Exception]]:
    """Each item with what `call` returned or raised for it, as they come.

    `call` runs in several threads at once. It gets an item, and a function to call whenever something was heard. Raises
    TimeoutError after `patience` seconds of silence, and makes no call after that.
    """
    waiting: SimpleQueue[Item] = SimpleQueue()
    results: SimpleQueue[tuple[Item, Result | Exception]] = SimpleQueue()
    left = 0
    for item in items:
        waiting.put(item)
        left += 1
    given_up = threading.Event()
    heard_at = time.monotonic()

    def heard() -> None:
        nonlocal heard_at
        heard_at = time.monotonic()

    def work() -> None:
        while not given_up.is_set():
            try:
                item = waiting.get_nowait()
            except Empty:
                return
            try:
                results.put((item, call(item, heard)))
            except Exception as error:  # a remote's library may raise anything; the caller judges it
                results.put((item, error))
            heard()

    workers = [threading.Thread(target=work, daemon=True) for _ in range(min(threads, left))]
    for worker in workers:
        worker.start()
    try:
        while left:
            try:
                yield results.get(timeout=max(heard_at + patience - time.monotonic(), 0.01))
                left -= 1
            except Empty:
                if time.monotonic() - heard_at >= patience:
                    raise TimeoutError(f"no answer in {patience:g} s") from None
    finally:
        given_up.set()
        until = time.monotonic() + _TO_TIDY_UP
        for worker in workers:
            worker.join(max(until - time.monotonic(), 0.0))
