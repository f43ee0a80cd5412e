"""Where links may lead: inside the project, or into DVC's cache, which a team may keep on a shared disk.

A checkout of linked files is many links into one folder, so DVC is asked for the folder once a process; a cache that is
moved while a command runs goes unnoticed.
"""

from __future__ import annotations

import functools
from pathlib import Path

from olmix.pipeline import dvc_internals


@functools.cache
def cache_folder(root: Path) -> Path | None:
    """Where DVC keeps objects, possibly outside the project; None without DVC."""
    try:
        return dvc_internals.objects_folder(root).resolve()
    except dvc_internals.NoProjectError:
        return None


def link_is_allowed(root: Path, target: Path) -> bool:
    """Whether a shard may resolve to `target`: inside the project at `root`, or an object of DVC's cache."""
    root = root.resolve()
    if target.is_relative_to(root):
        return True
    cache = cache_folder(root)
    return cache is not None and target.is_relative_to(cache)
