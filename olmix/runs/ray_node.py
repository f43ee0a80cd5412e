"""A node of the Ray engine: writes what a job reads into a temporary folder, runs it there, and returns what it left.

A job's folder goes when the job has ended, or, when its worker was killed, when the next job comes to the node.
Checkpoints lie beside the folders, each under its run's key and bound to it by a digest: a job that is given out again
on the node goes on from there, and two drivers that run the same job share one without harm. Given up: a file that
several jobs on a node read is written once for each.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import olmix
from olmix.errors import ConfigError, OlmixError
from olmix.files import sweep
from olmix.project import STATE
from olmix.proxy.recipe import RECIPE_VERSION
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal

# What must be the same on all nodes for a run to be the run that its key names.
VERSION = f"{olmix.__version__} with recipe {RECIPE_VERSION}"
# A worker tells its tokens at most this often, and the driver asks for them.
METER_SECONDS = 1.0
KEPT_SECONDS = 7 * 24 * 3600.0


@dataclass(frozen=True)
class Parcel:
    """A job and the paths of the files that it reads, all relative to the project."""

    job: Job
    setup: Setup
    paths: tuple[Path, ...]


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


def do(version: str, parcel: Parcel, meter: Any, *contents: NDArray[np.uint8]) -> Returned:
    """Run one job as a task of Ray; `version` is the driver's, `contents` are the bytes of the parcel's paths."""
    if version != VERSION:
        raise ConfigError(
            f"node {platform.node()} has olmix {VERSION}, but this project has {version}",
            file="runtime.yaml",
            key="ray",
            way_out="install the same version on every node",
        )
    from olmix.proxy.training import single_thread  # torch, which the driver does not need

    single_thread()
    count = _Counter(parcel.job.key, meter)
    try:
        with _work_folder() as (folder, journal):
            for path, content in zip(parcel.paths, contents, strict=True):
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(content.data)
            job = parcel.job.moved(Path(), folder)
            job.run(journal, parcel.setup, count)
            left = [path for path in sorted(journal.folder.rglob("*")) if path.is_file() and path not in job.inputs]
            return Returned({path.relative_to(journal.folder): path.read_bytes() for path in left}, count.tokens)
    except OlmixError as error:
        return Returned({}, count.tokens, error)


@contextlib.contextmanager
def _work_folder() -> Iterator[tuple[Path, Journal]]:
    """A folder for one job, and a journal in it whose checkpoints outlive the folder."""
    node = _node_folder()
    checkpoints = node / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    _tidy(node, checkpoints)
    with tempfile.TemporaryDirectory(prefix=f"job-{os.getpid()}-", dir=node) as name:
        journal = Journal(Path(name) / STATE)
        journal.folder.mkdir(parents=True)
        journal.checkpoint_path("").parent.symlink_to(checkpoints)
        yield Path(name), journal


def _tidy(node: Path, checkpoints: Path) -> None:
    """Remove what killed workers left, and checkpoints that no job came back to for a week."""
    for folder in node.glob("job-*"):
        if not _is_alive(int(folder.name.split("-")[1])):
            shutil.rmtree(folder, ignore_errors=True)
    sweep(checkpoints)
    for path in checkpoints.glob("[!.]*"):
        with contextlib.suppress(FileNotFoundError):  # another job of this node tidies as well
            if time.time() - path.stat().st_mtime >= KEPT_SECONDS:
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _node_folder() -> Path:
    """This user's folder on this node, whose processes alone use it; raises OlmixError when it is another user's."""
    folder = Path(tempfile.gettempdir()) / f"olmix-ray-{os.getuid()}-{platform.node()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise OlmixError(
            f"belongs to another user of node {platform.node()}", file=folder, way_out="set TMPDIR on the nodes"
        )
    return folder
