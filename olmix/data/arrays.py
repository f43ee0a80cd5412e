"""Token arrays: documents that are token ids already, as trainers store them.

Three layouts: ids one after another (dolma and OLMo's headerless `.npy`, or a real npy file), Megatron's `.bin` with
its `.idx`, and datatrove's `.ds` with its `.ds.index`. A document is its ids as 32-bit numbers without the one that
closes it, whatever the file's width and however it closes documents: the same documents are the same domain. A large
shard is read in chunks, which are never mapped into memory.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from olmix.data.reading import Batch, Piece, Reading
from olmix.data.shards import TRY_AGAIN, Shard
from olmix.errors import DataError

# Ids that are read at once: what is made of them fits the second cache, and memory is not asked for anew, which a
# chunk of 2²⁰ ids made twice as slow.
CHUNK = 1 << 17
# So many ids at a file's begin tell 16 bits from 32.
_WIDE = 64
_NONE = np.empty(0, "<u2")
_NPY = b"\x93NUMPY"
_MEGATRON = b"MMIDIDX\0\0"
_CODES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_FLOATS = {6: "float64", 7: "float32"}
_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_READ_HEADER = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
_Ids = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class _Layout:
    """Where the ids of a shard are: from byte `start` on, `count` of them; and where its documents end, in ids, which
    is None when an id closes each."""

    dtype: np.dtype[Any]
    start: int
    count: int
    ends: NDArray[np.int64] | None


class Header(NamedTuple):
    """Ids in a shard, and whether it is a `.npy` with numpy's header, which the files of dolma and OLMo lack."""

    ids: int
    real_npy: bool


def read_header(shard: Shard, reading: Reading) -> Header:
    """What headers and sizes alone say of a shard; raises DataError when they do not fit each other."""
    with shard.open() as file:
        layout = _layout(shard, reading, file)
    return Header(layout.count, shard.kind.name == "npy" and layout.start > 0)


def closed_tokens(documents: int, size: int) -> int:
    """Tokens of documents that hold `size` bytes of 32-bit ids: each is closed by one more, whether its file has that
    one or not."""
    return size // 4 + documents


def read_tokens_of(piece: Piece, reading: Reading) -> Iterator[Batch]:
    """The documents of a token array in batches, each as little-endian uint32 ids without the one that closes it.

    Raises DataError with shard and position for an id beyond the vocabulary, for files that do not fit each other, and
    when the shard changes while it is read.
    """
    shard = piece.shard
    if reading.has_fields:
        raise shard.error("token arrays have no fields", way_out="remove where, where_not and partition_by")
    with shard.open() as file:
        layout = _layout(shard, reading, file)
        file.seek(layout.start)
        if layout.ends is None and reading.end is None:
            raise shard.error("no end-of-document id is known", way_out="set params.yaml: tokenizer.end_of_document")
        yield from _documents(_chunks(shard, file, layout, reading.vocabulary), layout.ends, reading.end)
    shard.require_unchanged()


def _layout(shard: Shard, reading: Reading, file: IO[bytes]) -> _Layout:
    if shard.kind.name == "megatron":
        return _megatron(shard, reading)
    if shard.kind.name == "datatrove":
        return _datatrove(shard, reading)
    return _npy(shard, reading, file)


def _npy(shard: Shard, reading: Reading, file: IO[bytes]) -> _Layout:
    if _read(shard.place, file, len(_NPY)) != _NPY:
        raw = _declared(shard, reading)
        count = _id_count(shard, shard.size, raw)
        file.seek(0)
        begin = np.frombuffer(_read(shard.place, file, 2 * _WIDE), "<u2") if raw.itemsize == 2 else _NONE
        if len(begin) == _WIDE and not begin[1::2].any():
            raise shard.error(
                "every second id is 0, as in 32-bit ids read as uint16", key="dtype", way_out="set it to uint32"
            )
        return _Layout(raw, 0, count, None)
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        if version[0] not in _READ_HEADER:
            raise ValueError(f"version {version[0]}, but only versions 1 and 2 can be read")
        shape, _, stored = _READ_HEADER[version[0]](file)
    except Exception as error:  # numpy parses it as Python: damage can be any of the parser's errors
        raise shard.error(f"not a valid npy header: {_first(error)}", way_out="write it again") from None
    dtype: np.dtype[Any] = np.dtype(stored)
    if dtype.kind not in "iu" or len(shape) != 1:
        raise shard.error(
            f"{len(shape)}-dimensional {dtype} is not a token array", way_out="write a 1-dimensional array of integers"
        )
    _require_declared(shard, reading, dtype)
    start = file.tell()
    if start + shape[0] * dtype.itemsize != shard.size:
        raise shard.error(
            f"truncated or damaged: its header says {shape[0]:,} ids of {dtype.itemsize} bytes, but "
            f"{shard.size - start:,} bytes follow it"
        )
    return _Layout(dtype, start, shape[0], None)


def _megatron(shard: Shard, reading: Reading) -> _Layout:
    place = shard.kind.companion(shard.place)
    with shard.open_index() as file:
        index = _read(place, file)
    if index[:9] != _MEGATRON:
        raise DataError(f"not Megatron's index: it begins with {index[:9]!r}", file=place)
    if len(index) < 34:
        raise DataError(f"truncated: {len(index)} bytes, but the header alone has 34", file=place)
    version, code, sequences, entries = struct.unpack_from("<QBQQ", index, 9)
    if version != 1:
        raise DataError(f"version {version} of Megatron's index, but only version 1 can be read", file=place)
    if code not in _CODES:
        raise DataError(f"dtype code {code} ({_FLOATS.get(code, 'unknown')}) is not a type of token ids", file=place)
    if len(index) != 34 + 12 * sequences + 8 * entries:
        raise DataError(
            f"truncated or damaged: {len(index):,} bytes, but {sequences:,} sequences with {entries:,} document "
            f"entries need {34 + 12 * sequences + 8 * entries:,}",
            file=place,
        )
    dtype = np.dtype(_CODES[code])
    _require_declared(shard, reading, dtype)
    lengths = np.frombuffer(index, "<i4", sequences, 34).astype(np.int64)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    documents = np.frombuffer(index, "<i8", entries, 34 + 12 * sequences)
    borders = np.concatenate(([0], np.cumsum(lengths)))
    if (lengths < 0).any() or not np.array_equal(pointers, borders[:-1] * dtype.itemsize):
        raise DataError("damaged: the pointers do not match the lengths", file=place)
    if entries == 0 or documents[0] != 0 or documents[-1] != sequences or _falls(documents):
        raise DataError(f"damaged: the document index does not run from 0 to {sequences:,}", file=place)
    need = int(borders[-1]) * dtype.itemsize
    if shard.size != need:
        raise shard.error(f"{_short_or_long(shard.size, need)}, according to its index")
    return _Layout(dtype, 0, int(borders[-1]), borders[documents[1:]])


def _datatrove(shard: Shard, reading: Reading) -> _Layout:
    place = shard.kind.companion(shard.place)
    with shard.open_index() as file:
        index = _read(place, file)
    if len(index) % 8:
        raise DataError(
            f"probably truncated: {len(index):,} bytes are not a whole number of 64-bit document ends", file=place
        )
    ends = np.frombuffer(index, "<u8").astype(np.int64)
    if len(ends) and (ends[0] < 0 or _falls(ends)):
        raise DataError("damaged: the document ends are not ascending", file=place)
    count = int(ends[-1]) if len(ends) else 0
    # Without a declared type the sizes say it: bytes an id.
    fitting = [dtype for dtype in _DTYPES.values() if count * dtype.itemsize == shard.size]
    dtype = _DTYPES[reading.dtype] if reading.dtype else next(iter(fitting), None)
    if dtype is None or count * dtype.itemsize != shard.size:
        need = count * (dtype.itemsize if dtype is not None else 2)
        raise shard.error(f"{_short_or_long(shard.size, need)}, according to its index: damaged, or the wrong dtype")
    return _Layout(dtype, 0, count, ends)


def _falls(borders: NDArray[np.int64]) -> bool:
    """Whether a border stands before the one that it follows; differences of damaged ones would overflow."""
    return bool((borders[1:] < borders[:-1]).any())


def _declared(shard: Shard, reading: Reading) -> np.dtype[Any]:
    if reading.dtype is None:
        raise shard.error("raw token ids without a header", key="dtype", way_out="set it to uint16 or uint32")
    return _DTYPES[reading.dtype]


def _require_declared(shard: Shard, reading: Reading, dtype: np.dtype[Any]) -> None:
    if reading.dtype is not None and reading.dtype != dtype.name:  # a header may say another order of bytes
        raise shard.error(
            f"{reading.dtype}, but the shard's header says {dtype.name}", key="dtype", way_out="remove dtype"
        )


def _id_count(shard: Shard, size: int, dtype: np.dtype[Any]) -> int:
    if size % dtype.itemsize:
        raise shard.error(f"{size:,} bytes are not a whole number of {dtype.name} ids: truncated, or another dtype")
    return size // dtype.itemsize


def _short_or_long(size: int, need: int) -> str:
    return f"truncated: {size:,} of {need:,} bytes" if size < need else f"{size:,} bytes instead of {need:,}"


def _chunks(shard: Shard, file: IO[bytes], layout: _Layout, vocabulary: int | None) -> Iterator[NDArray[np.uint32]]:
    """The ids in chunks, as 32-bit numbers, each below the vocabulary."""
    at, size = 0, layout.dtype.itemsize
    most = 2**32 if vocabulary is None else vocabulary
    file = file if isinstance(file, io.BufferedReader) else io.BufferedReader(file)  # type: ignore[type-var]
    while at < layout.count:
        block = _read(shard.place, file, min(CHUNK, layout.count - at) * size)
        if not block or len(block) % size:
            raise shard.error(f"truncated: ends after {at + len(block) // size:,} of {layout.count:,} ids")
        ids: _Ids = np.frombuffer(block, layout.dtype)
        if int(ids.max()) >= most or (layout.dtype.kind == "i" and int(ids.min()) < 0):
            wrong = int(np.flatnonzero((ids < 0) | (ids >= most))[0])
            raise shard.error(
                f"token id {int(ids[wrong])} at position {at + wrong:,} (byte "
                f"{layout.start + (at + wrong) * size:,}) is outside the vocabulary of {most:,}; is the dtype or the "
                "tokeniser wrong?"
            )
        yield ids.astype("<u4")
        at += len(ids)


def _read(place: str, file: IO[bytes], size: int = -1) -> bytes:
    try:
        return file.read(size)
    except Exception as error:  # each kind of store has errors of its own
        raise DataError(f"cannot be read: {_first(error)}", file=place, way_out=TRY_AGAIN) from None


def _first(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _documents(
    chunks: Iterator[NDArray[np.uint32]], ends: NDArray[np.int64] | None, closing: int | None
) -> Iterator[Batch]:
    """Documents that end where `ends` says, without a closing id there; or at every closing id when `ends` is None,
    and then what follows the last one is a document too."""
    begun: list[bytes] = []  # of a document that goes on in the next chunk
    number = at = 0
    for ids in chunks:
        if ends is None:
            stops = np.flatnonzero(ids == closing)
            begins = np.concatenate(([0], stops + 1))
        else:
            # Ends at the chunk's own end are of this chunk: a document that goes on has an id in the next one.
            until = int(np.searchsorted(ends, at + len(ids), "right"))
            stops = ends[number:until] - at
            begins = np.concatenate(([0], stops))
            if closing is not None:
                stops = stops - ((ids[stops - 1] == closing) & (stops > begins[:-1]))
            number, at = until, at + len(ids)
        content = ids.tobytes()
        places = (4 * begins).tolist()
        documents = [content[a:b] for a, b in zip(places, (4 * stops).tolist(), strict=False)]
        if documents and begun:
            documents[0] = b"".join([*begun, documents[0]])
            begun = []
        if places[-1] < len(content):
            begun.append(content[places[-1] :])
        yield Batch(documents)
    if begun:
        yield Batch([b"".join(begun)])
