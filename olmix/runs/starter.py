"""Who started this process, so that it can end when they are gone: a stage whose DVC was killed must not go on.

DVC runs a stage through a shell. Some shells become the stage's process, others (dash) stay between it and DVC, alive
when DVC is not; then DVC is the shell's parent. Only Linux tells that; elsewhere the parent alone counts.
"""

from __future__ import annotations

import os
from pathlib import Path


def starter() -> tuple[int, ...]:
    """The process that started this one, and DVC's behind it when a shell stands between; it changes when one ends."""
    parent = os.getppid()
    if "DVC_STAGE" not in os.environ or not _runs_a_command(parent):
        return (parent,)
    return (parent, _parent_of(parent))


def _runs_a_command(process: int) -> bool:
    """Whether a process is a shell that was given its command (`sh -c ...`)."""
    try:
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return len(words) > 2 and words[0].endswith(b"sh") and words[1] == b"-c"


def _parent_of(process: int) -> int:
    try:
        # The name of a program may hold spaces and brackets; its parent stands second behind it.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
