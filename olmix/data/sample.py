"""The canonical token sample of a domain: its documents in the order of their hashes, up to a number of tokens.

The same bag of documents gives the same bytes whatever its shards; a domain that changes by 1% changes its sample by
about 1%; and tokenising costs what the sample costs, not what the corpus costs. How many tokens the domain has is
estimated from the first of these documents too, always from equally many tokens: a longer sample takes no part in it,
and beyond a shorter one they are counted and not written, which costs a second or two. A sample is written as it is
tokenised: memory holds a few batches of text, never the sample.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from olmix.core.ratio import Ratio
from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.data.tokensets import write_stream

# Bytes of text kept for each token wanted; ordinary text has 2 to 5 a token. Token ids are kept as 4 bytes each.
GUESS = 8
# Tokens that estimates of a domain are made from, whatever its sample: with another number they would be others.
ESTIMATED_FROM = 1_000_000


def bytes_to_keep(limit: int) -> int:
    """Bytes of documents to keep of a domain for a sample of `limit` tokens and for the estimates."""
    return GUESS * max(limit, ESTIMATED_FROM)


@dataclass(frozen=True)
class Sample:
    """The token sample, the documents it was cut from (how many, and their bytes), and what was counted.

    The sample's `tokens` may end inside the last of its documents. `ratio` is over the first documents that hold
    ESTIMATED_FROM tokens, each whole: of bytes (x) and tokens (y), the other way round for documents that are token
    ids. `exact` is the tokens of all documents of the domain, None when not all were read.
    """

    identity: str
    tokens: int
    documents: int
    bytes: int
    ratio: Ratio
    exact: int | None


class _Counter:
    """Documents as token ids, each closed by the end-of-document id, until there are `limit` tokens and the estimates
    have theirs."""

    def __init__(self, tokenizer: Tokenizer, limit: int, are_tokens: bool) -> None:
        self._end = np.array([tokenizer.end], dtype=tokenizer.dtype)
        self._limit = limit
        self._are_tokens = are_tokens
        self.documents = self.bytes = self.counted = 0
        self.ratio = Ratio()
        self.exhausted = False

    @property
    def enough(self) -> bool:
        """Whether sample and estimates need no further document."""
        return self.counted >= max(self._limit, ESTIMATED_FROM)

    def take(self, encoded: Iterable[tuple[Tokens, int]]) -> Iterator[Tokens]:
        """The stream in chunks, from (ids, bytes) of each document."""
        for ids, size in encoded:
            if self.enough:
                return
            left, length = self._limit - self.counted, len(ids) + 1
            if self.counted < ESTIMATED_FROM:
                self.ratio.add(*((length, size) if self._are_tokens else (size, length)))
            self.counted += length
            if left > 0:
                self.documents += 1
                self.bytes += size
                yield ids[:left]
                if left >= length:
                    yield self._end
        self.exhausted = True


def write_sample(
    path: Path, documents: Iterable[bytes], are_tokens: bool, complete: bool, tokenizer: Tokenizer, limit: int
) -> Sample | None:
    """Write the first `limit` tokens of `documents`, in the order of their hashes, to `path`, and count for estimates.

    `complete` says that these are all documents of the domain; when they are not, and have too few tokens for the
    sample or the estimates, nothing is written and None is returned.
    """
    counter = _Counter(tokenizer, limit, are_tokens)
    encoded = _ids(documents, tokenizer) if are_tokens else _encoded(documents, tokenizer)
    identity, tokens = write_stream(path, counter.take(encoded), tokenizer.dtype, lambda: complete or counter.enough)
    if identity is None:
        return None
    exact = counter.counted if complete and counter.exhausted else None
    return Sample(identity, tokens, counter.documents, counter.bytes, counter.ratio, exact)


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
    """Documents that are token ids already, and the UTF-8 bytes that they decode to: of those that estimates are made
    from, from there on as many a token; 0 when the tokeniser knows no text."""
    tokens = size = 0
    for document in documents:
        ids = np.frombuffer(document, "<u4").astype(tokenizer.dtype)
        if not tokenizer.reads_text:
            yield ids, 0
        elif tokens < ESTIMATED_FROM:
            length = len(tokenizer.decode(ids).encode())
            tokens, size = tokens + len(ids), size + length
            yield ids, length
        else:
            yield ids, round(len(ids) * size / tokens)
