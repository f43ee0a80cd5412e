"""The laws that a user can name."""

from __future__ import annotations

import functools

from olmix.core.diminishing import Diminishing, diminishing, refit_diminishing
from olmix.core.exponential import HUBER_DELTA
from olmix.core.law import LawKind
from olmix.core.loglinear import RIDGE, LogLinear, loglinear, refit_loglinear

LOG_LINEAR = "log-linear"
AUTO = "auto"
# What `auto` chooses from.
CHOOSABLE = (LOG_LINEAR, "diminishing")


def law_kinds(delta: float = HUBER_DELTA, ridge: float = RIDGE) -> dict[str, LawKind]:
    """Every law by its name; `delta` (BPB) is the Huber width of those that have one, `ridge` that of log-linear."""
    kinds = (
        LawKind(
            LOG_LINEAR,
            "c + exp(t . p), the law of Olmix: the default and the reference",
            LogLinear,
            functools.partial(loglinear, delta=delta, ridge=ridge),
            lambda m: m + 1,
            functools.partial(refit_loglinear, delta=delta, ridge=ridge),
        ),
        LawKind(
            "diminishing",
            "c + exp(b - sum a_i p_i^0.6) with a >= 0: about half the runs where no domain does harm",
            Diminishing,
            functools.partial(diminishing, delta=delta),
            lambda m: m,
            functools.partial(refit_diminishing, delta=delta),
        ),
    )
    return {kind.name: kind for kind in kinds}
