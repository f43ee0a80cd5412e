"""A mixture file made of a rounded mixture, and the sections that say how a proposal was found and how sure it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from olmix.artifacts.fit_report import fit_digest, interval_values
from olmix.artifacts.law_file import Laws
from olmix.artifacts.mixture_file import DECIMALS, MixtureFile, Use
from olmix.core.dataset import Dataset
from olmix.core.limits import Target, at_cap
from olmix.core.mixture import Mixture, Share, repetition
from olmix.fit.trust import Problem, Trust


def mixture_file(
    dataset: Dataset,
    mixture: Mapping[str, float],
    caps: Mapping[str, float],
    target: Target | None,
    sections: Mapping[str, Any],
    measured_on: Mapping[str, int] | None = None,
) -> MixtureFile:
    """The file of a rounded mixture of `dataset` under `caps` by name, with what is to stand below it.

    `measured_on` is the digest that each domain's weight was measured on; without it, that of `dataset`.
    """
    domains = dataset.domains
    # Rounding may leave the last digit of a capped weight under its cap.
    capped = at_cap(np.array(list(mixture.values())), np.array([caps[name] for name in mixture]), slack=10.0**-DECIMALS)
    uses = {
        name: Use(
            repetition(weight, domains[name].tokens, target.tokens) if target else None,
            full,
        )
        for (name, weight), full in zip(mixture.items(), capped.tolist(), strict=True)
    }
    origins = measured_on or {}
    shares = {
        name: Share(weight, domains[name].tokens, domains[name].digest, origins.get(name))
        for name, weight in mixture.items()
    }
    return MixtureFile(
        mixture=Mixture(shares, dataset.tokenizer),
        uses=uses,
        dataset=dataset.digest,
        sections=sections,
    )


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
    if proposal.certificate is None:
        return {"searched": proposal.steps, "kl_weight": kl}
    return {"gap": proposal.certificate.shown_gap, "iterations": proposal.steps, "kl_weight": kl}


def rounded(value: float) -> float | None:
    """Six decimals, no minus before a zero, None for what is not known."""
    return round(value, 6) + 0.0 if math.isfinite(value) else None


def trust_section(laws: Laws, problem: Problem, trust: Trust, over: str) -> dict[str, Any]:
    """The answers to the questions of trust that a review should see, rounded so that a diff stays quiet."""
    values = {} if trust.gain is None else interval_values(trust.gain)
    gain = {"over": over, **{key: rounded(value) for key, value in values.items()}}
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
