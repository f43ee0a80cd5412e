"""Mixture files in the working tree and in git's history."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from olmix.errors import MixtureError
from olmix.outputs.mixture_file import PROPOSED, MixtureFile, parse_mixture, read_mixture


def mixture_at(name: str) -> MixtureFile:
    """The mixture that `name` stands for: a file, `REVISION:FILE`, or a git revision (its proposed mixture).

    Raises MixtureError when there is no such thing.
    """
    if Path(name).is_file():
        return read_mixture(Path(name))
    revision, _, path = name.partition(":")
    where = f"{revision}:{path or PROPOSED}"
    if not revision or revision.startswith("-"):
        raise MixtureError(f"{name}: neither a mixture file nor a git revision")
    shown = subprocess.run(["git", "show", where], capture_output=True, check=False)  # noqa: S603, S607
    if shown.returncode:
        reason = shown.stderr.decode(errors="replace").strip().splitlines()
        raise MixtureError(
            f"{name}: neither a mixture file nor a git revision ({reason[-1] if reason else 'git failed'})"
        )
    try:
        content = yaml.safe_load(shown.stdout)
    except yaml.YAMLError:
        raise MixtureError(f"{where}: not valid YAML") from None
    return parse_mixture(content, where)
