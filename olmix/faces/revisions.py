"""Mixture files in the working tree and in git's history."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from olmix.errors import MixtureError
from olmix.files import parse_yaml
from olmix.outputs.mixture_file import PROPOSED, MixtureFile, parse_mixture, read_mixture


def mixture_at(name: str) -> MixtureFile:
    """The mixture that `name` stands for: a file, `REVISION:FILE`, or a git revision (its proposed mixture).

    Raises MixtureError when there is no such thing.
    """
    with contextlib.suppress(OSError):  # a name too long for a file
        if Path(name).is_file():
            return read_mixture(Path(name))
    revision, _, path = name.partition(":")
    # "./" is git's way to say: from here, not from the repository's root.
    where = f"{revision}:./{path or PROPOSED}"
    if not revision or revision.startswith("-"):
        raise MixtureError(f"{name}: neither a mixture file nor a git revision")
    try:
        shown = subprocess.run(["git", "show", where], capture_output=True, check=False)  # noqa: S603, S607
    except (OSError, ValueError) as error:
        raise MixtureError(f"{name[:80]}: no such file, and git cannot be asked: {error}") from None
    if shown.returncode:
        reason = shown.stderr.decode(errors="replace").strip().splitlines()
        raise MixtureError(
            f"{name}: neither a mixture file nor a git revision ({reason[-1] if reason else 'git failed'})"
        )
    return parse_mixture(parse_yaml(shown.stdout, where), where)
