"""Text of a domain that is held out for a task: chosen by content, and left out of the domain's copy.

What is held out are the documents of lowest hash, a random sample that does not depend on the files they stand in. The
copy keeps the format, the fields and the order of everything else.
"""

from __future__ import annotations

import gzip
import heapq
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import orjson
import polars as pl
import zstandard

from olmix.core.digest import document_digest
from olmix.data.compressed import lines_of
from olmix.data.reading import Piece, Reading
from olmix.data.shards import Shard, list_shards
from olmix.data.text import read_text
from olmix.errors import DataError

# Where the text of a document usually stands, most likely first.
FIELDS = ("text", "content", "document", "body", "raw_content", "message")
# A document is held out for every so many, within these bounds.
EVERY, FEWEST, MOST = 20, 10, 100
# Fewer documents than this leave too little to train on once some are held out.
LEAST = 2 * FEWEST


@dataclass(frozen=True)
class Found:
    """A folder of text that can be a domain: its shards, the field of the text, and what they hold."""

    folder: Path
    shards: tuple[Shard, ...]
    reading: Reading
    documents: int
    bytes: int
    held_out: frozenset[int]

    @property
    def format(self) -> str:
        """The format of the shards."""
        return self.shards[0].kind.name


def find_domain(folder: Path) -> Found:
    """Read a folder once, its format and the field of its text found out; raises DataError for what holds no text, or
    too few documents."""
    shards = list_shards(folder, lambda target: True)
    if shards[0].kind.are_tokens:
        raise DataError(
            "token ids; tasks can only be made from text",
            file=folder,
            way_out="give a folder of text, or declare the domain by hand",
        )
    reading = Reading(text=_field_of(shards[0]))
    documents = size = 0
    lowest: list[int] = []  # negative, so that the heap gives up its highest hash
    seen: set[int] = set()
    for document in _documents(shards, reading):
        documents, size = documents + 1, size + len(document)
        digest = document_digest(document)
        if document.strip() and digest not in seen:
            if len(lowest) < MOST:
                heapq.heappush(lowest, -digest)
                seen.add(digest)
            elif digest < -lowest[0]:
                seen.discard(-heapq.heapreplace(lowest, -digest))
                seen.add(digest)
    if documents < LEAST:
        hint = " (a text file is one document)" if shards[0].kind.name == "txt" else ""
        raise DataError(
            f"only {documents} document{'s' * (documents != 1)}{hint}",
            file=folder,
            way_out=f"give it {LEAST} or more, so that some can be held out",
        )
    if len(lowest) < LEAST:  # of MOST, so these are all that differ
        raise DataError(
            f"only {len(lowest)} of {documents} documents have text and differ",
            file=folder,
            way_out=f"give it {LEAST} or more, so that some can be held out",
        )
    count = min(MOST, max(FEWEST, documents // EVERY))
    held_out = frozenset(sorted(-digest for digest in lowest)[:count])
    return Found(folder, tuple(shards), reading, documents, size, held_out)


def copy_without(domain: Found, into: Path, elsewhere: frozenset[int] = frozenset()) -> list[str]:
    """Copy a domain's shards below `into` without what is held out, here or `elsewhere` (by digest); returns what is
    held out here, in the order of its hashes. A shard of which nothing is left is not copied."""
    texts: dict[int, str] = {}
    own, domain = domain.held_out, replace(domain, held_out=domain.held_out | elsewhere)
    for shard in domain.shards:
        path = into / shard.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if domain.format == "txt":
            _copy_txt(shard, path, domain, texts)
        elif domain.format == "parquet":
            _copy_parquet(shard, path, domain, texts)
        else:
            _copy_lines(shard, path, domain, texts)
    return [texts[digest] for digest in sorted(texts.keys() & own)]


def first_documents(folder: Path, reading: Reading, most: int) -> Iterator[bytes]:
    """Documents of a folder in the order of its shards, until there are `most` bytes of them."""
    size = 0
    for document in _documents(list_shards(folder, lambda target: True), reading):
        yield document
        size += len(document)
        if size >= most:
            return


def _documents(shards: list[Shard], reading: Reading) -> Iterator[bytes]:
    for shard in shards:
        for batch in read_text(Piece(shard), reading):
            yield from batch.documents


def _field_of(shard: Shard) -> str:
    """The field that holds the text: a usual name, else the field with the longest text in the first document."""
    if shard.kind.name == "txt":
        return FIELDS[0]
    if shard.kind.name == "parquet":
        row = pl.read_parquet(shard.place, n_rows=1).to_dicts()
        first: Any = row[0] if row else {}
    else:
        first = next(_rows(shard), {})
    texts = {name: value for name, value in first.items() if isinstance(value, str)} if isinstance(first, dict) else {}
    if not texts:
        raise DataError("the first document has no field with text", file=shard.place)
    return next((name for name in FIELDS if name in texts), max(sorted(texts), key=lambda name: len(texts[name])))


def _rows(shard: Shard) -> Iterator[Any]:
    with shard.open() as file:
        for lines in lines_of(shard, file):
            for line in lines:
                if line.strip():
                    try:
                        yield orjson.loads(line)
                    except orjson.JSONDecodeError as error:
                        raise DataError(f"not JSON: {error}", file=shard.place) from None


def _copy_txt(shard: Shard, path: Path, domain: Found, texts: dict[int, str]) -> None:
    with shard.open() as file:
        content = file.read()
    if not _taken(content, domain, texts):
        path.write_bytes(content)


def _copy_parquet(shard: Shard, path: Path, domain: Found, texts: dict[int, str]) -> None:
    table = pl.read_parquet(shard.place)
    kept = [not _taken((text or "").encode(), domain, texts) for text in table[domain.reading.text].to_list()]
    if all(kept):
        shutil.copyfile(shard.place, path)
    else:
        table.filter(pl.Series(kept)).write_parquet(path)


def _copy_lines(shard: Shard, path: Path, domain: Found, texts: dict[int, str]) -> None:
    written = False
    with shard.open() as source, _writer(path, domain.format) as target:
        for lines in lines_of(shard, source):
            for line in lines:
                text = orjson.loads(line)[domain.reading.text] if line.strip() else ""
                if not _taken(text.encode(), domain, texts):
                    target.write(line.rstrip(b"\r\n") + b"\n")
                    written = True
    if not written:
        path.unlink()


def _writer(path: Path, kind: str) -> IO[bytes]:
    if kind == "jsonl.gz":
        return gzip.GzipFile(path, "wb", mtime=0)  # type: ignore[return-value]
    if kind == "jsonl.zst":
        return zstandard.ZstdCompressor().stream_writer(path.open("wb"))
    return path.open("wb")


def _taken(document: bytes, domain: Found, texts: dict[int, str]) -> bool:
    """Whether a document is held out; its text is put into `texts` then."""
    digest = document_digest(document)
    if digest in domain.held_out:
        texts[digest] = document.decode()
        return True
    return False
