"""One process of the local engine: runs the jobs it is given, one after another, on one thread."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace
from multiprocessing.sharedctypes import Synchronized

from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal


class Stopped(Exception):  # noqa: N818  # no error: the driver asked for it
    """The driver asked its workers to stop."""


@dataclass
class _Shared:
    parent: int = 0
    tokens: Synchronized[int] | None = None
    stop: Synchronized[bool] | None = None
    device: str | None = None  # the GPU that is this process's own


_shared = _Shared()


def start_worker(tokens: Synchronized[int], stop: Synchronized[bool], taken: Synchronized[int], gpus: int) -> None:
    """Set up a process: one thread, the next of `gpus` GPUs if there are any, and interrupts left to the driver.
    `taken` counts the processes that were set up."""
    from olmix.proxy.training import single_thread  # torch, which the driver does not need

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent is the fork server, which ends when the driver does.
    _shared.parent, _shared.tokens, _shared.stop = os.getppid(), tokens, stop
    if gpus:
        with taken.get_lock():
            _shared.device = f"cuda:{taken.value % gpus}"
            taken.value += 1
    single_thread()


def do(job: Job, journal: Journal, setup: Setup) -> None:
    """Run one job."""
    job.run(journal, replace(setup, device=_shared.device or setup.device), _progress)


def _progress(tokens: int) -> None:
    if _shared.stop is not None and _shared.stop.value:
        raise Stopped
    if _shared.parent and os.getppid() != _shared.parent:
        os._exit(1)  # the driver is gone, and whoever takes over does this job again
    if _shared.tokens is not None:
        with _shared.tokens.get_lock():
            _shared.tokens.value += tokens
