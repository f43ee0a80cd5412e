"""Slurm's own commands: what is in the queue, what became of a job, and how to submit an array.

`squeue` and `scontrol` are asked because they answer on every cluster; `sacct` answers only where accounting is on. An
array is known by its name, which is unique and was written down before the array was submitted: even a driver that
is killed right after `sbatch` leaves nothing in the queue that the next one does not know.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from olmix.errors import ConfigError
from olmix.runs.job import Job, Setup
from olmix.runs.journal import Journal
from olmix.runs.slurm_settings import OURS, SlurmSettings
from olmix.runs.slurm_worker import work

COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "srun")
_COMMAND_SECONDS = 60.0
# What sbatch says when its request may be tried again.
_UNAVAILABLE = re.compile(r"contact slurm controller|timed? out|connection|zero bytes|temporarily", re.IGNORECASE)


# States that a job ends in without having completed.
_FATES = {
    "CANCELLED": "was cancelled",
    "PREEMPTED": "was preempted",
    "NODE_FAIL": "lost its node",
    "BOOT_FAIL": "lost its node",
    "OUT_OF_MEMORY": "ran out of memory (raise runtime.yaml: slurm.memory)",
    "TIMEOUT": "reached its time limit (raise runtime.yaml: slurm.minutes)",
    "FAILED": "failed",
    "DEADLINE": "missed its deadline",
}


# What Slurm's commands say on a machine that belongs to no cluster: waiting does not help.
_NOWHERE = "establish a configuration source"


class SlurmUnavailable(Exception):  # noqa: N818  # no error until it lasts
    """Slurm does not answer at the moment; the message says why."""


@dataclass(frozen=True)
class Task:
    """A job in the queue: its number as people write it (`12_3`), and its state."""

    id: str
    state: str

    @property
    def array(self) -> str:
        """The number that its whole array is cancelled by."""
        return self.id.split("_")[0]


def require_slurm() -> None:
    """Raise ConfigError if submitit or a command of Slurm is missing, or the environment would override our options."""
    if find_spec("submitit") is None:
        raise ConfigError(
            "slurm needs submitit",
            file="runtime.yaml",
            key="engine",
            way_out="run `pip install 'olmix[slurm]'`, or choose another engine",
        )
    for program in COMMANDS:
        if shutil.which(program) is None:
            raise ConfigError(
                f"slurm needs {program}, which is not on the PATH",
                file="runtime.yaml",
                key="engine",
                way_out="run on a machine that submits to the cluster, or choose another engine",
            )
    for option in OURS:
        name = f"SBATCH_{option.replace('-', '_').upper()}"
        if name in os.environ:
            raise ConfigError(f"{name} is set, and sbatch would use it instead of olmix's value", way_out="unset it")


def standing() -> dict[tuple[str, int], Task]:
    """Jobs of this user in the queue, by name and place in their array; raises SlurmUnavailable."""
    found = {}
    for line in _ask("squeue", "--me", "--noheader", "--array", "--format=%i|%T|%j").splitlines():
        number, state, name = line.split("|", 2)
        _, _, place = number.partition("_")
        if not place or place.isdigit():  # a range is another's job, which --array did not take apart
            found[name, int(place or 0)] = Task(number, state)
    return found


def fates(array: str) -> dict[int, str]:
    """What became of the jobs of `array` that did not complete (`was cancelled`), by place, if Slurm still knows it.

    Raises SlurmUnavailable.
    """
    try:
        answer = _ask("scontrol", "show", "job", array, "--oneliner")
    except SlurmUnavailable as error:
        if "Invalid job id" in str(error):
            return {}
        raise
    found = {}
    for line in answer.splitlines():
        field = dict(re.findall(r"\b(ArrayTaskId|JobState|ExitCode)=(\S+)", line))
        place, state = field.get("ArrayTaskId", "0"), field.get("JobState", "")
        if place.isdigit() and state in _FATES:
            found[int(place)] = _FATES[state] + (f" with exit code {field['ExitCode']}" if state == "FAILED" else "")
    return found


def largest_array() -> int:
    """The most jobs that the cluster takes in one array; raises SlurmUnavailable."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _ask("scontrol", "show", "config"), re.MULTILINE)
    return max(1, int(found[1]) - 1) if found else 1


def widen(array: str, workers: int) -> None:
    """Let `workers` jobs of `array` run at once; raises SlurmUnavailable."""
    _ask("scontrol", "update", f"JobId={array}", f"ArrayTaskThrottle={workers}")


def cancel(name: str) -> None:
    """Take the array called `name` out of the queue; raises SlurmUnavailable."""
    _ask("scancel", "--me", f"--name={name}")


def submit(
    name: str, jobs: Sequence[Job], journal: Journal, setup: Setup, settings: SlurmSettings, folder: Path, workers: int
) -> str:
    """Submit `jobs` as one array called `name`, `workers` of them at once, its files in `folder`; returns its number.

    Raises SlurmUnavailable, and ConfigError with the reason when Slurm refuses.
    """
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError

    logging.getLogger("submitit").setLevel(logging.CRITICAL)  # what it has to say is said by olmix, in a line
    executor = SlurmExecutor(folder=folder, python=settings.command())
    executor.update_parameters(
        job_name=name,
        partition=settings.partition,
        time=settings.minutes,
        mem=settings.memory,
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=settings.cpus,
        gpus_per_node=settings.gpus or None,
        srun_args=[f"--cpus-per-task={settings.cpus}"],  # srun no longer takes it over from sbatch since Slurm 22.05
        signal_delay_s=min(90, settings.minutes * 6),
        array_parallelism=workers,
        stderr_to_stdout=True,
        wckey=None,
        setup=[f"#SBATCH {line}" for line in settings.sbatch],
    )
    same = len(jobs)
    try:
        submitted = executor.map_array(work, jobs, [journal] * same, [setup] * same, [folder] * same, range(same))
    except FailedJobError as error:
        reason = "; ".join(line.removeprefix("sbatch: error: ") for line in str(error).splitlines())
        if _UNAVAILABLE.search(reason):
            raise SlurmUnavailable(reason) from None
        raise ConfigError(f"Slurm rejected the jobs: {reason}", file="runtime.yaml", key="slurm") from None
    return submitted[0].job_id.split("_")[0]


def log_path(folder: Path, number: str) -> Path:
    """Where job `number` of an array with its files in `folder` writes what it prints."""
    return folder / f"{number}_0_log.out"


def last_words(log: Path) -> str:
    """The last line that a job itself wrote, if any."""
    try:
        lines = log.read_bytes()[-4096:].decode(errors="replace").splitlines()
    except OSError:
        return ""
    own = [line for line in lines if line.strip() and not line.startswith(("srun:", "slurmstepd:"))]
    return own[-1].strip()[:200] if own else ""


def _ask(*words: str) -> str:
    # SQUEUE_* variables are for people: they filter what squeue shows.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    try:
        ran = subprocess.run(  # noqa: S603
            words, env=environment, capture_output=True, text=True, errors="replace", check=False,
            timeout=_COMMAND_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SlurmUnavailable(f"{words[0]} did not answer in {_COMMAND_SECONDS:.0f} s") from None
    except OSError as error:
        raise SlurmUnavailable(f"{words[0]}: {error.strerror}") from None
    if ran.returncode:
        reason = "; ".join(ran.stderr.split("\n")).strip("; ") or f"exit code {ran.returncode}"
        if _NOWHERE in reason:
            raise ConfigError(
                f"{words[0]} of Slurm finds no cluster here ({reason.split('; ')[-1]})",
                file="runtime.yaml",
                key="engine",
                way_out="set SLURM_CONF, go to a machine of the cluster, or set engine to local",
            )
        raise SlurmUnavailable(f"{words[0]}: {reason}")
    return ran.stdout
