"""Repetition limits: how large a share a domain can have before the target run repeats it too often."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array
from olmix.core.dataset import Dataset
from olmix.core.virtual import CollapsedSpace
from olmix.errors import InfeasibleError


@dataclass(frozen=True)
class Target:
    """The target training run: R tokens, and the repetition limit k."""

    tokens: int
    repetition: float


def domain_caps(dataset: Dataset, target_tokens: int, limit: float) -> dict[str, float]:
    """The largest share of each domain, min(1, k N_i / R), for R `target_tokens` and repetition `limit` k."""
    return {name: min(1.0, limit * d.tokens / target_tokens) for name, d in dataset.domains.items()}


def at_cap(weights: Array, caps: Array, slack: float = 0.0) -> NDArray[np.bool_]:
    """Which weights (m,) fill a cap (m,) below 1: bit for bit, as a solver leaves them, or but for a `slack`."""
    return (caps < 1) & (weights >= caps - slack)


def limit_text(repetition: float) -> str:
    """A repetition limit for a person, without an exponent."""
    return f"{repetition:,.0f}" if repetition >= 1e5 else f"{repetition:g}"


def require_feasible(
    dataset: Dataset, space: CollapsedSpace, caps: Mapping[str, float], target_tokens: int, limit: float
) -> None:
    """Raise InfeasibleError, with the shortfall in tokens and the limits to move, when no mixture meets the caps."""
    if not space.affected:
        space = CollapsedSpace({}, dataset.names)  # nothing is solved, and what is over its cap may go to any other
    collapsed = space.caps(caps)
    reach = math.fsum(min(1.0, float(c)) for c in collapsed)
    # The caps of many domains may sum to 1 but for rounding.
    if reach >= 1 - 1e-12:
        return
    shortfall = max(1, round((1 - reach) * target_tokens))
    tokens = sum(d.tokens for d in dataset.domains.values())
    message = (
        f"{target_tokens:,} tokens cannot be drawn with repetition {limit:g}: "
        f"the domains give at most {target_tokens - shortfall:,} ({shortfall:,} too few)"
    )
    needed = math.ceil(target_tokens / tokens * 1000) / 1000
    if space.members and tokens * limit >= target_tokens:
        scarce = space.scarcest(caps)
        raise InfeasibleError(
            f"{message}; unchanged domains keep their ratios, and {scarce} ({dataset.domains[scarce].tokens:,} "
            "tokens) is the scarcest",
            key="target",
            way_out="recompute it too (reuse: recompute), or reuse nothing (reuse: mode: none)",
        )
    raise InfeasibleError(
        f"{message}; all {len(dataset.domains)} domains have {tokens:,} tokens together",
        key="target",
        way_out=f"raise the repetition limit to {limit_text(needed)} or lower the target to "
        f"{target_tokens - shortfall:,} tokens",
    )


def cap_proportionally(weights: Array, caps: Array) -> Array:
    """The mixture within `caps` that is nearest to `weights` in KL, (m,): min(cap, s w) with s such that it sums to 1.

    The caps of domains with weight sum to 1 or more, or InfeasibleError says what is missing.
    """
    reach = float(np.minimum(caps, 1.0)[weights > 0].sum())
    if reach < 1 - 1e-12:
        raise InfeasibleError(
            f"the domains that have weight give only {reach:.1%} of the target within the repetition limit",
            key="target",
            way_out="raise the limit, lower the target, or reuse nothing (reuse: mode: none)",
        )
    # In the same way as solver.projection.kl_projection, but by products alone: with logarithms the last bits would
    # differ, and these weights are part of the keys under which the runs that validate them are found.
    capped = np.zeros(len(weights), dtype=bool)
    while True:
        free = ~capped & (weights > 0)
        room = 1 - caps[capped].sum()
        scaled = np.where(capped, caps, weights * (room / weights[free].sum() if free.any() else 0.0))
        over = free & (scaled > caps)
        if not over.any():
            return scaled
        capped |= over
