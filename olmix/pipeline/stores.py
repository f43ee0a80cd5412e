"""DVC's local cache and default remote, as far as the run-cache needs them: entries, and the objects that they name.

Entries are written without a stage: DVC's own way takes 9 ms an entry and the repository's lock, and refuses paths that
`.dvcignore` names. Given up: links instead of copies (an object is a copy of its file), and the flush to the disk that
the journal pays for: what a power cut leaves is found out by its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from olmix.files import TEMPORARY
from olmix.pipeline import dvc_internals
from olmix.pipeline.dvc_internals import Remote
from olmix.pipeline.entry_files import NAME, EntryFile, InvalidEntryError, Output, entry_file, key_of, read_entry_file
from olmix.runs.sharing import Candidate, Entry

_log = logging.getLogger(__name__)
_A_DAY = 86_400.0
# Files of up to so many bytes are hashed to see whether they are kept already.
_QUICK = 1 << 16
# The kind of error that is none: a project on its own. Later stages of the same pipeline need not warn again.
NO_REMOTE = "no remote"
HERE_ONLY = "runs are trained and kept here, but not shared"
NOT_LOOKED_UP = "runs are trained here, not looked up"


class CacheError(Exception):
    """The cache failed: the kind of failure, and a line that says what it is and what follows. Ends as a warning."""

    def __init__(self, kind: str, line: str) -> None:
        super().__init__(line)
        self.kind = kind


def reason(error: BaseException) -> str:
    """The message of any exception, cut to fit into a line."""
    words = " ".join(str(error).split())
    return (words if len(words) <= 200 else f"{words[:200]}...") or type(error).__name__


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def file_md5(path: Path) -> str:
    """The MD5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _copy(file: IO[bytes], path: Path) -> Output:
    """Copy an open file to `path`, and hash it on the way."""
    digest = _md5()
    with path.open("wb") as copy:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            copy.write(chunk)
    return Output(digest.hexdigest(), file.tell())


@contextlib.contextmanager
def _cache_fails() -> Iterator[None]:
    """Blame the local cache for an OSError, rather than the remote or the run."""
    try:
        yield
    except OSError as error:
        raise unusable_cache(error) from error


def unusable_cache(error: OSError) -> CacheError:
    """The error of a local cache that cannot be read or written."""
    return CacheError("cache", f"DVC's cache on this machine cannot be used: {reason(error)}; {HERE_ONLY}")


def remote_entry_files(remote: Remote, entry: Entry) -> list[EntryFile]:
    """All valid entries under the key of `entry`; raises what the remote's file system raises."""
    key = key_of(entry)
    files = []
    for value, read in remote.entries(key).items():
        if NAME.fullmatch(value):
            try:
                files.append(read_entry_file(read(), entry, value))
            except FileNotFoundError:
                _log.debug("remote %s: entry %s/%s was just removed", remote.name, key, value)
            except InvalidEntryError as error:
                _log.debug("remote %s: entry %s/%s is rejected: %s", remote.name, key, value, error)
    return files


@dataclass(frozen=True)
class LocalCache:
    """DVC's local cache as a store of entries."""

    dvc: dvc_internals.Cache

    @classmethod
    def open(cls, root: Path) -> LocalCache:
        """The cache of the project at `root`. Raises CacheError."""
        try:
            return cls(dvc_internals.Cache.open(root))
        except dvc_internals.NoProjectError:
            raise CacheError("project", f"no DVC project here: {HERE_ONLY}; run `git init` and `dvc init`") from None
        except (dvc_internals.BrokenProjectError, OSError) as error:
            raise CacheError("project", f"DVC cannot open this project: {reason(error)}; {HERE_ONLY}") from error

    def has(self, stored: Output) -> bool:
        """Whether an object is there with the right number of bytes; its content is not read."""
        try:
            size = self.dvc.object_path(stored.md5).stat().st_size
        except OSError:
            return False
        return stored.size is None or size == stored.size

    def is_intact(self, md5: str) -> bool:
        """Whether an object is there and its bytes are right; a damaged one is removed, as DVC does."""
        path = self.dvc.object_path(md5)
        try:
            if file_md5(path) == md5:
                return True
        except OSError as error:
            _log.debug("object %s cannot be read: %s", md5, error)
            return False
        _log.debug("object %s in the cache is damaged and is removed", md5)
        with contextlib.suppress(OSError):
            path.unlink()
        return False

    def entry_files(self, entry: Entry) -> list[EntryFile]:
        """All valid entries under the key of `entry`."""
        key = key_of(entry)
        files = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in sorted(self.dvc.entry_folder(key).iterdir()):
                if NAME.fullmatch(path.name):
                    try:
                        files.append(read_entry_file(path.read_bytes(), entry, path.name))
                    except (InvalidEntryError, OSError) as error:
                        _log.debug("entry %s/%s is rejected: %s", key, path.name, error)
        return files

    def candidate(self, file: EntryFile) -> Candidate:
        """The files of a valid entry whose objects are in the cache."""
        return {path: self.dvc.object_path(stored.md5) for path, stored in file.outputs.items()}

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """A file on the cache's disk, outside the folders that DVC lists, removed unless it was moved away."""
        with _cache_fails():
            self.dvc.make_folder(self.dvc.folder)
            handle, path = tempfile.mkstemp(prefix=TEMPORARY, dir=self.dvc.folder)
            os.close(handle)
        try:
            yield Path(path)
        finally:
            Path(path).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed processes left half-written: a day old, since writers on other machines cannot be seen."""
        for path in self.dvc.folder.glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _A_DAY:
                    path.unlink()

    def take_object(self, temporary: Path, md5: str) -> None:
        """Turn a complete temporary file into an object, write-protected as DVC does; doing so twice does no harm."""
        path = self.dvc.object_path(md5)
        with _cache_fails():
            self.dvc.make_folder(path.parent)
            self.dvc.protect(temporary)
            temporary.replace(path)

    def take_entry(self, file: EntryFile) -> None:
        """Keep an entry whose objects are in the cache."""
        path = self.dvc.entry_folder(file.key) / file.value
        with contextlib.suppress(OSError):
            if path.read_bytes() == file.content:
                return
        with _cache_fails(), self.temporary() as temporary:
            self.dvc.make_folder(path.parent)
            temporary.write_bytes(file.content)
            self.dvc.move(temporary, path)

    def is_stored(self, entry: Entry, root: Path) -> bool:
        """Whether the cache seems to hold `entry` with the files that are in the project now: each has the same size,
        and the same MD5 where that is quick. A run's record is small, and names the digest of its weights."""
        try:
            return any(
                all(self._is_copy(root / path, out) for path, out in file.outputs.items())
                for file in self.entry_files(entry)
            )
        except OSError:
            return False

    def _is_copy(self, path: Path, stored: Output) -> bool:
        size = path.stat().st_size
        return (
            self.has(stored)
            and self.dvc.object_path(stored.md5).stat().st_size == size
            and (size > _QUICK or file_md5(path) == stored.md5)
        )

    def store(self, entry: Entry, root: Path) -> None:
        """Store an entry and its files; raises CacheError, of kind "output" when a file cannot be read, or OSError."""
        outputs = {}
        for path in entry.outputs:
            try:
                file = (root / path).open("rb")
            except OSError as error:
                raise CacheError("output", f"{path} cannot be read: {reason(error)}; this run is not shared") from None
            with file, self.temporary() as temporary:
                outputs[path] = _copy(file, temporary)
                if not self.has(outputs[path]):
                    self.take_object(temporary, outputs[path].md5)
        self.take_entry(entry_file(entry, outputs))

    def remote(self) -> Remote:
        """The default remote, which is not asked anything yet; raises CacheError, or what DVC raises."""
        remote = self.dvc.remote()
        if remote is None:
            raise CacheError(NO_REMOTE, f"no default DVC remote: {NOT_LOOKED_UP}; add one with `dvc remote add -d`")
        if remote.is_http:
            raise CacheError("http", f"DVC remote {remote.name!r}: HTTP remotes have no run-cache; {NOT_LOOKED_UP}")
        if remote.is_versioned:
            line = f"DVC remote {remote.name!r}: versioned remotes have no run-cache; {NOT_LOOKED_UP}"
            raise CacheError("versioned", line)
        return remote
