"""`olmix scan` and what follows from it, as a person types it; bad shards end every command with one clear line."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from tests.project import ENVIRONMENT, Project, documents, write_shards


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("scan") / "project")


@pytest.fixture
def project(template: Project, tmp_path: Path) -> Project:
    return template.copy(tmp_path / "project")


def scan(project: Project, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(project.olmix("scan", *words, "--json").out)
    return found


def test_a_domain_that_moves_elsewhere_is_the_same_domain(accepted: Project, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    shutil.move(accepted.root / "data/web", disk)
    (accepted.root / "data/web").mkdir()
    found = scan(accepted, "web", "--root", str(disk))["web"]
    assert (found["shards"], found["read"]) == (2, 2)
    assert accepted.plan()["changes"] == [], "the same documents, wherever they lie"
    shutil.move(disk, tmp_path / "mount")
    ran = accepted.repro()
    assert "prepare@web" in ran.stages
    assert ran.done("train") == 0
    assert accepted.olmix("check", "code").code == 0, "another domain needs no root"
    assert scan(accepted, "web", "--root", str(tmp_path / "mount"))["web"]["read"] == 0
    accepted.commit("web lies elsewhere")

    write_shards(tmp_path / "mount", documents("web", version=1))
    assert scan(accepted)["web"]["read"] == 2
    assert [change["kind"] for change in accepted.plan()["changes"]] == ["revise"]
    text = accepted.olmix("scan", "web").out
    assert text.splitlines()[-1] == "2 shards, 0 read now: none changed"
    assert "120" in text
    (tmp_path / "mount/part-00.jsonl").rename(tmp_path / "away.jsonl")
    (tmp_path / "mount/more.jsonl").write_text('{"text": "one more"}\n')
    ran = accepted.olmix("scan", "web")
    assert ran.out.splitlines()[-1] == (
        "2 shards, 1 read now: 1 new, 1 gone; commit data/web (with `dvc add` or git), then run `dvc repro`"
    )
    assert ran.err == (
        "warning: web: 1 shard is gone (part-00.jsonl), with 60 documents; if a disk is only not mounted, "
        "mount it, and restore data/web with git or `dvc checkout`\n"
    )


def test_several_corpora_are_scanned_together(project: Project, tmp_path: Path) -> None:
    for name in ("code", "web", "math"):
        shutil.move(project.root / f"data/{name}", tmp_path / name)
        (project.root / f"data/{name}").mkdir()
        scan(project, name, "--root", str(tmp_path / name))
        write_shards(tmp_path / name, documents(name, 130))
    found = scan(project)
    assert {name: row["content"][name]["documents"] for name, row in found.items()} == dict.fromkeys(
        ("code", "math", "web"), 130
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["web"],
            r"error: data/web: has no manifest.yaml; shards in the project are read by `dvc repro`; for shards",
        ),
        ([], "error: no domain has a manifest.yaml; name a domain and its --root"),
        (["--root", "/tmp"], "error: --root /tmp: name the domain whose shards are there"),
        (["wob"], "error: params.yaml: domains: no domain 'wob'; the domains are code, junk, math, web"),
        (["web", "--root", "/nowhere/at/all"], "error: /nowhere/at/all: domains.web: no such folder; check --root"),
        (["web", "--root", "gopher://x/y"], "error: gopher://x/y: domains.web: cannot be opened: "),
    ],
)
def test_a_scan_of_nothing_is_one_clear_line(project: Project, words: list[str], message: str) -> None:
    ran = project.command("olmix", "scan", *words)
    assert ran.code == 1
    assert ran.err.startswith(message), ran.err
    assert ran.err.count("\n") == 1
    assert not (project.root / "data/web/manifest.yaml").exists()


# A scan that takes its time, in processes, and records each shard at once.
SLOWLY = """
import time
from olmix.data import memory, parallel
memory.COMMIT_SECONDS, parallel.ALONE = 0, 0
finish = memory.Memory.finish

def slowly(*arguments):
    finish(*arguments)
    time.sleep(0.2)

memory.Memory.finish = slowly
from olmix.cli.main import main
main()
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_scan_that_is_ended_leaves_no_process_and_goes_on(
    project: Project, tmp_path: Path, how: signal.Signals
) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    shutil.rmtree(project.root / "data/web")
    for k in range(30):
        (root / f"{k:02d}.jsonl").write_text(json.dumps({"text": f"shard {k}"}) + "\n")
    command = subprocess.Popen(
        [sys.executable, "-c", SLOWLY, "scan", "web", "--root", str(root), "--workers", "2"],
        cwd=project.root, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    begun = time.monotonic()
    while finished(project.root / ".olmix/scan/web.sqlite") < 3:
        assert command.poll() is None, command.communicate()
        assert time.monotonic() - begun < 60
        time.sleep(0.05)
    if how == signal.SIGINT:
        os.killpg(command.pid, how)  # as a terminal does: every process of the group
    else:
        command.kill()
    _, said = command.communicate(timeout=60)
    if how == signal.SIGINT:
        assert said.lstrip() == "interrupted; what was finished is kept; the same command continues from there\n"
        assert command.returncode == 130
    begun = time.monotonic()
    while processes_of(command.pid):
        assert time.monotonic() - begun < 20
        time.sleep(0.1)
    assert not (project.root / "data/web/manifest.yaml").exists()
    found = scan(project, "web", "--root", str(root))["web"]
    assert (found["shards"], found["content"]["web"]["documents"]) == (30, 30)
    assert 0 < found["read"] < 30
    assert not [path for path in (project.root / ".olmix/scan").iterdir() if path.is_dir()]


def finished(memory: Path) -> int:
    """Shards that a scan has recorded."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{memory}?mode=ro", uri=True)) as base:
            return int(base.execute("select count(*) from shards where finished").fetchone()[0])
    except sqlite3.Error:
        return 0


def processes_of(session: int) -> list[int]:
    """Processes of a session that still run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def damage(folder: Path, name: str, content: bytes) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    write_shards(folder, documents("web", 5))
    (folder / "part-00.jsonl").unlink()
    suffix = name.partition(".")[2]
    if suffix != "jsonl":
        (folder / "part-01.jsonl").unlink()
    (folder / name).write_bytes(content)


LINES = b"".join(json.dumps({"text": f"document {k}"}).encode() + b"\n" for k in range(2000))


@pytest.mark.parametrize(
    ("name", "content", "entry", "message"),
    [
        ("bad.jsonl", b'{"text": "fine"}\n{"text": \n', {}, "data/web/bad.jsonl:2: not JSON: "),
        ("bad.jsonl.gz", gzip.compress(LINES, mtime=0)[:-20], {}, "data/web/bad.jsonl.gz: truncated gzip: "),
        ("bad.jsonl", b"", {}, "data/web/bad.jsonl: empty shard"),
        ("bad.parquet", b"PAR1 and no more", {}, "data/web/bad.parquet: not valid parquet: "),
        (
            "bad.npy",
            np.arange(300, dtype="<u2").tobytes(),
            {"dtype": "uint16"},
            "data/web/bad.npy: token id 257 at pos",
        ),
        (
            "bad.npy",
            b"odd",
            {"dtype": "uint16"},
            "data/web/bad.npy: 3 bytes are not a whole number of uint16 ids: truncated",
        ),
    ],
)
def test_a_bad_shard_is_one_clear_line_and_nothing_is_recorded(
    project: Project, name: str, content: bytes, entry: dict[str, str], message: str
) -> None:
    damage(project.root / "data/web", name, content)
    params = project.params
    params["domains"]["web"] |= entry
    project.params = params
    project.expect("python", "stages/keys.py")
    stage = project.command("env", "DVC_STAGE=prepare@web", "python", "stages/prepare.py")
    plan = project.command("olmix", "plan")
    check = project.command("olmix", "check", "web")
    for ran in (stage, plan):
        assert ran.code == 1
        assert ran.err.startswith(f"error: {message}"), ran.err
        assert ran.err.count("\n") == 1
    assert check.code == 2
    assert f"error: {message}" in check.out
    assert [path.name for path in (project.root / "build").iterdir()] == ["keys"]


def test_topics_are_called_what_params_say(project: Project) -> None:
    rows = [{"text": f"{topic} {k}", "topic": topic} for topic in ("C#", "C++", None) for k in range(9)]
    write_shards(project.root / "data/web", [])
    (project.root / "data/web/part-00.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (project.root / "data/web/part-01.jsonl").unlink()
    params = project.params
    del params["domains"]["web"]
    entry: dict[str, Any] = {"path": "data/web", "partition_by": "topic", "where_not": {"topic": None}}
    params["sources"] = {"web": entry}
    project.params = params
    ran = project.command("olmix", "plan")
    assert ran.err == (
        "error: data/web: sources.web.names: topic 'C++' and topic 'C#' would both become the domain web-c; "
        "give it a name there\n"
    )
    entry["names"] = {"C#": "c-sharp", "C++": "cpp"}
    project.params = params
    assert {"web-c-sharp", "web-cpp"} <= {name for change in project.plan()["changes"] for name in change["domains"]}


def test_a_folder_that_dvc_knows_wants_dvc_pull(project: Project) -> None:
    shutil.rmtree(project.root / "data/web")
    assert project.command("olmix", "plan").err == "error: data/web: no such folder; run `dvc pull`\n"
    (project.root / "data/web.dvc").unlink()
    assert "or run `olmix scan web --root URL` if they are elsewhere\n" in project.command("olmix", "plan").err


def test_a_filter_that_nothing_fits_is_said_by_the_plan(project: Project) -> None:
    params = project.params
    params["domains"]["web"]["where"] = {"language": "fr"}
    project.params = params
    ran = project.command("olmix", "plan")
    assert ran.code == 1
    assert ran.err == "error: data/web: domains.web.where: no document matches, so there is nothing to train on\n"


def test_manifests_of_entries_that_are_gone_do_not_count(project: Project) -> None:
    (project.root / "build/manifests/forum").mkdir(parents=True)
    project.write("build/manifests/forum/web.json", "{}")
    project.expect("python", "stages/keys.py")
    project.expect("env", "DVC_STAGE=prepare@web", "python", "stages/prepare.py")
    assert {change["kind"] for change in project.plan()["changes"]} == {"add"}
    assert project.olmix("check", "web").code == 0


def test_dvc_records_nothing_of_a_bad_shard(project: Project) -> None:
    damage(project.root / "data/web", "bad.jsonl", b"no\n")
    ran = project.command("dvc", "repro", "prepare@web")
    assert ran.code != 0
    assert "error: data/web/bad.jsonl:1: not JSON: " in ran.err
    lock = project.root / "dvc.lock"
    assert not lock.exists() or "prepare@web" not in yaml.safe_load(lock.read_text())["stages"]


def test_a_folder_that_does_not_name_its_domain_is_named_with_it(project: Project) -> None:
    (project.root / "data/2026-11").mkdir()
    pl.DataFrame({"body": ["x"]}).write_parquet(project.root / "data/2026-11/a.parquet")
    project.declare(web="data/2026-11")
    ran = project.command("olmix", "plan")
    expected = "data/2026-11/a.parquet: domains.web.text: no column 'text' (columns: body); name another"
    assert ran.err == f"error: {expected}\n"
    assert f"error: {expected}\n" in project.command("olmix", "check", "web").out
    (project.root / "data/2026-11/a.parquet").write_bytes(b"PAR1")
    assert project.command("olmix", "plan").err.startswith("error: data/2026-11/a.parquet: domains.web: not valid parq")
