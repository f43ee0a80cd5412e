"""All of DVC that olmix uses from Python. Another DVC can break this file, and no other.

`dvc.repo.Repo` and `dvc.exceptions` are what DVC's own documentation builds on. Everything else is internal to DVC, and
listed in INTERNAL and OF_STORES, which a test resolves: CI, with the oldest and the newest DVC of pyproject.toml.
Besides, olmix relies on two layouts: `files/md5/<2>/<30>` for objects, and `runs/<2>/<key>/<value>` for entries of
the run-cache, which have the form of a stage in `dvc.lock` (`entry_files.py`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")

# Names of modules, and of what a project's two object stores (`Repo.cache.local` and `.legacy`) have.
INTERNAL = {
    "dvc.stage.cache": ("_get_cache_hash",),
    "dvc.fs": ("get_cloud_fs",),
    "dvc.fs.callbacks": ("Callback",),
    "dvc.repo": ("Repo.status", "Repo.switch", "Repo.find_outs_by_path"),
}
OF_STORES = ("path", "oid_to_path", "makedirs", "protect", "move")


class NoProjectError(Exception):
    """There is no DVC project at the root."""


class BrokenProjectError(Exception):
    """DVC cannot open or read the project; the message is DVC's own, on one line."""


class Stores(NamedTuple):
    """DVC's local cache: its object stores of files and of entries, its configuration, and its hash of a stage."""

    files: Any
    entries: Any
    config: Any
    lock_hash: Callable[[dict[str, Any]], str]


class RemoteSystem(NamedTuple):
    """A remote: the class of its file system, the settings to make one, the path in it, DVC's class of callbacks."""

    kind: Any
    settings: dict[str, Any]
    path: str
    callback: Callable[..., Any]


def stores_of(root: Path) -> Stores:
    """The local cache of the project at `root`; no lock is taken. Raises NoProjectError and BrokenProjectError."""
    from dvc.stage.cache import _get_cache_hash

    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return _with_repo(
        root,
        lambda repo: Stores(repo.cache.local, repo.cache.legacy, repo.config, lambda form: str(_get_cache_hash(form))),
    )


def remote_of(config: Any, name: str) -> RemoteSystem:
    """The remote `name` of a configuration, which is not asked anything yet; raises what DVC raises."""
    from dvc.fs import get_cloud_fs
    from dvc.fs.callbacks import Callback

    kind, settings, path = get_cloud_fs(config, name=name)
    return RemoteSystem(kind, settings, path, Callback)


def cache_folder(root: Path) -> Path:
    """The folder of the local cache, which may be outside the project; raises as `stores_of`."""
    return _with_repo(root, lambda repo: Path(repo.cache.local.path).resolve())


def stage_status(root: Path) -> list[str]:
    """Stages and data sources that `dvc repro` would look at again, as DVC names them in the project's root, sorted;
    raises as `stores_of`."""
    logging.getLogger("dvc").setLevel(logging.ERROR)
    return sorted(_in_root(name, root.resolve()) for name in _with_repo(root, lambda repo: list(repo.status())))


def _in_root(name: str, root: Path) -> str:
    """A stage's name, which DVC gives from the working directory, as it is in the project's root."""
    path, _, stage = name.rpartition(":")
    file = Path(name if name.endswith(".dvc") else path or "dvc.yaml").resolve()
    if not file.is_relative_to(root) or file == root / "dvc.yaml":
        return stage
    place = file.relative_to(root).as_posix()
    return place if name.endswith(".dvc") else f"{place}:{stage}"


def cached_output(root: Path, path: Path, revision: str) -> Path:
    """Where the local cache has, or would have, the output `path` as it was at a git revision; raises what DVC
    raises."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    with Repo(str(root)) as repo, repo.switch(revision):
        (out,) = repo.find_outs_by_path(str(path.relative_to(root)))
        return Path(repo.cache.local.oid_to_path(out.hash_info.value))


def _with_repo(root: Path, use: Callable[[Any], Result]) -> Result:
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return use(repo)
    except NotDvcRepoError:
        raise NoProjectError from None
    except (DvcException, OSError) as error:
        raise BrokenProjectError(" ".join(str(error).split())) from error
