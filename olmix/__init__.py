"""olmix: a declarative, dataset-versioned build system for language-model data mixtures.

The library's public names; each is loaded when it is first used, so that `import olmix` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Accepted": "olmix.core.plan",
    "CollapsedSpace": "olmix.core.virtual",
    "Dataset": "olmix.core.dataset",
    "Domain": "olmix.core.dataset",
    "FitSettings": "olmix.fit.fitting",
    "LogLinear": "olmix.laws.loglinear",
    "Mixture": "olmix.core.mixture",
    "OlmixError": "olmix.errors",
    "Observations": "olmix.laws.observations",
    "Plan": "olmix.core.plan",
    "Problem": "olmix.fit.trust",
    "Reuse": "olmix.core.plan",
    "Sampling": "olmix.core.swarm",
    "Share": "olmix.core.mixture",
    "Solution": "olmix.solver.certified",
    "SwarmDomain": "olmix.core.swarm",
    "examine": "olmix.fit.trust",
    "fit_loglinear": "olmix.laws.loglinear",
    "fit_swarm": "olmix.fit.fitting",
    "law_kinds": "olmix.laws.registry",
    "make_plan": "olmix.core.plan",
    "observe": "olmix.laws.observations",
    "sample_swarm": "olmix.core.swarm",
    "solve": "olmix.solver.certified",
    "total_variation": "olmix.core.mixture",
}
__all__ = sorted(_HOMES)  # noqa: PLE0605  # derived, so that the two cannot differ


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'olmix' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
