"""Which stages are stale: what `dvc status` says, taken from DVC in less time."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from olmix.errors import PipelineError
from olmix.pipeline import stale_stages
from tests.project import ENVIRONMENT, Project

# `slow` does not end before there is a file `go`.
STAGES = """
stages:
  copy:
    foreach: [a, b]
    do:
      cmd: cp -r data/${item} out-${item}
      deps:
        - data/${item}
      outs:
        - out-${item}
  join:
    cmd: cat out-a/x out-b/x imported/x > joined
    deps:
      - out-a
      - out-b
      - imported
    outs:
      - joined
  slow:
    cmd: while [ ! -e go ]; do sleep 0.05; done; cp joined last
    deps:
      - joined
    outs:
      - last
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two data sources, an import from another repository, and four stages that are up to date."""
    other, project = Project(tmp_path / "other"), Project(tmp_path / "project")
    for one in (other, project):
        one.root.mkdir()
        one.git("init", "-q", "-b", "main")
        one.dvc("init", "-q")
    other.write("shared/x", "0\n")
    other.dvc("add", "-q", "shared")
    other.commit("shared")
    for name in ("a", "b"):
        project.write(f"data/{name}/x", f"{name}\n")
    project.dvc("add", "-q", "data/a", "data/b")
    project.dvc("import", "-q", str(other.root), "shared", "-o", "imported")
    project.write("dvc.yaml", STAGES)
    project.write("go", "")
    project.repro()
    project.commit("built")
    return project


def said(project: Project) -> list[str]:
    """What `dvc status` names."""
    return sorted(json.loads(project.dvc("status", "--json").out))


def test_it_names_what_dvc_status_names(project: Project) -> None:
    assert stale_stages(project.root) == said(project) == []

    project.write("data/a/x", "changed\n")
    assert stale_stages(project.root) == said(project) == ["copy@a", "data/a.dvc"]

    (project.root / "joined").unlink()
    project.write("dvc.yaml", STAGES.replace("cp joined last", "cp joined ./last"))
    assert stale_stages(project.root) == said(project) == ["copy@a", "data/a.dvc", "join", "slow"]

    other = Project(project.root.parent / "other")
    other.write("shared/x", "1\n")
    other.dvc("add", "-q", "shared")
    other.commit("another version")
    assert stale_stages(project.root) == said(project) == ["copy@a", "data/a.dvc", "imported.dvc", "join", "slow"]


def test_a_stage_that_is_running_is_no_answer(project: Project) -> None:
    (project.root / "go").unlink()
    command = ("dvc", "repro", "-f", "-s", "slow")
    with subprocess.Popen(command, cwd=project.root, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert any(line.startswith("> while") for line in running.stdout)
        try:
            time.sleep(0.2)  # DVC says what it runs before it lets go of the repository
            with pytest.raises(PipelineError, match=r"last' is busy.*dvc repro -f -s slow"):
                stale_stages(project.root)
        finally:
            project.write("go", "")
            running.stdout.read()
    assert stale_stages(project.root) == []
