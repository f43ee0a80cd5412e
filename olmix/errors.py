"""Every error that olmix raises on purpose.

One hierarchy, and one line each: where it is (a file, a key in it), what is wrong with its numbers, and the way out.
The parts are fields, and this module alone makes a line of them. The command line prints the line without a traceback
and exits with 1; anything else that is raised is a defect of olmix.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self


class OlmixError(Exception):
    """An error whose message is written for the person who runs olmix.

    `file` is a path, or the place of a shard; `key` a dotted key of that file, or of params.yaml where `file` is data;
    `way_out` an instruction, such as "run dvc repro".
    """

    def __init__(
        self, message: str, *, file: Path | str | None = None, key: str | None = None, way_out: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.file = file
        self.key = key
        self.way_out = way_out

    def __str__(self) -> str:
        """`file: key: message; way out`, on one line."""
        where = "".join(f"{part}: " for part in (self.file, self.key) if part is not None)
        line = f"{where}{self.message}" + (f"; {self.way_out}" if self.way_out else "")
        return " ".join(line.split())

    def __reduce__(self) -> tuple[object, ...]:
        """Errors come home from workers with all of their fields."""
        return _again, (type(self), self.message, self.file, self.key, self.way_out)

    def at(self, *, file: Path | str | None = None, key: str | None = None) -> Self:
        """The same error where it came from: in `file`, if it names none; below `key`, which goes before its own."""
        keys = ".".join(part for part in (key, self.key) if part) or None
        return type(self)(self.message, file=file if self.file is None else self.file, key=keys, way_out=self.way_out)


def _again(
    kind: type[OlmixError], message: str, file: Path | str | None, key: str | None, way_out: str | None
) -> OlmixError:
    return kind(message, file=file, key=key, way_out=way_out)


class ConfigError(OlmixError):
    """An invalid value in params.yaml, runtime.yaml or the options of a command."""


class DataError(OlmixError):
    """A shard, a task file or a tokeniser that cannot be used as it is."""


class MixtureError(OlmixError):
    """A mixture file, a dataset version or a plan made of them that is not valid."""


class InfeasibleError(OlmixError):
    """No mixture meets the repetition limits."""


class SwarmError(OlmixError):
    """The swarm cannot identify the law, or too few of its runs are there."""


class SolverError(OlmixError):
    """The solver did not reach the gap it certifies."""


class TrainingError(OlmixError):
    """A proxy run failed."""


class PipelineError(OlmixError):
    """The DVC pipeline is not in the state that a command needs."""
