"""Mixture files in the working tree and in git's history, and what was measured of them there."""

from __future__ import annotations

import contextlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmix.artifacts.mixture_file import MixtureFile, parse_mixture, read_mixture
from olmix.artifacts.validation import read_validation, validation_of
from olmix.errors import MixtureError, PipelineError
from olmix.files import parse_yaml, read_yaml
from olmix.pipeline import output_at
from olmix.project import Project


@dataclass(frozen=True)
class Named:
    """A mixture that somebody named: its file, the place of that, the git revision it is of (None for the working
    tree), and the project.
    """

    file: MixtureFile
    place: str
    revision: str | None
    project: Project

    @property
    def is_proposal(self) -> bool:
        """Whether this is the project's own proposal, which dvc repro measures."""
        return self.revision is None and Path(self.place).resolve() == self.project.proposed.resolve()

    def validation(self) -> dict[str, Any] | None:
        """The validation of this very mixture, the working tree's or its own revision's; None where neither is.

        It is empty for the proposal of a project that validates nothing.
        """
        weights = self.file.mixture.weights
        found = read_validation(self.project, weights)
        if found or (found is not None and self.is_proposal):
            return found
        project, revision = self.project, self.revision
        then = output_at(project.root, project.validation, revision) if revision is not None else None
        return validation_of(then, weights) if then else None


def no_proposal(project: Project) -> PipelineError:
    """Says that nothing is proposed yet; raises ConfigError where there is no project."""
    read_yaml(project.params)
    return PipelineError("no proposal yet", file=project.proposed, way_out="run `dvc repro` first")


def mixture_at(project: Project, name: str) -> Named:
    """The mixture that `name` stands for: a file, `REVISION:FILE`, or a git revision (its proposed mixture).

    Raises PipelineError when it is the proposal of a project that has none yet, and MixtureError when there is no such
    thing.
    """
    named = project.root / name
    if named in (project.proposed, project.accepted) and not named.exists():
        nothing = no_proposal(project)
        if named == project.proposed:
            raise nothing
    with contextlib.suppress(OSError):  # a name too long for a file
        if (project.root / name).is_file():
            return Named(read_mixture(project.root / name), str(project.root / name), None, project)
    revision, _, path = name.partition(":")
    path = path or project.proposed.relative_to(project.root).as_posix()
    # "./" is git's way to say: from here, not from the repository's root.
    where = f"{revision}:./{path}"
    if not revision or revision.startswith("-"):
        raise MixtureError("neither a mixture file nor a git revision", file=name)
    try:
        shown = subprocess.run(["git", "show", where], cwd=project.root, capture_output=True, check=False)  # noqa: S603, S607
    except (OSError, ValueError) as error:
        raise MixtureError(f"no such file, and git cannot be run: {error}", file=name[:80]) from None
    if shown.returncode:
        reason = shown.stderr.decode(errors="replace").strip().splitlines()
        raise MixtureError(
            f"neither a mixture file nor a git revision ({reason[-1] if reason else 'git failed'})", file=name
        )
    return Named(parse_mixture(parse_yaml(shown.stdout, where), where), f"{revision}:{path}", revision, project)
