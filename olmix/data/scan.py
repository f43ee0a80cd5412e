"""Scanning: a domain's digest, documents and bytes, with a memory of the shards that have not changed.

The memory (`.olmix/scan/`) holds a shard's part of the digest under its stamp; since parts add up, an unchanged shard
is not read again. It is a cache: it can be deleted at any time, and no output depends on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from olmix.core.digest import MODULUS, document_digest, from_hex, to_hex
from olmix.data.shards import Shard, read_documents
from olmix.errors import OlmixError
from olmix.files import read_json, write_json
from olmix.progress import Progress, Report


@dataclass(frozen=True)
class Content:
    """What a bag of documents is: additive digest, number of documents, UTF-8 bytes of their text."""

    digest: int = 0
    documents: int = 0
    bytes: int = 0

    def __add__(self, other: Content) -> Content:
        return Content(
            (self.digest + other.digest) % MODULUS,
            self.documents + other.documents,
            self.bytes + other.bytes,
        )


def scan_shard(shard: Shard, text: str, visit: Callable[[int, bytes], None] | None = None) -> Content:
    """Read and hash every document of one shard; `visit` is shown each hash and text."""
    digest = documents = size = 0
    for document in read_documents(shard, text):
        hashed = document_digest(document)
        digest += hashed
        documents += 1
        size += len(document)
        if visit is not None:
            visit(hashed, document)
    return Content(digest % MODULUS, documents, size)


class ScanMemory:
    """Parts of digests by shard, for one domain and one text field."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._text = text
        self._parts: dict[str, tuple[tuple[int, int, int], Content]] = {}
        try:
            stored = read_json(path)
            if stored["text"] == text:
                for name, (size, time, inode, digest, documents, length) in stored["shards"].items():
                    self._parts[name] = (
                        (size, time, inode),
                        Content(from_hex(digest, name), documents, length),
                    )
        except (OlmixError, KeyError, TypeError, ValueError, AttributeError):
            self._parts = {}  # absent or damaged: everything is read again

    def get(self, shard: Shard) -> Content | None:
        """The part of a shard that has the stamp it had when it was read."""
        stamp, content = self._parts.get(shard.name, (None, None))
        return content if stamp == shard.stamp else None

    def store(self, parts: Iterable[tuple[Shard, Content]]) -> None:
        """Remember these shards and forget all others."""
        self._parts = {shard.name: (shard.stamp, content) for shard, content in parts}
        rows = {n: [*s, to_hex(c.digest), c.documents, c.bytes] for n, (s, c) in sorted(self._parts.items())}
        write_json(self._path, {"text": self._text, "shards": rows})


def read_shards(
    shards: Sequence[Shard],
    text: str,
    report: Report,
    visit: Callable[[int, bytes], None] | None = None,
    memory: ScanMemory | None = None,
) -> list[tuple[Shard, Content]]:
    """The content of each shard, in their order; reads only what `memory` does not know, and reports bytes of files."""
    known = {shard.name: memory.get(shard) if memory else None for shard in shards}
    unread = sum(shard.size for shard in shards if known[shard.name] is None)
    found = sum(content is not None for content in known.values())
    parts = []
    read = fresh = 0
    for shard in shards:
        content = known[shard.name]
        if content is None:
            content = scan_shard(shard, text, visit)
            read += shard.size
            fresh += 1
            report(Progress(found, fresh, len(shards), read, unread))
        parts.append((shard, content))
    return parts


def scan(shards: Sequence[Shard], text: str, memory: ScanMemory, report: Report) -> Content:
    """The content of a domain; reads only shards that `memory` does not know, and remembers them."""
    parts = read_shards(shards, text, report, memory=memory)
    memory.store(parts)
    return sum((content for _, content in parts), Content())
