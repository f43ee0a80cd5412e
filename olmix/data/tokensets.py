"""Token sets: what a proxy run reads.

A token set is a `.npy` file of token ids: one dimension for a domain's sample (a stream that is cut into rows), two
for the virtual domain (rows already, drawn from many domains). Its identity is a digest of the ids alone, so runs are
recognised whatever a domain is called and wherever the file lies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import xxhash

from olmix.core.order import even_order, walk
from olmix.core.quantise import largest_remainder
from olmix.core.virtual import VIRTUAL
from olmix.data.tokenizer import Tokens
from olmix.errors import DataError
from olmix.files import write_atomically

_BLOCK = 16 << 20


def identity_of(tokens: Tokens) -> str:
    """xxh3_128 over shape, type and ids."""
    digest = _digest_of(tokens.shape, tokens.dtype)
    digest.update(np.ascontiguousarray(tokens).view(np.uint8).data)
    return digest.hexdigest()


def _digest_of(shape: tuple[int, ...], dtype: np.dtype[Any]) -> xxhash.xxh3_128:
    return xxhash.xxh3_128(f"{shape}{dtype.str}".encode())


def write_stream(
    path: Path, chunks: Iterable[Tokens], dtype: np.dtype[Any], enough: Callable[[], bool]
) -> tuple[str | None, int]:
    """Write the chunks of a stream as one token set, atomically and without holding it in memory: its identity and its
    number of tokens.

    When `enough` says no after the last chunk, nothing is written and the identity is None.
    """
    count = 0

    def write(file: IO[bytes]) -> None:
        nonlocal count
        _write_header(file, 0, dtype)
        for chunk in chunks:
            file.write(np.ascontiguousarray(chunk, dtype).tobytes())
            count += len(chunk)
        if not enough():
            raise _TooFewError
        file.seek(0)
        _write_header(file, count, dtype)  # numpy leaves room for any number of tokens, so that it fits

    try:
        write_atomically(path, write)
    except _TooFewError:
        return None, 0
    digest = _digest_of((count,), dtype)
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        while block := file.read(_BLOCK):  # a memory map would count as this process's memory
            digest.update(block)
    return digest.hexdigest(), count


class _TooFewError(Exception):
    """A stream ended before it had enough tokens."""


def _write_header(file: IO[bytes], count: int, dtype: np.dtype[Any]) -> None:
    about = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, about)


def write_tokens(path: Path, tokens: Tokens) -> None:
    """Write a token set atomically, in numpy's own format."""
    write_atomically(path, lambda file: np.save(file, tokens, allow_pickle=False))


def read_tokens(path: Path) -> Tokens:
    """Map a token set into memory; raises DataError when the file is not one."""
    try:
        tokens: Tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError("no such token set", file=path, way_out="run `dvc repro`") from None
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"not a token set ({error})", file=path, way_out="remove it and run `dvc repro`") from None
    if tokens.dtype.kind != "u" or tokens.ndim not in (1, 2):
        raise DataError(
            f"{tokens.ndim}-dimensional {tokens.dtype} is not a token set", file=path, way_out="run `dvc repro`"
        )
    return tokens


def row_count(tokens: Tokens, sequence_length: int) -> int:
    """How many rows `rows_of` cuts, without cutting them."""
    return len(tokens) if tokens.ndim == 2 else max(0, (len(tokens) - 1) // sequence_length)


def rows_of(tokens: Tokens, sequence_length: int) -> Tokens:
    """A token set as rows of `sequence_length` + 1 ids, (rows, sequence_length + 1).

    A stream is cut every `sequence_length` ids; a row ends with the id that the next one starts with, so that every
    id but the first is predicted once.
    """
    if tokens.ndim == 2:
        return tokens
    # A view of overlapping windows: a set of gigabytes stays on the disk until a batch asks for its rows.
    shape = (row_count(tokens, sequence_length), sequence_length + 1)
    strides = (sequence_length * tokens.itemsize, tokens.itemsize)
    rows: Tokens = np.lib.stride_tricks.as_strided(np.asarray(tokens), shape, strides, writeable=False)
    return rows


@dataclass(frozen=True)
class TokenSet:
    """A token set on disk, by name: its identity, its rows, and whether runs read its first rows as they lie."""

    name: str
    path: Path
    identity: str
    rows: int
    in_order: bool = False


def open_token_sets(folder: Path, sequence_length: int, names: Collection[str] | None = None) -> dict[str, TokenSet]:
    """Token sets in `folder`, every one or those of `names`, by name, each read once for its identity; raises DataError
    for one without a row."""
    sets = {}
    for path in sorted(path for path in folder.rglob("*.npy") if names is None or path.stem in names):
        tokens = read_tokens(path)
        rows = row_count(tokens, sequence_length)
        if not rows:
            raise DataError(
                f"domain {path.stem}: {tokens.size} tokens are fewer than one sequence of {sequence_length}",
                way_out="give it more text or remove it from params.yaml: domains",
            )
        sets[path.stem] = TokenSet(path.stem, path, identity_of(tokens), rows, in_order=path.stem == VIRTUAL)
    return sets


def draw_rows(tokens: Tokens, identity: str, rows: int, length: int) -> Tokens:
    """A token set of `rows` rows from all over `tokens`, (rows, length + 1); all of it when it has no more.

    Fewer rows are some of more rows. `identity` is that of `tokens`.
    """
    available = rows_of(tokens, length)
    if rows >= len(available):
        return tokens
    return available[np.sort(walk(len(available), rows, "part", identity))]


def draw_virtual(ratios: Mapping[str, float], sets: Mapping[str, TokenSet], length: int, rows: int) -> Tokens:
    """The virtual domain's token set, (rows, length + 1): from each member its exact share, by largest remainder.

    A member's rows come from all over its sample; in which order, `core/order.py` says. Members of one identity are
    one content, and their names do not matter.
    """
    alike: dict[str, list[str]] = {}
    for name in sorted(ratios):
        alike.setdefault(sets[name].identity, []).append(name)
    members = sorted(alike)
    shares = np.array([math.fsum(ratios[name] for name in alike[member]) for member in members])
    counts = largest_remainder(shares, rows).tolist()
    order = even_order(counts, members)
    drawn: Tokens = np.empty((rows, length + 1), dtype=read_tokens(sets[alike[members[0]][0]].path).dtype)
    for k, (member, count) in enumerate(zip(members, counts, strict=True)):
        if count:
            available = rows_of(read_tokens(sets[alike[member][0]].path), length)
            drawn[order == k] = available[walk(len(available), count, "virtual", "rows", member)]
    return drawn
