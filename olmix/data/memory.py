"""What is remembered of a domain's shards: their parts of its digest, and the documents that its sample may need.

One SQLite file a domain (`.olmix/scan/`). A shard's part stands under its stamp, so an unchanged shard is not read
again, and a reading that is cut off goes on behind the last shard that it finished. Of the documents those of lowest
hash are kept, by topic, as many as hold the budget: whatever is sampled from them needs no shard. It is a cache: it
may be deleted at any time, and no output depends on it. What it costs: disk, about twice the budget a topic.
"""

from __future__ import annotations

import contextlib
import fcntl
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self, TypeVar

from olmix.core.digest import MODULUS, document_digest, from_hex, to_hex
from olmix.data.content import NO_TOPIC, Content
from olmix.data.shards import Shard
from olmix.errors import DataError, OlmixError

VERSION = "2"
# A domain of so much text is kept whole: changing the sample or the tokeniser then costs no reading.
LEAST = 16 << 20
COMMIT_SECONDS = 2.0
HASH_BYTES = 16
# Above the bytes of every hash.
_TOP = b"\xff" * (HASH_BYTES + 1)
# Bytes of documents that are written at once.
WRITTEN = 1 << 20
_TABLES = """
create table about (key text primary key, value text) without rowid;
create table shards (id integer primary key, name text unique, stamp text, finished integer);
create table parts (shard integer, topic text, digest text, documents integer, bytes integer, tokens integer);
create table documents (shard integer, topic text, hash blob, document blob);
create table bounds (topic text primary key, bound text) without rowid;
create index parts_by_shard on parts (shard);
create index documents_by_shard on documents (shard);
create index documents_by_hash on documents (topic, hash);
"""


class DamagedMemoryError(DataError):
    """What is remembered is not what was written; clear it and read again."""


Result = TypeVar("Result")


def read_again_if_damaged(memory: Memory, read: Callable[[], Result]) -> Result:
    """What `read` returns; when the memory turns out to be damaged, it is cleared, and `read` called once more."""
    try:
        return read()
    except DamagedMemoryError:
        memory.clear()
        return read()


HashedDocument = tuple[str, bytes, bytes]  # topic, hash (big-endian, so that its order is the numbers'), document


class Memory:
    """A context manager; one process at a time holds a domain's memory, others wait for it.

    `reading` is the digest of how documents are read: with another, nothing is remembered. `budget` is the bytes of
    documents to keep of a topic, at least LEAST.
    """

    def __init__(self, path: Path, reading: str, budget: int) -> None:
        self.path = path
        self.budget = max(budget, LEAST)
        self.may_guess = True
        self._reading = reading
        self._lock: IO[bytes] | None = None
        self._committed = time.monotonic()

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = self.path.with_suffix(".lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self._open()
        except OSError as error:
            raise DataError(f"cannot be written: {error.strerror}", file=self.path) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(sqlite3.Error):  # what was finished before an error is kept
            self._base.commit()
            self._base.close()
        if self._lock is not None:
            self._lock.close()

    def clear(self) -> None:
        """Forget everything, and keep what the budget holds without guessing beforehand what that will be."""
        self.may_guess = False
        self._base.close()
        try:
            self._unlink()
        except OSError as error:
            raise DataError(f"cannot be removed: {error.strerror}", file=self.path) from None
        self._open()

    def known(self, shards: Sequence[Shard]) -> dict[str, dict[str, Content]]:
        """The parts of the shards that have the stamp they had when they were read, by name and topic."""
        stamps = {shard.name: shard.stamp for shard in shards if shard.stamp}
        rows = self._base.execute("select id, name, stamp from shards where finished")
        names = {key: name for key, name, stamp in rows if stamps.get(name) == stamp}
        parts: dict[str, dict[str, Content]] = {name: {} for name in names.values()}
        rows = self._base.execute("select shard, topic, digest, documents, bytes, tokens from parts")
        for key, topic, digest, *numbers in rows:
            if key in names:
                parts[names[key]][topic] = Content(from_hex(digest, str(self.path)), *numbers)
        return parts

    def keep_only(self, names: Collection[str]) -> None:
        """Forget shards that are not in `names`, and those that were not finished."""
        rows = self._base.execute("select id, name, finished from shards").fetchall()
        gone = [(key,) for key, name, finished in rows if not finished or name not in names]
        for table, column in (("documents", "shard"), ("parts", "shard"), ("shards", "id")):
            self._base.executemany(f"delete from {table} where {column} = ?", gone)  # noqa: S608  # our own names
        self._base.commit()
        if gone:
            self._sizes = self._count()

    def begin(self, shard: Shard) -> int:
        """A key for what is read of `shard` now."""
        cursor = self._base.execute(
            "insert into shards (name, stamp, finished) values (?, ?, 0)", (shard.name, shard.stamp)
        )
        return int(cursor.lastrowid or 0)

    def keep(self, key: int, kept: Iterable[HashedDocument]) -> None:
        """Keep documents of a shard, and drop those above the budget."""
        rows: list[tuple[int, str, bytes, bytes]] = []
        size = 0
        for topic, digest, document in kept:
            # The bound may have fallen since the process that read them was told of it.
            if digest < self._tops.get(topic, _TOP):
                rows.append((key, topic, digest, document))
                size += len(document)
                if size > WRITTEN:
                    self._insert(rows)
                    rows, size = [], 0
        self._insert(rows)

    def _insert(self, rows: Sequence[tuple[int, str, bytes, bytes]]) -> None:
        self._base.executemany("insert into documents values (?, ?, ?, ?)", rows)
        for _, topic, _, document in rows:
            self._sizes[topic] = self._sizes.get(topic, 0) + len(document)
        for topic in {row[1] for row in rows}:
            if self._sizes[topic] > self._limits.get(topic, 2 * self.budget):
                self._trim(topic)

    def finish(self, key: int, parts: Mapping[str, Content]) -> None:
        """Record the parts of a shard that was read to its end."""
        rows = [(key, topic, to_hex(c.digest), c.documents, c.bytes, c.tokens) for topic, c in parts.items()]
        self._base.executemany("insert into parts values (?, ?, ?, ?, ?, ?)", rows)
        self._base.execute("update shards set finished = 1 where id = ?", (key,))
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._base.commit()
            self._committed = time.monotonic()

    def bounds(self) -> dict[str, int]:
        """By topic, the hash from which on documents are not kept; a topic that is not there has none so far."""
        return dict(self._bounds)

    def lower(self, topic: str, bound: int) -> None:
        """Keep of a topic only documents below `bound` from now on."""
        if bound < self._bounds.get(topic, MODULUS):
            self._bounds[topic] = bound
            self._tops[topic] = bound.to_bytes(HASH_BYTES)
            self._base.execute("insert or replace into bounds values (?, ?)", (topic, to_hex(bound)))

    def is_complete(self, topic: str) -> bool:
        """Whether every document of the topic is kept."""
        return topic not in self._bounds

    def is_full(self, topic: str) -> bool:
        """Whether the documents that are kept of a topic are all, or hold the budget."""
        return self.is_complete(topic) or self._sizes.get(topic, 0) >= self.budget

    def holds_all(self, topic: str, documents: int) -> bool:
        """Whether all `documents` of a topic are kept; raises DamagedMemoryError when they should be and are not."""
        rows = self._base.execute("select count(*) from documents where topic = ?", (topic,))
        complete = int(rows.fetchone()[0]) == documents
        if self.is_complete(topic) and not complete:
            raise DamagedMemoryError("damaged: documents are missing", file=self.path, way_out="remove it")
        return complete

    def documents(self, topic: str = NO_TOPIC) -> Iterator[bytes]:
        """The documents that are kept of a topic, in the order of their hashes; raises DamagedMemoryError."""
        try:
            rows = self._base.execute("select hash, document from documents where topic = ? order by hash", (topic,))
            for digest, document in rows:
                if document_digest(document).to_bytes(HASH_BYTES) != digest:
                    raise DamagedMemoryError("damaged", file=self.path, way_out="remove it")
                yield document
        except (sqlite3.Error, TypeError) as error:
            raise DamagedMemoryError(f"damaged ({error})", file=self.path, way_out="remove it") from None

    def _trim(self, topic: str) -> None:
        """Drop the documents of highest hash that the budget does not hold. Copies of a document share their hash and
        are kept or dropped together."""
        size, bound = 0, None
        rows = self._base.execute(
            "select hash, length(document) from documents where topic = ? order by hash", (topic,)
        )
        for digest, length in rows:
            if bound is not None and digest > bound:
                break
            size += length
            if bound is None and size >= self.budget:
                bound = digest
        else:
            bound = None
        rows.close()
        if bound is not None:
            self._base.execute("delete from documents where topic = ? and hash > ?", (topic, bound))
            self._sizes[topic] = size
            self.lower(topic, int.from_bytes(bound) + 1)
        # Where dropping frees little, the next time waits for longer.
        self._limits[topic] = 2 * max(self.budget, self._sizes[topic])

    def _open(self) -> None:
        try:
            self._connect()
        except (sqlite3.Error, OlmixError, ValueError) as error:  # damaged, of another version, or read another way
            with contextlib.suppress(AttributeError, sqlite3.Error):
                self._base.close()
            if isinstance(error, sqlite3.OperationalError) and not str(error).startswith("no such"):
                raise DataError(
                    f"cannot be written ({error})", file=self.path, way_out="make room, or remove it"
                ) from None
            self._unlink()
            self._connect()

    def _unlink(self) -> None:
        for path in (self.path, Path(f"{self.path}-journal")):
            path.unlink(missing_ok=True)

    def _connect(self) -> None:
        self._base = sqlite3.connect(self.path, timeout=60, isolation_level="DEFERRED")
        self._base.execute("pragma journal_mode = truncate")
        self._base.execute("pragma synchronous = off")  # a cache: losing it to a power cut costs a reading
        about = {"version": VERSION, "way": self._reading}
        if not self._base.execute("select name from sqlite_master where name = 'about'").fetchone():
            self._base.executescript(_TABLES)
            self._base.executemany("insert into about values (?, ?)", about.items())
            self._base.commit()
        if dict(self._base.execute("select key, value from about")) != about:
            raise DataError("was read with other settings", file=self.path)
        rows = self._base.execute("select topic, bound from bounds")
        self._bounds = {topic: from_hex(bound, str(self.path)) for topic, bound in rows}
        self._tops = {topic: bound.to_bytes(HASH_BYTES) for topic, bound in self._bounds.items()}
        self._limits: dict[str, int] = {}
        self._sizes = self._count()

    def _count(self) -> dict[str, int]:
        rows = self._base.execute("select topic, sum(length(document)) from documents group by topic")
        return dict(rows.fetchall())


def recorded(path: Path, reading: str) -> dict[str, tuple[str, Content]]:
    """Stamp and content, all topics together, of every shard that was read to its end, by name; nothing when there is
    no memory with that `reading`, a digest, at `path`."""
    if not path.exists():
        return {}
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=60)) as base:
            if dict(base.execute("select key, value from about")) != {"version": VERSION, "way": reading}:
                return {}
            rows = base.execute("select id, name, stamp from shards where finished")
            finished = {key: (name, stamp) for key, name, stamp in rows}
            parts = dict.fromkeys(finished, Content())
            for key, digest, *numbers in base.execute("select shard, digest, documents, bytes, tokens from parts"):
                if key in parts:
                    parts[key] += Content(from_hex(digest, str(path)), *numbers)
    except (sqlite3.Error, OlmixError, TypeError, ValueError):  # damaged: it is read again when it is needed
        return {}
    return {name: (stamp, parts[key]) for key, (name, stamp) in finished.items()}
