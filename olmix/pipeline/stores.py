"""DVC's local cache and default remote, as far as the run-cache needs them: entries, the objects that they name.

Entries are written without a stage: DVC's own way takes 9 ms an entry and the repository's lock, and refuses paths that
`.dvcignore` names. Given up: links instead of copies (an object is a copy of its file), and the flush to the disk that
the journal pays for: what a power cut leaves is found out by its hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmix.files import TEMPORARY
from olmix.pipeline import dvc_internals
from olmix.pipeline.entry_files import NAME, EntryFile, LockHash, Refused, Stored, entry_file, key_of, read_entry_file
from olmix.runs.sharing import Candidate, Entry

_log = logging.getLogger(__name__)
_A_DAY = 86_400.0
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


def file_md5(path: str) -> str:
    """MD5 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


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


@dataclass(frozen=True)
class Remote:
    """The default remote: DVC's file system for it, and the path in that."""

    name: str
    fs: Any
    path: str
    callback: Callable[..., Any]

    def entry_files(self, entry: Entry, lock_hash: LockHash) -> list[EntryFile]:
        """All valid entries under the key of `entry`; raises what the file system raises, but for what is not there."""
        key = key_of(entry, lock_hash)
        folder = self.fs.join(self.path, "runs", key[:2], key)
        files = []
        try:
            for path in sorted(self.fs.ls(folder, detail=False)):
                name = self.fs.name(path)
                if NAME.fullmatch(name):
                    try:
                        files.append(read_entry_file(self.fs.cat_file(path), entry, name, lock_hash))
                    except Refused as refused:
                        _log.debug("remote %s: entry %s/%s is refused: %s", self.name, key, name, refused)
        except FileNotFoundError:
            pass  # nobody has pushed this entry, or it was removed a moment ago
        return files

    def download(self, md5: str, target: str, sign_of_life: Callable[[], None]) -> bool:
        """Copy an object to a file, unchecked; False when there is none. Raises what the file system raises."""
        hooks = {"heard": lambda *_, **__: sign_of_life()}
        source = self.fs.join(self.path, "files", "md5", md5[:2], md5[2:])
        try:
            self.fs.get_file(source, target, callback=self.callback(hooks=hooks))
        except FileNotFoundError:
            _log.debug("remote %s: object %s is not there", self.name, md5)
            return False
        return True


@dataclass(frozen=True)
class LocalCache:
    """DVC's local cache: its two object stores (files, and entries beside them), its configuration, its hash."""

    files: Any
    entries: Any
    config: Any
    lock_hash: LockHash

    @classmethod
    def open(cls, root: Path) -> LocalCache:
        """The cache of the project at `root`; no lock is taken. Raises Trouble."""
        try:
            cache = cls(*dvc_internals.stores_of(root))
        except dvc_internals.NoProjectError:
            raise Trouble("project", f"no DVC project here: {HERE_ONLY}; run git init and dvc init") from None
        except dvc_internals.BrokenProjectError as error:
            raise Trouble("project", f"DVC cannot open this project: {reason(error)}; {HERE_ONLY}") from error
        if not NAME.fullmatch(cache.lock_hash({"cmd": "", "outs": []})):
            raise TypeError("DVC hashes stages differently")
        return cache

    def object_path(self, md5: str) -> str:
        """Where an object lies or would lie."""
        return str(self.files.oid_to_path(md5))

    def has(self, stored: Stored) -> bool:
        """Whether an object is there with the right number of bytes; its content is not read."""
        try:
            size = Path(self.object_path(stored.md5)).stat().st_size
        except OSError:
            return False
        return stored.size is None or size == stored.size

    def is_intact(self, md5: str) -> bool:
        """Whether an object is there and its bytes are right; a damaged one is removed, as DVC does."""
        path = self.object_path(md5)
        try:
            if file_md5(path) == md5:
                return True
        except OSError as error:
            _log.debug("object %s cannot be read: %s", md5, error)
            return False
        _log.debug("object %s in the cache is damaged, and is removed", md5)
        with contextlib.suppress(OSError):
            Path(path).unlink()
        return False

    def entry_files(self, entry: Entry) -> list[EntryFile]:
        """All valid entries under the key of `entry`."""
        key = key_of(entry, self.lock_hash)
        files = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for path in sorted(self._entry_path(key, "").iterdir()):
                if NAME.fullmatch(path.name):
                    try:
                        files.append(read_entry_file(path.read_bytes(), entry, path.name, self.lock_hash))
                    except (Refused, OSError) as refused:
                        _log.debug("entry %s/%s is refused: %s", key, path.name, refused)
        return files

    def candidate(self, file: EntryFile) -> Candidate:
        """The files of a valid entry whose objects are in the cache."""
        return {path: Path(self.object_path(stored.md5)) for path, stored in file.outputs.items()}

    def _entry_path(self, key: str, value: str) -> Path:
        return Path(self.entries.path) / "runs" / key[:2] / key / value

    @contextlib.contextmanager
    def temporary(self) -> Iterator[str]:
        """A file on the cache's disk, outside the folders that DVC lists, removed unless it was moved away."""
        with _cache_fails():
            self.entries.makedirs(self.entries.path)
            handle, path = tempfile.mkstemp(prefix=TEMPORARY, dir=self.entries.path)
            os.close(handle)
        try:
            yield path
        finally:
            Path(path).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed processes left half-written: a day old, since writers on other machines cannot be seen."""
        for path in Path(self.entries.path).glob(f"{TEMPORARY}*"):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _A_DAY:
                    path.unlink()

    def take_object(self, temporary: str, md5: str) -> None:
        """Make a whole temporary file an object, write-protected as DVC does: two that write the same are no harm."""
        path = self.object_path(md5)
        with _cache_fails():
            self.files.makedirs(str(Path(path).parent))
            self.files.protect(temporary)
            Path(temporary).replace(path)

    def take_entry(self, file: EntryFile) -> None:
        """Keep an entry whose objects are in the cache."""
        path = self._entry_path(file.key, file.value)
        with contextlib.suppress(OSError):
            if path.read_bytes() == file.content:
                return
        with _cache_fails(), self.temporary() as temporary:
            self.entries.makedirs(str(path.parent))
            Path(temporary).write_bytes(file.content)
            self.entries.move(temporary, str(path))

    def keep(self, entry: Entry, root: Path) -> None:
        """Store an entry and its files; raises Trouble, of kind "output" when a file cannot be read, or OSError."""
        outputs = {}
        for path in entry.outputs:
            # The writer of a run renames it into place: what is open stays the same bytes while it is read twice.
            try:
                file = (root / path).open("rb")
            except OSError as error:
                raise Trouble("output", f"{path} cannot be read: {reason(error)}; this run is not shared") from None
            with file:
                md5 = hashlib.file_digest(file, _md5).hexdigest()
                outputs[path] = Stored(md5, file.tell())
                if self.has(outputs[path]):
                    continue
                file.seek(0)
                with self.temporary() as temporary:
                    with Path(temporary).open("wb") as copy:
                        shutil.copyfileobj(file, copy, 1 << 20)
                    self.take_object(temporary, md5)
        self.take_entry(entry_file(entry, outputs, self.lock_hash))

    def remote(self) -> Remote:
        """The default remote, which is not asked anything yet; raises Trouble, or what DVC raises."""
        name = self.config["core"].get("remote")
        if not name:
            raise Trouble(NO_REMOTE, f"no default DVC remote: {NOT_LOOKED_UP}; add one with dvc remote add -d")
        kind, settings, path, callback = dvc_internals.remote_of(self.config, name)
        if kind.protocol in ("http", "https"):
            raise Trouble("http", f"DVC remote {name!r}: HTTP remotes have no run-cache; {NOT_LOOKED_UP}")
        if settings.get("worktree") or settings.get("version_aware"):
            raise Trouble("versioned", f"DVC remote {name!r}: versioned remotes have no run-cache; {NOT_LOOKED_UP}")
        return Remote(name, kind(**settings), path, callback)
