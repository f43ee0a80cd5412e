"""Fixtures that several test modules use."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project
from tests.s3 import s3  # noqa: F401  # a fixture


@pytest.fixture(scope="session")
def accepted_template(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project that was built, accepted and committed once for all test processes; copy it before changing it."""
    shared = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    ready = shared / "template" / "ready"
    with (shared / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            project = Project.create(shared / "template" / "project")
            project.repro()
            project.olmix("accept")
            project.repro()
            project.commit("first mixture, accepted")
            ready.touch()
    return Project(shared / "template" / "project")


@pytest.fixture
def accepted(accepted_template: Project, tmp_path: Path) -> Iterator[Project]:
    """An accepted project of one's own."""
    yield accepted_template.copy(tmp_path / "project")
    shutil.rmtree(tmp_path / "project", ignore_errors=True)
