"""Shards: the files of a domain, in its folder or below a root elsewhere, and the stamps that say which have changed.

A root is a folder or any URL that fsspec opens (s3://...). A stamp is what the file system says of a shard (size,
modification time, inode; of an object its ETag): it decides what is read again, and is part of no identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from olmix.errors import DataError

READ_SIZE = 1 << 17
# Whether a linked file may be read, by what the link leads to.
Allowed = Callable[[Path], bool]


@dataclass(frozen=True)
class Kind:
    """A format as it lies on a disk: its name, its shards' suffixes, and the files beside a shard that belong to it.

    `index` is the suffix of a companion that must be there, which replaces the shard's own suffix or follows it;
    files with a suffix of `beside` are known and not read.
    """

    name: str
    suffixes: tuple[str, ...]
    index: str | None = None
    replaces: bool = False
    beside: tuple[str, ...] = ()
    are_tokens: bool = False

    def companion(self, name: str) -> str:
        """The name of the index of a shard."""
        base = name.removesuffix(self.suffixes[0]) if self.replaces else name
        return f"{base}{self.index}"


# What to do about a shard that a disk or a store does not give.
TRY_AGAIN = "try again once it can be read"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("jsonl", (".jsonl", ".ndjson")),
        Kind("jsonl.gz", (".jsonl.gz", ".json.gz", ".ndjson.gz")),
        Kind("jsonl.zst", (".jsonl.zst", ".json.zst", ".ndjson.zst", ".jsonl.zstd", ".json.zstd")),
        Kind("parquet", (".parquet",)),
        Kind("txt", (".txt",)),
        Kind("npy", (".npy",), beside=(".csv.gz",), are_tokens=True),
        Kind("megatron", (".bin",), index=".idx", replaces=True, are_tokens=True),
        Kind("datatrove", (".ds",), index=".index", beside=(".metadata", ".loss"), are_tokens=True),
    )
}


_SUFFIXES = tuple(suffix for kind in KINDS.values() for suffix in (*kind.suffixes, kind.index) if suffix)


@dataclass(frozen=True)
class Shard:
    """A file of a domain: its name below the domain's root, where it lies (a path or a URL), its size in bytes, and
    its stamp, the companion's included: empty where the store has none."""

    name: str
    place: str
    size: int
    stamp: str
    kind: Kind

    def open(self) -> IO[bytes]:
        """The shard's bytes; raises DataError when it is gone."""
        return _open(self.place)

    def open_index(self) -> IO[bytes]:
        """The bytes of the index beside it; raises DataError when it is gone."""
        return _open(self.kind.companion(self.place))

    def require_unchanged(self) -> None:
        """Raise DataError unless the shard has the stamp it had when it was listed."""
        try:
            stamp = "|".join(_look(place)[1] for place in self._places())
        except OSError:
            stamp = "gone"
        if self.stamp and stamp != self.stamp:
            raise self.changed()

    def error(self, message: str, *, key: str | None = None, way_out: str | None = None) -> DataError:
        """The error `message` about this shard; `key` is of its domain's entry."""
        return DataError(message, file=self.place, key=key, way_out=way_out)

    def changed(self) -> DataError:
        """The error of a shard that changed under its reader."""
        return self.error("changed while it was read", way_out="nothing was recorded; run it again")

    def _places(self) -> list[str]:
        return [self.place, *([self.kind.companion(self.place)] if self.kind.index else [])]


def is_remote(root: str) -> bool:
    """Whether `root` is a URL."""
    return "://" in root


def _is_hidden(name: str) -> bool:
    """Whether a file's name says that it is no data: `.git`, and `_SUCCESS` and the like, which Spark leaves."""
    return name.startswith(".") or (name.startswith("_") and not name.endswith(_SUFFIXES))


def local_path(root: str) -> str:
    """A root that says `file://` as a path: the file system tells more of a file than fsspec does."""
    return root.removeprefix("file://") if root.startswith("file:///") else root


def list_shards(
    root: Path | str, allowed: Allowed, declared: str | None = None, way_out: str = "check the path"
) -> list[Shard]:
    """The shards below `root`, by name; hidden files are not shards. `declared` is the format of all of them.

    Raises DataError when there are none, when one is empty, when formats are mixed or unknown, and when a link leads
    to a file that `allowed` does not accept. `way_out` says what to do when the folder is not there.
    """
    place = local_path(str(root))
    listed = _remote_files(place) if is_remote(place) else _local_files(Path(place), allowed, way_out)
    files = dict(listed)
    kind = _kind_of(place, files, declared)
    suffixes = kind.suffixes if declared is None else _used(kind.suffixes, files)
    companions = {kind.companion(name) for name in files if name.endswith(kind.suffixes)}
    shards = []
    for name, (size, stamp) in sorted(files.items()):
        if not name.isprintable():
            raise DataError("a name with unprintable characters", file=f"{place}/{name!r}", way_out="rename the file")
        where = _join(place, name)
        if kind.index and name.endswith(kind.index):
            if name not in companions:
                raise DataError(
                    f"no {kind.suffixes[0]} beside it", file=where, way_out="copy it there, or remove this index"
                )
            continue
        if name.endswith(kind.beside):
            continue
        if suffixes and not name.endswith(suffixes):
            raise DataError(
                f"not a {' or '.join(suffixes)} shard, as the others of this domain",
                file=where,
                way_out="remove it, or give the domain one format",
            )
        if kind.index:
            index = kind.companion(name)
            if index not in files:
                raise DataError(f"no {PurePosixPath(index).name} beside it", file=where, way_out="copy it there")
        if not size:
            raise DataError("empty shard", file=where, way_out="remove it or write it again")
        stamps = [stamp, *([files[kind.companion(name)][1]] if kind.index else [])]
        shards.append(Shard(name, where, size, "|".join(stamps) if all(stamps) else "", kind))
    if not shards:
        raise DataError("no shards", file=place, way_out=f"put {_suffixes()} files there")
    return shards


def is_shard(name: str) -> bool:
    """Whether a file's name is one of a shard in some format."""
    return name.endswith(_SUFFIXES)


def _used(suffixes: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(suffix for suffix in suffixes if any(name.endswith(suffix) for name in names))


def _kind_of(place: str, files: Iterable[str], declared: str | None) -> Kind:
    """The one format of the files; raises DataError."""
    kinds: dict[str, str] = {}
    unknown = []
    for name in sorted(files):
        kind = next((k.name for k in KINDS.values() if name.endswith(k.suffixes)), None)
        if kind is not None:
            kinds.setdefault(kind, name)
        else:
            unknown.append(name)
    if declared is not None:
        if declared not in KINDS:
            raise DataError(
                f"no format {declared!r}", file=place, key="format", way_out=f"choose from {', '.join(KINDS)}"
            )
        other = next((n for k, n in kinds.items() if k != declared and not n.endswith(KINDS[declared].beside)), None)
        if other is not None:
            raise DataError(f"{declared}, but this shard is not", file=_join(place, other), key="format")
        return KINDS[declared]
    if len(kinds) > 1:
        raise DataError(
            f"{' and '.join(sorted(kinds))} shards in one domain", file=place, way_out="use one format per domain"
        )
    if not kinds:
        if unknown:
            data = next((k.suffixes[0] for k in KINDS.values() if k.index and unknown[0].endswith(k.index)), None)
            if data is not None:
                raise DataError(f"no {data} beside it", file=_join(place, unknown[0]), way_out="copy it there")
            raise DataError(
                "not a shard",
                file=_join(place, unknown[0]),
                key="format",
                way_out=f"give the domain {_suffixes()} files, or declare the format in params.yaml",
            )
        raise DataError("no shards", file=place, way_out=f"put {_suffixes()} files there")
    return KINDS[next(iter(kinds))]


def _suffixes() -> str:
    first = [kind.suffixes[0] for kind in KINDS.values()]
    return f"{', '.join(first[:-1])} or {first[-1]}"


def _local_files(root: Path, allowed: Allowed, way_out: str) -> Iterator[tuple[str, tuple[int, str]]]:
    if not root.is_dir():
        raise DataError("no such folder", file=root, way_out=way_out)
    # scandir asks the disk once a folder, where a walk of paths would ask several times a file: 100,000 shards.
    waiting = [(str(root), "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            entries = os.scandir(folder)
        except OSError as error:
            raise DataError(f"cannot be listed: {_reason(error)}", file=folder) from None
        with entries:
            for entry in entries:
                if _is_hidden(entry.name):
                    continue
                name = f"{prefix}{entry.name}"
                if entry.is_symlink():
                    _follow(Path(entry.path), allowed)
                elif entry.is_dir():
                    waiting.append((entry.path, f"{name}/"))
                    continue
                try:
                    yield name, _stamp(entry.stat())
                except OSError as error:
                    raise DataError(f"cannot be inspected: {_reason(error)}", file=entry.path) from None


def _follow(path: Path, allowed: Allowed) -> None:
    """Raise DataError unless the link leads to a file that may be read."""
    if path.is_dir():
        raise DataError("links to folders are not followed", file=path, way_out="link its files, or copy them in")
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        raise DataError("a broken link", file=path, way_out="remove it, or run `dvc checkout`") from None
    if not allowed(target):
        raise DataError(
            "a link to a file outside the project", file=path, way_out="copy the shard in, or use `dvc import`"
        )


def _stamp(status: os.stat_result) -> tuple[int, str]:
    return status.st_size, f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"


def _remote_files(root: str) -> Iterator[tuple[str, tuple[int, str]]]:
    system, path = _system(root)
    try:
        objects: dict[str, dict[str, Any]] = system.find(path, detail=True)
    except FileNotFoundError:
        objects = {}
    except Exception as error:  # each kind of store has errors of its own
        raise DataError(f"cannot be listed: {_reason(error)}", file=root) from None
    if not objects:
        raise DataError("no files", file=root, way_out="check the root and your credentials")
    for place, about in objects.items():
        name = place.removeprefix(path.rstrip("/")).lstrip("/")
        if any(_is_hidden(part) for part in name.split("/")) or about.get("type") == "directory":
            continue
        if not name or (name.endswith("/") and not about.get("size")):  # how stores mark a folder
            continue
        yield name, _object_stamp(_with_size(system, place, about))


def _with_size(system: Any, place: str, about: dict[str, Any]) -> dict[str, Any]:
    """What is known of an object, its size included: the listing of a web server has names alone."""
    if about.get("size") is None:
        try:
            about = system.info(place)
        except Exception as error:  # each kind of store has errors of its own
            raise DataError(f"cannot be inspected: {_reason(error)}", file=place) from None
    if about.get("size") is None:
        raise DataError(
            "the server does not give its size", file=place, way_out="copy the shards to a folder or a bucket"
        )
    return about


def _object_stamp(about: dict[str, Any]) -> tuple[int, str]:
    """An object's size and stamp: its ETag where it has one, else the time of its last change. Without either the stamp
    is empty, and tells nothing."""
    size = int(about.get("size") or 0)
    keys = ("ETag", "etag", "md5Hash", "content_md5", "LastModified", "last_modified", "mtime", "created")
    tag = next((about[key] for key in keys if about.get(key)), "")
    if isinstance(tag, datetime):  # some stores say a moment one way in a listing and another way of one object
        tag = tag.timestamp()
    return size, f"{size}:{str(tag).strip(chr(34))}" if tag != "" else ""


def _look(place: str) -> tuple[int, str]:
    if not is_remote(place):
        return _stamp(os.stat(place))  # noqa: PTH116  # `place` is text, and this runs once a shard
    system, path = _system(place)
    system.invalidate_cache()
    return _object_stamp(system.info(path))


def _open(place: str) -> IO[bytes]:
    try:
        if not is_remote(place):
            return Path(place).open("rb", buffering=READ_SIZE)
        system, path = _system(place)
        opened: IO[bytes] = system.open(path, "rb")
        return opened
    except OSError as error:
        raise DataError(f"cannot be read: {_reason(error)}", file=place) from None


def _system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; raises DataError for one that cannot be had."""
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError, OSError) as error:
        raise DataError(f"cannot be opened: {_reason(error)}", file=url) from None
    return system, str(path)


def _join(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"


def _reason(error: BaseException) -> str:
    strerror = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__).splitlines()[0]


def total_size(shards: Sequence[Shard]) -> int:
    """Bytes of all shards."""
    return sum(shard.size for shard in shards)
