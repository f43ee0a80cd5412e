"""The canonical token sample of a domain: its documents in the order of their hashes, up to a number of tokens.

The same bag of documents gives the same bytes whatever its shards; a domain that changes by 1% changes its sample by
about 1%; and tokenising costs what the sample costs, not what the corpus costs. Memory holds the documents that may
be in the sample (at most about 2 x GUESS bytes of text a token, and twice as much after a bad guess), never the domain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from olmix.core.digest import MODULUS
from olmix.data.scan import Content, read_shards
from olmix.data.shards import Shard
from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.progress import Report

# Bytes of text kept for each token wanted; ordinary text has 2 to 5 a token.
GUESS = 8
BATCH = 512


@dataclass(frozen=True)
class Sample:
    """The token sample and the documents it was cut from: how many, their tokens and bytes, and whether they are all.

    `tokens` may end inside the last of these documents; `counted` is the number of tokens of all of them.
    """

    tokens: Tokens
    documents: int
    counted: int
    bytes: int
    whole: bool


class _Lowest:
    """The documents with the lowest hashes, as many as `budget` bytes hold."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: list[tuple[int, bytes]] = []
        self._size = 0
        self._limit = 2 * budget
        self._bound = MODULUS
        self.dropped = False

    def offer(self, digest: int, document: bytes) -> None:
        if digest >= self._bound:
            self.dropped = True
            return
        self._kept.append((digest, document))
        self._size += len(document)
        if self._size > self._limit:
            self._trim()
            # Copies of one document cannot be told apart: where trimming frees little, the next one waits for longer.
            self._limit = 2 * max(self._budget, self._size)

    def _trim(self) -> None:
        self._kept.sort()
        size = 0
        for k, (digest, document) in enumerate(self._kept):
            size += len(document)
            # The last one kept closes the budget, so that one document larger than it is still a sample. Copies of
            # that document share its hash: the bound lies above it, to keep or drop all of them alike.
            if size >= self._budget and k + 1 < len(self._kept) and self._kept[k + 1][0] != digest:
                del self._kept[k + 1 :]
                self._bound, self._size, self.dropped = digest + 1, size, True
                return

    def documents(self) -> list[bytes]:
        self._trim()
        self._kept.sort()
        return [document for _, document in self._kept]


def read_and_sample(
    shards: Sequence[Shard], text: str, tokenizer: Tokenizer, limit: int, report: Report
) -> tuple[list[tuple[Shard, Content]], Sample]:
    """Read every document once: the content of each shard, and the sample of `limit` tokens."""
    budget = GUESS * limit
    while True:
        lowest = _Lowest(budget)
        parts = read_shards(shards, text, report, lowest.offer)
        sample = _tokenise(lowest.documents(), tokenizer, limit, complete=not lowest.dropped)
        if sample is not None:
            return parts, sample
        budget *= 4  # the text has more bytes a token than was guessed


def _tokenise(documents: Sequence[bytes], tokenizer: Tokenizer, limit: int, complete: bool) -> Sample | None:
    """The first `limit` tokens of the documents, each closed by the end-of-document id; None when there are too few."""
    pieces: list[Tokens] = []
    tokens = used = size = 0
    end = np.array([tokenizer.end], dtype=tokenizer.dtype)
    for start in range(0, len(documents), BATCH):
        batch = documents[start : start + BATCH]
        for document, ids in zip(batch, tokenizer.encode([d.decode() for d in batch]), strict=True):
            if tokens >= limit:
                break
            pieces += [ids, end]
            tokens += len(ids) + 1
            used += 1
            size += len(document)
        if tokens >= limit:
            break
    if tokens < limit and not complete:
        return None
    stream = np.concatenate(pieces) if pieces else end[:0]
    return Sample(stream[:limit], used, tokens, size, whole=complete and used == len(documents))
