"""`olmix init`: a project that runs at once, from folders of text as they are, and its upgrade."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import pytest
import yaml
import zstandard

from olmix.cli import init as init_module
from olmix.cli.init import TEMPLATE, file_digest, managed_files
from olmix.core.digest import MODULUS, document_digest, to_hex
from olmix.data.tokenizer import Tokenizer
from olmix.errors import ConfigError, DataError
from olmix.files import read_json
from olmix.project import Project as Places
from tests.project import REPOSITORY, Project, documents, write_shards


def corpora(root: Path) -> dict[str, list[str]]:
    """Four folders of text in four formats, with fields and names as people have them."""
    texts = {name: documents(kind, 120) for name, kind in (("Web Pages", "web"), ("code", "code"), ("math", "math"))}
    texts["notes"] = documents("web", 40, version=5)
    for name in texts:
        (root / name).mkdir(parents=True)
    rows = [{"id": str(k), "content": text} for k, text in enumerate(texts["Web Pages"])]
    with gzip.open(root / "Web Pages" / "a.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    pl.DataFrame({"lang": ["py"] * 120, "text": texts["code"]}).write_parquet(root / "code" / "x.parquet")
    lines = "".join(json.dumps({"body": text}) + "\n" for text in texts["math"])
    (root / "math" / "m.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    for k, text in enumerate(texts["notes"]):
        (root / "notes" / f"{k}.txt").write_text(text)
    (root / "notes" / ".DS_Store").write_text("")
    return texts


def test_from_folders_of_text_to_a_mixture(tmp_path: Path) -> None:
    texts = corpora(tmp_path / "corpora")
    before = {path: path.read_bytes() for path in (tmp_path / "corpora").rglob("*") if path.is_file()}
    said = Project(tmp_path).olmix("init", "mixes", "--from", "corpora").out
    assert [line.split()[:2] for line in said.splitlines()[1:5]] == [
        ["code", "parquet"], ["math", "jsonl.zst"], ["notes", "txt"], ["web-pages", "jsonl.gz"],
    ]  # fmt: skip
    assert before == {path: path.read_bytes() for path in (tmp_path / "corpora").rglob("*") if path.is_file()}
    project = Project(tmp_path / "mixes")
    params = project.params
    assert params["domains"] == {
        "code": {"path": "data/code"},
        "math": {"path": "data/math", "text": "body"},
        "notes": {"path": "data/notes"},
        "web-pages": {"path": "data/web-pages", "text": "content"},
    }
    written = (project.root / "params.yaml").read_text()
    assert not [word for word in ("cpp", "doctest", "stdlib", "sample", "code: 1") if word in written]
    # What is held out is in no domain, and nothing else has gone.
    project.olmix("plan")
    dataset = {path.stem: read_json(path) for path in project.places.planned.glob("manifests/*.json")}
    for name, original in {"code": "code", "math": "math", "notes": "notes", "web-pages": "Web Pages"}.items():
        lines = (project.root / f"data/tasks/{name}-held-out.jsonl").read_text().splitlines()
        asked = [json.loads(line)["continuation"] for line in lines]
        assert len(asked) == 10
        held_out = {text for text in texts[original] if any(text.startswith(start) for start in asked)}
        assert len(held_out) == 10
        left = [text for text in texts[original] if text not in held_out]
        digest = to_hex(sum(document_digest(text.encode()) for text in left) % MODULUS)
        assert dataset[name]["digest"] == digest
    checked = project.command("olmix", "check")
    assert checked.code == 0, checked.out
    assert "nothing found" in checked.out
    # It runs; with a smaller proxy than a person would want to wait for in a test.
    params["proxy"] |= {
        "size": {"layers": 1, "heads": 2, "width": 32, "hidden": 48}, "sequence_length": 32, "tokens": 8_192,
    }  # fmt: skip
    params["fit"]["replicates"], params["validate"]["seeds"] = 8, 1
    project.params = params
    project.repro()
    assert set(project.weights()) == set(params["domains"])
    project.commit("first mixture")
    assert project.git("status", "--short") == ""
    ignored = (project.root / ".gitignore").read_text().split()
    assert {"/build/", "/.olmix/", "/fit/", "/sweep/"} <= set(ignored)


def test_a_project_is_not_laid_over_another(tmp_path: Path) -> None:
    corpora(tmp_path / "corpora")
    shutil.rmtree(tmp_path / "corpora" / "notes")
    project = Project(tmp_path)
    (tmp_path / "mixes").mkdir()
    (tmp_path / "mixes/params.yaml").write_text("mine")
    ran = project.command("olmix", "init", "mixes", "--from", "corpora")
    assert (ran.code, ran.err) == (
        1,
        "error: mixes/params.yaml: already exists; choose another folder, or run `olmix init --upgrade` to upgrade a "
        "project\n",
    )
    assert sorted(path.name for path in (tmp_path / "mixes").iterdir()) == ["params.yaml"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/x.txt": "one"}, "a mixture needs at least two domains; give more folders: --from A --from B"),
        ({"a/x.txt": "one", "b/y.txt": "two"}, "a: only 1 document (a text file is one document); give it 20 or more"),
        ({"a/x.npy": "0", "b/y.txt": "two"}, "a: token ids; tasks can only be made from text; give a folder of text"),
        ({"a/x.jsonl": '{"n": 1}\n', "b/y.txt": ""}, "a/x.jsonl: the first document has no field with text"),
        ({"a/x.jsonl": "nonsense\n", "b/y.txt": ""}, "a/x.jsonl: not JSON: "),
        ({"a/x.txt": "", "A/y.txt": ""}, "a: the name a is already taken; rename the folder"),
    ],
)
def test_what_is_no_corpus_is_said_before_anything_is_written(
    files: dict[str, str], message: str, tmp_path: Path
) -> None:
    for name, content in files.items():
        path = tmp_path / "corpora" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with pytest.raises((ConfigError, DataError)) as raised:
        init_module.init(Places(tmp_path / "mixes"), [tmp_path / "corpora"], lambda _: None)
    assert message in str(raised.value)
    assert not (tmp_path / "mixes").exists()


def test_the_sample_is_laid_as_the_repository_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from olmix.sample_corpus import build

    whole = build.build
    monkeypatch.setattr(build, "build", lambda out: whole(out, scale=0.02))
    init_module.init(Places(tmp_path / "demo"), [], lambda _: None)
    for name in (
        "params.yaml",
        "dvc.yaml",
        "runtime.yaml",
        *(f"stages/{p.name}" for p in REPOSITORY.glob("stages/*.py")),
    ):
        assert (tmp_path / "demo" / name).read_bytes() == (REPOSITORY / name).read_bytes(), name
    tracked = {path.stem for path in (tmp_path / "demo/data").glob("*.dvc")}
    assert tracked == {path.stem for path in (REPOSITORY / "data").glob("*.dvc")}
    plan = Project(tmp_path / "demo").command("olmix", "plan")
    assert "target: 8,000,000 tokens cannot be drawn" in plan.err  # from a fiftieth of the sample


def test_an_upgrade_replaces_what_olmix_wrote_and_says_what_was_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    files = managed_files()
    project.write("params.yaml", "domains: {}\n")
    for name, content in files.items():
        project.write(name, content.decode())
    said = project.olmix("init", "--upgrade").out
    assert said == "written: .gitattributes, mixtures/sketches.jsonl\n"  # which every stage plan reads
    assert project.olmix("init", "--upgrade").out == "up to date: nothing to write\n"
    known = orjson.loads((TEMPLATE / "known.json").read_bytes())
    assert all(file_digest(content) in known[name] for name, content in files.items()), "run make docs"
    # As an earlier olmix wrote it, missing, and edited by hand.
    monkeypatch.setattr(init_module, "managed_files", lambda: files | {"dvc.yaml": b"stages: {}\n"})
    assert list(init_module.upgrade(Places(tmp_path), force=False).written) == ["dvc.yaml"]
    monkeypatch.undo()
    (tmp_path / "dvc.yaml").write_bytes(files["dvc.yaml"])
    (tmp_path / "stages/keys.py").unlink()
    edited = files["stages/train.py"] + b"# ours\n"
    project.write("stages/train.py", edited.decode())
    said = project.olmix("init", "--upgrade").out
    assert "written: stages/keys.py" in said
    assert "left alone because they were edited: stages/train.py" in said
    assert "-# ours" in said
    assert (tmp_path / "stages/train.py").read_bytes() == edited
    project.olmix("init", "--upgrade", "--force")
    assert {name: (tmp_path / name).read_bytes() for name in files} == files
    assert yaml.safe_load((tmp_path / "params.yaml").read_text()) == {"domains": {}}


def test_a_tokeniser_is_learnt_from_what_the_domains_are(tmp_path: Path) -> None:
    corpora(tmp_path / "corpora")
    Project(tmp_path).olmix("init", "mixes", "--from", "corpora")
    project = Project(tmp_path / "mixes")
    rows = [
        {"text": "kakapo " * 30, "lang": "en", "topic": "birds"},
        {"text": "quetzal " * 30, "lang": "de", "topic": "birds"},  # left out by `where`
        {"text": "wombat " * 30, "lang": "en", "topic": "beasts"},
    ]
    project.write("data/zoo/a.jsonl", "".join(json.dumps(row | {"n": k}) + "\n" for k in range(9) for row in rows))
    (project.root / "data/ids").mkdir()
    np.save(project.root / "data/ids/a.npy", np.array([5, 6, 256] * 9, dtype=np.uint16))
    params = project.params
    params["sources"] = {"zoo": {"path": "data/zoo", "partition_by": "topic", "where": {"lang": "en"}}}
    params["domains"]["ids"] = {"path": "data/ids"}
    params["domains"].pop("notes")
    project.params = params
    said = project.olmix("tokenizer", "--vocab", "700", "--out", "tokenizers/700.json").out
    assert said.startswith("tokenizers/700.json: 363 tokens (not 700: the text has no more), learned from ")
    assert said.endswith("of 4 entries\nnot read, because they contain token ids: ids\n")
    said = project.olmix("tokenizer", "--vocab", "30k").out
    assert "tokens (not 30,000: the text has no more), learned from" in said
    assert "; the next `dvc repro` counts the tokens again\n" in said
    tokenizer = Tokenizer(project.root / "tokenizers/700.json", "<|endoftext|>")
    counts = {word: len(tokenizer.encode([f" {word}"])[0]) for word in ("kakapo", "wombat", "quetzal")}
    assert counts["kakapo"] == counts["wombat"] == 1
    assert counts["quetzal"] > 2
    first = (project.root / "tokenizers/700.json").read_bytes()
    project.olmix("tokenizer", "--vocab", "700", "--out", "tokenizers/700.json")
    assert (project.root / "tokenizers/700.json").read_bytes() == first
    ran = project.command("olmix", "tokenizer", "--vocab", "99")
    assert (ran.code, ran.err) == (
        1,
        "error: --vocab: 99 tokens are too few; ask for 257 or more: 256 bytes and the token that ends a document\n",
    )


def test_names_that_yaml_reads_otherwise_are_domains_too(tmp_path: Path) -> None:
    for name in ("1e5", "no", "010", "null", "size"):
        write_shards(tmp_path / "text" / name, [f"{name} {k} {text}" for k, text in enumerate(documents("web", 30))])
    (tmp_path / "text/README.md").write_text("Folders of text.\n")  # is no shard
    project = Project(tmp_path / "a b")
    said = Project(tmp_path).olmix("init", "a b", "--from", "text").out
    assert "Next: `cd 'a b'`" in said
    assert project.plan()["affected"] == ["010", "1e5", "no", "null", "size"]
    assert project.expect("dvc", "status", "prepare@1e5").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("init", "file"), "file: not a folder; choose another one"),
        (("init", "file/x"), "file/x: no folder can be made here: Not a directory"),
        (("init", "new", "--from", "file"), "file: a file; give its folder"),
        (("init", "new", "--from", "nowhere"), "nowhere: no such folder"),
        (("init", "new", "--from", "empty"), "empty: an empty folder; give a folder of text"),
        (("init", "new", "--from", "web", "--from", "web"), "web: given twice; give it once"),
        (("-C", "nowhere", "plan"), "nowhere: no such folder"),
        (("show",), "params.yaml: no such file; run olmix in the root of the project"),
        (("accept",), "params.yaml: no such file; run olmix in the root of the project"),
        (("diff",), "params.yaml: no such file; run olmix in the root of the project"),
        (("plan", "x"), "Got unexpected extra argument (x); see `olmix plan --help`"),
    ],
)
def test_a_mistake_before_there_is_a_project_is_one_line(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "file").write_text("text\n")
    (tmp_path / "empty").mkdir()
    write_shards(tmp_path / "web", documents("web", 30))
    ran = Project(tmp_path).command("olmix", *words)
    assert (ran.code, ran.err.splitlines()[-1]) == (1, f"error: {message}")
    assert not (tmp_path / "new").exists()


def test_what_one_domain_holds_out_is_in_no_other(tmp_path: Path) -> None:
    common = documents("web", 40)
    write_shards(tmp_path / "a", [*common, *documents("web", 40, 1)])
    write_shards(tmp_path / "b", [*common, *documents("code", 40)])
    (tmp_path / "single").mkdir()
    for k, text in enumerate(documents("math", 30)):  # a document a file: none is left empty
        (tmp_path / f"single/{k}.jsonl").write_text(json.dumps({"text": text}) + "\n")
    project = Project(tmp_path / "p")
    Project(tmp_path).olmix("init", "p", "--from", "a", "--from", "b", "--from", "single")
    left = [
        json.loads(line)["text"]
        for path in (project.root / "data").glob("*/*.jsonl")
        if path.parent.name != "tasks"
        for line in path.read_text().splitlines()
    ]
    asked = [
        json.loads(line)["continuation"]
        for path in (project.root / "data/tasks").glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(asked) == 30
    assert not [text for text in left if any(text.startswith(start) for start in asked)]
    assert len(list((project.root / "data/single").glob("*.jsonl"))) == 20
    write_shards(tmp_path / "same", ["one and the same"] * 60)
    ran = Project(tmp_path).command("olmix", "init", "q", "--from", "a", "--from", "same")
    assert ran.err.endswith(
        "error: same: only 1 of 60 documents have text and differ; give it 20 or more, so that some can be held out\n"
    )
