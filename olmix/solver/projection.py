"""The capped simplex {q >= 0, sum q = 1, q <= caps}: its KL projection, and its best vertex for a linear function.

Both are exact up to rounding. The projection takes weights as logarithms, since a regularised optimum
may hold weights like e^-4000 whose logarithm still decides whether a gradient balances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array

TINY, LOWEST = np.finfo(np.float64).tiny, np.finfo(np.float64).min


def kl_projection(log_weights: Array, caps: Array) -> tuple[Array, Array, NDArray[np.bool_]]:
    """argmin KL(q || v) over the capped simplex for v = exp(log_weights): q, log q, and which q are at their cap.

    log_weights and results (..., d), many mixtures at once; -inf is a weight of 0. caps (d,), of a sum above 1 over the
    domains with weight, inf for no cap. The answer is min(cap, tau v), with the caps bit for bit: what would exceed its
    cap is held there, which only raises the share of the others, until nothing more exceeds.
    """
    with np.errstate(divide="ignore"):
        log_caps = np.log(caps)
    capped = np.zeros(log_weights.shape, dtype=np.bool_)
    while True:
        left = 1.0 - np.where(capped, caps, 0.0).sum(axis=-1, keepdims=True)
        # Relative to the largest that is left: the weights of those that are held may be e^1000 times as large.
        tail = np.where(capped, -np.inf, log_weights)
        tail -= np.maximum(tail.max(axis=-1, keepdims=True), LOWEST)
        log_q = tail + np.log(np.maximum(left, TINY) / np.maximum(np.exp(tail).sum(axis=-1, keepdims=True), TINY))
        over = (log_q >= log_caps) & ~capped
        if not over.any():
            break
        capped |= over
    q = np.where(capped, caps, np.minimum(np.exp(log_q), caps))
    return q, np.where(capped, log_caps, log_q), capped


def least_vertex(gradient: Array, caps: Array) -> Array:
    """The s of the capped simplex with the least gradient . s: caps filled in the order of the gradient, (d,)."""
    order = np.argsort(gradient, kind="stable")
    filled = np.minimum(np.cumsum(np.minimum(caps[order], 1.0)), 1.0)
    vertex = np.empty_like(gradient)
    vertex[order] = np.diff(filled, prepend=0.0)
    return vertex
