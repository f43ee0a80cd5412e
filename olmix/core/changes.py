"""What changed between two dataset versions, recognised from digests alone.

    unchanged   same name, same digest
    rename      a new name with the digest of one that is gone
    partition   new domains whose digests sum to that of one that is gone (or changed)
    merge       a new domain whose digest is the sum of several that are gone (or changed)
    revise      same name, other digest, and nothing of the above
    drift       the same, but so little of it changed that a plan keeps its weight
    add, remove what is left

A digest is a sum of 128-bit hashes, so a subset that sums to a target by chance has probability 2^(n-128) for n
candidates. The search for such a subset tries everything at once, then one source, then one name prefix, and then
every subset by meeting in the middle, up to SEARCH_LIMIT candidates: beyond it a partition that is only a part of
many simultaneous changes, and shares neither source nor prefix, is reported as removals and additions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.digest import MODULUS, total

# 2^(36/2) sums a side: 0.1 s and 4 MB.
SEARCH_LIMIT = 36
_PREFIX = re.compile(r"[^a-zA-Z0-9]")

ADD, REMOVE, REVISE, DRIFT, RENAME = "add", "remove", "revise", "drift", "rename"
PARTITION, MERGE = "partition", "merge"


@dataclass(frozen=True)
class Change:
    """One change: its kind, the domains it concerns now (for a removal: then), and the old domains they came from."""

    kind: str
    domains: tuple[str, ...]
    origin: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All changes, and for every domain whose content did not change the old name that it had."""

    changes: tuple[Change, ...]
    unchanged: Mapping[str, str]


def compare(
    old: Mapping[str, int], new: Mapping[str, int], sources: Mapping[str, str | None] | None = None
) -> Comparison:
    """Compare digests by name; `sources` of the new domains only guide the search for partitions and merges."""
    unchanged = {name: name for name in new if old.get(name) == new[name]}
    gone = {name: old[name] for name in sorted(old) if name not in unchanged}
    came = {name: new[name] for name in sorted(new) if name not in unchanged}
    changes: list[Change] = []

    for name in list(came):
        match = next((other for other, digest in gone.items() if digest == came[name]), None)
        if match is not None:
            changes.append(Change(RENAME, (name,), (match,)))
            unchanged[name] = match
            del gone[match], came[name]

    for name in list(gone):
        parts = _subset(gone[name], came, name, sources or {})
        if parts:
            changes.append(Change(PARTITION, parts, (name,)))
            del gone[name]
            came = {other: digest for other, digest in came.items() if other not in parts}
    for name in list(came):
        parts = _subset(came[name], gone, name, sources or {})
        if parts:
            changes.append(Change(MERGE, (name,), parts))
            del came[name]
            gone = {other: digest for other, digest in gone.items() if other not in parts}

    changes += [Change(REVISE, (name,), (name,)) for name in came if name in gone]
    changes += [Change(ADD, (name,)) for name in came if name not in gone]
    changes += [Change(REMOVE, (name,)) for name in gone if name not in came]
    changes.sort(key=lambda change: (change.domains, change.kind))
    return Comparison(tuple(changes), dict(sorted(unchanged.items())))


def _subset(
    target: int, candidates: Mapping[str, int], name: str, sources: Mapping[str, str | None]
) -> tuple[str, ...] | None:
    """Names of two or more candidates whose digests sum to `target`, sorted, or None."""
    names = sorted(candidates)
    prefix = _PREFIX.split(name)[0]
    groups = [names]
    groups += [[n for n in names if sources.get(n) == s] for s in sorted({s for s in sources.values() if s})]
    groups += [[n for n in names if n.startswith(name)], [n for n in names if _PREFIX.split(n)[0] == prefix]]
    for group in groups:
        if len(group) >= 2 and total(candidates[n] for n in group) == target:
            return tuple(group)
    for group in [*groups[1:], groups[0]]:
        if 2 < len(group) <= SEARCH_LIMIT:
            found = _meet_in_the_middle(target, [candidates[n] for n in group])
            if found:
                return tuple(group[i] for i in found)
    return None


def _meet_in_the_middle(target: int, digests: Sequence[int]) -> tuple[int, ...] | None:
    """Indices of a subset of two or more that sums to `target` modulo 2^128, in O(2^(n/2)) time and memory.

    Sums of each half are taken modulo 2^64 in numpy; a match there is confirmed with all 128 bits.
    """
    half = len(digests) // 2
    left, right = _subset_sums(digests[:half]), _subset_sums(digests[half:])
    order = np.argsort(right, kind="stable")
    wanted = np.uint64(target % 2**64) - left  # unsigned arithmetic wraps, as the digest does
    first = np.searchsorted(right[order], wanted, side="left")
    last = np.searchsorted(right[order], wanted, side="right")
    for low in np.flatnonzero(last > first):
        for position in range(first[low], last[low]):
            mask = int(low) | int(order[position]) << half
            chosen = tuple(i for i in range(len(digests)) if mask >> i & 1)
            if len(chosen) >= 2 and sum(digests[i] for i in chosen) % MODULUS == target:
                return chosen
    return None


def _subset_sums(digests: Sequence[int]) -> NDArray[np.uint64]:
    """The low 64 bits of the sum of every subset; bit i of an index says whether digest i is in it."""
    sums = np.zeros(1, dtype=np.uint64)
    for digest in digests:
        sums = np.concatenate([sums, sums + np.uint64(digest % 2**64)])
    return sums
