"""The plan: which domains must be recomputed, and what the unchanged ones collapse into.

A pure function of (dataset version, accepted mixture, reuse settings): no clock, no path, no host, and nothing of
how the swarm is sampled or trained, so that none of those can make a plan look new.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from olmix.core.changes import DRIFT, MERGE, PARTITION, RENAME, REVISE, Change, Comparison, compare
from olmix.core.dataset import Dataset
from olmix.core.digest import to_hex
from olmix.core.mixture import Mixture
from olmix.core.sketch import Drift, Sketch, drift_between
from olmix.core.virtual import CollapsedSpace
from olmix.errors import ConfigError, MixtureError

EMPTY = Mixture({})


@dataclass(frozen=True)
class Reuse:
    """How much of the base is kept: `full` or `none`, and unchanged domains to recompute all the same.

    A domain that changed by at most `tolerance` since its weight was measured is kept too: by the share of its text
    that is another, or by the shift of its n-grams (`drift_by`). `keep` keeps a domain whatever changed, as long as its
    digest begins as given here.
    """

    mode: Literal["full", "none"] = "full"
    recompute: tuple[str, ...] = ()
    tolerance: float = 0.0
    drift_by: Literal["documents", "distribution"] = "documents"
    keep: tuple[tuple[str, str], ...] = ()

    def keeps(self, name: str, digest: int, drift: Drift | None) -> bool:
        """Whether a domain keeps its weight though its content is another than the weight was measured on."""
        if self.mode == "none" or name in self.recompute:
            return False
        if any(name == other and to_hex(digest).startswith(start) for other, start in self.keep):
            return True
        if drift is None or not self.tolerance:
            return False
        by_documents = self.drift_by == "documents"
        size, error = (drift.changed, drift.error) if by_documents else (drift.shift, drift.shift_error)
        # A change under its error may be as large as that.
        return size is not None and error is not None and max(size, error) <= self.tolerance


@dataclass(frozen=True)
class Accepted:
    """The accepted mixture, the dataset and reuse settings it was proposed for, and the base of that plan."""

    mixture: Mixture = EMPTY
    dataset: str | None = None
    base: Mixture = EMPTY
    reuse: Reuse | None = None

    def stands_for(self, dataset: Dataset, reuse: Reuse) -> bool:
        """Whether this mixture was proposed for this very dataset, to keep and to recompute what `reuse` says (where it
        says so itself). Which changes were small enough is settled by then: another tolerance counts from the next
        change of the data on."""
        if self.dataset != dataset.digest:
            return False
        return self.reuse is None or (self.reuse.mode, self.reuse.recompute) == (reuse.mode, reuse.recompute)

    def reuse_for(self, dataset: Dataset, reuse: Reuse) -> Reuse:
        """The settings of a plan for `dataset`: those that this mixture was planned with as long as it stands."""
        return self.reuse if self.reuse is not None and self.stands_for(dataset, reuse) else reuse

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
    there is no base, or when the base has no mass left. `drifts` tells of domains under the name that they had how much
    of them is another than when their weight was measured, as far as sketches tell.
    """

    dataset: Dataset
    base: Mixture
    changes: tuple[Change, ...]
    space: CollapsedSpace
    carried: Mapping[str, float]
    duplicates: tuple[tuple[str, ...], ...] = field(default=())
    drifts: Mapping[str, Drift] = field(default_factory=dict)

    @property
    def affected(self) -> tuple[str, ...]:
        """The domains that are recomputed, sorted."""
        return self.space.affected

    @property
    def measured_on(self) -> dict[str, int]:
        """By domain the digest that its weight in a proposal of this plan is measured on: that of the base for what is
        kept, today's for what is recomputed."""
        held = {change.domains[0]: change.origin[0] for change in self.changes if change.kind == RENAME}
        return {
            name: self.base.domains[held.get(name, name)].origin if name in self.space.members else domain.digest
            for name, domain in self.dataset.domains.items()
        }

    @property
    def drifted(self) -> tuple[str, ...]:
        """The domains that keep their weight though their content is another than it was measured on, sorted."""
        domains = self.dataset.domains
        return tuple(
            name
            for name, digest in self.measured_on.items()
            if name in self.space.members and digest != domains[name].digest
        )

    @property
    def only_drift(self) -> bool:
        """Whether domains drifted, and nothing else changed: the weights stand as they were measured."""
        return not self.affected and bool(self.changes) and all(change.kind == DRIFT for change in self.changes)

    @property
    def dimensions(self) -> int:
        """Coordinates that the swarm varies; 0 when nothing is recomputed."""
        return len(self.space.names) if self.affected else 0


def swarm_size(dimensions: int, runs_per_domain: int) -> int:
    """K = c (m + 1): m + 1 is the number of parameters of the log-linear law (Olmix, RQ2)."""
    return runs_per_domain * (dimensions + 1) if dimensions else 0


def make_plan(dataset: Dataset, base: Mixture, reuse: Reuse, sketches: Mapping[int, Sketch] | None = None) -> Plan:
    """Plan from `base`, with the sketches that are known, by digest; raises ConfigError for an unknown domain in
    `reuse`, MixtureError for a base without mass."""
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
    drifts = _drifts(dataset, base, comparison, sketches or {}) if comparable else {}
    changes = tuple(
        replace(change, kind=DRIFT)
        if comparable and change.kind == REVISE and _keeps(reuse, dataset, change.domains[0], drifts)
        else change
        for change in comparison.changes
    )
    drifted = {change.domains[0] for change in changes if change.kind == DRIFT}
    kept = {name: base.domains[old].weight for name, old in comparison.unchanged.items()}
    kept |= {name: base.domains[name].weight for name in drifted}
    # What drifted by small steps is not revised in the last of them, and may be too much all the same.
    moved = {name for name in drifts if name not in drifted and not _keeps(reuse, dataset, name, drifts)}
    frozen = {} if reuse.mode == "none" else {n: w for n, w in kept.items() if n not in {*reuse.recompute, *moved}}
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
        changes=changes,
        space=CollapsedSpace(members, affected),
        carried=_carried(dataset, base, kept, changes),
        duplicates=_duplicates(dataset),
        drifts=drifts,
    )


def _drifts(
    dataset: Dataset, base: Mixture, comparison: Comparison, sketches: Mapping[int, Sketch]
) -> dict[str, Drift]:
    """What changed of each domain that has the name it had, or is one of the base renamed, since its weight was
    measured; nothing of those whose content is the same, or of which a sketch is missing."""
    drifts = {}
    for name, domain in dataset.domains.items():
        old = base.domains.get(comparison.unchanged.get(name, name))
        if old is None or old.origin == domain.digest:
            continue
        before, now = sketches.get(old.origin), sketches.get(domain.digest)
        drift = drift_between(before, now) if before and now else None
        if drift is not None:
            drifts[name] = drift
    return drifts


def _keeps(reuse: Reuse, dataset: Dataset, name: str, drifts: Mapping[str, Drift]) -> bool:
    return reuse.keeps(name, dataset.domains[name].digest, drifts.get(name))


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
