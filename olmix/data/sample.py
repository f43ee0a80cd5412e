"""The canonical token sample of a domain: its documents in the order of their hashes, up to a number of tokens.

The same bag of documents gives the same bytes whatever its shards; a domain that changes by 1% changes its sample by
about 1%; and tokenising costs what the sample costs, not what the corpus costs. It is written as it is tokenised:
memory holds a few batches of text, never the sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.data.tokensets import write_stream

# Bytes of text kept for each token wanted; ordinary text has 2 to 5 a token. Token ids are kept as 4 bytes each.
GUESS = 8
# Tokens that are decoded to say how many bytes of text a token array stands for.
DECODED = 1 << 20


@dataclass(frozen=True)
class Sample:
    """The token sample and the documents it was cut from: how many, their tokens and bytes, and whether they are all.

    The sample's `tokens` may end inside the last of these documents; `counted` is the number of tokens of all of them.
    """

    identity: str
    tokens: int
    documents: int
    counted: int
    bytes: int
    whole: bool


class _Counter:
    """Documents as token ids, each closed by the end-of-document id, until there are `limit` tokens."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self._end = np.array([tokenizer.end], dtype=tokenizer.dtype)
        self._limit = limit
        self.documents = self.counted = self.bytes = 0
        self.exhausted = False

    def take(self, encoded: Iterable[tuple[Tokens, int]]) -> Iterator[Tokens]:
        """The pieces of the stream, from (ids, bytes) of each document."""
        left = self._limit
        for ids, size in encoded:
            if left <= 0:
                return
            self.documents += 1
            self.counted += len(ids) + 1
            self.bytes += size
            yield ids[:left]
            if left > len(ids):
                yield self._end
            left -= len(ids) + 1
        self.exhausted = True


def write_sample(
    path: Path, documents: Iterable[bytes], are_tokens: bool, complete: bool, tokenizer: Tokenizer, limit: int
) -> Sample | None:
    """Write the first `limit` tokens of `documents`, which come in the order of their hashes, to `path`.

    `complete` says that these are all documents of the domain; when they are not, and have too few tokens, nothing is
    written and None is returned.
    """
    counter = _Counter(tokenizer, limit)
    encoded = _ids(documents, tokenizer) if are_tokens else _encoded(documents, tokenizer)

    def enough() -> bool:
        return complete or counter.counted >= limit

    identity, tokens = write_stream(path, counter.take(encoded), tokenizer.dtype, enough)
    if identity is None:
        return None
    return Sample(identity, tokens, counter.documents, counter.counted, counter.bytes, complete and counter.exhausted)


def _encoded(documents: Iterable[bytes], tokenizer: Tokenizer) -> Iterator[tuple[Tokens, int]]:
    """Token ids and UTF-8 bytes of each text."""
    sizes: deque[int] = deque()

    def texts() -> Iterator[bytes]:
        for document in documents:
            sizes.append(len(document))
            yield document

    for ids in tokenizer.encode_stream(texts()):
        yield ids, sizes.popleft()


def _ids(documents: Iterable[bytes], tokenizer: Tokenizer) -> Iterator[tuple[Tokens, int]]:
    """Documents that are token ids already, and the UTF-8 bytes that they decode to: of the first DECODED tokens, from
    there on as many a token; 0 when the tokeniser knows no text."""
    tokens = size = 0
    for document in documents:
        ids = np.frombuffer(document, "<u4").astype(tokenizer.dtype)
        if not tokenizer.reads_text:
            yield ids, 0
        elif tokens < DECODED:
            length = len(tokenizer.decode(ids).encode())
            tokens, size = tokens + len(ids), size + length
            yield ids, length
        else:
            yield ids, round(len(ids) * size / tokens)
