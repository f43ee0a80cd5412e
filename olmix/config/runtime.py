"""runtime.yaml: where proxies run and how, and the engine that it names. Nothing in it can change a result."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from olmix.config.fields import Count, Finite, Section, check
from olmix.cores import cores
from olmix.errors import ConfigError
from olmix.files import read_yaml
from olmix.project import Project
from olmix.proxy.devices import count_gpus
from olmix.runs.engine import Engine
from olmix.runs.job import Setup
from olmix.runs.journal import Journal
from olmix.runs.local import LocalEngine
from olmix.runs.ray_cluster import RayEngine, RaySettings
from olmix.runs.slurm import SlurmEngine, SlurmSettings


def _workers(value: object) -> object:
    if value != "auto" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError("write auto, or a whole number of processes above 0")
    return value


def _device_name(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise ValueError("write auto, cpu, cuda, or one GPU such as cuda:1")
    return value


class SlurmConfig(Section):
    """A Slurm cluster, for `engine: slurm`; the project must be on a file system that its nodes share."""

    partition: str | None = None
    """Partition; the cluster's default when left out."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs per run; it trains on the first."""
    cpus: Annotated[int, Field(gt=0)] = 1
    """Cores per run; it trains on one thread, and more cores only feed a GPU."""
    memory: str | None = None
    """Memory per run as Slurm writes it, such as 8G."""
    minutes: Annotated[int, Field(gt=0)] = 720
    """Time limit of a run; a run that needs longer continues from its checkpoint in another job."""
    array: Annotated[int, Field(gt=0)] = 1000
    """Most runs in one job array; the cluster's own limit applies if it is lower."""
    python: str | None = None
    """Command that starts Python on a node, if it differs from the Python that runs DVC."""
    sbatch: list[str] = Field(default_factory=list)
    """More options, as they follow #SBATCH, such as --account=lm."""


class RayConfig(Section):
    """A Ray cluster, for `engine: ray`; it needs no shared file system, only olmix on its nodes."""

    address: str | None = None
    """host:port of an existing cluster, or auto for the one on this machine; by default, a local one is started."""
    cpus: Annotated[Finite, Field(gt=0)] = 1.0
    """Cores per run."""
    gpus: Annotated[Finite, Field(ge=0)] = 0.0
    """GPUs per run; with 0.5, two runs share one."""


class Runtime(Section):
    """runtime.yaml."""

    engine: Literal["local", "slurm", "ray"] = "local"
    """`local` processes, an existing `slurm` cluster, or a `ray` cluster."""
    workers: Annotated[int | str, BeforeValidator(_workers)] = "auto"
    """How many runs at a time. `auto` is one per GPU, or one per core without GPUs; on a cluster, as many as fit."""
    device: Annotated[str, BeforeValidator(_device_name)] = "auto"
    """Device that proxies train on: `auto` is a GPU if there is one."""
    checkpoint_minutes: Annotated[Finite, Field(gt=0)] = 10.0
    """Minutes between checkpoints of a run; a shorter run writes one only when it is stopped."""
    flops_per_second: Count | None = None
    """Speed of all workers together, such as 250T, for the hours in `olmix plan`; by default, the last swarm's."""
    slurm: SlurmConfig = Field(default_factory=SlurmConfig)
    ray: RayConfig = Field(default_factory=RayConfig)

    @property
    def place(self) -> str:
        """Where runs are trained, for the speed that a swarm showed there."""
        return f"{self.engine}, device {self.device}, workers {self.workers}"

    def open_engine(self, journal: Journal) -> Engine:
        """The engine, not started yet; raises ConfigError for one, or a device, that is not there."""
        most = None if isinstance(self.workers, str) else self.workers
        seconds = 60 * self.checkpoint_minutes
        if self.engine == "slurm":
            slurm = SlurmSettings(**{**self.slurm.model_dump(), "sbatch": tuple(self.slurm.sbatch)})
            return SlurmEngine(journal, Setup(self._device(slurm.gpus), seconds), slurm, most)
        if self.engine == "ray":
            ray = RaySettings(**self.ray.model_dump())
            return RayEngine(journal, Setup(self._device(ray.gpus), seconds), ray, most)
        gpus = count_gpus() if self.device in ("auto", "cuda") else 0
        if self.device == "cuda" and not gpus:
            raise ConfigError(
                "cuda, but there is no GPU here", file="runtime.yaml", key="device", way_out="set it to auto or cpu"
            )
        return LocalEngine(journal, Setup(self._device(gpus), seconds), most or gpus or cores(), gpus)

    def _device(self, gpus: float) -> str:
        if self.device == "auto":
            return "cuda" if gpus else "cpu"
        return self.device


def load_runtime(project: Project) -> Runtime:
    """Read and check runtime.yaml; a project without one runs with its defaults."""
    path = project.runtime
    return check(path, read_yaml(path) or {}, Runtime) if path.exists() else Runtime()
