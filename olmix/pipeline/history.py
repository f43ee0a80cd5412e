"""Outputs of the pipeline as they were at a git revision: a courtesy of the local cache, never a download."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from olmix.files import read_json

_log = logging.getLogger(__name__)


def output_at(root: Path, path: Path, revision: str) -> Any | None:
    """The JSON output `path` of the project at `root` at a git revision; None when the local cache cannot give it."""
    try:
        from olmix.pipeline.dvc_internals import cached_output

        return read_json(cached_output(root, path, revision))
    except Exception:  # no DVC, no project, no such stage then, a cache that was collected: all the same to the caller
        _log.debug("%s at %s", path, revision, exc_info=True)
        return None
