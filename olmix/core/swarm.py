"""The swarm: K mixtures around the natural distribution that identify the law of every domain.

Variant i is Dirichlet(a p0 + e_f): centred on the natural distribution p0 with a concentration a drawn log-uniformly
for the variant, plus one pseudo-count for its *featured* domain f = i mod m. Every block of m variants features each
domain once, so that even a domain with a natural share of 1e-5 is sampled at a share that a law can learn from, and
the design has full rank. The price is a mean that leans from natural to uniform by 1 / (a + 1).

Gammas are drawn from one stream a (seed, variant, domain's digest): a variant depends neither on K nor on the names
or the order of the domains. Sources are dense (never under `floor`); topics of one source are sparse (a topic under
`topic_minimum` of its source is left out of that variant), as in Olmix, RQ3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.core.digest import to_hex
from olmix.core.plan import Plan, swarm_size
from olmix.core.quantise import quantise
from olmix.core.seeds import generator
from olmix.core.virtual import VIRTUAL, CollapsedSpace
from olmix.errors import ConfigError, SwarmError

# A variant whose featured topic falls under the minimum is drawn again; each try succeeds with probability > 0.3.
TRIES = 200
# L1 distance under which two mixtures are the same evidence; a run of 2,500 sequences cannot tell 4e-4 apart.
SAME = 2e-3


@dataclass(frozen=True)
class SwarmDomain:
    """A coordinate of the swarm: name, identity (a digest; names draws), natural share, and the source it is of."""

    name: str
    identity: str
    share: float
    source: str | None = None


@dataclass(frozen=True)
class Sampling:
    """How mixtures are drawn: seed, range of the concentration a, floor of a source, minimum of a sparse topic."""

    seed: int = 0
    concentration: tuple[float, float] = (1.0, 16.0)
    floor: float = 1e-4
    topic_minimum: float = 0.05


def sample_swarm(domains: Sequence[SwarmDomain], runs: int, sampling: Sampling) -> NDArray[np.float64]:
    """`runs` mixtures, (K, m), columns in the order of `domains`, in multiples of 1e-6 that sum to 1.

    Raises SwarmError when there are fewer runs than domains or the design has not full rank, and ConfigError when the
    floor leaves less than half of a mixture to vary.
    """
    if not domains:
        return np.zeros((0, 0))
    if runs < len(domains):
        raise SwarmError(f"{runs} runs cannot identify {len(domains)} domains", key="runs", way_out="ask for more runs")
    ordered = _distinct(sorted(domains, key=lambda d: (d.identity, d.name)))
    weights = np.zeros((0, len(ordered)))
    for i in range(runs):
        for attempt in range(TRIES):
            drawn = _variant(ordered, i, attempt, sampling)
            # A small domain is often drawn at the floor: a mixture that an earlier variant has is drawn again.
            if not (np.abs(weights - drawn).sum(axis=1) < SAME).any():
                break
        weights = np.vstack([weights, drawn])
    column = {domain.name: k for k, domain in enumerate(ordered)}
    weights = weights[:, [column[domain.name] for domain in domains]]
    rank = int(np.linalg.matrix_rank(weights))
    if rank < len(domains):
        raise SwarmError(
            f"the {runs} sampled mixtures have rank {rank} for {len(domains)} domains, so no law can be identified",
            key="runs",
            way_out="ask for more runs, or lower topic_minimum",
        )
    return weights


def _distinct(ordered: Sequence[SwarmDomain]) -> list[SwarmDomain]:
    """The same domains with a number behind a repeated identity: the same content under two names is drawn twice."""
    seen: dict[str, int] = {}
    distinct = []
    for domain in ordered:
        copies = seen[domain.identity] = seen.get(domain.identity, 0) + 1
        distinct.append(domain if copies == 1 else replace(domain, identity=f"{domain.identity}#{copies}"))
    return distinct


def _variant(domains: Sequence[SwarmDomain], i: int, attempt: int, sampling: Sampling) -> NDArray[np.float64]:
    # Attempts are named behind everything else, so that the first one is named as if there were no others.
    again = ("attempt", attempt) if attempt else ()
    groups: dict[str, list[int]] = {}
    for k, domain in enumerate(domains):
        groups.setdefault(domain.source or domain.identity, []).append(k)
    if sampling.floor * len(groups) > 0.5:
        raise ConfigError(
            f"{sampling.floor} for each of {len(groups)} sources takes up more than half of every mixture",
            key="floor",
            way_out=f"lower it to {0.5 / len(groups):.6f} or less",
        )
    low, high = (math.log(bound) for bound in sampling.concentration)
    concentration = math.exp(generator("swarm", sampling.seed, i, "concentration", *again).uniform(low, high))
    featured = i % len(domains)

    shares = np.array([math.fsum(domains[k].share for k in members) for members in groups.values()])
    bonus = np.array([featured in members for members in groups.values()])
    gammas = np.array(
        [
            generator("swarm", sampling.seed, i, "source", name, *again).standard_gamma(alpha)
            for name, alpha in zip(groups, concentration * shares + bonus, strict=True)
        ]
    )
    sources = sampling.floor + (1 - sampling.floor * len(groups)) * gammas / gammas.sum()

    weights = np.zeros(len(domains))
    for members, source in zip(groups.values(), sources, strict=True):
        chosen, wanted = [domains[k] for k in members], [k == featured for k in members]
        topics = _topics(chosen, wanted, (i, *again), concentration, sampling)
        weights[members] = source * topics
    return quantise(weights)


def _topics(
    topics: Sequence[SwarmDomain],
    featured: Sequence[bool],
    variant: tuple[int | str, ...],
    concentration: float,
    sampling: Sampling,
) -> NDArray[np.float64]:
    """Shares of one source's topics, sparse; a featured topic is always among them."""
    if len(topics) == 1:
        return np.ones(1)
    total = math.fsum(topic.share for topic in topics)
    i, *again = variant
    streams = [generator("swarm", sampling.seed, i, "topic", topic.identity, *again) for topic in topics]
    alphas = [concentration * topic.share / total + bonus for topic, bonus in zip(topics, featured, strict=True)]
    for _ in range(TRIES):
        gammas = np.array([s.standard_gamma(alpha) for s, alpha in zip(streams, alphas, strict=True)])
        drawn = gammas / gammas.sum() if gammas.sum() > 0 else gammas
        drawn[drawn < sampling.topic_minimum] = 0.0
        if drawn.sum() > 0 and all(drawn[k] > 0 for k, is_featured in enumerate(featured) if is_featured):
            shares: NDArray[np.float64] = drawn / drawn.sum()
            return shares
    stuck = next((topic for topic, wanted in zip(topics, featured, strict=True) if wanted), topics[0])
    raise SwarmError(
        f"variant {i}: none of {TRIES} draws gives topic {stuck.name} a share of {sampling.topic_minimum} or more of "
        "its source",
        key="topic_minimum",
        way_out="lower it",
    )


@dataclass(frozen=True)
class Swarm:
    """Runs by name, (K, m) weights over the coordinates of `space`, the digests of the real domains, and which repeat
    of its mixture each run is (0 the first)."""

    space: CollapsedSpace
    digests: Mapping[str, str]
    runs: tuple[str, ...]
    weights: NDArray[np.float64]
    repeats: tuple[int, ...]

    def rows(self) -> dict[str, dict[str, float]]:
        """Weights by coordinate for every run."""
        names = self.space.names
        return {
            run: dict(zip(names, row.tolist(), strict=True)) for run, row in zip(self.runs, self.weights, strict=True)
        }

    def expanded(self, weights: Mapping[str, float]) -> dict[str, dict[str, Any]]:
        """The real domains behind one run's weights by coordinate: weight and digest."""
        real = self.space.expand([weights.get(name, 0.0) for name in self.space.names])
        return {name: {"weight": w, "digest": self.digests[name]} for name, w in real.items() if w > 0}


def make_swarm(plan: Plan, runs_per_domain: int, sampling: Sampling, repeats: int = 1) -> Swarm:
    """Sample the swarm of a plan, each mixture `repeats` times: no run at all when nothing is affected."""
    digests = {name: to_hex(domain.digest) for name, domain in plan.dataset.domains.items()}
    natural = plan.space.collapse(plan.dataset.natural)
    domains = [
        SwarmDomain(name, VIRTUAL, float(share))
        if name == VIRTUAL
        else SwarmDomain(name, digests[name], float(share), plan.dataset.domains[name].source)
        for name, share in zip(plan.space.names, natural, strict=True)
    ]
    size = swarm_size(plan.dimensions, runs_per_domain)
    weights = sample_swarm(domains, size, sampling) if size else np.zeros((0, len(domains)))
    runs = [(i, repeat) for i in range(size) for repeat in range(repeats)]
    names = tuple(f"{i:04d}" + (f"-r{repeat}" if repeat else "") for i, repeat in runs)
    return Swarm(plan.space, digests, names, np.repeat(weights, repeats, axis=0), tuple(r for _, r in runs))
