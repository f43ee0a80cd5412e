"""A real S3 endpoint on this host for tests and benchmarks: moto's server in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "moto_server"
# Any will do while the endpoint does not check them; with these, none of the machine's own are looked for.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


def why_not() -> str:
    """Why there can be no endpoint here; empty when there can."""
    missing = [] if PROGRAM.exists() else ["moto_server (moto, flask, flask-cors)"]
    if importlib.util.find_spec("dvc_s3") is None:
        missing.append("dvc-s3")
    return f"{' and '.join(missing)} not installed" if missing else ""


def free_port() -> int:
    """A port of this host on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint."""

    url: str

    def bucket(self, name: str) -> str:
        """Make a bucket and return its address."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=10):
            return f"s3://{name}"

    def check_credentials(self, after: float) -> None:
        """Refuse who is not known, from the request after the next `after` on; infinity lets everybody in again."""
        body = str(int(min(after, 1e9))).encode()
        request = urllib.request.Request(f"{self.url}/moto-api/reset-auth", body, {"Content-Type": "text/plain"})
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextlib.contextmanager
def endpoint() -> Iterator[Endpoint]:
    """An empty endpoint that ends with the block."""
    port = free_port()
    command = [str(PROGRAM), "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    assert server.poll() is None and time.monotonic() < until, "moto_server does not start"
                    time.sleep(0.05)
            yield Endpoint(f"http://127.0.0.1:{port}")
        finally:
            server.terminate()


@pytest.fixture(scope="session")
def s3() -> Iterator[Endpoint]:
    """The endpoint of this test process."""
    if reason := why_not():
        pytest.skip(reason)
    with endpoint() as running:
        yield running
