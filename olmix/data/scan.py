"""Scanning: every document of a domain is read once and hashed; its part of the digest adds up, shard by shard.

Shards that have not changed are not read again. Pieces of shards are read by processes, one a core, because parsing
holds Python's lock; a little text is read by this process alone, which costs no start. What comes back is the content
of a piece and its documents of lowest hash: a process that finds many writes them to a file, so that neither it nor
this one holds a domain in memory.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from olmix.core.digest import MODULUS, document_digest
from olmix.data import parallel
from olmix.data.arrays import closed_tokens, read_header, read_tokens_of
from olmix.data.content import NO_TOPIC, Content, add_topics
from olmix.data.memory import HASH_BYTES, DamagedMemoryError, HashedDocument, Memory
from olmix.data.parallel import Readers
from olmix.data.reading import Batch, Piece, Reading
from olmix.data.shards import TRY_AGAIN, Kind, Shard, total_size
from olmix.data.text import pieces_of, read_text
from olmix.errors import DataError, MixtureError
from olmix.progress import Progress, Report, silent

# So many bytes of documents a process returns by itself; more go through a file.
RETURNED = 8 << 20
# Documents are kept up to a guess of the hash that closes the budget, this many times too many of them.
CAUTION = 4
Accept = Callable[[Collection[str]], object]


@dataclass
class ScannedPiece:
    """What a piece holds: content by topic, the documents to keep, the first of them in files, and whether it is a
    real npy file."""

    parts: dict[str, Content] = field(default_factory=dict)
    kept: list[HashedDocument] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    real_npy: bool = False

    def documents(self) -> Iterator[HashedDocument]:
        """The documents to keep; their files are removed."""
        for name in self.files:
            path = Path(name)
            with path.open("rb") as file:
                yield from _unpack(file.read())
            path.unlink()
        yield from self.kept


def read_piece(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """The documents of a piece in batches; raises DataError with shard and place for what is none."""
    read = read_tokens_of if piece.shard.kind.are_tokens else read_text
    place = piece.shard.place
    try:
        yield from read(piece, reading)
    except OSError as error:  # a disk that fails, or a share that is gone
        raise DataError(f"cannot be read: {error.strerror or error}", file=place, way_out=TRY_AGAIN) from None


def content_of(kind: Kind, digest: int, documents: int, size: int) -> Content:
    """The content of documents whose hashes sum to `digest` and that hold `size` bytes, of text or of ids."""
    if kind.are_tokens:
        return Content(digest % MODULUS, documents, 0, closed_tokens(documents, size))
    return Content(digest % MODULUS, documents, size)


def scan_piece(piece: Piece, reading: Reading, bounds: Mapping[str, int], bound: int, folder: str) -> ScannedPiece:
    """Read and hash the documents of a piece, and keep those below the bound of their topic, or below `bound`.

    More of them than memory should hold are written to files in `folder`.
    """
    scanned = ScannedPiece()
    held = 0
    tokens = piece.shard.kind.are_tokens
    counts: dict[str, list[int]] = {}
    for documents, topics in read_piece(piece, reading):
        hashes = [document_digest(document) for document in documents]
        for topic, chosen in by_topic(topics, len(documents)):
            own = hashes if chosen is None else [hashes[k] for k in chosen]
            texts = documents if chosen is None else [documents[k] for k in chosen]
            count = counts.setdefault(topic, [0, 0, 0])
            count[0] += sum(own)
            count[1] += len(own)
            count[2] += sum(map(len, texts))
            top = bounds.get(topic, bound)
            low = [(topic, h.to_bytes(HASH_BYTES), text) for h, text in zip(own, texts, strict=True) if h < top]
            scanned.kept += low
            held += sum(len(text) for _, _, text in low)
        if held > RETURNED:
            scanned.files.append(_write_kept(scanned.kept, folder))
            scanned.kept, held = [], 0
    for topic, (digest, number, size) in counts.items():
        scanned.parts[topic] = content_of(piece.shard.kind, digest, number, size)
    scanned.real_npy = tokens and read_header(piece.shard, reading).real_npy
    return scanned


def by_topic(topics: Sequence[str] | None, count: int) -> Iterator[tuple[str, list[int] | None]]:
    """The places of each topic's documents in a batch of `count`; None stands for all of them."""
    if topics is None:
        if count:
            yield NO_TOPIC, None
        return
    places: dict[str, list[int]] = {}
    for k, topic in enumerate(topics):
        places.setdefault(topic, []).append(k)
    yield from places.items()


class Scanned(NamedTuple):
    """The content of every shard by name and topic, and how many shards had to be read."""

    parts: dict[str, dict[str, Content]]
    read: int

    @property
    def content(self) -> dict[str, Content]:
        """The content of all shards together, by topic."""
        return add_topics(self.parts.values())


def scan(
    shards: Sequence[Shard],
    reading: Reading,
    memory: Memory,
    readers: Readers,
    report: Report = silent,
    accept: Accept = len,
) -> Scanned:
    """The content of a domain, shard by shard; reads only shards that `memory` does not know, and remembers them.

    `accept` is given all topics so far as soon as there is a new one, to raise before more is read. Raises DataError,
    and what was finished before is remembered; DamagedMemoryError.
    """
    try:
        return _scan(shards, reading, memory, readers, report, accept)
    except sqlite3.OperationalError as error:
        raise DataError(f"cannot be written ({error})", file=memory.path, way_out="make room, or remove it") from None
    except (sqlite3.Error, MixtureError) as error:
        raise DamagedMemoryError(f"damaged ({error})", file=memory.path, way_out="remove it") from None


def _scan(
    shards: Sequence[Shard], reading: Reading, memory: Memory, readers: Readers, report: Report, accept: Accept
) -> Scanned:
    known = memory.known(shards)
    memory.keep_only(known)
    unread = [shard for shard in shards if shard.name not in known]
    if not unread:
        return Scanned(known, 0)
    total = total_size(unread)
    if reading.partition_by is None and not known and memory.may_guess:
        # Text may be longer than its file, hardly ever much shorter: most documents of a large domain are not even
        # looked at twice. A wrong guess costs another reading, never another answer.
        memory.lower(NO_TOPIC, min(MODULUS, MODULUS * CAUTION * memory.budget // total))
    folder = memory.path.with_suffix(".reading")  # whoever holds the memory is the only one to read
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", file=folder) from None
    try:
        read = _Reader(memory, reading, str(folder), readers)
        done = size = 0
        progress = Progress(0, 0, 0, 0, 0)
        topics = {topic for parts in known.values() for topic in parts}
        for shard, parts in read.all(unread):
            if not topics.issuperset(parts):
                topics.update(parts)
                accept(sorted(topics))
            known[shard.name] = parts
            done, size = done + 1, size + shard.size
            progress = Progress(len(shards) - len(unread), done, len(shards), size, total)
            report(progress)
        if read.real_npy:
            report(replace(progress, note=_note(read.real_npy, len(unread))))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Scanned(known, len(unread))


def _note(real_npy: Sequence[str], read: int) -> str:
    others = f"; {read - len(real_npy):,} others have raw ids" if read > len(real_npy) else ""
    return (
        f"{min(real_npy)}: has a numpy header, which was used; so do {len(real_npy):,} of {read:,} .npy shards{others}"
    )


class _Reader:
    """Reads pieces of shards, here or in processes, and hands over each shard when all of its pieces are read."""

    def __init__(self, memory: Memory, reading: Reading, folder: str, readers: Readers) -> None:
        self._memory = memory
        self._reading = reading
        self._folder = folder
        self._readers = readers
        self._keys: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._parts: dict[str, dict[str, Content]] = {}
        self.real_npy: list[str] = []

    def all(self, shards: Sequence[Shard]) -> Iterator[tuple[Shard, dict[str, Content]]]:
        for piece, scanned in self._readers.each(scan_piece, self._jobs(shards), total_size(shards)):
            name = piece.shard.name
            self._memory.keep(self._keys[name], scanned.documents())
            self._parts[name] = add_topics((self._parts[name], scanned.parts))
            self.real_npy += [piece.shard.place] if scanned.real_npy else []
            self._left[name] -= 1
            if not self._left[name]:
                parts = self._parts.pop(name)
                self._memory.finish(self._keys.pop(name), parts)
                yield piece.shard, parts

    def _pieces(self, shards: Sequence[Shard]) -> Iterator[Piece]:
        for shard in shards:
            pieces = pieces_of(shard, parallel.PIECE)
            self._keys[shard.name] = self._memory.begin(shard)
            self._left[shard.name] = len(pieces)
            self._parts[shard.name] = {}
            yield from pieces

    def _jobs(self, shards: Sequence[Shard]) -> Iterator[tuple[Piece, tuple[Any, ...]]]:
        for piece in self._pieces(shards):
            yield piece, (piece, self._reading, self._memory.bounds(), MODULUS, self._folder)


def _write_kept(kept: Sequence[HashedDocument], folder: str) -> str:
    try:
        handle, name = tempfile.mkstemp(dir=folder)
        with os.fdopen(handle, "wb") as file:
            for topic, digest, document in kept:
                label = topic.encode()
                file.write(len(label).to_bytes(4) + len(document).to_bytes(8) + digest + label + document)
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}", file=folder, way_out="make room there") from None
    return name


def _unpack(content: bytes) -> Iterator[HashedDocument]:
    at = 0
    while at < len(content):
        topic_at = at + 12 + HASH_BYTES
        text_at = topic_at + int.from_bytes(content[at : at + 4])
        end = text_at + int.from_bytes(content[at + 4 : at + 12])
        yield content[topic_at:text_at].decode(), content[at + 12 : topic_at], content[text_at:end]
        at = end
