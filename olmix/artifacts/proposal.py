"""From laws and limits to a mixture file: solve in the collapsed space, expand, and say how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from olmix.artifacts.fit_report import SMALLEST_GAP, cap_price, fit_digest, interval_values
from olmix.artifacts.law_file import Laws
from olmix.artifacts.mixture_file import MixtureFile
from olmix.artifacts.validation import CARRIED, NATURAL
from olmix.core.dataset import Dataset
from olmix.core.limits import cap_proportionally, domain_caps, require_feasible
from olmix.core.mixture import Mixture, Share, kl_divergence, repetition
from olmix.core.plan import Plan
from olmix.core.quantise import quantise_within
from olmix.errors import MixtureError
from olmix.fit.trust import Problem, Trust, examine
from olmix.laws.base import LawKind
from olmix.laws.registry import CHOOSABLE
from olmix.solver.objective import Array

HEADING = "What the pipeline proposes. Written by `dvc repro`; `olmix accept` makes it the accepted mixture."


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
        "trust": _trust_section(plan, laws, problem, trust),
        "target": {"tokens": target.tokens, "repetition": target.repetition},
        "plan": _plan_section(plan),
    }
    return mixture_file(plan.dataset, mixture, caps, target, sections)


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
        "certificate": {"kl_to_natural": round(kl_divergence(mixture, plan.dataset.natural), 6)},
        "target": {"tokens": target.tokens, "repetition": target.repetition},
        "plan": _plan_section(plan),
    }
    return mixture_file(plan.dataset, mixture, caps, target, sections)


def mixture_file(
    dataset: Dataset,
    mixture: Mapping[str, float],
    caps: Mapping[str, float],
    target: Target | None,
    sections: Mapping[str, Any],
) -> MixtureFile:
    """The file of a rounded mixture of `dataset` under `caps` by name, with what is to stand below it."""
    domains = dataset.domains
    rows = {
        name: {
            **({"repetition": repetition(weight, domains[name].tokens, target.tokens)} if target else {}),
            # Rounding may leave the last digit of a capped weight under its cap.
            "capped": caps[name] < 1 and weight >= caps[name] - 1e-6,
        }
        for name, weight in mixture.items()
    }
    shares = {name: Share(weight, domains[name].tokens, domains[name].digest) for name, weight in mixture.items()}
    return MixtureFile(
        mixture=Mixture(shares, dataset.tokenizer),
        rows=rows,
        dataset=dataset.digest,
        sections=sections,
    )


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


def predicted_section(trust: Trust, baseline: str) -> dict[str, Any]:
    """Predicted mean BPB with its deviation over bootstrap replicates: the noise of the runs, not the law's error."""
    names = {"proposal": "proposal", "baseline": baseline, "unconstrained": "unconstrained"}
    return {
        shown: {"bpb": round(value.value, 6), "standard_error": rounded(value.standard_error)}
        for name, shown in names.items()
        if (value := trust.mean_bpb.get(name)) is not None
    }


def certificate_section(trust: Trust, kl: float) -> dict[str, Any]:
    """How the proposal was found: the duality gap of a certified one, else how many mixtures a search scored."""
    proposal = trust.proposal
    found = (
        {"searched": proposal.steps}
        if proposal.gap is None
        else {"gap": max(float(proposal.gap), SMALLEST_GAP), "iterations": proposal.steps}
    )
    return {**found, "kl_weight": kl}


def rounded(value: float) -> float | None:
    """Six decimals, no minus before a zero, None for what is not known."""
    return round(value, 6) + 0.0 if math.isfinite(value) else None


def _trust_section(plan: Plan, laws: Laws, problem: Problem, trust: Trust) -> dict[str, Any]:
    """The answers to the questions of trust that a review should see, rounded so that a diff stays quiet."""
    values = {} if trust.gain is None else interval_values(trust.gain)
    gain = {"over": _baseline(plan), **{key: rounded(value) for key, value in values.items()}}
    return {
        "law": laws.fit.kind.name,
        "fit": fit_digest(laws.fit, laws.tasks, problem.task_weights),
        **({"gain": gain} if values else {}),
        "doubts": list(trust.doubts(laws.fit)),
        "mirage": trust.mirage,
        "nearest_run": round(trust.distance, 3),
        "leverage": round(trust.leverage, 3),
        "largest_leverage_of_a_run": round(trust.largest_leverage, 3),
        "outside_of_the_runs": round(trust.unsupported, 3),
        "moved_by_resampling": None if trust.moved is None else round(trust.moved, 3),
        "other_laws": {
            law.name: {
                "bpb": round(law.bpb, 4),
                "gain": None if law.gain is None else round(law.gain, 4),
                "distance": None if law.distance is None else round(law.distance, 3),
            }
            for law in trust.laws
        },
    }


def _prices(plan: Plan, caps: Mapping[str, float], trust: Trust) -> dict[str, Any]:
    """What the objective would fall by, per unit of share, if a binding cap rose (the virtual one: its scarcest)."""
    prices = {}
    for i, name in enumerate(plan.space.names):
        price = cap_price(trust, i)
        if price is not None:
            domain = plan.space.scarcest(caps) if name not in plan.dataset.domains else name
            prices[domain] = round(price, 6)
    return {"cap_prices": dict(sorted(prices.items()))} if prices else {}


def _plan_section(plan: Plan) -> dict[str, Any]:
    return {"affected": list(plan.affected), "unchanged": sorted(plan.space.members)}
