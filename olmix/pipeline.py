"""The DVC pipeline as olmix sees it: what is stale, and where links may lead. The only module that imports dvc."""

from __future__ import annotations

import functools
import logging
from pathlib import Path

from olmix.errors import PipelineError


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


def link_is_allowed(target: Path) -> bool:
    """Whether a shard may resolve to `target`: inside the project, or an object of DVC's cache (linked checkouts)."""
    root = Path.cwd().resolve()
    if target.is_relative_to(root):
        return True
    cache = cache_folder(root)
    return cache is not None and target.is_relative_to(cache)


def stale_stages() -> list[str]:
    """Names of the stages that `dvc repro` would look at again, data sources included, sorted.

    Raises PipelineError when this is no DVC project, or DVC cannot read it.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        with Repo() as repo:
            status = repo.status()
    except NotDvcRepoError:
        raise PipelineError("no DVC project here; run git init and dvc init, or go to the project's root") from None
    except DvcException as error:
        reason = " ".join(str(error).split())
        raise PipelineError(f"dvc status failed: {reason}; run dvc status for the whole message") from None
    return sorted(status)
