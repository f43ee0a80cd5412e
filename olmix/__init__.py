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
    "FitSettings": "olmix.core.fitting",
    "LogLinear": "olmix.core.loglinear",
    "Mixture": "olmix.core.mixture",
    "OlmixError": "olmix.errors",
    "Observations": "olmix.core.observations",
    "Plan": "olmix.core.plan",
    "Problem": "olmix.core.trust",
    "Reuse": "olmix.core.plan",
    "Sampling": "olmix.core.swarm",
    "Share": "olmix.core.mixture",
    "Solution": "olmix.core.solver",
    "SwarmDomain": "olmix.core.swarm",
    "examine": "olmix.core.trust",
    "fit_loglinear": "olmix.core.loglinear",
    "fit_swarm": "olmix.core.fitting",
    "law_kinds": "olmix.core.laws",
    "make_plan": "olmix.core.plan",
    "observe": "olmix.core.observations",
    "sample_swarm": "olmix.core.swarm",
    "solve": "olmix.core.solver",
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
