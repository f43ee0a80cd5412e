"""A fitted swarm for tests: runs that a given law made, as `fit_swarm` would hand it on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from olmix.core.seeds import generator
from olmix.fit.diagnostics import design_rank, scores
from olmix.fit.fitting import SwarmFit
from olmix.laws.base import Law
from olmix.laws.observations import observe
from olmix.laws.registry import LOG_LINEAR, law_kinds
from olmix.laws.repeats import merge_repeats

RUNS = 24


def swarm_fit(law: Law, domains: int, replicates: Sequence[Law] = (), kind: str = LOG_LINEAR) -> SwarmFit:
    """`law` over `domains`, fitted to runs that it made itself, out-of-fold predictions off by 0.01 BPB."""
    mixtures = generator("swarm fit", domains).dirichlet(np.ones(domains), size=RUNS)
    observed = observe(mixtures, law.predict(mixtures))
    repeats = merge_repeats(observed, [f"{k:04d}" for k in range(RUNS)])
    held_out = repeats.observations.bpb + 0.01
    return SwarmFit(
        kind=law_kinds()[kind],
        law=law,
        replicates=tuple(replicates),
        observations=repeats.observations,
        repeats=repeats,
        held_out=held_out,
        scores=scores(held_out, repeats.observations.bpb),
        design=design_rank(mixtures),
        choice=None,
        older=(),
    )
