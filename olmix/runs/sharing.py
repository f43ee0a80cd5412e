"""What a finished piece of work is to a cache that people share: what it was computed from, and its files.

A cache may hold several candidates for one entry (evaluations of other tasks, a damaged one): it hands out all of
them, and whoever asked looks each over before it takes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """A piece of work: a name for what was done, its input as canonical bytes, and the files that it left.

    Paths are relative to the project, `input_path` being where the input lies and `outputs` where the files do. Equal
    work has equal values here on every machine: they are what an entry is found by.
    """

    command: str
    input_path: str
    input: bytes
    outputs: tuple[str, ...]


# A candidate: the files of an entry by their path in it, wherever the cache keeps them.
Candidate = Mapping[str, Path]


class Shared(Protocol):
    """A cache of finished work that outlives the journal and that others see."""

    def store(self, entries: Sequence[Entry]) -> bool:
        """Keep the files of `entries` and say whether all are kept now. Large files that are kept already are not read
        again. Raises nothing: work goes on without a cache, after one line of warning."""

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        """Candidates for each of `entries`, those with none left out. Raises nothing, as `store`."""


class Unshared:
    """No cache: nothing is kept, nothing is found."""

    def store(self, entries: Sequence[Entry]) -> bool:
        """Keep nothing."""
        return not entries

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        """Find nothing."""
        return {}
