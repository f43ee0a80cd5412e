"""What runs in a job of Slurm: one job of ours, which reports its progress and its ending in small files.

The result goes straight into the journal, which every node sees. submitit starts the process and reads what to do from
a pickle of its own; nothing comes back that way.
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

from olmix.errors import OlmixError, TrainingError
from olmix.files import write_bytes, write_json
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal
from olmix.runs.worker import Stopped

TELL_SECONDS = 5.0


def tokens_path(folder: Path, place: int) -> Path:
    """Where the job at `place` of an array reports the tokens that it has done."""
    return folder / f"{place}.tokens"


def ending_path(folder: Path, place: int) -> Path:
    """Where the job at `place` of an array reports how it ended, unless its result is in the journal."""
    return folder / f"{place}.ending.json"


def work(job: Job, journal: Journal, setup: Setup, folder: Path, place: int) -> None:
    """Run one job, the one at `place` of the array whose files are in `folder`.

    What the job says of itself (TrainingError), being asked to end, and what a node does to a process (a full disk, no
    memory, a broken GPU) end the process well; every other error is told and raised.
    """
    from olmix.proxy.training import single_thread

    ending_path(folder, place).unlink(missing_ok=True)  # of the time before Slurm put the job back into its queue
    telling = _Telling(tokens_path(folder, place))
    for number in (signal.SIGTERM, signal.SIGUSR2):  # preempted or cancelled; near the time limit
        signal.signal(number, telling.stop)
    single_thread()
    try:
        job.run(journal, setup, telling.progress)
    except Exception as error:
        ending = _ending_of(error)
        write_json(ending_path(folder, place), ending)
        if ending["how"] == "error":
            raise
    finally:
        telling.tell()


class _Telling:
    """Tokens done, in a file that is rewritten every few seconds; and whether the job was asked to end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tokens = 0
        self._stopped = False
        self._told_at = float("-inf")

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal: end at the next step."""
        self._stopped = True

    def progress(self, tokens: int) -> None:
        """Count a step; raises Stopped when the job was asked to end."""
        self._tokens += tokens
        if self._stopped:
            raise Stopped
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Write the count."""
        write_bytes(self._path, f"{self._tokens}\n".encode())
        self._told_at = time.monotonic()


def _ending_of(error: Exception) -> dict[str, Any]:
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, TrainingError):
        return {"how": "failed", "reason": str(error)}
    if isinstance(error, Stopped):
        return {"how": "lost", "reason": "was told to stop (preempted, cancelled, or near its time limit)"}
    if isinstance(error, OSError | MemoryError) or (isinstance(error, RuntimeError) and "CUDA" in str(error)):
        return {"how": "lost", "reason": f"ended with {type(error).__name__}: {text}"}
    told: dict[str, Any] = {"how": "error", "error": type(error).__name__}
    if not isinstance(error, OlmixError):
        return {**told, "reason": f"{type(error).__name__}: {text}"}
    file = None if error.file is None else str(error.file)
    return {**told, "reason": error.message, "file": file, "key": error.key, "way_out": error.way_out}
