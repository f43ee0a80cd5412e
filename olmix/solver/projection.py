"""The capped simplex {q >= 0, sum q = 1, q <= caps}: its KL projection, and its best vertex for a linear
function.

Both are exact up to rounding and cost one sort. Weights are kept as logarithms, since a regularised optimum
may hold weights like e^-4000 whose logarithm still decides whether a gradient balances.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from olmix.core.arrays import Array


def kl_projection(log_weights: Array, log_caps: Array) -> tuple[Array, NDArray[np.bool_]]:
    """argmin KL(q || v) over the capped simplex for v = exp(log_weights), as log q (d,), and which q sit at
    their cap.

    The answer is min(cap, tau v); caps that sum to more than 1, log_caps (d,) with inf for no cap. The heads
    of the order of cap / v are at their caps, and tau gives the others what is left.
    """
    order = np.argsort(log_caps - log_weights, kind="stable")
    v, caps = log_weights[order], log_caps[order]
    # log of the mass of v from each place on; logarithms, since the heads may be e^1000 times the tail.
    log_tail = np.logaddexp.accumulate(v[::-1])[::-1]
    left = 1.0 - np.concatenate([[0.0], np.cumsum(np.exp(caps[:-1]))])
    # The first place whose cap is not reached when the tail shares what is left.
    with np.errstate(divide="ignore", invalid="ignore"):
        log_tau = np.log(left) - log_tail
    fits = (left > 0) & (v + log_tau < caps)
    if not fits.any():
        # Only rounding leads here: the caps of all but the last sum to 1.
        first = len(v) - 1
        log_tau[first] = np.log(max(left[first], np.finfo(float).tiny)) - v[first]
    else:
        first = int(np.argmax(fits))
    projected = caps.copy()
    tail = v[first:] + log_tau[first]
    # Once more at the scale of the answer: where v is large, log_tau has lost digits.
    tail += np.log(max(left[first], np.finfo(float).tiny)) - np.log(np.exp(tail).sum())
    projected[first:] = np.minimum(tail, caps[first:])
    log_q, capped = np.empty_like(v), np.zeros(len(v), dtype=np.bool_)
    log_q[order] = projected
    capped[order[:first]] = True
    return log_q, capped


def least_vertex(gradient: Array, caps: Array) -> Array:
    """The s of the capped simplex with the least gradient . s: caps filled in the order of the gradient,
    (d,).
    """
    order = np.argsort(gradient, kind="stable")
    filled = np.minimum(np.cumsum(np.minimum(caps[order], 1.0)), 1.0)
    vertex = np.empty_like(gradient)
    vertex[order] = np.diff(filled, prepend=0.0)
    return vertex
