"""Fixtures that several test modules use."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.project import Project


@pytest.fixture(scope="session")
def accepted_template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that was built, accepted and committed once a test process; copy it before changing it."""
    project = Project.create(tmp_path_factory.mktemp("template") / "project")
    project.repro()
    project.olmix("accept")
    project.repro()
    project.commit("first mixture, accepted")
    return project


@pytest.fixture
def accepted(accepted_template: Project, tmp_path: Path) -> Project:
    """An accepted project of one's own."""
    project = accepted_template.copy(tmp_path / "project")
    yield project
    shutil.rmtree(tmp_path / "project", ignore_errors=True)
