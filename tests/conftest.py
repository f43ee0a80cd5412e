"""Fixtures that several test modules use."""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project import Project
from tests.s3 import s3  # noqa: F401  # a fixture

# What takes long comes first, so that no process is left with it at the end; before what waits for the template of a
# project stands what does not need it. Tests of these modules are handed out one by one, those of another module to one
# process, which sets up once what they share.
LONG = (
    "test_slurm", "test_ray", "test_runtime", "test_token_tasks", "test_external", "test_repetition", "test_engine",
    "test_pipeline", "test_versions", "test_cost", "test_scan_command",
)  # fmt: skip
FIRST = "test_sharing"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into the order in which processes take them."""

    def module(item: pytest.Item) -> str:
        return item.path.stem

    order = {name: k for k, name in enumerate((FIRST, *LONG))}
    items.sort(key=lambda item: order.get(module(item), len(order)))
    for item in items:
        if module(item) not in LONG:
            item.add_marker(pytest.mark.xdist_group(module(item)))


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
