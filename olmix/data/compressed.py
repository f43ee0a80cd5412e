"""The lines of a file, plain or compressed: an end that comes too early or bytes that are damaged are errors.

gzip finds flipped bits by its checksum; zstandard does where the frame has one, and else the lines will not parse or
the digest differs.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol, cast

from olmix.data.shards import Shard
from olmix.errors import DataError

# Of the compressed file: what comes out of it may be a hundred times as much.
PACKED = 1 << 18
CHUNK = 1 << 20


class _Stream(Protocol):
    """A decompressor of one gzip member or one zstandard frame."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes) -> bytes: ...


def lines_of(shard: Shard, file: IO[bytes], begin: int = 0, end: int | None = None) -> Iterator[list[bytes]]:
    """The lines of a shard in lists of about CHUNK bytes, line ends included; of a plain one those that begin in bytes
    `begin` to `end`. Raises DataError when the shard is compressed and damaged."""
    kind = shard.kind.name
    if kind.endswith(".gz"):
        return _lines(_unpacked(shard, file, "gzip", _new_gzip))
    if kind.endswith(".zst"):
        return _lines(_unpacked(shard, file, "zstandard", _new_zstandard))
    buffered = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file), CHUNK)
    return _plain(buffered, begin, shard.size if end is None else end)


def _plain(file: io.BufferedReader, begin: int, end: int) -> Iterator[list[bytes]]:
    at = begin
    if begin:
        # The line in which a piece begins belongs to the piece before, unless it begins just there.
        file.seek(begin - 1)
        at += len(file.readline()) - 1
    while at < end:
        # Reading goes on while the lines so far are no longer than the hint; 0 would be no limit.
        most = min(CHUNK, end - at - 1)
        lines = file.readlines(most) if most else [file.readline()]
        if not lines or not lines[0]:
            return
        at += sum(map(len, lines))
        yield lines


def _new_gzip() -> Any:
    from isal import isal_zlib

    return isal_zlib.decompressobj(wbits=31)


def _new_zstandard() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _unpacked(shard: Shard, file: IO[bytes], what: str, new: Callable[[], _Stream]) -> Iterator[bytes]:
    """The content in blocks: members or frames follow each other."""
    stream: _Stream | None = None
    size = members = 0
    try:
        while chunk := file.read(PACKED):
            while chunk:
                if stream is None:
                    if what == "gzip" and members and not chunk.strip(b"\0"):
                        break  # tapes and block devices pad with zeros
                    stream = new()
                block = stream.decompress(chunk)
                size += len(block)
                if block:
                    yield block
                chunk = stream.unused_data if stream.eof else b""
                if stream.eof:
                    stream, members = None, members + 1
    except Exception as error:
        if isinstance(error, DataError):
            raise
        raise shard.error(
            f"not valid {what} after {size:,} bytes of text: {_first(error)}", way_out="copy it again"
        ) from None
    if stream is not None:
        raise shard.error(f"truncated {what}: it ends after {size:,} bytes of text", way_out="copy it again")


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lines(blocks: Iterator[bytes]) -> Iterator[list[bytes]]:
    begun: list[bytes] = []  # of a line that is longer than a block
    for block in blocks:
        lines = block.splitlines(keepends=True) if b"\r" not in block else _split(block)
        if not lines[0].endswith(b"\n") and len(lines) == 1:
            begun.append(lines[0])
            continue
        if begun:
            lines[0] = b"".join([*begun, lines[0]])
        begun = [] if lines[-1].endswith(b"\n") else [lines.pop()]
        yield lines
    if begun:
        yield [b"".join(begun)]


def _split(block: bytes) -> list[bytes]:
    """Lines that end in line feeds alone: splitlines would end them at carriage returns too."""
    *lines, last = block.split(b"\n")
    return [line + b"\n" for line in lines] + ([last] if last else [])
