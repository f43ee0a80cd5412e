"""Outputs of the pipeline as they were at a git revision: a courtesy of the local cache, never a download."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from olmix.files import read_json

_log = logging.getLogger(__name__)


def output_at(root: Path, path: Path, revision: str) -> Any | None:
    """The JSON output `path` of the project at `root` at a git revision; None when the local cache cannot give it."""
    from dvc.repo import Repo

    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    try:
        with Repo(str(root)) as repo, repo.switch(revision):
            (out,) = repo.find_outs_by_path(str(path.relative_to(root)))
            return read_json(Path(repo.cache.local.oid_to_path(out.hash_info.value)))
    except Exception:  # no project, no such stage then, a cache that was collected: all the same to whoever asks
        _log.debug("%s at %s", path, revision, exc_info=True)
        return None
