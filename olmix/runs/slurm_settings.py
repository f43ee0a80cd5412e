"""What every job asks of a cluster, checked before it becomes a line of a batch script."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from typing import NoReturn

from olmix.errors import ConfigError

# Options that decide what a job is or how sbatch answers; sbatch also takes them abbreviated.
OURS = ("array", "chdir", "error", "job-name", "nodes", "ntasks", "output", "parsable", "test-only", "wait", "wrap")


@dataclass(frozen=True)
class SlurmSettings:
    """What every job asks of the cluster.

    `partition` and `memory` (as `8G`) are the cluster's own unless given; `gpus` and `cpus` are those of one job,
    `minutes` its time limit. `array` is the largest job array, which the cluster may lower. `sbatch` holds lines as
    they stand after `#SBATCH `; `python` is the command that starts Python on a node, this Python unless given.
    """

    partition: str | None = None
    gpus: int = 0
    cpus: int = 1
    memory: str | None = None
    minutes: int = 720
    array: int = 1000
    sbatch: tuple[str, ...] = ()
    python: str | None = None

    def validate(self) -> None:
        """Raise ConfigError with the key when a value cannot be, or could end a line of the batch script."""
        for name, least in (("gpus", 0), ("cpus", 1), ("minutes", 1), ("array", 1)):
            value = getattr(self, name)
            if value < least:
                _refuse(name, f"{value} is below the minimum of {least}")
        if self.partition is not None and not re.fullmatch(r"[\w.,-]+", self.partition):
            _refuse("partition", f"{self.partition!r} is not a partition name")
        if self.memory is not None and not re.fullmatch(r"[0-9]+[KMGT]?", self.memory):
            _refuse("memory", f"{self.memory!r} is not an amount of memory", "write it as in 8G")
        for line in self.sbatch:
            option = re.match(r"--([a-z][a-z0-9-]*)", line)
            if option is None or not line.isprintable() or re.search(r"\s-", line):
                _refuse("sbatch", f"{line!r} must be one line with one --option")
            if any(ours.startswith(option[1]) for ours in OURS):
                _refuse("sbatch", f"--{option[1]} is set by olmix", "remove it")
        if self.python is not None:
            self.command()

    def command(self) -> str:
        """The command that starts Python, quoted for a shell."""
        try:
            words = [sys.executable] if self.python is None else shlex.split(self.python)
        except ValueError as error:
            _refuse("python", f"{self.python!r}: {error}")
        if not words or not all(word.isprintable() for word in words):
            _refuse("python", f"{self.python!r} is not a command")
        return shlex.join(words)


def _refuse(name: str, message: str, way_out: str | None = None) -> NoReturn:
    raise ConfigError(message, file="runtime.yaml", key=f"slurm.{name}", way_out=way_out)
