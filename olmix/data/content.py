"""Content: what a bag of documents is, in numbers that add up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from olmix.core.digest import MODULUS

# The topic of every document of a domain that is not partitioned.
NO_TOPIC = ""


@dataclass(frozen=True)
class Content:
    """The additive digest of a bag of documents, their number, the UTF-8 bytes of their text, and their tokens.

    Text has no tokens before it is tokenised, and token arrays have no bytes: that number is 0.
    """

    digest: int = 0
    documents: int = 0
    bytes: int = 0
    tokens: int = 0

    def __add__(self, other: Content) -> Content:
        return Content(
            (self.digest + other.digest) % MODULUS,
            self.documents + other.documents,
            self.bytes + other.bytes,
            self.tokens + other.tokens,
        )


Topics = Mapping[str, Content]


def add_topics(parts: Iterable[Topics]) -> dict[str, Content]:
    """The sum of contents, topic by topic, in the topics' order."""
    sums: dict[str, list[int]] = {}
    for part in parts:
        for topic, content in part.items():
            numbers = sums.setdefault(topic, [0, 0, 0, 0])
            numbers[0] += content.digest
            numbers[1] += content.documents
            numbers[2] += content.bytes
            numbers[3] += content.tokens
    return {topic: Content(digest % MODULUS, *numbers) for topic, (digest, *numbers) in sorted(sums.items())}
