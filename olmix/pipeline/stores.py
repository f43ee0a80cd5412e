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
from olmix.pipeline.entry_files import NAME, EntryFile, Refused, Stored, entry_file, key_of, read_entry_file
from olmix.runs.sharing import Candidate, Entry

_log = logging.getLogger(__name__)
_A_DAY = 86_400.0
# Files of up to so many bytes are hashed to see whether they are kept already.
_QUICK = 1 << 16
# The kind of trouble that is none: a project by itself. A later stage of the same pipeline need not say it again.
NO_REMOTE = "no remote"
HERE_ONLY = "runs are trained and kept here, and not shared"
NOT_LOOKED_UP = "runs are trained here and not looked up"


class Trouble(Exception):  # noqa: N818  # told to a person, once a kind, and then forgotten
    """What went wrong with the cache, its kind, and what follows from it, in one line."""

    def __init__(self, kind: str, line: str) -> None:
        super().__init__(line)
        self.kind = kind


def reason(error: BaseException) -> str:
    """An exception of anyone's as part of a line."""
    words = " ".join(str(error).split())
    return (words if len(words) <= 200 else f"{words[:200]}...") or type(error).__name__


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)


def file_md5(path: Path) -> str:
    """MD5 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def _copy(file: IO[bytes], path: Path) -> Stored:
    """Copy an open file to `path`, and hash it on the way."""
    digest = _md5()
    with path.open("wb") as copy:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
            copy.write(chunk)
    return Stored(digest.hexdigest(), file.tell())


@contextlib.contextmanager
def _cache_fails() -> Iterator[None]:
    """Say of an OSError that it is the cache's, and not the remote's or the run's."""
    try:
        yield
    except OSError as error:
        raise cache_trouble(error) from error


def cache_trouble(error: OSError) -> Trouble:
    """The trouble of a cache that cannot be read or written."""
    return Trouble("cache", f"DVC's cache on this machine cannot be used: {reason(error)}; {HERE_ONLY}")


def remote_entry_files(remote: Remote, entry: Entry) -> list[EntryFile]:
    """All valid entries under the key of `entry`; raises what the remote's file system raises."""
    key = key_of(entry)
    files = []
    for value, read in remote.entries(key).items():
        if NAME.fullmatch(value):
            try:
                files.append(read_entry_file(read(), entry, value))
            except FileNotFoundError:
                _log.debug("remote %s: entry %s/%s was removed a moment ago", remote.name, key, value)
            except Refused as refused:
                _log.debug("remote %s: entry %s/%s is refused: %s", remote.name, key, value, refused)
    return files


@dataclass(frozen=True)
class LocalCache:
    """DVC's local cache as a store of entries."""

    dvc: dvc_internals.Cache

    @classmethod
    def open(cls, root: Path) -> LocalCache:
        """The cache of the project at `root`. Raises Trouble."""
        try:
            return cls(dvc_internals.Cache.open(root))
        except dvc_internals.NoProjectError:
            raise Trouble("project", f"no DVC project here: {HERE_ONLY}; run git init and dvc init") from None
        except (dvc_internals.BrokenProjectError, OSError) as error:
            raise Trouble("project", f"DVC cannot open this project: {reason(error)}; {HERE_ONLY}") from error

    def has(self, stored: Stored) -> bool:
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
        _log.debug("object %s in the cache is damaged, and is removed", md5)
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
                    except (Refused, OSError) as refused:
                        _log.debug("entry %s/%s is refused: %s", key, path.name, refused)
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
        """Make a whole temporary file an object, write-protected as DVC does: two that write the same are no harm."""
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

    def keeps(self, entry: Entry, root: Path) -> bool:
        """Whether the cache seems to hold `entry` with the files that are in the project now: of the same size each,
        and the same MD5 where that is quick. A run's record is small, and names the digest of its weights."""
        try:
            return any(
                all(self._is_copy(root / path, out) for path, out in file.outputs.items())
                for file in self.entry_files(entry)
            )
        except OSError:
            return False

    def _is_copy(self, path: Path, stored: Stored) -> bool:
        size = path.stat().st_size
        return (
            self.has(stored)
            and self.dvc.object_path(stored.md5).stat().st_size == size
            and (size > _QUICK or file_md5(path) == stored.md5)
        )

    def keep(self, entry: Entry, root: Path) -> None:
        """Store an entry and its files; raises Trouble, of kind "output" when a file cannot be read, or OSError."""
        outputs = {}
        for path in entry.outputs:
            try:
                file = (root / path).open("rb")
            except OSError as error:
                raise Trouble("output", f"{path} cannot be read: {reason(error)}; this run is not shared") from None
            with file, self.temporary() as temporary:
                outputs[path] = _copy(file, temporary)
                if not self.has(outputs[path]):
                    self.take_object(temporary, outputs[path].md5)
        self.take_entry(entry_file(entry, outputs))

    def remote(self) -> Remote:
        """The default remote, which is not asked anything yet; raises Trouble, or what DVC raises."""
        remote = self.dvc.remote()
        if remote is None:
            raise Trouble(NO_REMOTE, f"no default DVC remote: {NOT_LOOKED_UP}; add one with dvc remote add -d")
        if remote.is_http:
            raise Trouble("http", f"DVC remote {remote.name!r}: HTTP remotes have no run-cache; {NOT_LOOKED_UP}")
        if remote.is_versioned:
            line = f"DVC remote {remote.name!r}: versioned remotes have no run-cache; {NOT_LOOKED_UP}"
            raise Trouble("versioned", line)
        return remote
