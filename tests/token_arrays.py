"""Token arrays as trainers write them, for tests: the same documents in every layout."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Documents = Sequence[Sequence[int]]
CODES = {"u1": 1, "<i2": 3, "<i4": 4, "<i8": 5, "<u2": 8}


def closed(documents: Documents, end: int | None) -> list[int]:
    """All ids in a row, each document closed by `end`."""
    return [token for ids in documents for token in (*ids, *([] if end is None else [end]))]


def write_raw(path: Path, documents: Documents, end: int, dtype: str = "<u2") -> None:
    """dolma's and OLMo's .npy: ids and nothing else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.array(closed(documents, end), dtype).tobytes())


def write_npy(path: Path, documents: Documents, end: int, dtype: str = "<u4") -> None:
    """numpy's own file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.array(closed(documents, end), dtype))


def write_megatron(
    path: Path, documents: Documents, end: int | None, dtype: str = "<u2", longest: int | None = None
) -> None:
    """A .bin and its .idx, a sequence a document; or sequences of at most `longest` ids, none for an empty document."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.array(closed(documents, end), dtype).tobytes())
    sizes = [len(ids) + (end is not None) for ids in documents]
    cut = [[n] if longest is None else [min(longest, n - k) for k in range(0, n, longest)] for n in sizes]
    lengths = np.array([length for sequences in cut for length in sequences], "<i4")
    pointers = (np.cumsum(lengths) - lengths).astype("<i8") * np.dtype(dtype).itemsize
    borders = np.cumsum([0, *map(len, cut)]).astype("<i8")
    head = b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, CODES[dtype], len(lengths), len(borders))
    path.with_suffix(".idx").write_bytes(head + lengths.tobytes() + pointers.tobytes() + borders.tobytes())


def write_datatrove(path: Path, documents: Documents, end: int | None, dtype: str = "<u2") -> None:
    """A .ds with its .ds.index and .ds.metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.array(closed(documents, end), dtype).tobytes())
    ends = np.cumsum([len(ids) + (end is not None) for ids in documents]).astype("<u8")
    path.with_name(f"{path.name}.index").write_bytes(ends.tobytes())
    path.with_name(f"{path.name}.metadata").write_text(f"some/tokenizer|2\n{ends[-1]}\n")
