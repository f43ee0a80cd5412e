"""Tasks: held-out text that proxies are measured on, read, identified and tokenised once for all runs.

A task is a file of JSON lines, {"prompt": ..., "continuation": ...}; bits are counted on the continuation. A task of
token ids, for who has no tokeniser, has lists of ids there, and `bytes`, the UTF-8 bytes that the continuation is.
Prompt and continuation are tokenised separately and joined, so that the boundary between them is a boundary
between tokens and every byte that is scored belongs to the continuation. What that gives up: a token that
would span the boundary.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.errors import DataError

_KEYS = {"prompt", "continuation"}
_ID_KEYS = {*_KEYS, "bytes"}
_EMPTY = "the continuation is empty, but it is what gets scored"


class IdItem(NamedTuple):
    """An item of token ids, and the UTF-8 bytes that its continuation is."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Task:
    """Items, (prompt, continuation) each, and a digest of them alone: not of the file's format or name. A task of token
    ids has `id_items` instead."""

    name: str
    items: tuple[tuple[str, str], ...]
    digest: str
    id_items: tuple[IdItem, ...] = ()


@dataclass(frozen=True)
class EncodedTask:
    """A task as a model of `sequence_length` reads it, cut into windows.

    `rows` (windows, sequence_length + 1): a window's tokens, as in training, padded on the right. `lengths`
    (windows,): how many of its predictions are real. `firsts` (windows,): the first of them that counts; from
    there on, all do. `digest` is the task's and `tokenizer` the tokeniser's.
    """

    name: str
    digest: str
    tokenizer: str
    sequence_length: int
    rows: Tokens
    lengths: NDArray[np.int64]
    firsts: NDArray[np.int64]
    bytes: int

    @property
    def tokens(self) -> int:
        """Tokens that a model reads, padding apart."""
        return int(self.lengths.sum())

    @property
    def scored(self) -> int:
        """Tokens of the continuations."""
        return int((self.lengths - self.firsts).sum())


def read_task(path: Path) -> Task:
    """Read a task; it is called what the file is. Raises DataError with file and line for a line that is no
    item."""
    try:
        lines = path.read_bytes().split(b"\n")
    except (FileNotFoundError, IsADirectoryError):
        way_out = f"write it, or remove {path.stem} from params.yaml: tasks"
        raise DataError("no such task", file=path, way_out=way_out) from None
    read = [(number, _item(line, f"{path}:{number}")) for number, line in enumerate(lines, 1) if line.strip()]
    if not read:
        way_out = 'write lines of {"prompt": "...", "continuation": "..."}'
        raise DataError("no items", file=path, way_out=way_out)
    items = tuple(item for _, item in read if not isinstance(item, IdItem))
    id_items = tuple(item for _, item in read if isinstance(item, IdItem))
    if items and id_items:
        number = next(number for number, item in read if type(item) is not type(read[0][1]))
        way_out = "use one kind per task"
        raise DataError("text and token ids in one task", file=f"{path}:{number}", way_out=way_out)
    digest = xxhash.xxh3_128()
    for text in (text.encode() for item in items for text in item):
        digest.update(f"{len(text)}:".encode() + text)
    for id_item in id_items:
        digest.update(f"ids {tuple(id_item)}".encode())
    return Task(path.stem, items, digest.hexdigest(), id_items)


def encode_task(task: Task, tokenizer: Tokenizer, sequence_length: int) -> EncodedTask:
    """Tokenise a task and cut it into windows; raises DataError for a continuation that has no tokens, and for an id
    beyond the vocabulary.

    An item is [end of document] + prompt + continuation. One that is longer than a window is read through
    windows that overlap: a token of the continuation is scored once, with at least half a window before it
    where there is as much.
    """
    prompts, continuations, scored_bytes = _tokens_of(task, tokenizer)
    end = np.array([tokenizer.end], dtype=tokenizer.dtype)
    rows, lengths, firsts = [], [], []
    for number, (prompt, continuation) in enumerate(zip(prompts, continuations, strict=True), 1):
        if not len(continuation):
            text = task.items[number - 1][1][:40]
            message = f"task {task.name}: item {number}: the tokeniser makes no tokens of {text!r}"
            raise DataError(message, way_out="remove it")
        item = np.concatenate((end, prompt, continuation))
        for begin, first, stop in _windows(1 + len(prompt), len(item), sequence_length):
            row = np.full(sequence_length + 1, tokenizer.end, dtype=tokenizer.dtype)
            row[: stop - begin] = item[begin:stop]
            rows.append(row)
            lengths.append(stop - begin - 1)
            firsts.append(first - begin - 1)
    return EncodedTask(
        task.name,
        task.digest,
        tokenizer.digest,
        sequence_length,
        np.stack(rows),
        np.array(lengths, dtype=np.int64),
        np.array(firsts, dtype=np.int64),
        scored_bytes,
    )


def _tokens_of(task: Task, tokenizer: Tokenizer) -> tuple[list[Tokens], list[Tokens], int]:
    """Prompts and continuations as ids, and the UTF-8 bytes of all continuations."""
    if not task.id_items:
        if not tokenizer.reads_text:
            raise DataError(
                f"task {task.name}: has text, but {tokenizer.path} cannot tokenise text",
                way_out='write token ids: {"prompt": [...], "continuation": [...], "bytes": N}, '
                "or name a tokenizer.json",
            )
        prompts = tokenizer.encode([prompt for prompt, _ in task.items])
        continuations = tokenizer.encode([continuation for _, continuation in task.items])
        return prompts, continuations, sum(len(continuation.encode()) for _, continuation in task.items)
    for number, item in enumerate(task.id_items, 1):
        wrong = next((token for token in item.prompt + item.continuation if token >= tokenizer.vocabulary), None)
        if wrong is not None:
            raise DataError(
                f"task {task.name}: item {number}: token id {wrong} is outside the vocabulary of "
                f"{tokenizer.vocabulary:,}"
            )
    prompts = [np.array(item.prompt, dtype=tokenizer.dtype) for item in task.id_items]
    continuations = [np.array(item.continuation, dtype=tokenizer.dtype) for item in task.id_items]
    return prompts, continuations, sum(item.bytes for item in task.id_items)


def task_to_bytes(task: EncodedTask) -> bytes:
    """An encoded task as bytes, for the workers that read it; equal tasks are equal bytes."""
    file = io.BytesIO()
    np.savez(file, *(np.asarray(value) for value in vars(task).values()))
    return file.getvalue()


def load_task(path: Path) -> EncodedTask:
    """Read a file that holds what `task_to_bytes` made and is called by its xxh3_128; raises DataError when it is
    missing or not what it is called."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path, way_out="run `dvc repro` again") from None
    if xxhash.xxh3_128_hexdigest(content) != path.stem:
        raise DataError("its content does not match its name", file=path, way_out="run `dvc repro` again")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        fields = [file[f"arr_{k}"] for k in range(len(EncodedTask.__dataclass_fields__))]
    return EncodedTask(*(field if field.ndim else field.item() for field in fields))


def untrained_bpb(task: EncodedTask, vocabulary: int) -> float:
    """BPB of a model that knows nothing, log2(vocabulary) * tokens / bytes: a task that stays near it
    measures noise."""
    return math.log2(vocabulary) * task.scored / task.bytes


def _windows(first: int, length: int, size: int) -> list[tuple[int, int, int]]:
    """Windows over an item of `length` tokens whose tokens from `first` on are scored: (begin, first scored,
    stop)."""
    windows = []
    while first < length:
        begin = max(0, min(first - (size + 1) // 2, length - 1 - size))
        stop = min(begin + size + 1, length)
        windows.append((begin, first, stop))
        first = stop
    return windows


def _item(line: bytes, where: str) -> tuple[str, str] | IdItem:
    try:
        item = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise DataError(f"not JSON: {error}", file=where) from None
    if isinstance(item, dict) and set(item) == _ID_KEYS:
        return _id_item(item, where)
    if not isinstance(item, dict) or set(item) != _KEYS:
        found = ", ".join(map(str, item)) if isinstance(item, dict) else type(item).__name__
        way_out = "an item has exactly prompt and continuation"
        what = f"has the keys {found or 'none'}" if isinstance(item, dict) else f"a {found}, not an item"
        raise DataError(what, file=where, way_out=way_out)
    prompt, continuation = item["prompt"], item["continuation"]
    if not isinstance(prompt, str) or not isinstance(continuation, str):
        raise DataError("prompt and continuation must be text", file=where, way_out="put them in quotes")
    if not continuation:
        raise DataError(_EMPTY, file=where, way_out="put text into it")
    return prompt, continuation


def _id_item(item: dict[str, Any], where: str) -> IdItem:
    prompt, continuation, size = item["prompt"], item["continuation"], item["bytes"]
    for ids in (prompt, continuation):
        if not isinstance(ids, list) or any(type(token) is not int or token < 0 for token in ids):
            raise DataError("with `bytes`, prompt and continuation must be lists of token ids", file=where)
    if not continuation:
        raise DataError(_EMPTY, file=where, way_out="put ids into it")
    if type(size) is not int or size <= 0:
        way_out = "write the number of UTF-8 bytes of the continuation"
        raise DataError(f"bytes is {size!r}, not a number above 0", file=where, way_out=way_out)
    return IdItem(tuple(prompt), tuple(continuation), size)
