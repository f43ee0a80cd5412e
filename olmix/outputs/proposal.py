"""From laws and limits to a mixture file: solve in the collapsed space, expand, and say how sure it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from olmix.core.limits import cap_proportionally, domain_caps, require_feasible
from olmix.core.mixture import Mixture, Share, kl_divergence, repetition
from olmix.core.plan import Plan
from olmix.core.quantise import quantise_within
from olmix.core.solver import Solution, solve
from olmix.errors import MixtureError
from olmix.outputs.law_file import Laws
from olmix.outputs.mixture_file import MixtureFile

HEADING = "What the pipeline proposes. Written by `dvc repro`; `olmix accept` makes it the accepted mixture."

# A gap below this is rounding, which differs between machines; the file gives the bound, so that a diff stays quiet.
SMALLEST_GAP = 1e-12


@dataclass(frozen=True)
class Target:
    """The run that the mixture is for: R tokens, and the repetition limit k."""

    tokens: int
    repetition: float


def propose(plan: Plan, laws: Laws | None, task_weights: Mapping[str, float], target: Target, kl: float) -> MixtureFile:
    """The proposal of a plan; raises InfeasibleError when no mixture meets the limits, before anything is solved."""
    caps = domain_caps(plan.dataset, target.tokens, target.repetition)
    require_feasible(plan.dataset, plan.space, caps, target.tokens, target.repetition)
    if laws is None:
        return _carried(plan, caps, target)
    weights = np.array([task_weights[task] for task in laws.tasks])
    objective = laws.law.objective(weights)
    reference = plan.space.reference(plan.dataset.natural)
    solution = solve(objective, reference=reference, kl=kl, caps=plan.space.caps(caps))
    unlimited = solve(objective, reference=reference, kl=kl, caps=np.ones(len(reference)))
    predicted: dict[str, Any] = {"proposal": _predict(laws, weights, solution.weights)}
    if not plan.space.members:
        # A law of a reuse swarm knows natural shares only of the virtual domain, not inside it: nothing to say there.
        natural = plan.space.collapse(plan.dataset.natural)
        predicted["natural"] = _predict(laws, weights, natural)
    predicted["unconstrained"] = _predict(laws, weights, unlimited.weights)
    names = plan.dataset.names
    expanded = plan.space.expand(solution.weights)
    rounded = quantise_within([expanded[n] for n in names], [caps[n] for n in names])
    mixture = dict(zip(names, rounded.tolist(), strict=True))
    certificate = {
        "gap": max(float(solution.gap), SMALLEST_GAP),
        "iterations": solution.iterations,
        "kl_weight": kl,
        "kl_to_natural": round(kl_divergence(mixture, plan.dataset.natural), 6),
    }
    shadow = _shadow_prices(plan, caps, solution)
    sections = {
        "predicted": predicted,
        "certificate": {**certificate, **({"cap_prices": shadow} if shadow else {})},
        "target": {"tokens": target.tokens, "repetition": target.repetition},
        "plan": _plan_section(plan),
    }
    return _file(plan, mixture, caps, target, sections)


def _carried(plan: Plan, caps: Mapping[str, float], target: Target) -> MixtureFile:
    """Nothing is recomputed: the base on what still stands, and its excess over a cap to the others in proportion."""
    if not plan.carried:
        raise MixtureError(
            "mixtures/accepted.yaml: no weight is left on the domains that still stand; set reuse.mode: none"
        )
    names = plan.dataset.names
    limits = np.array([caps[n] for n in names])
    weights = cap_proportionally(np.array([plan.carried[n] for n in names]), limits)
    mixture = dict(zip(names, quantise_within(weights, limits).tolist(), strict=True))
    sections = {
        "certificate": {"gap": SMALLEST_GAP, "kl_to_natural": round(kl_divergence(mixture, plan.dataset.natural), 6)},
        "target": {"tokens": target.tokens, "repetition": target.repetition},
        "plan": _plan_section(plan),
    }
    return _file(plan, mixture, caps, target, sections)


def _file(
    plan: Plan,
    mixture: Mapping[str, float],
    caps: Mapping[str, float],
    target: Target,
    sections: Mapping[str, Any],
) -> MixtureFile:
    domains = plan.dataset.domains
    rows = {
        name: {
            "repetition": repetition(weight, domains[name].tokens, target.tokens),
            # Rounding may leave the last digit of a capped weight under its cap.
            "capped": caps[name] < 1 and weight >= caps[name] - 1e-6,
        }
        for name, weight in mixture.items()
    }
    shares = {name: Share(weight, domains[name].tokens, domains[name].digest) for name, weight in mixture.items()}
    return MixtureFile(
        mixture=Mixture(shares, plan.dataset.tokenizer),
        rows=rows,
        dataset=plan.dataset.digest,
        sections=sections,
    )


def _predict(laws: Laws, task_weights: NDArray[np.float64], weights: NDArray[np.float64]) -> dict[str, float | None]:
    """Predicted mean BPB and its deviation over bootstrap replicates: the noise of the runs, not the law's error."""
    share = task_weights / task_weights.sum()
    spread = [float(law.predict(weights) @ share) for law in laws.replicates]
    return {
        "bpb": round(float(laws.law.predict(weights) @ share), 6),
        "standard_error": round(float(np.std(spread, ddof=1)), 6) if len(spread) > 1 else None,
    }


def _shadow_prices(plan: Plan, caps: Mapping[str, float], solution: Solution) -> dict[str, float]:
    """What the objective would fall by, per unit of share, if a binding cap rose (the virtual one: its scarcest)."""
    prices = {}
    for name, price, capped in zip(plan.space.names, solution.multipliers, solution.capped, strict=True):
        if capped:
            domain = plan.space.scarcest(caps) if name not in plan.dataset.domains else name
            prices[domain] = round(float(price), 6)
    return dict(sorted(prices.items()))


def _plan_section(plan: Plan) -> dict[str, Any]:
    return {"affected": list(plan.affected), "unchanged": sorted(plan.space.members)}
