"""propose: the mixture that the laws and the limits ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from olmix.artifacts.fit_report import cap_price
from olmix.artifacts.law_file import Laws, read_laws
from olmix.artifacts.mixture_file import MixtureFile, write_mixture
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.proposal import certificate_section, mixture_file, predicted_section, trust_section
from olmix.config.keys import params_for
from olmix.core.arrays import Array
from olmix.core.contenders import CARRIED, NATURAL
from olmix.core.limits import Target, cap_proportionally, domain_caps, require_feasible
from olmix.core.mixture import kl_divergence
from olmix.core.plan import Plan
from olmix.core.quantise import quantise_within
from olmix.core.sketch import Drift
from olmix.errors import MixtureError
from olmix.fit.trust import Problem, Trust, examine
from olmix.laws.base import LawKind
from olmix.laws.registry import CHOOSABLE
from olmix.project import Project
from olmix.terminal.exits import run_stage

HEADING = "What the pipeline proposes. Written by `dvc repro`; `olmix accept` makes it the accepted mixture."


def propose_mixture(project: Project) -> None:
    """Write the proposal of this pipeline's plan and laws."""
    params, plan = params_for(project, "propose"), read_plan(project)
    weights = params.task_weights()
    laws = read_laws(project, weights, params.fit_settings()) if plan.affected else None
    with params.named_in_errors():
        proposal = propose(plan, laws, weights, params.target_settings(), params.solve.kl)
    write_mixture(project.proposed, proposal, HEADING)


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(propose_mixture)


def propose(plan: Plan, laws: Laws | None, task_weights: Mapping[str, float], target: Target, kl: float) -> MixtureFile:
    """The proposal of a plan; raises InfeasibleError when no mixture meets the limits, before anything is solved."""
    caps = domain_caps(plan.dataset, target.tokens, target.repetition)
    require_feasible(plan.dataset, plan.space, caps, target.tokens, target.repetition)
    if laws is None:
        return _carried(plan, caps, target)
    problem = problem_of(plan, laws, task_weights, plan.space.caps(caps), kl)
    trust = examine(laws.fit, problem, _others(laws))
    names = plan.dataset.names
    expanded = plan.space.expand(trust.proposal.weights)
    rounded = quantise_within([expanded[n] for n in names], [caps[n] for n in names])
    mixture = dict(zip(names, rounded.tolist(), strict=True))
    sections = {
        "predicted": predicted_section(trust, baseline=_baseline(plan)),
        "certificate": {
            **certificate_section(trust, kl),
            "kl_to_natural": round(kl_divergence(mixture, plan.dataset.natural), 6),
            **_prices(plan, caps, trust),
        },
        "trust": trust_section(laws, problem, trust, over=_baseline(plan)),
        "target": {"tokens": target.tokens, "repetition": target.repetition},
        "plan": _plan_section(plan),
    }
    return mixture_file(plan.dataset, mixture, caps, target, sections, plan.measured_on)


def _carried(plan: Plan, caps: Mapping[str, float], target: Target) -> MixtureFile:
    """Nothing is recomputed: the base on what still stands, and its excess over a cap to the others in proportion."""
    if not plan.carried:
        raise MixtureError(
            "no domain with weight in the accepted mixture is left",
            key="reuse",
            way_out="reuse nothing (reuse: mode: none)",
        )
    names = plan.dataset.names
    limits = np.array([caps[n] for n in names])
    weights = cap_proportionally(np.array([plan.carried[n] for n in names]), limits)
    mixture = dict(zip(names, quantise_within(weights, limits).tolist(), strict=True))
    sections = {
        "certificate": {"kl_to_natural": round(kl_divergence(mixture, plan.dataset.natural), 6)},
        "target": {"tokens": target.tokens, "repetition": target.repetition},
        "plan": _plan_section(plan),
    }
    return mixture_file(plan.dataset, mixture, caps, target, sections, plan.measured_on)


def problem_of(plan: Plan, laws: Laws, task_weights: Mapping[str, float], caps: Array, kl: float) -> Problem:
    """What the proposal of a plan minimises, in the plan's coordinates.

    Gains are over the natural mixture, but a law of a reuse swarm does not know it: its runs vary no proportions inside
    the virtual domain. There they are over the base carried over, which has the frozen ones.
    """
    weights = np.array([task_weights[task] for task in laws.tasks])
    natural = plan.dataset.natural
    baseline = plan.space.collapse(plan.carried if _baseline(plan) == CARRIED else natural)
    return Problem(weights / weights.sum(), plan.space.reference(natural), kl, caps, baseline)


def _baseline(plan: Plan) -> str:
    """The mixture that a gain is over, as validation names it."""
    return CARRIED if plan.space.members else NATURAL


def _others(laws: Laws) -> dict[str, LawKind]:
    """The laws whose word stands beside a proposal."""
    return {name: laws.kinds[name] for name in CHOOSABLE if name != laws.fit.kind.name}


def _prices(plan: Plan, caps: Mapping[str, float], trust: Trust) -> dict[str, Any]:
    """What the objective would fall by, per unit of share, if a binding cap rose (the virtual one: its scarcest)."""
    prices = {}
    for i, name in enumerate(plan.space.names):
        price = cap_price(trust, i)
        if price is not None:
            domain = plan.space.scarcest(caps) if name not in plan.dataset.domains else name
            prices[domain] = round(price, 6)
    return {"cap_prices": dict(sorted(prices.items()))} if prices else {}


def _drift(drift: Drift | None) -> dict[str, Any]:
    """What changed of a domain that keeps its weight; nothing where no sketch tells."""
    return {"changed": round(drift.changed, 4), "error": round(drift.error, 4)} if drift else {}


def _plan_section(plan: Plan) -> dict[str, Any]:
    drifted = {name: _drift(plan.drifts.get(name)) for name in plan.drifted}
    unchanged = sorted(plan.space.members.keys() - drifted.keys())
    return {"affected": list(plan.affected), "unchanged": unchanged, **({"drifted": drifted} if drifted else {})}
