"""`build/swarm.json`: the mixtures to train, and the real domains behind their coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.core.digest import to_hex
from olmix.core.plan import Plan, swarm_size
from olmix.core.swarm import Sampling, SwarmDomain, sample_swarm
from olmix.core.virtual import VIRTUAL, CollapsedSpace
from olmix.files import read_json

SWARM = Path("build/swarm.json")


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


def swarm_to_json(swarm: Swarm) -> dict[str, Any]:
    """The swarm as plain values."""
    return {
        "coordinates": list(swarm.space.names),
        "members": dict(swarm.space.members),
        "digests": dict(swarm.digests),
        "runs": [
            {"run": run, "repeat": repeat, "weights": weights}
            for (run, weights), repeat in zip(swarm.rows().items(), swarm.repeats, strict=True)
        ],
    }


def read_swarm() -> Swarm:
    """The swarm of this pipeline."""
    content = read_json(SWARM)
    names = content["coordinates"]
    space = CollapsedSpace(content["members"], tuple(name for name in names if name != VIRTUAL))
    weights = np.array([[run["weights"][name] for name in names] for run in content["runs"]]).reshape(-1, len(names))
    names, repeats = (tuple(run[key] for run in content["runs"]) for key in ("run", "repeat"))
    return Swarm(space, content["digests"], names, weights, repeats)
