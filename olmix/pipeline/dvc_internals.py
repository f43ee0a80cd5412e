"""Everything that olmix uses of DVC: no other module imports it, so that a new DVC can break this file alone.

Most of it is DVC's own business and may change in any release. `tests/test_dvc_internals.py` holds this list to what is
imported below and to the installed DVC:

    dvc.exceptions.DvcException
    dvc.exceptions.NotDvcRepoError
    dvc.repo.Repo
    dvc.repo.lock_repo
    dvc.rwlock.rwlock
    dvc.stage.Stage
    dvc.dependency.db.AbstractDependency
    dvc.dependency.repo.RepoDependency
    dvc.stage.cache._get_cache_hash
    dvc.fs.get_cloud_fs
    dvc.fs.callbacks.Callback
    stage.status.__wrapped__
    repo.index.stages
    repo.tmp_dir
    repo.fs
    repo.switch
    repo.find_outs_by_path
    out.get_hash
    repo.config
    repo.cache.local_cache_dir
    repo.cache.local.path
    repo.cache.local.oid_to_path
    repo.cache.local.makedirs
    repo.cache.local.protect
    repo.cache.local.move
    remote.protocol
    remote.join
    remote.name
    remote.ls
    remote.cat_file
    remote.get_file

Beside names: the folders of a cache and of a remote, `files/md5/<2>/<30>` (objects by MD5) and `runs/<2>/<key>/<value>`
(entries of the run-cache); the form of a stage in `dvc.lock` (`cmd`, `deps`, `outs`; of a file `path`, `hash`, `md5`,
`size`); `core.remote` in the configuration; and a remote's settings `worktree` and `version_aware`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

# A stage as `dvc.lock` holds it.
Lock = dict[str, Any]


class NoProjectError(Exception):
    """There is no DVC project at this folder."""


class BrokenProjectError(Exception):
    """DVC cannot read the project; the message says why, on as many lines as DVC likes."""


@contextlib.contextmanager
def _opened(root: Path) -> Iterator[Any]:
    """DVC's view of the project at `root`; no lock is taken, and DVC's own messages are silenced."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        with Repo(str(root)) as repo:
            yield repo
    except NotDvcRepoError as error:
        raise NoProjectError(str(error)) from None
    except DvcException as error:
        raise BrokenProjectError(str(error)) from error


def stale_stages(root: Path) -> list[str]:
    """Names of the stages that `dvc repro` would run again, data sources included; raises the errors of this module."""
    with _opened(root) as repo:
        return sorted(_in_root(name, root.resolve()) for name in _status(repo))


def _status(repo: Any) -> list[str]:
    """What `Repo.status` names, in two thirds of its CPU time (decision 027).

    DVC locks what a stage reads stage by stage, and rewrites a file each time. Nobody begins to write while the
    repository is locked, so one lock on everything finds the same: a stage that is running.
    """
    from dvc.dependency.db import AbstractDependency
    from dvc.dependency.repo import RepoDependency
    from dvc.repo import lock_repo
    from dvc.rwlock import rwlock
    from dvc.stage import Stage

    status_of = Stage.status.__wrapped__
    with lock_repo(repo):
        stages = repo.index.stages
        files = [file for stage in stages for file in (*stage.deps, *stage.outs)]
        read = [file.fs_path for file in files if not isinstance(file, AbstractDependency | RepoDependency)]
        with rwlock(repo.tmp_dir, repo.fs, "olmix", read, [], repo.config["core"].get("hardlink_lock", False)):
            return [name for stage in stages for name in status_of(stage, check_updates=True)]


def _in_root(name: str, root: Path) -> str:
    """A stage's name, which DVC gives as seen from the working directory, as it is in the project's root."""
    path, _, stage = name.rpartition(":")
    file = Path(name if name.endswith(".dvc") else path or "dvc.yaml").resolve()
    if not file.is_relative_to(root) or file == root / "dvc.yaml":
        return stage
    place = file.relative_to(root).as_posix()
    return place if name.endswith(".dvc") else f"{place}:{stage}"


def cached_output(root: Path, path: Path, revision: str) -> Path:
    """Where the cache keeps, or would keep, the pipeline's file `path` as of a git revision; raises what DVC raises."""
    with _opened(root) as repo, repo.switch(revision):
        (out,) = repo.find_outs_by_path(str(path))
        return Path(repo.cache.local.oid_to_path(out.hash_info.value))


def source_hash(root: Path, file: Path) -> str | None:
    """The hash of what the folder of a `.dvc` file holds now; None when it is not there."""
    with _opened(root) as repo:
        (out,) = repo.find_outs_by_path(str(file.with_suffix("")))
        return str(out.get_hash().value) if out.exists else None


def objects_folder(root: Path) -> Path:
    """Where the cache keeps objects, possibly outside the project; raises the errors of this module."""
    with _opened(root) as repo:
        return Path(repo.cache.local.path)


def lock_of(command: str, dep: Mapping[str, Any], outs: Iterable[Mapping[str, Any]]) -> Lock:
    """A stage with one dependency; `dep` and `outs` are made by `locked_file`."""
    return {"cmd": command, "deps": [dict(dep)], "outs": [dict(out) for out in outs]}


def locked_file(path: str, md5: str, size: int | None) -> dict[str, Any]:
    """A file as a stage names it."""
    return {"path": path, "hash": "md5", "md5": md5, "size": size}


def outs_of(lock: Lock) -> list[tuple[str, Any, Any]]:
    """Path, MD5 and size (None where it is not there) of each output; raises ValueError without a list of outputs."""
    outs = lock.get("outs")
    if not isinstance(outs, list) or not all(
        isinstance(out, dict) and isinstance(out.get("path"), str) for out in outs
    ):
        raise ValueError("no list of outputs")
    return [(out["path"], out.get("md5"), out.get("size")) for out in outs]


def entry_key(lock: Lock) -> str:
    """The name of the folder of all entries that differ in nothing but their outputs' content."""
    from dvc.stage.cache import _get_cache_hash

    return str(_get_cache_hash({**lock}, key=True))


def entry_value(lock: Lock) -> str:
    """The name of an entry's file: a hash of the whole but for sizes."""
    from dvc.stage.cache import _get_cache_hash

    return str(_get_cache_hash({**lock}))


def _entry_parts(key: str) -> tuple[str, str, str]:
    return "runs", key[:2], key


@dataclass(frozen=True)
class Remote:
    """The default remote, not asked anything yet; its methods raise what its file system raises."""

    name: str
    is_http: bool
    is_versioned: bool
    _fs: Any
    _path: str

    def entries(self, key: str) -> dict[str, Callable[[], bytes]]:
        """Entries under `key` by value, sorted, each with a function that reads it; none when there is no such key."""
        try:
            paths = sorted(self._fs.ls(self._fs.join(self._path, *_entry_parts(key)), detail=False))
        except FileNotFoundError:
            return {}  # nobody has pushed this entry, or it was removed a moment ago
        return {self._fs.name(path): partial(self._fs.cat_file, path) for path in paths}

    def download(self, md5: str, target: str, heard: Callable[[], None]) -> bool:
        """Copy an object to a file, unchecked, calling `heard` as bytes come; False when there is none."""
        from dvc.fs.callbacks import Callback

        source = self._fs.join(self._path, "files", "md5", md5[:2], md5[2:])
        try:
            self._fs.get_file(source, target, callback=Callback(hooks={"heard": lambda *_, **__: heard()}))
        except FileNotFoundError:
            return False
        return True


@dataclass(frozen=True)
class Cache:
    """The local cache: objects, and entries of the run-cache beside them."""

    folder: Path
    _objects: Any
    _config: Any

    @classmethod
    def open(cls, root: Path) -> Cache:
        """The cache of the project at `root`; raises the errors of this module, and OSError."""
        with _opened(root) as repo:
            return cls(Path(repo.cache.local_cache_dir), repo.cache.local, repo.config)

    def object_path(self, md5: str) -> Path:
        """Where an object is or would be."""
        return Path(self._objects.oid_to_path(md5))

    def entry_folder(self, key: str) -> Path:
        """Where the entries under `key` are or would be, each in a file named by its value."""
        return self.folder.joinpath(*_entry_parts(key))

    def make_folder(self, path: Path) -> None:
        """Make a folder of the cache, with the permissions that a shared cache has."""
        self._objects.makedirs(str(path))

    def protect(self, path: Path) -> None:
        """Write-protect an object, as far as its file system lets it be."""
        self._objects.protect(str(path))

    def move(self, source: Path, path: Path) -> None:
        """Move a file into the cache, with the permissions that a shared cache has."""
        self._objects.move(str(source), str(path))

    def remote(self) -> Remote | None:
        """The default remote, or None; raises what DVC raises for one that it cannot make sense of."""
        from dvc.fs import get_cloud_fs

        name = self._config["core"].get("remote")
        if not name:
            return None
        kind, settings, path = get_cloud_fs(self._config, name=name)
        versioned = bool(settings.get("worktree") or settings.get("version_aware"))
        return Remote(name, kind.protocol in ("http", "https"), versioned, kind(**settings), path)
