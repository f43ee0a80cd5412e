"""The plan: which domains must be recomputed, and what the unchanged ones collapse into.

A pure function of (dataset version, accepted mixture, reuse settings): no clock, no path, no host, and nothing of
how the swarm is sampled or trained, so that none of those can make a plan look new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from olmix.core.changes import MERGE, PARTITION, REVISE, Change, compare
from olmix.core.dataset import Dataset
from olmix.core.mixture import Mixture
from olmix.core.virtual import CollapsedSpace
from olmix.errors import ConfigError, MixtureError

EMPTY = Mixture({})


@dataclass(frozen=True)
class Reuse:
    """How much of the base is kept: `full` or `none`, and unchanged domains to recompute all the same."""

    mode: Literal["full", "none"] = "full"
    recompute: tuple[str, ...] = ()


@dataclass(frozen=True)
class Accepted:
    """The accepted mixture, the dataset and reuse settings it was proposed for, and the base of that plan."""

    mixture: Mixture = EMPTY
    dataset: str | None = None
    base: Mixture = EMPTY
    reuse: Reuse | None = None

    def stands_for(self, dataset: Dataset, reuse: Reuse) -> bool:
        """Whether this mixture was proposed for this very dataset, under these reuse settings (where it names any)."""
        return self.dataset == dataset.digest and self.reuse in (None, reuse)

    def base_for(self, dataset: Dataset, reuse: Reuse) -> Mixture:
        """What a plan for `dataset` starts from.

        Once a proposal is accepted, a plan for the same dataset starts where the proposal's plan started: it is
        the same plan, byte for byte, and accepting re-runs nothing. Other reuse settings start from the accepted
        mixture: recomputing an unchanged domain then keeps the proportions of all others.
        """
        return self.base if self.stands_for(dataset, reuse) else self.mixture


@dataclass(frozen=True)
class Plan:
    """What changed, who is affected, and the collapsed space that the swarm varies.

    `carried` is the base mixture on today's domains: what a team would train on if it did nothing. It is empty when
    there is no base, or when the base has no mass left.
    """

    dataset: Dataset
    base: Mixture
    changes: tuple[Change, ...]
    space: CollapsedSpace
    carried: Mapping[str, float]
    duplicates: tuple[tuple[str, ...], ...] = field(default=())

    @property
    def affected(self) -> tuple[str, ...]:
        """The domains that are recomputed, sorted."""
        return self.space.affected

    @property
    def dimensions(self) -> int:
        """Coordinates that the swarm varies; 0 when nothing is recomputed."""
        return len(self.space.names) if self.affected else 0


def swarm_size(dimensions: int, runs_per_domain: int) -> int:
    """K = c (m + 1): m + 1 is the number of parameters of the log-linear law (Olmix, RQ2)."""
    return runs_per_domain * (dimensions + 1) if dimensions else 0


def make_plan(dataset: Dataset, base: Mixture, reuse: Reuse) -> Plan:
    """Plan from `base`; raises ConfigError for an unknown domain in `reuse`, MixtureError for a base without mass."""
    unknown = sorted(set(reuse.recompute) - set(dataset.names))
    if unknown:
        raise ConfigError(
            f"no domain {', '.join(unknown)}", key="recompute", way_out=f"the domains are {', '.join(dataset.names)}"
        )
    # With another tokeniser no token count means what it meant: every domain is revised.
    comparable = base.tokenizer is None or dataset.tokenizer is None or base.tokenizer == dataset.tokenizer
    comparison = compare(
        {name: share.digest if comparable else -1 for name, share in base.domains.items()},
        {name: domain.digest for name, domain in dataset.domains.items()},
        {name: domain.source for name, domain in dataset.domains.items()},
    )
    kept = {name: base.domains[old].weight for name, old in comparison.unchanged.items()}
    frozen = {} if reuse.mode == "none" else {n: w for n, w in kept.items() if n not in reuse.recompute}
    affected = tuple(name for name in dataset.names if name not in frozen)
    frozen_mass = math.fsum(frozen.values())
    if frozen and frozen_mass <= 0:
        raise MixtureError(
            f"the {len(frozen)} unchanged domains ({', '.join(frozen)}) all have weight 0 in the accepted mixture, so "
            "they have no ratios to freeze",
            key="reuse",
            way_out="recompute them too (reuse: recompute), or reuse nothing (reuse: mode: none)",
        )
    members = {name: weight / frozen_mass for name, weight in frozen.items()}
    return Plan(
        dataset=dataset,
        base=base,
        changes=comparison.changes,
        space=CollapsedSpace(members, affected),
        carried=_carried(dataset, base, kept, comparison.changes),
        duplicates=_duplicates(dataset),
    )


def _carried(
    dataset: Dataset, base: Mixture, kept: Mapping[str, float], changes: tuple[Change, ...]
) -> dict[str, float]:
    """The base mixture on today's domains: a revised domain keeps its weight, parts share that of the whole by their
    tokens, a merged domain has the sum, an added one nothing; renormalised, or empty when no mass is left."""
    weights = dict(kept)
    for change in changes:
        if change.kind in (REVISE, PARTITION, MERGE):
            weight = math.fsum(base.domains[name].weight for name in change.origin)
            tokens = math.fsum(dataset.domains[name].tokens for name in change.domains)
            weights |= {name: weight * dataset.domains[name].tokens / tokens for name in change.domains}
    mass = math.fsum(weights.values())
    return {name: weight / mass for name, weight in sorted(weights.items())} if mass > 0 else {}


def _duplicates(dataset: Dataset) -> tuple[tuple[str, ...], ...]:
    """Groups of domains that hold the same documents under different names."""
    groups: dict[int, list[str]] = {}
    for name, domain in dataset.domains.items():
        groups.setdefault(domain.digest, []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)
