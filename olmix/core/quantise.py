"""Real weights to whole units: largest remainder.

Every share is rounded down and the units that are left go to the largest fractions, so the sum is exact and
no share is off by a whole unit. What it gives up: a positive weight far below one unit can become zero.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from olmix.core.arrays import Array
from olmix.errors import InfeasibleError, MixtureError


def largest_remainder(weights: ArrayLike, total: int) -> NDArray[np.int64]:
    """Whole counts (m,) that sum to `total`, in proportion to `weights` (m,); a weight of zero gets zero.

    The weights need not sum to 1. Equal fractions go to the lower index. Raises MixtureError when a weight is
    negative or not finite, or all are zero.
    """
    values = np.asarray(weights, dtype=np.float64)
    if values.ndim != 1 or not np.all(np.isfinite(values)) or np.any(values < 0):
        raise MixtureError(f"weights {values.tolist()} are not all finite and >= 0", way_out="correct them")
    if not values.any():
        raise MixtureError(f"all {len(values)} weights are 0", way_out="raise one")
    # Dividing by the largest first keeps the sum finite; fsum makes it independent of the weights' order.
    scaled = values / values.max()
    quotas = scaled / math.fsum(scaled) * total
    counts: NDArray[np.int64] = np.floor(quotas).astype(np.int64)
    fractions = np.where(values > 0, quotas - counts, -1.0)
    left = total - int(counts.sum())
    counts[np.argsort(-fractions, kind="stable")[:left]] += 1
    return counts


def quantise(weights: ArrayLike, decimals: int = 6) -> Array:
    """`weights` (m,) as multiples of 10^-decimals whose units sum to exactly 10^decimals; raises as above."""
    units = 10**decimals
    return np.asarray(largest_remainder(weights, units) / units, dtype=np.float64)


def quantise_within(weights: ArrayLike, caps: ArrayLike, decimals: int = 6) -> Array:
    """`weights` (m,) <= `caps` (m,) as multiples of 10^-decimals that sum to 1 and exceed no cap.

    Units that a cap has no room for go where the rounding took most. Raises as above, and InfeasibleError
    when the caps, rounded down to whole units, leave less than 1.
    """
    units = 10**decimals
    shares = np.asarray(weights, dtype=np.float64)
    # The least excess of floating point over a whole unit is not worth losing that unit.
    room = np.floor(np.minimum(np.asarray(caps, dtype=np.float64), 1.0) * units + 1e-6).astype(np.int64)
    room[shares <= 0] = 0
    counts = np.minimum(largest_remainder(shares, units), room)
    left = units - int(counts.sum())
    if left > int((room - counts).sum()):
        raise InfeasibleError(
            f"the repetition limit leaves {int(room.sum())} of {units} units of weight",
            key="target",
            way_out="raise the limit a little",
        )
    lost = shares * units - counts
    for i in np.argsort(-lost, kind="stable"):
        added = min(left, int(room[i] - counts[i]), max(1, math.ceil(lost[i])))
        counts[i] += added
        left -= added
    while left:  # only when nearly every cap binds
        i = int(np.argmax(room - counts))
        added = min(left, int(room[i] - counts[i]))
        counts[i] += added
        left -= added
    return np.asarray(counts / units, dtype=np.float64)
