"""The mixtures that a validation measures: the proposal, and what it has to be better than."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from olmix.core.limits import cap_proportionally
from olmix.core.plan import Plan
from olmix.errors import InfeasibleError

PROPOSAL, NATURAL, UNIFORM, CARRIED = "proposal", "natural", "uniform", "carried"
LABELS = {
    PROPOSAL: "the proposal",
    NATURAL: "the natural mixture",
    UNIFORM: "the uniform mixture",
    CARRIED: "the accepted mixture carried over",
}


def contenders(
    plan: Plan,
    proposal: Mapping[str, float],
    caps: Mapping[str, float],
    warn: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, float]]:
    """The mixtures that are measured: the proposal, natural, uniform, and the accepted one where it still stands.

    `carried` is the accepted mixture on today's domains, with nothing of what was added: doing nothing. All are within
    `caps`, so that any of them can be trained: what a baseline has above a cap goes to its other domains in proportion.
    `warn` is told of a baseline that has too little room for that, and is left out.
    """
    names = plan.dataset.names
    mixtures = {NATURAL: plan.dataset.natural, UNIFORM: {name: 1 / len(names) for name in names}}
    if plan.carried:
        mixtures[CARRIED] = {name: plan.carried.get(name, 0.0) for name in names}
    within = {PROPOSAL: dict(proposal)}
    limits = np.array([caps[name] for name in names])
    for label, mixture in mixtures.items():
        try:
            weights = cap_proportionally(np.array([mixture[name] for name in names]), limits)
        except InfeasibleError:
            warn(
                f"{LABELS[label]} cannot meet the repetition limits (its domains have too few tokens), so it is not "
                "measured"
            )
            continue
        within[label] = dict(zip(names, weights.tolist(), strict=True))
    return within


def validation_size(plan: Plan, seeds: int) -> int:
    """Runs of a validation, apart from the swarm's; none where all weights stand as they were measured."""
    return 0 if plan.only_drift else seeds * (3 + bool(plan.carried))
