"""Auditing a domain: every shard is read again, whatever its stamp, for what `olmix check` compares.

Of each shard its content by topic; of its documents a 64-bit piece of their hashes, to find copies of them; and which
of the given passages (text that evaluates) stand in them word for word. Copies are counted within bounded memory: above
MOST hashes only those below a bound are looked at, the same bound everywhere, so that what is found times the number
of hashes for each that is looked at is an unbiased estimate.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from olmix.core.digest import document_digest
from olmix.data import parallel
from olmix.data.content import NO_TOPIC, Content, add_topics
from olmix.data.parallel import Readers
from olmix.data.reading import Piece, Reading
from olmix.data.scan import by_topic, content_of, read_piece
from olmix.data.shards import Shard, total_size
from olmix.data.text import pieces_of
from olmix.errors import DataError
from olmix.progress import Progress, Report

# Hashes of documents that are held at once, 8 bytes each.
MOST = 40_000_000
# Text that is searched for passages at once: building the search costs about as much as a megabyte of it.
_SEARCHED = 8 << 20
Hashes = NDArray[np.uint64]


@dataclass
class Audit:
    """What a piece, a shard or a domain holds: its content, hashes of documents by topic, how many documents hold each
    passage by topic, and the error of what cannot be read."""

    parts: dict[str, Content] = field(default_factory=dict)
    hashes: dict[str, list[Hashes]] = field(default_factory=dict)
    passages: dict[str, Counter[int]] = field(default_factory=dict)
    holding: Counter[str] = field(default_factory=Counter)
    problem: DataError | None = None

    @property
    def content(self) -> Content:
        """All topics together."""
        return sum(self.parts.values(), Content())

    def add(self, other: Audit) -> None:
        """Take in what another piece holds."""
        self.parts = add_topics((self.parts, other.parts))
        for topic, arrays in other.hashes.items():
            self.hashes.setdefault(topic, []).extend(arrays)
        for topic, counts in other.passages.items():
            self.passages.setdefault(topic, Counter()).update(counts)
        self.holding.update(other.holding)
        self.problem = self.problem or other.problem


def audit_piece(piece: Piece, reading: Reading, passages: Sequence[str], bound: int) -> Audit:
    """Read a piece: hashes below `bound` (of 2^64), and documents that hold one of `passages`."""
    audit = Audit()
    sums: dict[str, list[int]] = {}
    searched = _Search(passages, audit)
    try:
        for batch in read_piece(piece, reading):
            hashes = [document_digest(document) for document in batch.documents]
            tops = np.array([h >> 64 for h in hashes], np.uint64)
            for topic, chosen in by_topic(batch.topics, len(hashes)):
                places = range(len(hashes)) if chosen is None else chosen
                count = sums.setdefault(topic, [0, 0, 0])
                count[0] += sum(hashes[k] for k in places)
                count[1] += len(places)
                count[2] += sum(len(batch.documents[k]) for k in places)
                own = tops if chosen is None else tops[chosen]
                audit.hashes.setdefault(topic, []).append(own[own < np.uint64(bound)] if bound < 2**64 else own)
            if passages and not piece.shard.kind.are_tokens:
                searched.add(batch.documents, batch.topics or [NO_TOPIC] * len(hashes))
        searched.finish()
    except DataError as error:
        return Audit(problem=error)
    audit.parts = {topic: content_of(piece.shard.kind, *count) for topic, count in sums.items()}
    return audit


class _Search:
    """Documents are searched together, some megabytes at once."""

    def __init__(self, passages: Sequence[str], audit: Audit) -> None:
        self._passages = list(passages)
        self._places = {passage: k for k, passage in enumerate(passages)}
        self._audit = audit
        self._documents: list[bytes] = []
        self._topics: list[str] = []
        self._size = 0

    def add(self, documents: Sequence[bytes], topics: Sequence[str]) -> None:
        self._documents += documents
        self._topics += topics
        self._size += sum(map(len, documents))
        if self._size > _SEARCHED:
            self.finish()

    def finish(self) -> None:
        if self._documents:
            texts = pl.Series(self._documents, dtype=pl.Binary).cast(pl.String)
            hits = texts.str.contains_any(self._passages).arg_true()
            held = texts.gather(hits).str.extract_many(self._passages, overlapping=True).to_list()
            for place, passages in zip(hits.to_list(), held, strict=True):
                topic = self._topics[place]
                self._audit.holding[topic] += 1
                counts = self._audit.passages.setdefault(topic, Counter())
                counts.update(self._places[passage] for passage in set(passages))
        self._documents, self._topics, self._size = [], [], 0


class Bound:
    """The bound below which hashes of documents are held, the same for all domains; it falls when there are too many.

    `of` says how many hashes there are for each that is looked at.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: list[dict[str, list[Hashes]]] = []
        self._lock = threading.Lock()
        self.bits = 0

    @property
    def value(self) -> int:
        """The bound, of 2^64."""
        return 2**64 >> self.bits

    @property
    def of(self) -> int:
        """One hash of so many is looked at."""
        return 1 << self.bits

    def hold(self, hashes: dict[str, list[Hashes]]) -> None:
        """Count these hashes from now on, and drop some of all when there are too many."""
        with self._lock:
            self._held.append(hashes)

    def add(self, total: Audit, part: Audit) -> None:
        """Add a part to what is held, and lower the bound until that is little enough."""
        with self._lock:
            total.add(part)
            self._lower()

    def _lower(self) -> None:
        while sum(len(a) for hashes in self._held for arrays in hashes.values() for a in arrays) > self._most:
            self.bits += 1
            for hashes in self._held:
                for topic, arrays in hashes.items():
                    joined = np.concatenate(arrays) if arrays else np.empty(0, np.uint64)
                    hashes[topic] = [joined[joined < np.uint64(self.value)]]


def audit_shards(
    shards: Sequence[Shard],
    reading: Reading,
    passages: Sequence[str],
    bound: Bound,
    readers: Readers,
    report: Report,
) -> tuple[dict[str, Audit], Audit]:
    """Each shard of a domain by name, its hashes left out, and all of it together."""
    each: dict[str, Audit] = {shard.name: Audit() for shard in shards}
    pieces = [piece for shard in shards for piece in pieces_of(shard, parallel.PIECE)]
    total = Audit()
    bound.hold(total.hashes)
    left = Counter(piece.shard.name for piece in pieces)
    done = size = 0

    def jobs() -> Iterator[tuple[Piece, tuple[Any, ...]]]:
        for piece in pieces:
            yield piece, (piece, reading, passages, bound.value)

    for piece, part in readers.each(audit_piece, jobs(), total_size(shards)):
        bound.add(total, part)
        part.hashes = {}
        each[piece.shard.name].add(part)
        left[piece.shard.name] -= 1
        done, size = done + (not left[piece.shard.name]), size + piece.size
        report(Progress(0, done, len(shards), size, total_size(shards)))
    return each, total


def copies(hashes: dict[str, Iterable[Hashes]], bound: int) -> tuple[dict[str, int], dict[tuple[str, str], int]]:
    """Documents that are there once more within each domain, and documents that each pair of domains shares, among the
    hashes below `bound` (of 2^64)."""
    within: dict[str, int] = {}
    names = sorted(hashes)
    unique: list[Hashes] = []
    for name in names:
        joined = np.concatenate([np.empty(0, np.uint64), *hashes[name]])
        joined = joined[joined < np.uint64(bound)] if bound < 2**64 else joined
        unique.append(np.unique(joined))
        within[name] = len(joined) - len(unique[-1])
    every = np.concatenate([np.empty(0, np.uint64), *unique])
    owner = np.repeat(np.arange(len(names)), [len(u) for u in unique])
    order = np.lexsort((owner, every))
    every, owner = every[order], owner[order]
    shared: Counter[tuple[str, str]] = Counter()
    # Copies in two domains stand side by side; in k domains they are runs of k.
    for step in range(1, len(names)):
        same = np.flatnonzero(every[step:] == every[:-step]) if len(every) > step else np.empty(0, np.int64)
        if not len(same):
            break
        pairs, counts = np.unique(np.stack((owner[same], owner[same + step])), axis=1, return_counts=True)
        for (a, b), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
            shared[names[a], names[b]] += count
    return within, dict(shared)
