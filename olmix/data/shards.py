"""Shards: the files of a domain's folder, and the documents in them.

A format is one entry of FORMATS: a suffix and a generator of the documents' UTF-8 bytes. A domain holds one format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from olmix.errors import DataError

READ_SIZE = 1 << 20


@dataclass(frozen=True)
class Shard:
    """A file of a domain, its path inside the domain's folder, and the stamp that says whether it has changed."""

    path: Path
    name: str
    stamp: tuple[int, int, int]  # size in bytes, modification time in ns, inode

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.stamp[0]


def stamp_of(path: Path) -> tuple[int, int, int]:
    """(size, mtime in ns, inode) of the file that `path` names or links to."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def list_shards(folder: Path, allowed: Callable[[Path], bool]) -> list[Shard]:
    """The shards below `folder`, by name; hidden files are not shards.

    Raises DataError when there are none, when one is empty, when formats are mixed or unknown, and when a link leads
    to a file that `allowed` does not accept.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; put the domain's shards there or run dvc pull")
    shards = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() and path.is_dir():
            raise DataError(f"{path}: a linked folder is not read; link its files, or copy them in")
        if path.is_dir() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            target, stamp = path.resolve(strict=True), stamp_of(path)
        except (OSError, RuntimeError):
            raise DataError(f"{path}: a link that leads nowhere; remove it, or run dvc checkout") from None
        if not allowed(target):
            raise DataError(f"{path}: leads out of the project through a link; copy the shard in, or use dvc import")
        shard = Shard(path, name, stamp)
        if not shard.size:
            raise DataError(f"{path}: empty shard; remove it or write it again")
        shards.append(shard)
    if not shards:
        raise DataError(f"{folder}: no shards; put {' or '.join(FORMATS)} files there")
    suffixes = sorted({shard.path.suffix for shard in shards})
    unknown = next((shard for shard in shards if shard.path.suffix not in FORMATS), None)
    if unknown:
        raise DataError(f"{unknown.path}: not a shard; a domain holds {' or '.join(FORMATS)} files only")
    if len(suffixes) > 1:
        raise DataError(f"{folder}: {' and '.join(suffixes)} shards in one domain; keep one format a domain")
    return shards


def read_documents(shard: Shard, text: str) -> Iterator[bytes]:
    """The UTF-8 text of each document of a shard; `text` names the field of formats that have fields.

    Raises DataError, with shard and line, for what is no document, and when the shard changes while it is read.
    """
    yield from FORMATS[shard.path.suffix](shard, text)
    if stamp_of(shard.path) != shard.stamp:
        raise DataError(f"{shard.path}: changed while it was read; nothing was recorded, run it again")


def _jsonl(shard: Shard, text: str) -> Iterator[bytes]:
    loads, decode_error = orjson.loads, orjson.JSONDecodeError
    with shard.path.open("rb", buffering=READ_SIZE) as file:
        for number, line in enumerate(file, 1):
            try:
                yield loads(line)[text].encode()
            except decode_error as error:
                if not line.strip():
                    continue  # an empty line ends many files, and is no document
                raise DataError(f"{shard.path}:{number}: not JSON: {error}") from None
            except (KeyError, TypeError, AttributeError):
                raise DataError(_field_problem(shard, number, line, text)) from None


def _field_problem(shard: Shard, number: int, line: bytes, text: str) -> str:
    row = orjson.loads(line)
    if not isinstance(row, dict):
        return f"{shard.path}:{number}: not a JSON object; write one object a line with the field {text!r}"
    if text not in row:
        fields = ", ".join(sorted(row)[:8]) or "none"
        return f"{shard.path}:{number}: no field {text!r} (fields: {fields}); set params.yaml: domains.<name>.text"
    return f"{shard.path}:{number}: field {text!r} is {type(row[text]).__name__}, not text"


def _txt(shard: Shard, text: str) -> Iterator[bytes]:
    content = shard.path.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{shard.path}: not UTF-8 at byte {error.start}; convert it first") from None
    yield content


FORMATS: dict[str, Callable[[Shard, str], Iterator[bytes]]] = {".jsonl": _jsonl, ".txt": _txt}
