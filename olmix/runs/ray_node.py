"""A node of the Ray engine: lays out what a job reads, does it in a folder of its own, and hands back what it left.

Below the node's temporary folder, `olmix-ray-<user>/files` holds each input once, under the digest of its content, and
`jobs/<kind>-<key>` is where a job works, with links to them under their paths in the project. A job's folder goes when
the job has ended; when it died there, its checkpoint stays for a week. Two drivers may give the same job to one node: a
folder is locked by who works in it, and the second takes another.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import olmix
from olmix.errors import ConfigError, OlmixError
from olmix.files import sweep, write_bytes
from olmix.project import STATE
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal

# A worker tells its tokens at most this often, and the driver asks for them.
METER_SECONDS = 1.0
KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Input:
    """A file that a job reads: its path in the project, xxh3_128 of its bytes, and Ray's reference to them."""

    path: Path
    digest: str
    content: Any


@dataclass(frozen=True)
class Parcel:
    """A job and all that it needs."""

    job: Job
    setup: Setup
    inputs: tuple[Input, ...]


@dataclass(frozen=True)
class Returned:
    """What a job left in its journal, by path in it, the tokens it did, or the error that it ended with."""

    files: dict[Path, bytes]
    tokens: int
    error: OlmixError | None = None


class Meter:
    """An actor that holds the tokens done by runs under way."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def tell(self, key: str, tokens: int) -> None:
        """So many tokens of a job are done."""
        self._told[key] = tokens

    def read(self) -> dict[str, int]:
        """What was told since it was read last."""
        told, self._told = self._told, {}
        return told


class _Counter:
    """Counts a job's tokens and tells the meter, now and then."""

    def __init__(self, key: str, meter: Any) -> None:
        self.tokens = 0
        self._key = key
        self._meter = meter
        self._told_at = time.monotonic()

    def __call__(self, tokens: int) -> None:
        self.tokens += tokens
        if time.monotonic() - self._told_at >= METER_SECONDS:
            self._told_at = time.monotonic()
            self._meter.tell.remote(self._key, self.tokens)


def do(version: str, parcel: Parcel, meter: Any) -> Returned:
    """Do one job, as a task of Ray; `version` is the driver's olmix."""
    if version != olmix.__version__:
        raise ConfigError(
            f"runtime.yaml: ray: node {socket.gethostname()} has olmix {olmix.__version__} and this project's is "
            f"{version}; install the same version on every node"
        )
    from olmix.proxy.training import single_thread  # torch, which the driver does not need

    single_thread()
    count = _Counter(parcel.job.key, meter)
    with _work_folder(f"{type(parcel.job).__name__}-{parcel.job.key}") as folder:
        try:
            laid = {folder / item.path: _lay(item, folder / item.path) for item in parcel.inputs}
            journal = Journal(folder / STATE)
            journal.sweep()
            parcel.job.moved(Path(), folder).run(journal, parcel.setup, count)
            return Returned(_left(journal.folder, laid), count.tokens)
        except OlmixError as error:
            return Returned({}, count.tokens, error)


def _left(folder: Path, laid: dict[Path, int]) -> dict[Path, bytes]:
    """The journal's files that were not there before; what is written anew is another inode."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_ino != laid.get(path)]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


def _lay(item: Input, path: Path) -> int:
    """Link an input to `path`, written once a node; its inode."""
    stored = _node_folder() / "files" / item.digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    while True:
        # Another job's driver may tidy a file away as long as nothing links to it.
        with contextlib.suppress(FileNotFoundError):
            os.link(stored, path)
            return path.stat().st_ino
        import ray

        write_bytes(stored, ray.get(item.content).data)
        with contextlib.suppress(FileNotFoundError):
            stored.chmod(0o444)


def _node_folder() -> Path:
    """This user's folder on this node; raises OlmixError when it is another's."""
    folder = Path(tempfile.gettempdir()) / f"olmix-ray-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OlmixError(f"{folder}: belongs to another user of node {socket.gethostname()}; set TMPDIR on the nodes")
    return folder


@contextlib.contextmanager
def _work_folder(name: str) -> Iterator[Path]:
    """The folder of a job, locked; removed unless its worker dies or is stopped."""
    folder = _node_folder() / "jobs" / name
    while (lock := _lock(folder)) is None:
        folder = folder.with_name(f"{name}-{os.getpid()}")  # another driver's run of the same job is at work there
    try:
        os.utime(folder)
        yield folder
        shutil.rmtree(folder)
    finally:
        os.close(lock)


def _lock(folder: Path) -> int | None:
    """Make a folder and lock it for as long as the descriptor is open; None when another holds it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder.exists() and folder.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)  # its holder removed it in between


def tidy() -> None:
    """Remove inputs that no job's folder links to, and folders that nobody came back to for a week."""
    for folder in (_node_folder() / "jobs").glob("*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - folder.stat().st_mtime >= KEPT_SECONDS and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder)
                os.close(lock)
    files = _node_folder() / "files"
    sweep(files)
    for stored in files.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):
            if stored.stat().st_nlink == 1:
                stored.unlink()
