"""Corpora that lie elsewhere: one scan, a manifest, the documents that a sample needs; the root is no identity."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import orjson
import pytest
import yaml
import zstandard

from olmix.data import corpus_scan
from olmix.data import memory as memory_module
from olmix.data import sample as sample_module
from olmix.data import scan as scan_module
from olmix.data.corpus import MANIFEST, Kept, read_corpus
from olmix.data.corpus_scan import scan_corpus
from olmix.data.manifest import prepare
from olmix.data.parallel import Readers
from olmix.data.reading import Piece, Reading
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError, OlmixError
from olmix.progress import silent
from tests.s3 import CREDENTIALS, Endpoint

BYTES = Path(__file__).parent.parent / "tokenizers" / "bytes.json"
DOCUMENTS = [f"document {k} " + "é" * (k % 5) for k in range(60)]


def lines(documents: Sequence[str], topics: Sequence[str] = ("a",)) -> bytes:
    rows = [{"text": text, "topic": topics[k % len(topics)]} for k, text in enumerate(documents)]
    return b"".join(orjson.dumps(row) + b"\n" for row in rows)


def write(root: Path, documents: Sequence[str] = DOCUMENTS, shards: int = 3) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for k in range(shards):
        (root / f"part-{k}.jsonl").write_bytes(lines(documents[k::shards]))
    return root


def scan(folder: Path, root: str | Path | None, full: bool = False, reading: Reading | None = None) -> int:
    """Scan into `folder`; how many shards were read."""
    domain = DomainSource("web", folder, reading or Reading())
    memories = folder.parent / f"{folder.name}-memories"
    return scan_corpus(domain, None if root is None else str(root), memories, 0, Readers(1), full).read


def prepared(folder: Path, limit: int = 200) -> tuple[dict[str, object], bytes]:
    places = [folder.parent / f"{folder.name}-out" / name for name in ("manifests", "tokens", "scan")]
    domain = DomainSource("web", folder)
    tokenizer = Tokenizer(BYTES, "<|endoftext|>")
    manifest = prepare(domain, tokenizer, limit, lambda _: True, Readers(1), silent, *places)["web"]
    return manifest, (places[1] / "web.npy").read_bytes()


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_corpus_elsewhere_is_the_same_domain_as_its_shards_here(tmp_path: Path) -> None:
    root = write(tmp_path / "disk")
    assert scan(tmp_path / "web", root) == 3
    shutil.copytree(root, tmp_path / "here")
    here = prepared(tmp_path / "here")
    shutil.rmtree(root)
    assert prepared(tmp_path / "web") == here, "the root is not needed to prepare"
    corpus = read_corpus(tmp_path / "web")
    found = {name: topics[""].documents for name, topics in corpus.by_shard.items()}
    assert found == {"part-0.jsonl": 20, "part-1.jsonl": 20, "part-2.jsonl": 20}


def test_the_root_is_no_part_of_the_identity(tmp_path: Path) -> None:
    write(tmp_path / "disk")
    scan(tmp_path / "web", tmp_path / "disk")
    first, before = prepared(tmp_path / "web"), files(tmp_path / "web")
    (tmp_path / "disk").rename(tmp_path / "mount")
    assert scan(tmp_path / "web", tmp_path / "mount") == 0, "a moved disk is not read again"
    assert prepared(tmp_path / "web") == first
    after = files(tmp_path / "web")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {MANIFEST}
    assert before[MANIFEST].replace(b"/disk\n", b"/mount\n") == after[MANIFEST]
    text = (tmp_path / "web" / MANIFEST).read_text().replace(str(tmp_path / "mount"), "memory://anywhere")
    (tmp_path / "web" / MANIFEST).write_text(text)
    assert prepared(tmp_path / "web") == first


def test_only_changed_shards_are_read_and_full_trusts_nothing(tmp_path: Path) -> None:
    root = write(tmp_path / "disk")
    scan(tmp_path / "web", root)
    before = files(tmp_path / "web")
    assert scan(tmp_path / "web", None) == 0
    assert files(tmp_path / "web") == before
    (root / "part-1.jsonl").write_bytes(lines(["another"]))
    (root / "part-2.jsonl").unlink()
    (root / "part-3.jsonl").write_bytes(lines(["more"]))
    assert scan(tmp_path / "web", None) == 2
    corpus = read_corpus(tmp_path / "web")
    assert corpus.content[""].documents == 22
    shard = root / "part-0.jsonl"
    stamp = shard.stat()
    shard.write_bytes(shard.read_bytes().replace(b"document 0", b"DOCUMENT 0"))
    os.utime(shard, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert scan(tmp_path / "web", None) == 0
    assert scan(tmp_path / "web", None, full=True) == 3
    assert read_corpus(tmp_path / "web").content != corpus.content


def test_the_same_documents_in_other_shards_keep_the_same_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "LEAST", 200)
    scan(tmp_path / "web", write(tmp_path / "one", shards=1))
    scan(tmp_path / "web2", write(tmp_path / "many", DOCUMENTS[::-1], shards=7))
    kept = [files(tmp_path / name / "kept") for name in ("web", "web2")]
    assert kept[0] == kept[1]
    assert read_corpus(tmp_path / "web").kept[""].documents < len(DOCUMENTS)
    with pytest.raises(
        DataError, match=r"web: too few documents were kept for a sample of 2,000,000 tokens; run `olmix"
    ):
        prepared(tmp_path / "web", 2_000_000)
    with pytest.raises(
        DataError, match=r"documents were kept for an estimate from 1,000,000 tokens; run `olmix scan web`"
    ):
        prepared(tmp_path / "web", 50)
    monkeypatch.setattr(sample_module, "ESTIMATED_FROM", 100)
    manifest, _ = prepared(tmp_path / "web", 50)
    assert (manifest["documents"], manifest["tokens_are"]) == (60, "estimate")


def test_shards_that_go_do_not_leave_too_few_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "LEAST", 200)
    root = write(tmp_path / "disk", DOCUMENTS * 3, 3)
    scan(tmp_path / "web", root)
    for name in ("part-0.jsonl", "part-1.jsonl"):
        (root / name).unlink()
    scan(tmp_path / "web", None)
    scan(tmp_path / "web2", root)
    assert files(tmp_path / "web" / "kept") == files(tmp_path / "web2" / "kept")


def test_an_interrupted_scan_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "disk")
    original = scan_module.read_piece

    def stop(piece: Piece, reading: Reading) -> object:
        if piece.shard.name == "part-2.jsonl":
            raise KeyboardInterrupt
        return original(piece, reading)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(scan_module, "read_piece", stop)
        scan(tmp_path / "web", root)
    assert not (tmp_path / "web").exists()
    assert scan(tmp_path / "web", root) == 1
    scan(tmp_path / "web2", root)
    assert files(tmp_path / "web") == files(tmp_path / "web2")


@pytest.fixture
def bucket(s3: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": s3.url}.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    yield s3.bucket("corpora")
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_a_bucket_is_read_as_a_folder_is(tmp_path: Path, bucket: str) -> None:
    write(tmp_path / "disk")
    system = fsspec.filesystem("s3")
    system.put(str(tmp_path / "disk"), f"{bucket}/web", recursive=True)
    assert scan(tmp_path / "web", f"{bucket}/web") == 3
    scan(tmp_path / "web2", tmp_path / "disk")
    assert prepared(tmp_path / "web") == prepared(tmp_path / "web2")
    assert scan(tmp_path / "web", None) == 0
    system.pipe_file(f"{bucket}/web/part-1.jsonl", lines(["another"]))
    assert scan(tmp_path / "web", None) == 1
    with pytest.raises(DataError, match=r"s3://nobucket/x: domains\.web: (no files|cannot be listed)"):
        scan(tmp_path / "web", "s3://nobucket/x")


def test_topics_of_a_corpus_are_kept_apart(tmp_path: Path) -> None:
    root = tmp_path / "disk"
    root.mkdir()
    (root / "s.jsonl").write_bytes(lines(DOCUMENTS, ("Art", "all")))
    scan(tmp_path / "web", root, reading=Reading(partition_by="topic"))
    corpus = read_corpus(tmp_path / "web")
    assert {topic: c.documents for topic, c in corpus.content.items()} == {"Art": 30, "all": 30}
    assert sorted(files(tmp_path / "web" / "kept")) == ["web-all.jsonl.zst", "web-art.jsonl.zst"]
    (root / "s.jsonl").write_bytes(lines(DOCUMENTS, ("Art",)))
    scan(tmp_path / "web", None, reading=Reading(partition_by="topic"))
    assert sorted(files(tmp_path / "web" / "kept")) == ["web-art.jsonl.zst"]


def test_what_does_not_fit_its_manifest_is_one_clear_line(tmp_path: Path) -> None:
    scan(tmp_path / "web", write(tmp_path / "disk"))
    whole = files(tmp_path / "web")
    domain = DomainSource("web", tmp_path / "web", Reading(text="body"))
    tokenizer = Tokenizer(BYTES, "<|endoftext|>")
    places = [tmp_path / name for name in ("m", "t", "s")]
    with pytest.raises(DataError, match=r"web: its settings in params\.yaml have changed"):
        prepare(domain, tokenizer, 10, lambda _: True, Readers(1), silent, *places)
    kept = tmp_path / "web/kept/all.jsonl.zst"
    kept.write_bytes(whole["kept/all.jsonl.zst"][:-9])
    with pytest.raises(
        DataError, match=r"all\.jsonl\.zst: (damaged after \d+ documents|the documents \(\d+\) are not)"
    ):
        prepared(tmp_path / "web", 10**6)
    scan(tmp_path / "web3", write(tmp_path / "other", DOCUMENTS[1:]))
    shutil.copy(tmp_path / "web3/kept/all.jsonl.zst", kept)
    with pytest.raises(
        DataError, match=r"the documents \(59\) are not the 60 that manifest\.yaml lists; run `dvc checkout`"
    ):
        prepared(tmp_path / "web", 10**6)
    kept.unlink()
    with pytest.raises(DataError, match=r"all\.jsonl\.zst: no such file; run `dvc pull`, or `olmix scan web`"):
        prepared(tmp_path / "web")
    assert not any(path.exists() for path in places[:2])


def test_kept_documents_in_another_order_are_refused(tmp_path: Path) -> None:
    """The same bag, and so the same digest, but another sample."""
    scan(tmp_path / "web", write(tmp_path / "disk"))
    path = tmp_path / "web/kept/all.jsonl.zst"
    rows = zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes()).splitlines(keepends=True)
    prepared(tmp_path / "web")
    for k in (1, 30, len(rows) - 1):
        swapped = [*rows[: k - 1], rows[k], rows[k - 1], *rows[k + 1 :]]
        path.write_bytes(zstandard.compress(b"".join(swapped)))
        with pytest.raises(
            DataError, match=rf"all\.jsonl\.zst: the documents \({k}\) are not the 60 that manifest\.yaml"
        ):
            prepared(tmp_path / "web")


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "root: x",
        "root: !!python/object/apply:os.system ['true']",
        "a: 1\na: 2",
        "root: x\ncontent: {all: 3}",
        "{",
    ],
)
def test_a_manifest_of_somebody_else_is_one_clear_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / MANIFEST).write_text(content)
    with pytest.raises(OlmixError, match=r"manifest\.yaml") as error:
        prepared(tmp_path / "web")
    assert "\n" not in str(error.value)


def test_the_manifest_is_yaml_that_reads_well(tmp_path: Path) -> None:
    scan(tmp_path / "web", write(tmp_path / "disk"))
    text = (tmp_path / "web" / MANIFEST).read_text()
    content = yaml.safe_load(text)
    assert content["root"] == str(tmp_path / "disk")
    assert content["content"]["all"]["documents"] == 60
    assert text.startswith("# A corpus that lies elsewhere. `olmix scan web`")
    assert text.splitlines()[-3].startswith("  part-0.jsonl,")


def test_a_scan_never_touches_what_it_did_not_write(tmp_path: Path) -> None:
    own = write(tmp_path / "web")
    before = files(own)
    for root, message in (
        (own, r"web: overlaps the domain's own folder, .*/web; use another root or folder"),
        (write(tmp_path), r"overlaps the domain's own folder, .*/web"),
        (
            write(tmp_path / "disk"),
            r"part-0\.jsonl: the folder of a scanned corpus may contain only manifest\.yaml and",
        ),
    ):
        with pytest.raises(DataError, match=message):
            scan(own, root)
        assert files(own) == before
    (tmp_path / "web2/kept").mkdir(parents=True)
    (tmp_path / "web2/kept/good.jsonl.zst").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"kept/good\.jsonl\.zst: domains\.web: the folder of a scanned corpus"):
        scan(tmp_path / "web2", tmp_path / "disk")
    assert files(tmp_path / "web2") == {"kept/good.jsonl.zst": b"mine"}


def test_a_scan_that_fails_while_it_writes_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "disk")
    (tmp_path / "web").mkdir()

    def fail(*_: object) -> None:
        raise DataError("manifest.yaml: cannot be written: No space left on device")

    for _ in range(2):
        before = files(tmp_path / "web")
        with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left"):
            patch.setattr(corpus_scan, "write_bytes", fail)
            scan(tmp_path / "web", root)
        assert files(tmp_path / "web") == before
        scan(tmp_path / "web", root)
        write(root, [*DOCUMENTS, "one more"])


def test_a_kill_between_the_manifest_and_the_documents_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(tmp_path / "disk")
    scan(tmp_path / "web", root)
    write(root, [*DOCUMENTS, "one more"])

    class KilledError(BaseException):
        pass

    def die(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Path, "replace", die)
        patch.setattr(corpus_scan, "write_bytes", lambda path, content: path.write_bytes(content))
        patch.setattr(corpus_scan, "_write_kept", lambda *_: Kept(61, 7))
        scan(tmp_path / "web", root)
    with pytest.raises(DataError, match=r"the documents \(60\) are not the 61 that manifest\.yaml"):
        prepared(tmp_path / "web", 5)
    scan(tmp_path / "web", root)
    prepared(tmp_path / "web", 5)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("documents: 60", "documents: 6000"),
        ("documents: 60", "documents: 0"),
        ("documents: 60", "documents: -60"),
        ("documents: 60", "documents: 60.0"),
        ("bytes: ", "bytes: 1"),
        ("bytes: ", "bytes: many # "),
        ("tokens: 0", "tokens: true"),
        ("part-1.jsonl,", "part-1.jsonl,9,"),
        (",20,", ",21,"),
        ("content:\n  all:", "content: {}\nmore:\n  all:"),
        ("  part-2.jsonl", "<<<<<<< HEAD\n  part-2.jsonl"),
    ],
)
def test_an_edited_manifest_is_one_clear_line(tmp_path: Path, old: str, new: str) -> None:
    scan(tmp_path / "web", write(tmp_path / "disk"))
    path = tmp_path / "web" / MANIFEST
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(OlmixError, match=r"manifest\.yaml") as error:
        prepared(tmp_path / "web")
    assert "\n" not in str(error.value)
    with pytest.raises(OlmixError, match=r"manifest\.yaml"):
        read_corpus(tmp_path / "web")


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        (
            ("Art", "art"),
            r"sources\.web\.names: topic 'art' and topic 'Art' would both become the domain web-art; give it",
        ),
        (("数学",), r"topic '数学' has no letter of a-z or digit"),
        (
            ("a" * 61,),
            r"sources\.web\.names: topic 'a{40}' would become the domain web-a{61}, a name of more than 64 char",
        ),
        (
            ("a\x07b",),
            r"s\.jsonl:1: sources\.web: field 'topic' of partition_by has 'a\\x07b', which does not name a topic",
        ),
        (
            ("a\u2028b",),
            r"s\.jsonl:1: sources\.web: field 'topic' of partition_by has 'a\\u2028b', which does not name a topic",
        ),
    ],
)
def test_topics_that_name_no_domain_end_the_scan_before_it_writes(
    tmp_path: Path, topics: Sequence[str], message: str
) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/s.jsonl").write_bytes(lines(DOCUMENTS, topics))
    with pytest.raises(DataError, match=message):
        scan(tmp_path / "web", tmp_path / "disk", reading=Reading(partition_by="topic"))
    assert not (tmp_path / "web").exists()


def test_a_topic_as_long_as_a_name_may_be_is_a_domain_and_a_longer_one_can_be_named(tmp_path: Path) -> None:
    domain = DomainSource("web", tmp_path, Reading(partition_by="topic"), names={"b" * 200: "short"})
    assert domain.domain_names(["a" * 60, "b" * 200]) == {"a" * 60: "web-" + "a" * 60, "b" * 200: "web-short"}


def test_a_shard_that_where_leaves_empty_has_a_row(tmp_path: Path) -> None:
    root = write(tmp_path / "disk")
    (root / "none.jsonl").write_bytes(lines(["left out"], ("b",)))
    reading = Reading(where=(("topic", ("a",)),))
    scan(tmp_path / "web", root, reading=reading)
    corpus = read_corpus(tmp_path / "web")
    assert corpus.by_shard["none.jsonl"] == {}
    assert corpus.content[""].documents == 60


def test_a_file_url_is_looked_at_as_a_file(tmp_path: Path) -> None:
    root = write(tmp_path / "disk")
    assert scan(tmp_path / "web", f"file://{root}") == 3
    assert scan(tmp_path / "web", None) == 0
    shard = root / "part-1.jsonl"
    stamp = shard.stat()
    other = tmp_path / "other"
    other.write_bytes(shard.read_bytes().replace(b"document", b"DOCUMENT"))
    os.utime(other, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    other.replace(shard)
    assert scan(tmp_path / "web", None) == 1


def test_a_web_server_is_read_and_trusted_as_far_as_it_says(tmp_path: Path) -> None:
    root = write(tmp_path / "disk")
    handler = partial(SimpleHTTPRequestHandler, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        assert scan(tmp_path / "web", url) == 3
        scan(tmp_path / "web2", root)
        assert read_corpus(tmp_path / "web").content == read_corpus(tmp_path / "web2").content
        server.shutdown()
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:\d+/: "):
        scan(tmp_path / "web", url)
