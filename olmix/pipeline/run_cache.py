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

from olmix.pipeline.answers import Answer, Asking, Question, Silence
from olmix.pipeline.dvc_internals import Remote
from olmix.pipeline.entry_files import EntryFile
from olmix.pipeline.stores import (
    HERE_ONLY,
    NOT_LOOKED_UP,
    LocalCache,
    Trouble,
    cache_trouble,
    file_md5,
    reason,
    remote_entry_files,
)
from olmix.runs.sharing import Candidate, Entry

_log = logging.getLogger(__name__)
# More threads than this gain nothing against one server and cost memory: each may hold a chunk of an object.
_THREADS = 16
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


class RunCache:
    """The run-cache of the DVC project at `root`, as a cache of finished work (`olmix.runs.sharing`).

    `warn` gets one line for each kind of trouble, once, and none for the kinds that were `said` before; `patience` is
    how many seconds a silent remote is waited for. Nothing is opened before the first call.
    """

    def __init__(
        self, root: Path, warn: Callable[[str], None], patience: float = 20.0, said: Collection[str] = ()
    ) -> None:
        self._warn = warn
        self._patience = patience
        self._root = root
        self._told: set[str] = set(said)

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
                    if not cache.keeps(entry, self._root):
                        cache.keep(entry, self._root)
                    kept += 1
                except Trouble as trouble:
                    if trouble.kind != "output":
                        raise
                    self._tell(trouble)  # the other entries' files may be there
        return kept == len(entries)

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        """Candidates for each of `entries`, from the local cache when it holds one, else from the remote; sorted by
        their hashes, so that they come in the same order everywhere. Raises nothing."""
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
        """Those of `entries` that the local cache seems to hold: no object is read and no remote asked. Raises
        nothing."""
        found: set[Entry] = set()
        with self._no_harm(NOT_LOOKED_UP):
            cache = self._cache
            if cache is None:
                return found
            for entry in entries:
                if any(all(map(cache.has, file.outputs.values())) for file in cache.entry_files(entry)):
                    found.add(entry)
        return found

    @functools.cached_property
    def _cache(self) -> LocalCache | None:
        try:
            return LocalCache.open(self._root)
        except Trouble as trouble:
            self._tell(trouble)
            return None

    def _fetch(
        self, cache: LocalCache, files: dict[Entry, dict[str, EntryFile]], found: dict[Entry, list[Candidate]]
    ) -> None:
        """Add to `found` what the remote holds of `files`: for each entry, its entry files whose objects are not here,
        which garbage collection may have removed from here alone."""
        remote = next(answer for _, answer in self._answers("", lambda _, __: cache.remote(), [None]))
        named = set()
        for entry, there in self._answers(remote.name, lambda entry, _: remote_entry_files(remote, entry), files):
            files[entry] |= {file.value: file for file in there}
            if there:
                named.add(entry)
        wanted = {out.md5: None for each in files.values() for file in each.values() for out in file.outputs.values()}
        here = set()
        broken = None
        try:
            for md5, whole in self._answers(remote.name, lambda md5, heard: _pull(cache, remote, md5, heard), wanted):
                if whole:
                    here.add(md5)
        except Trouble as trouble:  # what came before it is used
            broken = trouble
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
            what = f"lacks files of {lacking} of {len(named)} runs that it names, or holds damaged ones"
            raise Trouble(
                "lacking",
                f"DVC remote {remote.name!r} {what}; these are trained here; DVC pushes only what its outputs hold now",
            )

    def _answers(
        self, remote: str, ask: Callable[[Question, Callable[[], None]], Answer], questions: Iterable[Question]
    ) -> Iterator[tuple[Question, Answer]]:
        """What `ask` answers to each question, side by side; raises Trouble at the first that cannot be answered."""
        what = f"DVC remote {remote!r} cannot be asked" if remote else "the default DVC remote cannot be opened"
        try:
            for question, answer in Asking(ask, _THREADS, self._patience).answers(list(questions)):
                if isinstance(answer, Trouble):
                    raise answer
                if isinstance(answer, OSError) and answer.errno in _FULL:
                    raise cache_trouble(answer)
                if isinstance(answer, Exception):
                    _log.debug("%s", what, exc_info=answer)
                    raise Trouble("remote", f"{what}: {reason(answer)}; {NOT_LOOKED_UP}; try dvc pull")
                yield question, answer
        except Silence as silence:
            raise Trouble("remote", f"{what}: {silence}; {NOT_LOOKED_UP}; try dvc pull") from None

    @contextlib.contextmanager
    def _no_harm(self, follows: str) -> Iterator[None]:
        """Turn all that goes wrong inside into a line of warning: the work is worth more than its cache."""
        try:
            yield
        except Trouble as trouble:
            self._tell(trouble)
        except OSError as error:
            self._tell(cache_trouble(error))
        except Exception as error:  # internals of a DVC that is not the one this was written for
            _log.debug("the run-cache of DVC", exc_info=True)
            what = f"the run-cache of DVC {_dvc_version()} cannot be used: {type(error).__name__}: {reason(error)}"
            self._tell(Trouble("internals", f"{what}; {follows}; install dvc>=3.66,<4"))

    def _tell(self, trouble: Trouble) -> None:
        if trouble.kind not in self._told:
            self._told.add(trouble.kind)
            self._warn(str(trouble))


def _dvc_version() -> str:
    try:
        return metadata.version("dvc")
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _pull(cache: LocalCache, remote: Remote, md5: str, sign_of_life: Callable[[], None]) -> bool:
    """Bring an object into the cache; whether it is there now, whole. Raises what the remote's file system raises,
    Trouble when it is the cache that fails."""
    if cache.is_intact(md5):
        return True
    with cache.temporary() as temporary:
        if not remote.download(md5, str(temporary), sign_of_life):
            _log.debug("remote %s: object %s is not there", remote.name, md5)
            return False
        if file_md5(temporary) != md5:
            _log.debug("remote %s: object %s is damaged", remote.name, md5)
            return False
        cache.take_object(temporary, md5)
    return True
