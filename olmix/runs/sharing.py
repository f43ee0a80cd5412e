"""Finished work in a cache that people share: what it was computed from, and the files that it left.

A cache may hold several candidates for one entry (evaluations of other tasks, a damaged one). It returns all of them,
and the caller checks each before it uses one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Entry:
    """An entry of the cache, by what it is found: what was done, its input as canonical bytes, and where its files are.

    `input_path` and `outputs` are relative to the project. Equal work has equal values on every machine.
    """

    command: str
    input_path: str
    input: bytes
    outputs: tuple[str, ...]


# One outcome of an entry in the cache: where the cache keeps each file, by the path that the entry gives it.
Candidate = Mapping[str, Path]


class Shared(Protocol):
    """A cache of finished work that outlives the journal and that others can see."""

    def store(self, entries: Sequence[Entry]) -> bool:
        """Keep the files of `entries` and say whether all are kept now. Large files that are kept already are not read
        again. Raises nothing: work goes on without a cache, after one line of warning."""

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        """Candidates for each of `entries` that has any. Like `store`, it raises nothing."""


class Unshared:
    """No cache: it keeps nothing and finds nothing."""

    def store(self, entries: Sequence[Entry]) -> bool:
        """Keep nothing."""
        return not entries

    def find(self, entries: Sequence[Entry]) -> dict[Entry, list[Candidate]]:
        """Find nothing."""
        return {}
