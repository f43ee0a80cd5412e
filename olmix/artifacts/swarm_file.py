"""`build/swarm.json`: the mixtures to train, and the real domains behind their coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np

from olmix.core.swarm import Swarm
from olmix.core.virtual import VIRTUAL, CollapsedSpace
from olmix.files import read_json, write_json
from olmix.project import Project


def write_swarm(project: Project, swarm: Swarm) -> None:
    """Write the swarm of a plan."""
    write_json(project.swarm, swarm_to_json(swarm))


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


def read_swarm(project: Project) -> Swarm:
    """The swarm of this pipeline."""
    content = read_json(project.swarm)
    names = content["coordinates"]
    space = CollapsedSpace(content["members"], tuple(name for name in names if name != VIRTUAL))
    weights = np.array([[run["weights"][name] for name in names] for run in content["runs"]]).reshape(-1, len(names))
    names, repeats = (tuple(run[key] for run in content["runs"]) for key in ("run", "repeat"))
    return Swarm(space, content["digests"], names, weights, repeats)
