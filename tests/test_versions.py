"""Versions of data as a team moves between them: the plan follows the content, and nothing is trained twice."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import polars as pl
import zstandard

from tests.project import Project, documents, write_shards


def changes(project: Project) -> list[tuple[str, tuple[str, ...]]]:
    return [(change["kind"], tuple(change["domains"])) for change in project.plan()["changes"]]


def trained(project: Project) -> int:
    ran = project.repro()
    return ran.done("train") + ran.done("validate")


def test_back_and_forth_between_versions_trains_nothing_twice(accepted: Project) -> None:
    first, outputs = accepted.weights(), accepted.outputs()
    write_shards(accepted.root / "data/web", documents("web", version=1))
    assert changes(accepted) == [("revise", ("web",))]
    assert trained(accepted) > 0
    second = accepted.weights()
    accepted.commit("web, version 1")
    for revision, weights in (("HEAD~1", first), ("main", second)):
        accepted.git("checkout", "-q", revision)
        accepted.dvc("checkout", "-q")
        assert trained(accepted) == 0
        assert accepted.weights() == weights
        assert (accepted.outputs() == outputs) == (weights == first)
        assert accepted.git("status", "--porcelain", "--untracked-files=no") == ""


def test_a_dataset_of_another_repository_follows_its_content(accepted: Project, tmp_path: Path) -> None:
    corpora = Project(tmp_path / "corpora")
    write_shards(corpora.root / "web", documents("web"), shards=5)
    corpora.git("init", "-q", "-b", "main")
    corpora.dvc("init", "-q")
    corpora.dvc("add", "-q", "web")
    corpora.commit("web")
    accepted.dvc("remove", "-q", "data/web.dvc")
    shutil.rmtree(accepted.root / "data/web")
    accepted.dvc("import", "-q", str(corpora.root), "web", "-o", "data/web")
    assert accepted.plan()["changes"] == [], "the same documents in other shards"
    assert trained(accepted) == 0
    write_shards(corpora.root / "web", documents("web", 110))
    corpora.dvc("add", "-q", "web")
    corpora.commit("fewer")
    accepted.dvc("update", "-q", "data/web.dvc")
    assert changes(accepted) == [("revise", ("web",))]


def test_packing_is_no_change_and_topics_are_a_partition(accepted: Project) -> None:
    folder, texts = accepted.root / "data/web", documents("web")
    accepted.params = {**accepted.params, "validate": {"seeds": 0}}
    lines = "".join(json.dumps({"body": {"text": text}, "lang": "en"}) + "\n" for text in texts).encode()
    other = json.dumps({"lang": "xx", "body": None}).encode() + b"\n"
    packed = {
        "web.jsonl.gz": (gzip.compress(other + lines), {"text": "body.text", "where": {"lang": "en"}}),
        "web.jsonl.zst": (zstandard.compress(lines), {"text": "body.text"}),
    }
    for name, (content, settings) in packed.items():
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / name).write_bytes(content)
        params = accepted.params
        params["domains"]["web"] = {"path": "data/web", **settings}
        accepted.params = params
        assert accepted.plan()["changes"] == [], name
    shutil.rmtree(folder)
    folder.mkdir()
    topics = [("Art & Design", "sports")[k % 3 == 0] for k in range(len(texts))]
    pl.DataFrame({"text": texts, "topic": topics}).write_parquet(folder / "web.parquet")
    params["domains"].pop("web")
    params["sources"] = {"web": {"path": "data/web", "partition_by": "topic"}}
    accepted.params = params
    (change,) = accepted.plan()["changes"]
    assert (change["kind"], change["domains"], change["from"]) == (
        "partition",
        ["web-art-design", "web-sports"],
        ["web"],
    )
    ran = accepted.repro()
    assert "partition@web" in ran.stages
    assert not {f"prepare@{name}" for name in ("code", "junk", "math")} & set(ran.stages)
    assert set(accepted.weights()) == {"code", "junk", "math", "web-art-design", "web-sports"}
    manifest = accepted.json("build/manifests/web/web-sports.json")
    assert (manifest["documents"], manifest["source"]) == (40, "web")
    assert accepted.repro().stages == []
    params = accepted.params
    params["sources"] = {}
    params["domains"]["web"] = {"path": "data/web"}
    accepted.params = params
    assert accepted.plan()["changes"] == []
    assert trained(accepted) == 0
    assert set(accepted.weights()) == {"code", "junk", "math", "web"}
    assert not (accepted.root / "build/manifests/web").exists()


def test_data_left_behind_by_git_is_not_taken_for_an_edit(accepted: Project) -> None:
    project, web = accepted, accepted.root / "data/web"
    project.git("checkout", "-q", "-b", "colleague")
    write_shards(web, documents("web", version=1))
    project.dvc("add", "-q", "data/web")
    project.commit("web, filtered again")
    project.git("checkout", "-q", "main")
    project.dvc("checkout", "-q")
    first = project.git("log", "-1", "--format=%h", "--", "data/web.dvc").strip()
    project.git("merge", "-q", "colleague")  # and no dvc checkout
    theirs = (project.root / "data/web.dvc").read_text()

    def refused(*words: str) -> None:
        ran = project.command(*words)
        assert ran.code == 1
        assert ran.err == (
            f"error: data/web: its version is that of commit {first}, not the one that git has staged; run `git "
            "checkout data/web.dvc` and `dvc checkout data/web.dvc` for git's version, or `dvc add data/web` and `git "
            "add data/web.dvc` to go back to this one\n"
        )

    refused("olmix", "plan")
    refused("olmix", "accept", "--anyway")
    # DVC writes the old version into its file before any stage runs; it goes no further than that.
    project.command("dvc", "repro")
    assert (project.root / "data/web.dvc").read_text() != theirs
    refused("olmix", "plan")
    refused("olmix", "accept", "--anyway")
    # Where DVC has no result of the old version at hand, its stage refuses too.
    ran = project.command("dvc", "repro", "-f", "-s", "prepare@web")
    assert ran.code != 0
    assert "its version is that of commit" in ran.err

    project.git("checkout", "data/web.dvc")
    project.dvc("checkout", "-q", "data/web.dvc")
    assert (project.root / "data/web.dvc").read_text() == theirs
    assert [change["kind"] for change in project.plan()["changes"]] == ["revise"]

    # The other choice: the old version is wanted again.
    write_shards(web, documents("web"))
    refused("olmix", "plan")
    project.dvc("add", "-q", "data/web")
    project.git("add", "data/web.dvc")
    assert project.plan()["changes"] == []
    # What git has never had is an edit.
    write_shards(web, documents("web", version=2))
    assert [change["kind"] for change in project.plan()["changes"]] == ["revise"]


def test_with_the_hooks_data_follows_a_merge(accepted: Project) -> None:
    project, web = accepted, accepted.root / "data/web"
    said = project.olmix("init", "--upgrade").out
    assert "written: git's hook post-checkout, git's hook post-merge\n" in said
    project.git("checkout", "-q", "-b", "colleague")
    write_shards(web, documents("web", version=1))
    project.dvc("add", "-q", "data/web")
    project.commit("web, filtered again")
    theirs = {path.name: path.read_bytes() for path in web.iterdir()}
    project.git("checkout", "-q", "main")
    assert {path.name: path.read_bytes() for path in web.iterdir()} != theirs
    project.git("merge", "-q", "colleague")
    assert {path.name: path.read_bytes() for path in web.iterdir()} == theirs
    # An edit that nobody has stored is not lost.
    (web / "part-00.jsonl").write_text('{"text": "mine"}\n')
    project.git("checkout", "-q", "-b", "another")
    assert (web / "part-00.jsonl").read_text() == '{"text": "mine"}\n'


def test_a_folder_that_is_gone_is_named_with_what_to_do(accepted: Project) -> None:
    (accepted.root / "data/web").rename(accepted.root / "data/pages")
    accepted.declare(web=None, pages="data/pages")
    line = (
        "data/web.dvc: its folder is gone, and params.yaml declares no such domain; run `dvc remove data/web.dvc`; if "
        "you renamed the folder, also `dvc add` the new one\n"
    )
    assert accepted.olmix("plan").out.endswith(line)
    accepted.repro()
    assert accepted.command("olmix", "accept").err == f"error: {line}"
    accepted.dvc("remove", "data/web.dvc")
    accepted.dvc("add", "-q", "data/pages")
    accepted.repro()
    accepted.olmix("accept", "--anyway")
    shutil.rmtree(accepted.root / "data/math")
    assert accepted.command("olmix", "accept").err == "error: data/math: not here; run `dvc pull`\n"
