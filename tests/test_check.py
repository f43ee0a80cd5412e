"""`olmix check`: every kind of difference is found, with its cost, and nothing where there is none."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from olmix.cli.check import CheckResult, check
from olmix.cli.scan import scan_entries
from olmix.config.params import load_params
from olmix.data import audit, parallel
from olmix.data.audit import Bound, audit_shards, copies
from olmix.data.manifest import prepare
from olmix.data.parallel import Readers
from olmix.data.reading import Reading
from olmix.data.shards import list_shards
from olmix.progress import silent
from tests.project import HERE, Project, documents, write_shards, write_task
from tests.token_arrays import write_megatron


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project.create(tmp_path_factory.mktemp("check") / "project")


@pytest.fixture
def project(template: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose domains are prepared and whose texts share nothing."""
    copy = template.copy(tmp_path / "project")
    for name in ("code", "junk", "math", "web"):
        texts = dict.fromkeys(f"{k} {text}" for k, text in enumerate(documents(name)))
        write_shards(copy.root / f"data/{name}", list(texts))
    monkeypatch.chdir(copy.root)
    prepare_all()
    return copy


def prepare_all() -> None:
    params = load_params(HERE)
    tokenizer = params.load_tokenizer()
    for name in params.entries:
        prepare(
            params.entry(name, tokenizer),
            tokenizer,
            1000,
            lambda _: True,
            Readers(1),
            silent,
            HERE.manifests,
            HERE.tokens,
            HERE.memories,
        )


def found(checked: CheckResult) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.kind, finding.domain) for finding in checked.findings]


def rewrite(path: Path, content: bytes) -> None:
    """Another content under the same size, time and inode: what a bad disk does."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_nothing_is_found_where_nothing_is_wrong(project: Project) -> None:
    ran = project.olmix("check")
    assert ran.out.startswith("re-read 8 shards with 480 documents; searched them for 59 passages of tasks") or (
        "nothing found" in ran.out
    )
    assert ran.out.rstrip().endswith("nothing found")
    content = json.loads(project.olmix("check", "--json", "web").out)
    assert content["findings"] == []
    assert (content["checked"]["shards"], content["checked"]["documents"]) == (2, 120)


def test_a_silent_change_is_an_error_and_a_new_version_a_warning(project: Project) -> None:
    shard = project.root / "data/web/part-00.jsonl"
    rewrite(shard, shard.read_bytes().replace(b"people", b"PEOPLE"))
    write_shards(project.root / "data/math", [f"{k} new" for k in range(7)])
    checked = check(HERE, (), 1)
    assert found(checked) == [
        ("error", "silent-change", "web"),
        ("warning", "stale", "math"),
        ("warning", "stale", "web"),
    ]
    assert "part-00.jsonl: changed though its size, time and inode did not (60 documents)" in checked.to_text()
    assert "(120 documents, now 7); `dvc repro` will prepare math again" in checked.to_text()
    assert project.command("olmix", "check").code == 2
    assert project.command("olmix", "check", "math").code == 0


def test_what_cannot_be_read_does_not_hide_the_rest(project: Project) -> None:
    web = project.root / "data/web"
    (web / "part-00.jsonl").write_bytes((web / "part-00.jsonl").read_bytes()[:-20])
    shutil.copy(web / "part-01.jsonl", project.root / "data/junk/copy.jsonl")
    shutil.rmtree(project.root / "data/math")
    checked = check(HERE, (), 1)
    assert [finding.kind for finding in checked.findings if finding.severity == "error"] == ["unreadable", "unreadable"]
    texts = checked.to_text()
    assert "data/math: no such folder" in texts
    assert "part-00.jsonl:60: not JSON" in texts and "; 60 documents were read there before" in texts
    assert "data/junk/copy.jsonl = data/web/part-01.jsonl: the same 60 documents, counted 2 times" in texts
    assert "junk, web: 60 documents in both (33.33% of junk, 100.00% of web)" in texts


def test_copies_and_contamination_are_warnings_with_counts(project: Project) -> None:
    texts = [f"a document of its own, number {k}" for k in range(50)]
    evaluation = ["this passage is what a task asks for, word for word, number " + str(k) for k in range(4)]
    write_task(project.root / "data/tasks/web-task.jsonl", [*evaluation, "too short"])
    write_shards(
        project.root / "data/web",
        [*texts, *texts[:10], *texts[:10], f"before. {evaluation[0]} and after", f"{evaluation[0]} {evaluation[1]}"],
    )
    write_shards(project.root / "data/code", [*(f"code {k}" for k in range(20)), *texts[:5]])
    prepare_all()
    project.params = {**project.params, "descriptions": {}}
    checked = check(HERE, (), 1)
    assert not checked.failed
    numbers = {(f.kind, f.domain): f.numbers for f in checked.findings}
    assert numbers["duplicates", "web"] == {"documents": 20, "of": 72}
    assert numbers["shared-documents", "code"] == {"other": "web", "documents": 5}
    expected = {"task": "web-task", "passages": 2, "of": 4, "documents": 2}
    assert numbers["contamination", "web"] == expected
    assert checked.short >= 1
    assert project.command("olmix", "check").code == 0


def test_many_findings_of_a_kind_are_some_lines_and_all_of_the_json(project: Project) -> None:
    for k in range(30):
        (project.root / f"data/web/same-{k}.jsonl").write_text(json.dumps({"text": f"a text {k}"}) + "\n")
        shutil.copy(project.root / f"data/web/same-{k}.jsonl", project.root / f"data/junk/copy-{k}.jsonl")
    checked = check(HERE, (), 1)
    lines = [line for line in checked.to_text().splitlines() if " = " in line]
    assert len(lines) == 20
    assert "warning: 10 more of this kind; use --json to see all" in checked.to_text()
    assert sum(f["kind"] == "duplicate-shard" for f in checked.to_json()["findings"]) == 30


def test_a_corpus_elsewhere_is_held_against_its_manifest(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "disk"
    shutil.move(project.root / "data/web", root)
    for k in range(3):
        (root / f"more-{k}.jsonl").write_text(json.dumps({"text": f"more {k} and more"}) + "\n")
    scan_entries(HERE, ["web"], str(root), full=False, workers=1)
    assert found(check(HERE, ["web"], 1)) == []
    shard = root / "part-00.jsonl"
    shard.write_bytes(b"".join(shard.read_bytes().splitlines(keepends=True)[:30]))
    (root / "part-01.jsonl").unlink()
    rewrite(root / "more-0.jsonl", (root / "more-0.jsonl").read_bytes().upper().replace(b"TEXT", b"text"))
    (root / "more-1.jsonl").write_text('{"text": "longer than it was before, by far"}\n')
    (root / "new.jsonl").write_text('{"text": "new"}\n')
    kept = project.root / "data/web/kept/all.jsonl.zst"
    kept.write_bytes(kept.read_bytes()[:-5])
    checked = check(HERE, ["web"], 1)
    assert [(f.severity, f.kind, f.numbers.get("shard")) for f in checked.findings] == [
        ("error", "silent-change", "more-0.jsonl"),
        ("error", "changed", "more-1.jsonl"),
        ("error", "truncated", "part-00.jsonl"),
        ("error", "missing", "part-01.jsonl"),
        ("error", "kept", None),
        ("warning", "new-shard", "new.jsonl"),
    ]
    assert "60 documents, now 30; the domain changes with the next `olmix scan web`" in checked.to_text()


def test_shards_that_only_moved_are_a_warning_and_other_settings_say_so(project: Project, tmp_path: Path) -> None:
    root = tmp_path / "disk"
    shutil.move(project.root / "data/web", root)
    (root / "none.jsonl").write_text('{"text": "left out", "kind": "d"}\n')
    for path in root.glob("part-*"):
        path.write_bytes(path.read_bytes().replace(b'{"text"', b'{"kind": "b", "text"'))
    params = project.params
    params["domains"]["web"]["where"] = {"kind": ["b", "c"]}
    project.params = params
    scan_entries(HERE, ["web"], str(root), full=False, workers=1)
    assert found(check(HERE, ["web"], 1)) == []
    params["domains"]["web"]["where"] = {"kind": ["c", "b"]}
    project.params = params
    assert found(check(HERE, ["web"], 1)) == []
    (root / "none.jsonl").rename(root / "some.jsonl")
    (root / "part-00.jsonl").rename(root / "part-99.jsonl")
    checked = check(HERE, ["web"], 1)
    assert found(checked) == [("warning", "moved", "web")]
    assert "data/web: shards were renamed, or documents moved between them; the domain is the same" in checked.to_text()
    params["domains"]["web"]["where"] = {"kind": "b"}
    project.params = params
    checked = check(HERE, ["web"], 1)
    assert found(checked) == [("error", "unreadable", "web")]
    assert "its settings in params.yaml have changed since the scan" in checked.to_text()


def test_token_arrays_say_that_they_are_not_searched(project: Project) -> None:
    shutil.rmtree(project.root / "data/web")
    write_megatron(project.root / "data/web/w.bin", [[1, 2, 3], [4], [1, 2, 3]], 256)
    write_task(
        project.root / "data/tasks/web-task.jsonl", ["a passage that is long enough to be looked for: " + "x" * 30]
    )
    checked = check(HERE, ["web"], 1)
    assert ("warning", "duplicates", "web") in found(checked)
    assert checked.to_text().endswith("Token arrays were not searched for text of tasks: web")
    ids = '{"prompt": [1], "continuation": [2], "bytes": 1}\n'
    (project.root / "data/tasks/web-task.jsonl").write_text(ids)
    checked = check(HERE, ["web"], 1)
    assert checked.without_text == ("web-task",)
    assert "Tasks without text here were not searched for: web-task" in checked.to_text()
    project.params = {**project.params, "proxy": {**project.params["proxy"], "external": True}}
    assert check(HERE, ["web"], 1).without_text == ("code-task", "math-task", "web-task")


def test_topics_are_domains_to_the_check(project: Project) -> None:
    rows = [{"text": f"text {k % 30}", "topic": ("a", "b")[k % 2]} for k in range(60)]
    (project.root / "data/web/part-00.jsonl").unlink()
    (project.root / "data/web/part-01.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = project.params
    params["domains"].pop("web")
    params["sources"] = {"web": {"path": "data/web", "partition_by": "topic"}}
    project.params = params
    assert [f.domain for f in check(HERE, ["web"], 1).findings if f.kind == "duplicates"] == ["web-a", "web-b"]


def test_estimates_are_near_and_do_not_depend_on_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MOST", 4_000)
    texts = {"a": [f"{k}" for k in range(10_000)], "b": [f"{k}" for k in range(5_000, 20_000)]}
    texts["a"] += texts["a"][:2_000]
    for name, lines in texts.items():
        write_shards(tmp_path / name, lines, 3)
    results = []
    for order in ("ab", "ba"):
        bound, hashes = Bound(4_000), {}
        for name in order:
            shards = list_shards(tmp_path / name, lambda _: True)
            hashes[name] = audit_shards(shards, Reading(), [], bound, Readers(1), silent)[1].hashes[""]
        assert bound.of == 8
        results.append(copies(hashes, bound.value))  # type: ignore[arg-type]
    assert results[0] == results[1]
    within, shared = results[0]
    assert within["a"] * 8 == pytest.approx(2_000, rel=0.15)
    assert within["b"] == 0
    assert shared["a", "b"] * 8 == pytest.approx(5_000, rel=0.1)


def test_processes_examine_as_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "a", [f"text {k} é " + "x" * 60 for k in range(300)], 3)
    shards = list_shards(tmp_path / "a", lambda _: True)
    alone = audit_shards(shards, Reading(), ["text 7 é"], Bound(), Readers(1), silent)
    monkeypatch.setattr(parallel, "ALONE", 0)
    monkeypatch.setattr(parallel, "PIECE", 2_000)
    with Readers(2) as readers:
        together = audit_shards(shards, Reading(), ["text 7 é"], Bound(), readers, silent)
    assert alone[1].content == together[1].content
    assert alone[1].passages == together[1].passages == {"": {0: 1}}
    sort = [np.sort(np.concatenate(whole.hashes[""])) for whole in (alone[1], together[1])]
    assert np.array_equal(*sort)
