"""The memory of a domain's shards: the lowest hashes that a budget holds, and nothing of what is gone."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import tracemalloc
from functools import partial
from pathlib import Path

import pytest

from olmix.core.digest import document_digest
from olmix.data import memory as memory_module
from olmix.data.content import NO_TOPIC, Content
from olmix.data.corpus_scan import scan_corpus
from olmix.data.memory import HASH_BYTES, DamagedMemoryError, HashedDocument, Memory, read_again_if_damaged, recorded
from olmix.data.parallel import Readers
from olmix.data.shards import KINDS, Shard
from olmix.data.source import DomainSource
from olmix.errors import DataError


def shard(name: str, stamp: str = "1") -> Shard:
    return Shard(name, name, 10, stamp, KINDS["jsonl"])


def kept(documents: list[bytes], topic: str = NO_TOPIC) -> list[HashedDocument]:
    return [(topic, document_digest(document).to_bytes(HASH_BYTES), document) for document in documents]


def lowest(documents: list[bytes]) -> list[bytes]:
    return sorted(documents, key=document_digest)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "LEAST", 0)


@pytest.mark.usefixtures("small")
def test_the_lowest_hashes_stay_in_whatever_order_they_come(tmp_path: Path) -> None:
    documents = [f"document {k}".encode() for k in range(1000)]
    results = []
    for seed in range(3):
        random.Random(seed).shuffle(documents)
        with Memory(tmp_path / f"{seed}.sqlite", "way", 2_000) as memory:
            key = memory.begin(shard("a"))
            for k in range(0, 1000, 50):
                memory.keep(key, kept(documents[k : k + 50]))
            memory.finish(key, {NO_TOPIC: Content(1, 1000, 1)})
            found = list(memory.documents())
            assert memory.is_full(NO_TOPIC) and not memory.is_complete(NO_TOPIC)
            assert found == lowest(documents)[: len(found)]
            assert 2_000 <= sum(map(len, found)) <= 4_000
            assert all(document_digest(document) < memory.bounds()[NO_TOPIC] for document in found)
            results.append(found)
    shortest = min(map(len, results))
    assert results[0][:shortest] == results[1][:shortest] == results[2][:shortest]


@pytest.mark.usefixtures("small")
def test_copies_of_a_document_are_kept_or_dropped_together(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.sqlite", "way", 100) as memory:
        key = memory.begin(shard("a"))
        memory.keep(key, kept([b"the same line"] * 500))
        assert len(list(memory.documents())) == 500
        memory.keep(key, kept([f"other {k}".encode() for k in range(500)]))
        found = list(memory.documents())
        assert found.count(b"the same line") in (0, 500)
        assert found == sorted(found, key=document_digest)


@pytest.mark.usefixtures("small")
def test_topics_have_a_budget_each(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.sqlite", "way", 300) as memory:
        key = memory.begin(shard("a"))
        memory.keep(key, kept([f"a {k}".encode() for k in range(500)], "a") + kept([b"b 1", b"b 2"], "b"))
        assert set(memory.bounds()) == {"a"}
        assert memory.is_complete("b") and not memory.is_complete("a")
        assert sorted(memory.documents("b")) == [b"b 1", b"b 2"]


def test_a_changed_shard_is_forgotten_with_its_documents(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with Memory(path, "way", 100) as memory:
        for name in "ab":
            key = memory.begin(shard(name))
            memory.keep(key, kept([name.encode()]))
            memory.finish(key, {NO_TOPIC: Content(7, 1, 1)})
        memory.begin(shard("unfinished"))
    with Memory(path, "way", 100) as memory:
        known = memory.known([shard("a"), shard("b", "2"), shard("unfinished")])
        assert known == {"a": {NO_TOPIC: Content(7, 1, 1)}}
        memory.keep_only(known)
        assert list(memory.documents()) == [b"a"]
        memory.begin(shard("b", "2"))
        memory.begin(shard("unfinished"))


@pytest.mark.parametrize("damage", ["another way", "bytes", "version"])
def test_what_was_read_another_way_or_is_damaged_is_read_again(
    tmp_path: Path, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.sqlite"
    with Memory(path, "way", 100) as memory:
        memory.finish(memory.begin(shard("a")), {NO_TOPIC: Content(7, 1, 1)})
    if damage == "bytes":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    if damage == "version":
        monkeypatch.setattr(memory_module, "VERSION", "another")
    with Memory(path, "other" if damage == "another way" else "way", 100) as memory:
        assert memory.known([shard("a")]) == {}


@pytest.mark.parametrize("damage", ["a byte", "a row"])
def test_documents_that_are_not_what_was_written_are_read_again(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "m.sqlite"
    calls = []

    def read(memory: Memory) -> list[bytes]:
        calls.append(memory)
        if not memory.known([shard("a")]):
            key = memory.begin(shard("a"))
            memory.keep(key, kept([b"one text", b"another text"]))
            memory.finish(key, {NO_TOPIC: Content(7, 2, 20)})
        memory.holds_all(NO_TOPIC, 2)
        return list(memory.documents())

    with Memory(path, "way", 100) as memory:
        before = read(memory)
    if damage == "a byte":
        path.write_bytes(path.read_bytes().replace(b"another text", b"another next"))
    else:
        with contextlib.closing(sqlite3.connect(path)) as base:
            base.execute("delete from documents where document = ?", (b"one text",))
            base.commit()
    with Memory(path, "way", 100) as memory:
        with pytest.raises(DamagedMemoryError, match=r"m\.sqlite: damaged"):
            read(memory)
        assert read_again_if_damaged(memory, partial(read, memory)) == before
    assert len(calls) == 4


def test_a_memory_that_cannot_be_written_is_kept_and_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.sqlite"
    with Memory(path, "way", 100) as memory:
        memory.finish(memory.begin(shard("a")), {NO_TOPIC: Content(7, 1, 1)})
    before = path.read_bytes()

    def fail(self: Memory) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch, pytest.raises(DataError, match=r"m\.sqlite: cannot be written \(database or"):
        patch.setattr(Memory, "_connect", fail)
        Memory(path, "way", 100).__enter__()
    assert path.read_bytes() == before


def test_looking_at_a_memory_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    assert recorded(path, "way") == {}
    with Memory(path, "way", 100) as memory:
        memory.finish(memory.begin(shard("a")), {"x": Content(7, 1, 1), "y": Content(1, 2, 3)})
    before = path.read_bytes()
    assert recorded(path, "way") == {"a": ("1", Content(8, 3, 4))}
    assert recorded(path, "another way") == {}
    assert path.read_bytes() == before
    path.write_bytes(b"garbage")
    assert recorded(path, "way") == {}


def test_a_shard_without_a_stamp_is_read_again(tmp_path: Path) -> None:
    with Memory(tmp_path / "m.sqlite", "way", 100) as memory:
        memory.finish(memory.begin(shard("a", "")), {NO_TOPIC: Content(7, 1, 1)})
        assert memory.known([shard("a", "")]) == {}


def test_what_was_finished_before_an_error_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "m.sqlite"
    with pytest.raises(KeyboardInterrupt), Memory(path, "way", 100) as memory:
        memory.finish(memory.begin(shard("a")), {NO_TOPIC: Content(7, 1, 1)})
        memory.begin(shard("b"))
        raise KeyboardInterrupt
    with Memory(path, "way", 100) as memory:
        assert set(memory.known([shard("a"), shard("b")])) == {"a"}


def test_thousands_of_shards_are_looked_at_and_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for k in range(3000):
        path = tmp_path / "root" / f"{k % 10}" / f"{k}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'{"text": "document %d"}\n' % k)
    domain = DomainSource("many", tmp_path / "many")
    peaks = []
    for read in (3000, 0):
        tracemalloc.start()
        found = scan_corpus(domain, str(tmp_path / "root"), tmp_path / "memories", 0, Readers(1))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (found.shards, found.read) == (3000, read)
        assert found.corpus.content[NO_TOPIC].documents == 3000
        monkeypatch.setattr(Shard, "open", None)
    assert max(peaks) < 3000 * 5_000, "some kilobytes a shard: half a gigabyte for 100,000"
