"""A mixture: token shares of domains, and what can be measured between two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from olmix.errors import MixtureError

# Mixture files carry six decimals; a sum that misses 1 by more than their rounding is a mistake.
FILE_SUM_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Share:
    """One domain of a mixture: its weight in [0, 1], its tokens, and the digest of its documents.

    `measured_on` is the digest of the documents that the weight was measured on, None if they are the same.
    """

    weight: float
    tokens: int
    digest: int
    measured_on: int | None = None

    def __post_init__(self) -> None:
        if self.measured_on == self.digest:
            object.__setattr__(self, "measured_on", None)

    @property
    def origin(self) -> int:
        """The digest of the documents that the weight was measured on."""
        return self.digest if self.measured_on is None else self.measured_on


@dataclass(frozen=True)
class Mixture:
    """Token shares by domain name, with the tokeniser of the dataset they were decided on."""

    domains: Mapping[str, Share]
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "domains", dict(sorted(self.domains.items())))
        for name, share in self.domains.items():
            if not (math.isfinite(share.weight) and share.weight >= 0):
                raise MixtureError(f"domain {name}: weight {share.weight} is negative or not finite")
        total = math.fsum(self.weights.values())
        if self.domains and abs(total - 1) > FILE_SUM_TOLERANCE:
            raise MixtureError(
                f"the weights sum to {total:.6f}, not 1", way_out="correct them or divide them by their sum"
            )

    @property
    def weights(self) -> dict[str, float]:
        """Weight by domain name."""
        return {name: share.weight for name, share in self.domains.items()}


def total_variation(a: Mapping[str, float], b: Mapping[str, float]) -> float:
    """Half the L1 distance, in [0, 1]: the share of tokens that has to move to get from `a` to `b`."""
    return math.fsum(abs(a.get(name, 0.0) - b.get(name, 0.0)) for name in sorted({*a, *b})) / 2


def kl_divergence(p: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """KL(p || reference) in nats; infinite where `p` has mass and the reference has none."""
    terms = []
    for name, weight in p.items():
        if weight > 0:
            base = reference.get(name, 0.0)
            if base <= 0:
                return math.inf
            terms.append(weight * math.log(weight / base))
    return math.fsum(terms)


def repetition(weight: float, tokens: int, target_tokens: int) -> float:
    """How often the target run of `target_tokens` reads each of a domain's `tokens`: p R / N."""
    return weight * target_tokens / tokens
