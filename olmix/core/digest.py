"""The additive digest of a bag of documents.

A domain's digest is the sum of its documents' xxh3_128 hashes modulo 2^128. Order, sharding, names and file
formats therefore cannot matter, and digest(A + B) = digest(A) + digest(B): a shard's part is computed alone, and
a partition or a merge is recognised from digests without reading a byte. What it gives up: the sum is no defence
against someone who *constructs* documents to collide; it identifies versions, it does not authenticate them.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

from olmix.errors import MixtureError

MODULUS = 1 << 128

document_digest = xxhash.xxh3_128_intdigest


def total(digests: Iterable[int]) -> int:
    """The digest of the union of bags: the sum modulo 2^128."""
    return sum(digests) % MODULUS


def to_hex(digest: int) -> str:
    """32 lower-case hexadecimal digits."""
    return f"{digest:032x}"


def from_hex(text: str, where: str, key: str | None = None) -> int:
    """The digest written as up to 32 hexadecimal digits; raises MixtureError naming `where` and `key`."""
    try:
        value = int(text, 16)
    except (TypeError, ValueError):
        value = -1
    if not 0 <= value < MODULUS:
        raise MixtureError(
            f"digest {text!r} is not 128 bits in hexadecimal", file=where, key=key, way_out="write up to 32 digits"
        )
    return value
