"""A run that somebody in the team has finished is never trained again: real clones around a real S3 endpoint."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from tests import project as project_module
from tests.project import Project, documents, write_shards, write_task
from tests.s3 import CREDENTIALS, Endpoint


@pytest.fixture(scope="module")
def team(
    accepted_template: Project, tmp_path_factory: pytest.TempPathFactory, s3: Endpoint
) -> Iterator[tuple[Project, Project]]:
    """A git repository that a team shares, pushed from a project whose remote is an S3 bucket; and a change of the
    data that somebody has built and pushed without merging it."""
    patched = pytest.MonkeyPatch()
    for name, value in CREDENTIALS.items():
        patched.setitem(project_module.ENVIRONMENT, name, value)
    here = tmp_path_factory.mktemp("team")
    author = accepted_template.copy(here / "author")
    author.dvc("remote", "add", "-d", "team", s3.bucket("team"))
    author.dvc("remote", "modify", "team", "endpointurl", s3.url)
    author.commit("a remote")
    author.dvc("push", "-q", "--run-cache")
    subprocess.run(["git", "clone", "-q", "--bare", str(author.root), str(here / "origin")], check=True)
    revise(author)
    ran = author.repro()
    assert ran.done("train") == 9
    author.commit("web revised, not merged")
    author.dvc("push", "-q", "--run-cache")
    yield author, Project(here / "origin")
    patched.undo()


@pytest.fixture
def clone(team: tuple[Project, Project], tmp_path: Path) -> Project:
    """A colleague's clone of what is merged: no journal, no cache."""
    subprocess.run(["git", "clone", "-q", str(team[1].root), str(tmp_path / "clone")], check=True)
    return Project(tmp_path / "clone")


def revise(project: Project, version: int = 1) -> None:
    write_shards(project.root / "data/web", documents("web", 120, version))


def test_a_clone_trains_nothing_and_more_runs_a_domain_are_only_the_new_ones(clone: Project) -> None:
    clone.dvc("pull", "-q")
    assert clone.repro().stages == []
    params = clone.params
    params["swarm"]["runs_per_domain"] = 4
    clone.params = params
    ran = clone.expect("dvc", "repro", "evaluate")
    assert "train: 20 runs, 0 in the journal, 15 in the cache, 5 done now" in ran.err
    assert "evaluate: 20 runs, 0 in the journal, 15 in the cache, 5 done now" in ran.err
    assert "warning" not in ran.err


def test_the_same_change_on_another_branch_trains_nothing(team: tuple[Project, Project], clone: Project) -> None:
    author, _ = team
    clone.dvc("pull", "-q")
    revise(clone)
    plan = clone.plan()
    assert (plan["runs"], plan["cost"]["runs_already_trained"]) == (9, 0)
    ran = clone.repro()
    assert [ran.done(what) for what in ("train", "evaluate", "validate", "validate: evaluate")] == [0, 0, 0, 0]
    assert "train: 9 runs, 0 in the journal, 9 in the cache" in ran.err
    assert clone.outputs() == author.outputs()
    assert clone.plan()["cost"]["runs_already_trained"] == 9


def test_damaged_entries_and_foreign_ones_are_trained_again(team: tuple[Project, Project], clone: Project) -> None:
    keys = sorted(path.stem for path in (team[0].root / "build/proxies").glob("*.json"))
    clone.dvc("pull", "-q", "--run-cache")
    revise(clone)
    assert clone.expect("dvc", "repro", "train").done("train") == 0
    entries = run_entries(clone, keys)
    # One run's weights are cut short, and another's record is a third one's.
    weights = cached(clone, entries[keys[0]], ".safetensors")
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-3])
    entry = yaml.safe_load(entries[keys[1]].read_text())
    other = yaml.safe_load(entries[keys[2]].read_text())
    for out, foreign in zip(entry["outs"], other["outs"], strict=True):
        out |= {"md5": foreign["md5"], "size": foreign["size"]}
    entries[keys[1]].chmod(0o644)
    entries[keys[1]].write_text(yaml.safe_dump(entry))
    clone.dvc("remote", "remove", "team")
    subprocess.run(["rm", "-rf", ".olmix", "build/proxies"], cwd=clone.root, check=True)
    assert clone.expect("python", "stages/train.py").done("train") == 2


def run_entries(project: Project, keys: Sequence[str]) -> dict[str, Path]:
    """Files of DVC's run-cache by the key of the run that they are of."""
    files = [path for path in (project.root / ".dvc/cache/runs").rglob("*") if path.is_file()]
    return {key: path for key in keys for path in files if f"olmix run {key}" in path.read_text()}


def cached(project: Project, entry: Path, suffix: str) -> Path:
    """The object in DVC's cache of an entry's file with `suffix`."""
    md5 = next(out["md5"] for out in yaml.safe_load(entry.read_text())["outs"] if out["path"].endswith(suffix))
    return project.root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def test_a_dead_remote_is_one_line_and_other_data_trains_its_own_runs(clone: Project) -> None:
    clone.dvc("pull", "-q")
    revise(clone, version=2)
    clone.dvc("remote", "modify", "team", "endpointurl", "http://127.0.0.1:9")
    ran = clone.expect("dvc", "repro", "train")
    assert ran.done("train") == 9
    assert ran.err.count("warning: ") == 1
    assert "DVC remote 'team' cannot be read" in ran.err


def test_weights_that_are_not_kept(accepted: Project, tmp_path: Path) -> None:
    """Runs are shared with their evaluations instead of their weights, and a new task says what it cannot measure.
    Shared through a folder: what asks S3 is the same, and asked by the other tests."""
    accepted.dvc("remote", "add", "-d", "team", str(tmp_path / "remote"))
    accepted.commit("a remote")
    accepted.dvc("push", "-q", "--run-cache")
    clone, colleague = Project(tmp_path / "clone"), Project(tmp_path / "colleague")
    for each in (clone, colleague):
        subprocess.run(["git", "clone", "-q", str(accepted.root), str(each.root)], check=True)
    clone.dvc("pull", "-q")
    params = clone.params
    params["proxy"]["keep_weights"] = False
    params["validate"]["seeds"] = 1
    clone.params = params
    revise(clone, version=3)
    assert clone.expect("dvc", "repro", "train").done("train") == 9
    # The weights of one run are another's: it is named before anything is measured, and trained again.
    weights = sorted((clone.root / ".olmix/runs").glob("*.safetensors"))
    weights[0].write_bytes(weights[1].read_bytes())
    refused = clone.command("dvc", "repro", "evaluate")
    assert "do not match their records; run `dvc repro -f -s train`" in refused.err
    assert clone.expect("dvc", "repro", "-f", "-s", "train").done("train") == 1
    clone.repro()
    assert not list(clone.root.glob("build/*/**/*.safetensors"))
    assert not list(clone.root.glob(".olmix/runs/*.safetensors"))
    first = clone.outputs()
    clone.commit("web revised again, weights dropped")
    clone.dvc("push", "-q", "--run-cache")

    colleague.dvc("pull", "-q")
    colleague.params = params
    revise(colleague, version=3)
    ran = colleague.repro()
    assert [ran.done(what) for what in ("train", "evaluate", "validate", "validate: evaluate")] == [0, 0, 0, 0]
    assert colleague.outputs() == first

    write_task(colleague.root / "data/tasks/late.jsonl", documents("web", 10, version=50))
    params["tasks"]["families"]["language"].append("late")
    colleague.params = params
    refused = colleague.command("dvc", "repro")
    assert refused.code != 0
    assert "error: cannot evaluate late on 9 runs (0000, 0001, 0002, 0003, 0004, 0005, 0006, 0007, ...), whose" in (
        refused.err
    )
