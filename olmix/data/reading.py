"""How the documents of a domain are found in its shards: what params.yaml declares, and the shape of what is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import NamedTuple

import orjson
import xxhash

from olmix.data.shards import Kind, Shard

Value = str | int | bool


@dataclass(frozen=True)
class Reading:
    """How documents are read; equal values find the same documents in the same bytes.

    `text` and `partition_by` are fields, dotted where they are nested; `where` holds for a field the values that are
    kept, `where_not` those that are not, None for a missing one, and every field must fit. Token arrays have `dtype`
    (uint16, uint32; where no header says it), `vocabulary` and `end`, the id that closes a document.
    """

    format: str | None = None
    text: str = "text"
    where: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    where_not: tuple[tuple[str, tuple[Value | None, ...]], ...] = ()
    partition_by: str | None = None
    dtype: str | None = None
    vocabulary: int | None = None
    end: int | None = None

    @property
    def has_fields(self) -> bool:
        """Whether more than the text is looked at."""
        return bool(self.where or self.where_not or self.partition_by is not None)

    def digest(self, kind: Kind) -> str:
        """Identifies how shards of `kind` are read, to recognise what was read before."""
        fields = asdict(self) | {"format": kind.name}
        if not self.where_not:  # what was read before there was such a filter stays known
            del fields["where_not"]
        if not kind.are_tokens:  # another tokeniser finds the same documents in text
            del fields["dtype"], fields["vocabulary"], fields["end"]
        return xxhash.xxh3_128_hexdigest(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS))


@dataclass(frozen=True)
class Piece:
    """A part of a shard that is read alone: bytes `begin` to `end` of a .jsonl shard, or all of any shard.

    A line belongs to the piece in which its first byte lies.
    """

    shard: Shard
    begin: int = 0
    end: int | None = None

    @property
    def size(self) -> int:
        """Bytes of the file that it covers."""
        return (self.shard.size if self.end is None else self.end) - self.begin


class Batch(NamedTuple):
    """Documents in the order of the shard: UTF-8 text, or token ids as little-endian uint32 without the id that closes
    the document; and for a partitioned source the topic of each."""

    documents: list[bytes]
    topics: list[str] | None = None
