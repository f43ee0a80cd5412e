"""The lines of a file, plain or compressed: an end that comes too early or bytes that are damaged are errors.

gzip finds flipped bits by its checksum; zstandard does where the frame has one, and else the lines will not parse or
the digest differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol

from olmix.data.shards import Shard
from olmix.errors import DataError

# Of the compressed file: what comes out of it may be a hundred times as much.
_CHUNK = 1 << 18


class _Stream(Protocol):
    """A decompressor of one gzip member or one zstandard frame."""

    eof: bool
    unused_data: bytes

    def decompress(self, data: bytes) -> bytes: ...


def lines_of(shard: Shard, file: IO[bytes]) -> Iterator[bytes]:
    """The lines of a shard, line ends included; raises DataError when it is compressed and damaged."""
    kind = shard.kind.name
    if kind.endswith(".gz"):
        return _lines(_unpacked(shard, file, "gzip", _new_gzip))
    if kind.endswith(".zst"):
        return _lines(_unpacked(shard, file, "zstandard", _new_zstandard))
    return iter(file)


def _new_gzip() -> Any:
    from isal import isal_zlib

    return isal_zlib.decompressobj(wbits=31)


def _new_zstandard() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor().decompressobj()


def _unpacked(shard: Shard, file: IO[bytes], what: str, new: Callable[[], _Stream]) -> Iterator[bytes]:
    """The content in blocks: members or frames follow each other."""
    stream: _Stream | None = None
    size = 0
    try:
        while chunk := file.read(_CHUNK):
            while chunk:
                if stream is None:
                    if what == "gzip" and not chunk.strip(b"\0"):
                        break  # tapes and block devices pad with zeros
                    stream = new()
                block = stream.decompress(chunk)
                size += len(block)
                if block:
                    yield block
                chunk = stream.unused_data if stream.eof else b""
                if stream.eof:
                    stream = None
    except Exception as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{shard.place}: not valid {what} after {size:,} bytes of its text: {_first(error)}") from None
    if stream is not None:
        raise DataError(f"{shard.place}: truncated {what}: it ends after {size:,} bytes of its text; copy it again")


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []  # of a line that is longer than a block
    for block in blocks:
        first, *rest = block.split(b"\n")
        begun.append(first)
        if rest:
            yield b"".join(begun) + b"\n"
            for line in rest[:-1]:
                yield line + b"\n"
            begun = [rest[-1]]
    last = b"".join(begun)
    if last:
        yield last
