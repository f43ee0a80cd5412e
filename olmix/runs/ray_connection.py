"""The way to a Ray: one of this machine that is started here, or a cluster by its address.

An address that does not answer is named within half a minute. `ray.init` alone takes two minutes for that, writes a
dozen lines, and ends the process; so a cluster is first asked for a sign of life by a process of its own, which makes
joining a cluster 1 s longer.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from typing import Any
from urllib.parse import urlsplit

from olmix.errors import ConfigError

REACH_SECONDS = 10.0
HEALTH_SECONDS = 20.0


def import_ray() -> Any:
    """Ray, imported when it is needed; raises ConfigError when it is not installed.

    It is quiet but for a node's own words about a worker that died there, which it writes to standard output.
    """
    # Nothing is sent to Ray's makers and nothing printed: read when Ray is imported, inherited by a Ray of our own.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"ray needs Ray ({error})", file="runtime.yaml", key="engine", way_out="run `pip install 'olmix[ray]'`"
        ) from None
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


def connect(ray: Any, address: str | None, cpus: int) -> None:
    """Join the Ray at `address`, or start one with `cpus` CPUs where there is none; raises ConfigError with the address
    and the reason."""
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    else:
        _require_answer(address)
    try:
        ray.init(**options, log_to_driver=False, configure_logging=False)
    except (ray.exceptions.RayError, ImportError, OSError, RuntimeError, ValueError) as error:
        ray.shutdown()
        if address is None:
            reason = f"cannot start Ray on this machine: {one_line(error)}"
            raise ConfigError(reason, file="runtime.yaml", key="ray") from None
        # Ray itself looks for a node on this machine, and gives up after a minute.
        raise _unreachable(address, one_line(error), "run `dvc repro` on a node of the cluster") from None


def _require_answer(address: str) -> None:
    """Ask for a sign of life within half a minute: `ray.init` itself takes two minutes, and ends this process then."""
    if address != "auto":
        try:
            parts = urlsplit(f"//{address}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port:
            raise _unreachable(address, "not an address", "write auto or host:port")
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
        except OSError as error:
            raise _unreachable(address, error.strerror or str(error)) from None
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    if address != "auto":
        command += ["--address", address]
    try:
        health = subprocess.run(command, capture_output=True, text=True, timeout=HEALTH_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise _unreachable(address, f"no Ray answered within {HEALTH_SECONDS:.0f} s") from None
    if health.returncode:
        lines = health.stderr.strip().splitlines() or ["it is not healthy"]
        raise _unreachable(address, lines[-1].removeprefix("ray.exceptions."))


def _unreachable(address: str, reason: str, way_out: str | None = None) -> ConfigError:
    return ConfigError(f"no Ray at {address}: {reason}", file="runtime.yaml", key="ray.address", way_out=way_out)


def one_line(error: BaseException) -> str:
    """An error of Ray, whose messages are often long, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
