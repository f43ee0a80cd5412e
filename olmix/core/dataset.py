"""A dataset version: which documents each domain holds, by digest, and how many tokens they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import xxhash

from olmix.core.digest import to_hex
from olmix.errors import MixtureError


@dataclass(frozen=True)
class Domain:
    """One domain's content: the digest of its bag of documents, its tokens, and the source it is a topic of."""

    digest: int
    tokens: int
    source: str | None = None


@dataclass(frozen=True)
class Dataset:
    """The domains of one version, by name, and the digest of the tokeniser that counted their tokens."""

    domains: Mapping[str, Domain]
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", dict(sorted(self.domains.items())))
        if not self.domains:
            raise MixtureError("the dataset has no domains", way_out="declare at least two")
        for name, domain in self.domains.items():
            if domain.tokens <= 0:
                raise MixtureError(f"domain {name}: {domain.tokens} tokens", way_out="give it documents or remove it")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the domains, sorted."""
        return tuple(self.domains)

    @property
    def natural(self) -> dict[str, float]:
        """The natural distribution, p0_i = N_i / sum N."""
        tokens = math.fsum(domain.tokens for domain in self.domains.values())
        return {name: domain.tokens / tokens for name, domain in self.domains.items()}

    @property
    def digest(self) -> str:
        """Identifies content, names and tokeniser; not token counts, which a declared count may restate."""
        parts = [f"{name}\x1f{to_hex(domain.digest)}" for name, domain in self.domains.items()]
        return xxhash.xxh3_128_hexdigest("\x1e".join([self.tokenizer or "", *parts]).encode())
