"""Documents of text: one reader for each format, and the pieces in which a large shard is read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from olmix.data.jsonl import read_jsonl
from olmix.data.parquet import read_parquet
from olmix.data.reading import Batch, Piece, Reading
from olmix.data.shards import Shard
from olmix.errors import DataError


def pieces_of(shard: Shard, size: int) -> list[Piece]:
    """The pieces of a shard that are read alone: ranges of about `size` bytes of .jsonl, else all of it."""
    if shard.kind.name != "jsonl" or shard.size <= size:
        return [Piece(shard)]
    count = -(-shard.size // size)
    borders = [shard.size * k // count for k in range(count + 1)]
    return [Piece(shard, begin, end) for begin, end in pairwise(borders)]


def read_text(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """The documents of a piece, as UTF-8, in batches.

    Raises DataError with shard and place for what is no document, and when the shard changes while it is read.
    """
    kind = piece.shard.kind.name
    if reading.dtype is not None:
        raise piece.shard.error("text has no dtype", key="dtype", way_out="remove it")
    if kind == "txt":
        yield from _read_txt(piece, reading)
    elif kind == "parquet":
        yield from read_parquet(piece, reading)
    else:
        yield from read_jsonl(piece, reading)
    piece.shard.require_unchanged()


def _read_txt(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """A file is a document."""
    place = piece.shard.place
    if reading.has_fields:
        raise DataError("a text file has no fields", file=place, way_out="remove where, where_not and partition_by")
    with piece.shard.open() as file:
        content = file.read()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", file=place, way_out="convert it first") from None
    yield Batch([content])
