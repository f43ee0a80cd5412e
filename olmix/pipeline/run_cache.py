"""Finished runs in DVC's run-cache: found again on any clone, moved by `dvc push --run-cache`, restorable by DVC.

The remote is asked for the wanted keys alone, in parallel, and every object that comes is hashed before it enters the
cache. 512 runs of 1 MB, in five runs of benchmarks/sharing.py on 2 cores that other programs used as well: stored in 5
to 9 s, fetched into a fresh clone from an S3 server on the same cores in 13 to 26 s, most of it the S3 client's own
work (19 ms a run). DVC's restore of one stage after another took 7 to 24 times as long.

Given up: pushing. Entries travel with `dvc push --run-cache`, and their objects only while the same bytes also lie in
an output of the pipeline. And a cache never stops work: whatever happens to it is one line of warning, once.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path

from olmix.pipeline.dvc_internals import Remote
from olmix.pipeline.entry_files import EntryFile
from olmix.pipeline.parallel import Item, Result, call_in_parallel
from olmix.pipeline.stores import (
    HERE_ONLY,
    NOT_LOOKED_UP,
    CacheError,
    LocalCache,
    file_md5,
    reason,
    remote_entry_files,
    unusable_cache,
)
from olmix.runs.sharing import Candidate, Entry

_log = logging.getLogger(__name__)
# More threads than this gain nothing against one server and cost memory: each may hold a chunk of an object.
_THREADS = 16
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class RunCache:
    """The run-cache of the DVC project at `root`, as a cache of finished work (`olmix.runs.sharing`).

    `warn` gets one line for the first error of each kind, but for the kinds in `quiet`; a remote that has been silent
    for `patience` seconds is given up. Nothing is opened before the first call.
    """

    def __init__(
        self, root: Path, warn: Callable[[str], None], patience: float = 20.0, quiet: Collection[str] = ()
    ) -> None:
        self._warn = warn
        self._patience = patience
        self._root = root
        self._warned = set(quiet)

    def store(self, entries: Sequence[Entry]) -> bool:
        """Keep the files of `entries` in the local cache, from where `dvc push --run-cache` takes them; whether all are
        there now. Raises nothing."""
        kept = 0
        with self._no_harm(HERE_ONLY):
            cache = self._cache
            if cache is None or not entries:
                return not entries
            cache.sweep()
            for entry in entries:
                try:
                    if not cache.is_stored(entry, self._root):
                        cache.store(entry, self._root)
                    kept += 1
                except CacheError as error:
                    if error.kind != "output":
                        raise
                    self._warn_once(error)  # the other entries' files may be there
        return kept == len(entries)

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        """Candidates for each of `entries`, from the local cache if it holds any, otherwise from the remote; sorted by
        hash, so that their order is the same everywhere. Raises nothing."""
        found: dict[Entry, list[Candidate]] = {}
        with self._no_harm(NOT_LOOKED_UP):
            cache = self._cache
            if cache is None:
                return found
            lost: dict[Entry, dict[str, EntryFile]] = {}
            for entry in entries:
                files = cache.entry_files(entry)
                whole = [file for file in files if all(cache.is_intact(out.md5) for out in file.outputs.values())]
                if whole:
                    found[entry] = [cache.candidate(file) for file in whole]
                else:
                    lost[entry] = {file.value: file for file in files}
            if lost:
                self._fetch(cache, lost, found)
        return found

    def held(self, entries: Sequence[Entry]) -> set[Entry]:
        """Those of `entries` that the local cache seems to hold; reads no object and asks no remote. Raises nothing."""
        held: set[Entry] = set()
        with self._no_harm(NOT_LOOKED_UP):
            cache = self._cache
            if cache is None:
                return held
            for entry in entries:
                if any(all(map(cache.has, file.outputs.values())) for file in cache.entry_files(entry)):
                    held.add(entry)
        return held

    @functools.cached_property
    def _cache(self) -> LocalCache | None:
        try:
            return LocalCache.open(self._root)
        except CacheError as error:
            self._warn_once(error)
            return None

    def _fetch(
        self, cache: LocalCache, files: dict[Entry, dict[str, EntryFile]], found: dict[Entry, list[Candidate]]
    ) -> None:
        """Add to `found` what the remote holds of `files`: for each entry, its entry files whose objects are not here,
        which garbage collection may have removed from here alone."""
        remote = next(result for _, result in self._calls("", lambda _, __: cache.remote(), [None]))
        named = set()
        for entry, there in self._calls(remote.name, lambda entry, _: remote_entry_files(remote, entry), files):
            files[entry] |= {file.value: file for file in there}
            if there:
                named.add(entry)
        wanted = {out.md5: None for each in files.values() for file in each.values() for out in file.outputs.values()}
        here = set()
        broken = None
        try:
            for md5, is_here in self._calls(remote.name, lambda md5, heard: _pull(cache, remote, md5, heard), wanted):
                if is_here:
                    here.add(md5)
        except CacheError as error:  # what came before it is used
            broken = error
        for entry, each in files.items():
            usable = [file for _, file in sorted(each.items()) if here.issuperset(o.md5 for o in file.outputs.values())]
            if usable:
                found[entry] = [cache.candidate(file) for file in usable]
                for file in usable:
                    cache.take_entry(file)
        if broken:
            raise broken
        lacking = len(named - found.keys())
        if lacking:
            what = f"lacks the files of {lacking} of {len(named)} runs that it lists, or has damaged ones"
            raise CacheError(
                "lacking",
                f"DVC remote {remote.name!r} {what}; these are trained here (`dvc push` only pushes current outputs)",
            )

    def _calls(
        self, remote: str, call: Callable[[Item, Callable[[], None]], Result], items: Iterable[Item]
    ) -> Iterator[tuple[Item, Result]]:
        """What `call` returns for each item, in parallel; raises CacheError at the first that fails."""
        what = f"DVC remote {remote!r} cannot be read" if remote else "the default DVC remote cannot be opened"
        try:
            for item, result in call_in_parallel(call, items, _THREADS, self._patience):
                if isinstance(result, CacheError):
                    raise result
                if isinstance(result, OSError) and result.errno in _FULL:
                    raise unusable_cache(result)
                if isinstance(result, Exception):
                    _log.debug("%s", what, exc_info=result)
                    raise CacheError("remote", f"{what}: {reason(result)}; {NOT_LOOKED_UP}; try `dvc pull`")
                yield item, result
        except TimeoutError as error:
            raise CacheError("remote", f"{what}: {error}; {NOT_LOOKED_UP}; try `dvc pull`") from None

    @contextlib.contextmanager
    def _no_harm(self, follows: str) -> Iterator[None]:
        """Turn any error inside into a line of warning: the work is worth more than its cache."""
        try:
            yield
        except CacheError as error:
            self._warn_once(error)
        except OSError as error:
            self._warn_once(unusable_cache(error))
        except Exception as error:  # internals of a DVC that is not the one this was written for
            _log.debug("the run-cache of DVC", exc_info=True)
            what = f"the run-cache of DVC {_dvc_version()} cannot be used: {type(error).__name__}: {reason(error)}"
            self._warn_once(CacheError("internals", f"{what}; {follows}; install `dvc>=3.66,<4`"))

    def _warn_once(self, error: CacheError) -> None:
        if error.kind not in self._warned:
            self._warned.add(error.kind)
            self._warn(str(error))


def _dvc_version() -> str:
    try:
        return metadata.version("dvc")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _pull(cache: LocalCache, remote: Remote, md5: str, heard: Callable[[], None]) -> bool:
    """Fetch an object into the cache; whether it is there now and undamaged. Raises what the remote's file system
    raises, and CacheError when the local cache fails."""
    if cache.is_intact(md5):
        return True
    with cache.temporary() as temporary:
        if not remote.download(md5, str(temporary), heard):
            _log.debug("remote %s: object %s is missing", remote.name, md5)
            return False
        if file_md5(temporary) != md5:
            _log.debug("remote %s: object %s is damaged", remote.name, md5)
            return False
        cache.take_object(temporary, md5)
    return True
