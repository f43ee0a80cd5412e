"""Where links may lead: inside the project, or into DVC's cache, which a team may keep on a shared disk.

A checkout of linked files is many links into one folder, so the folder is asked for once a process; a cache that is
moved while a command runs is not noticed.
"""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def cache_folder(root: Path) -> Path | None:
    """DVC's cache, which may lie outside the project (a team's shared disk), or None without DVC."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            return Path(repo.cache.local.path).resolve()
    except NotDvcRepoError:
        return None


def link_is_allowed(root: Path, target: Path) -> bool:
    """Whether a shard may resolve to `target`: inside the project at `root`, or an object of DVC's cache."""
    root = root.resolve()
    if target.is_relative_to(root):
        return True
    cache = cache_folder(root)
    return cache is not None and target.is_relative_to(cache)
