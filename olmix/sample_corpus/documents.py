"""A document is a text of at most 2 kB; a domain is a bag of them, one in twenty held out by its content.

Documents are drawn evenly across packages: the package with the fewest bytes so far gives the next one,
so a small package is used up and a large one does not take its place. Files in their natural order would
make nearly every evaluation text come from one package.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import xxhash

LONGEST = 2048  # bytes; a proxy sees 64 tokens at a time, so many short documents beat few long ones
SHORTEST = 160
LONGEST_LINE = 240  # characters; longer lines are tables of data
HELD_OUT_EVERY = 20


@dataclass(frozen=True)
class Domain:
    """The training documents of a domain and those that only tasks may use, no text twice."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


def is_held_out(text: str) -> bool:
    """Whether the content of `text` (xxh3_64 modulo 20) keeps it out of training."""
    return xxhash.xxh3_64_intdigest(text.encode()) % HELD_OUT_EVERY == 0


def pieces(text: str, longest: int = LONGEST, shortest: int = SHORTEST) -> list[str]:
    """Cut `text` into documents of `shortest` to `longest` bytes at lines, at blank ones where it can.

    Only ASCII is kept: another script costs a vocabulary of 1024 more than it teaches a small proxy.
    """
    found: list[list[str]] = []
    current: list[str] = []
    size = 0
    for line in text.split("\n"):
        if size + len(line) + 1 > longest or (not line.strip() and size > longest // 2):
            found.append(current)
            current, size = [], 0
        current.append(line.rstrip())
        size += len(line) + 1
    found.append(current)
    joined = ("\n".join(lines).strip("\n") + "\n" for lines in found if max(map(len, lines), default=0) <= LONGEST_LINE)
    return [piece for piece in joined if piece.isascii() and shortest <= len(piece) <= longest]


def spread(items: list[str], most: int) -> list[str]:
    """At most `most` of `items`, evenly spaced, so that no single file fills a domain."""
    step = -(-len(items) // most) or 1
    return items[(step - 1) // 2 :: step]


def evenly(streams: Mapping[str, Iterator[str]]) -> Iterator[str]:
    """Documents of all `streams`, always from the one that has given the fewest bytes, until all end."""
    heap = [(0, name) for name in sorted(streams)]
    while heap:
        given, name = heapq.heappop(heap)
        document = next(streams[name], None)
        if document is not None:
            yield document
            heapq.heappush(heap, (given + len(document), name))


def collect(documents: Iterable[str], size: int, held_out: int = 0) -> Domain:
    """The first distinct `documents`: `size` bytes to train on and, if there are, `held_out` others."""
    train: list[str] = []
    held: list[str] = []
    seen: set[str] = set()
    total = 0
    for document in documents:
        if total >= size and len(held) >= held_out:
            break
        if document in seen:
            continue
        seen.add(document)
        if is_held_out(document):
            held.append(document)
        elif total < size:
            train.append(document)
            total += len(document)
    return Domain(tuple(train), tuple(held))
