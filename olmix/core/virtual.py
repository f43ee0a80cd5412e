"""The virtual domain: every unchanged domain collapsed into one, with frozen ratios.

    real domains   web  code  math | news          p  (what a trainer reads)
                     \\    |    /      |
    collapsed           @virtual      news          q  (what the swarm varies and the solver decides)

Expanding is linear: p_j = q_v r_j for a member j with frozen ratio r_j, p_j = q_j for an affected domain. So caps,
KL and tokens of the real mixture have exact counterparts in q, and nothing is approximated by collapsing except
that the members keep their proportions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from olmix.errors import MixtureError

# No domain can bear this name: domain names start with a letter or a digit.
VIRTUAL = "@virtual"


@dataclass(frozen=True)
class CollapsedSpace:
    """The coordinates of q: the virtual domain first, when there is one, then the affected domains by name."""

    members: Mapping[str, float]
    affected: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", dict(sorted(self.members.items())))
        object.__setattr__(self, "affected", tuple(sorted(self.affected)))
        if self.members and abs(math.fsum(self.members.values()) - 1) > 1e-9:
            raise MixtureError("the frozen ratios of the virtual domain do not sum to 1")

    @property
    def names(self) -> tuple[str, ...]:
        """Coordinate names, in order."""
        return ((VIRTUAL,) if self.members else ()) + self.affected

    def expand(self, weights: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
        """The mixture of real domains: p_j = q_v r_j for members, q_j for affected domains."""
        values = dict(zip(self.names, (float(w) for w in weights), strict=True))
        virtual = values.pop(VIRTUAL, 0.0)
        return dict(sorted({**{j: virtual * r for j, r in self.members.items()}, **values}.items()))

    def collapse(self, mixture: Mapping[str, float]) -> NDArray[np.float64]:
        """The coordinates of a mixture of real domains, (d,): members summed, whatever their proportions."""
        virtual = [math.fsum(mixture.get(name, 0.0) for name in self.members)] if self.members else []
        return np.array([*virtual, *(mixture.get(name, 0.0) for name in self.affected)])

    def capacity(self, caps: Mapping[str, float]) -> float:
        """The virtual domain's cap, min_j cap_j / r_j: the scarcest member decides, not the members' sum."""
        return min((caps[j] / r for j, r in self.members.items() if r > 0), default=math.inf)

    def scarcest(self, caps: Mapping[str, float]) -> str:
        """The member that sets the capacity."""
        return min((j for j, r in self.members.items() if r > 0), key=lambda j: (caps[j] / self.members[j], j))

    def caps(self, caps: Mapping[str, float]) -> NDArray[np.float64]:
        """The caps of q, (d,), from the caps of real domains."""
        virtual = [self.capacity(caps)] if self.members else []
        return np.array([*virtual, *(caps[name] for name in self.affected)])

    def reference(self, natural: Mapping[str, float]) -> NDArray[np.float64]:
        """The positive vector s, (d,), with KL(expand(q) || natural) = sum_k q_k log(q_k / s_k) for every q.

        For the virtual domain log s_v = sum_j r_j log(natural_j / r_j); s does not sum to 1 unless the frozen
        ratios are the natural ones.
        """
        log_virtual = math.fsum(r * math.log(natural[j] / r) for j, r in self.members.items() if r > 0)
        virtual = [math.exp(log_virtual)] if self.members else []
        return np.array([*virtual, *(natural[name] for name in self.affected)])
