"""Outputs of the pipeline as of a git revision, if the local cache still has them; nothing is downloaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from olmix.files import read_json
from olmix.pipeline import dvc_internals

_log = logging.getLogger(__name__)


def output_at(root: Path, path: Path, revision: str) -> Any | None:
    """The JSON output `path` of the project at `root` as of a git revision, or None when the local cache lacks it."""
    try:
        return read_json(dvc_internals.cached_output(root, path.relative_to(root), revision))
    except Exception:  # no project, no such stage then, a cache that was collected: all the same to the caller
        _log.debug("%s at %s", path, revision, exc_info=True)
        return None
