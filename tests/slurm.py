"""A real Slurm on this host for tests: munged, slurmctld and slurmd with their state in a folder of their own.

One node declares more cores than the machine has, so that jobs of several test processes do not wait for each other,
and two GPUs that are no GPUs, so that asking for one can be tested.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
CORES = 8

CONFIG = """\
ClusterName=olmix
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=5
MessageTimeout=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=4000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Why there can be no cluster here; empty when there can."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing:
        return f"{', '.join(missing)}: not installed (apt install slurm-wlm munge)"
    return "" if os.geteuid() == 0 else "Slurm's daemons need root"


def _find(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Cluster:
    """A controller and a node in `folder`; `config` is what SLURM_CONF has to be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "slurm.conf"

    def start(self) -> None:
        """Write the configuration and start the daemons; returns when the node is idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        host = socket.gethostname().split(".")[0]
        self.config.write_text(
            CONFIG.format(
                host=host, folder=self.folder, controller_port=_free_port(), node_port=_free_port(), cores=CORES
            )
        )
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName={host} Name=gpu File=/dev/{device}\n" for device in ("null", "zero"))
        )
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"--{name}-file={self.folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self._daemon("munged", "--force", f"--socket={self.folder}/munge.socket", *files)
        self.start_controller()
        self._daemon("slurmd", "-f", str(self.config))
        deadline = time.monotonic() + 30
        while "idle" not in self.ask("sinfo", "--noheader", "--format=%T"):
            assert time.monotonic() < deadline, (self.folder / "slurmd.log").read_text()
            time.sleep(0.1)

    def start_controller(self) -> None:
        """Start slurmctld, which takes up the state that it left."""
        self._daemon("slurmctld", "-f", str(self.config))

    def stop_controller(self) -> None:
        """End slurmctld, and wait until it is gone."""
        self._end("slurmctld")

    def stop(self) -> None:
        """End the jobs and the daemons of this cluster."""
        self.ask("scancel", "--user=root")
        deadline = time.monotonic() + 15
        while self.ask("squeue", "--noheader") and time.monotonic() < deadline:
            time.sleep(0.1)
        for name in ("slurmd", "slurmctld", "munge"):
            self._end(name)

    def ask(self, *words: str) -> str:
        """What a command of Slurm prints; empty when it fails."""
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout

    def _daemon(self, program: str, *words: str) -> None:
        environment = {**os.environ, "SLURM_CONF": str(self.config)}
        command = [_find(program) or program, *words]
        # Daemons must not keep a test's output pipes open.
        with (self.folder / f"{program}.out").open("ab") as out:
            subprocess.run(command, env=environment, check=True, stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def _end(self, name: str) -> None:
        path = self.folder / f"{name}.pid"
        if not path.exists():
            return
        stat = Path(f"/proc/{int(path.read_text())}/stat")
        subprocess.run(["kill", stat.parent.name], check=False, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 15
        while _is_running(stat) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_running(stat: Path) -> bool:
    """Whether a process has not ended, be it that nobody has taken note of it (Z)."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="session")
def slurm(shared_folder: Path) -> Iterator[Cluster]:
    """The cluster of this test run: whichever test process comes first starts it, the last to leave stops it."""
    if reason := why_not():
        pytest.skip(reason)
    folder, users = shared_folder / "slurm", shared_folder / "slurm.users"
    with (shared_folder / "slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        using = int(users.read_text()) if users.exists() else 0
        cluster = Cluster(folder)
        if not using:
            shutil.rmtree(folder, ignore_errors=True)
            cluster.start()
        users.write_text(str(using + 1))
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(cluster.config)
    yield cluster
    os.environ.pop("SLURM_CONF")
    if before is not None:
        os.environ["SLURM_CONF"] = before
    with (shared_folder / "slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        using = int(users.read_text()) - 1
        users.write_text(str(using))
        if not using:
            cluster.stop()
