"""The spread of a law over resamples of its runs, drawn with replacement.

It is the noise of the runs and of their number; it does not cover the error of the law itself, so the spread across
laws is reported beside it.
"""

from __future__ import annotations

import numpy as np

from olmix.core.arrays import Array
from olmix.core.seeds import generator
from olmix.errors import SwarmError
from olmix.laws.base import Law, LawKind
from olmix.laws.observations import Observations

ATTEMPTS = 100


def resamples(observations: Observations, replicates: int, seed: int) -> list[Array]:
    """How often each run is drawn, (K,) for every replicate, named by `seed` and the replicate's number.

    A draw that leaves a task without a run is drawn again. Raises SwarmError when that does not end.
    """
    runs = len(observations.mixtures)
    factors = []
    for r in range(replicates):
        for attempt in range(ATTEMPTS):
            names = ("bootstrap", seed, r) if attempt == 0 else ("bootstrap", seed, r, attempt)
            drawn = np.bincount(generator(*names).integers(runs, size=runs), minlength=runs).astype(np.float64)
            if ((observations.weights * drawn[:, None]).sum(axis=0) > 0).all():
                factors.append(drawn)
                break
        else:
            raise SwarmError(
                "a task counts in too few runs to resample them", way_out="leave it out, or set the replicates to 0"
            )
    return factors


def bootstrap(kind: LawKind, observations: Observations, law: Law, replicates: int, seed: int) -> list[Law]:
    """Refits of `law`, the fit on all runs, on `replicates` resamples."""
    return kind.refitted(observations, resamples(observations, replicates, seed), law)
