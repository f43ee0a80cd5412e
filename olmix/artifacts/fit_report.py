"""What a fit and its proposal say, as plain values for a file: `diagnostics.json`, and the trust in a proposal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from olmix.core.arrays import Array
from olmix.files import canonical_json
from olmix.fit.fitting import SwarmFit
from olmix.fit.selection import Choice, Curve
from olmix.fit.sweep import Cell
from olmix.fit.trust import Interval, Trust


def fit_values(fit: SwarmFit, tasks: Sequence[str], domains: Sequence[str]) -> dict[str, Any]:
    """The diagnostics of a fit: by task and for their mean, of the design, of repeats, of the choice, of older swarms.

    Correlations and errors are out of fold; nan becomes null in JSON.
    """
    newest, score = fit.newest, fit.scores
    seen = newest.weights > 0
    loss = getattr(fit.law, "loss", np.full(len(tasks), np.nan))
    norm = _norms(fit, len(tasks))
    values: dict[str, Any] = {
        "law": fit.kind.name,
        "tasks": {
            task: {
                "loss": float(loss[j]),
                "spearman": float(score.spearman[j]),
                "pearson": float(score.pearson[j]),
                "rmse": float(score.rmse[j]),
                "coefficient_norm": float(norm[j]),
                "noise": float(fit.repeats.noise[j]),
                "lowest_bpb": float(newest.bpb[seen[:, j], j].min()),
                "highest_bpb": float(newest.bpb[seen[:, j], j].max()),
            }
            for j, task in enumerate(tasks)
        },
        "mean": {"spearman": score.mean_spearman, "pearson": score.mean_pearson, "rmse": score.mean_rmse},
        "design": {"rank": fit.design.rank, "coordinates": len(domains), "condition": fit.design.condition},
        "never_sampled": [n for n, never in zip(domains, fit.observations.never_sampled, strict=True) if never],
        "repeats": {
            "distinct": len(fit.runs),
            "runs": int(fit.repeats.counts.sum()),
            "degrees_of_freedom": int(fit.repeats.freedom.max()),
        },
    }
    if fit.choice is not None:
        values["choice"] = choice_values(fit.choice)
    if fit.older:
        values["older_swarms"] = [
            {
                "runs": len(o.observations.mixtures),
                "weight": o.weight,
                "offset": bool(o.offsets.any()),
                "offsets": dict(zip(tasks, o.offsets.tolist(), strict=True)) if o.offsets.any() else None,
                "tried": [{"weight": w, "offset": shifted, "score": score} for w, shifted, score in o.scores],
            }
            for o in fit.older
        ]
    return values


def fit_digest(fit: SwarmFit, tasks: Sequence[str], task_weights: Array) -> str:
    """16 hexadecimal digits of a fitted law and the objective, task_weights (n,) of sum 1: two predictions compare only
    where these are the same.

    A law is what it was fitted with: its name and settings, and the runs in nine decimals.
    """
    runs = fit.observations
    values = [np.round(values, 9) + 0.0 for values in (runs.mixtures, runs.bpb, runs.weights, task_weights)]  # no -0.0
    made_of = [fit.kind.name, fit.kind.settings, list(tasks), *values]
    return xxhash.xxh3_128_hexdigest(canonical_json(made_of))[:16]


def _norms(fit: SwarmFit, tasks: int) -> Array:
    """The norm of each task's parameters, nan for a law that has none in this sense."""
    for name in ("coefficients", "returns"):
        values = getattr(fit.law, name, None)
        if values is not None:
            return np.asarray(np.linalg.norm(values, axis=1), dtype=np.float64)
    return np.full(tasks, np.nan)


def choice_values(choice: Choice) -> dict[str, Any]:
    """How `auto` decided: every law's scores on unseen runs, and how far the best is ahead of the reference."""
    return {
        "law": choice.best,
        "reference": choice.reference,
        "margin": choice.margin,
        "standard_error": choice.standard_error,
        "confidence": choice.confidence,
        "laws": {
            a.name: {"score": a.score, "spearman": a.spearman, "mean_spearman": a.mean_spearman}
            for a in choice.assessments
        },
    }


def trust_values(trust: Trust, domains: Sequence[str]) -> dict[str, Any]:
    """What is known about a proposal over `domains`, the coordinates of the law."""
    proposal = trust.proposal
    weights = {
        name: {
            "weight": float(proposal.weights[i]),
            "low": None if trust.weights_low is None else float(trust.weights_low[i]),
            "high": None if trust.weights_high is None else float(trust.weights_high[i]),
            "unconstrained": float(trust.unconstrained.weights[i]),
            "capped": bool(proposal.capped[i]),
            "price": cap_price(trust, i),
        }
        for i, name in enumerate(domains)
    }
    return {
        "weights": weights,
        "predicted": {name: interval_values(v) for name, v in sorted(trust.mean_bpb.items())},
        "gain": None if trust.gain is None else interval_values(trust.gain),
        "moved": trust.moved,
        "laws": {law.name: {"bpb": law.bpb, "gain": law.gain, "distance": law.distance} for law in trust.laws},
        "leverage": {
            "proposal": trust.leverage,
            "largest_of_a_run": trust.largest_leverage,
            "unsupported": trust.unsupported,
        },
        "nearest_run": {"run": trust.nearest_run, "total_variation": trust.distance},
        "mirage": {
            "alarm": trust.mirage,
            "best_run": trust.best_run,
            "best_bpb": trust.best_bpb,
            "out_of_fold_rmse": trust.error,
        },
        "certificate": {
            "gap": None if proposal.certificate is None else proposal.certificate.shown_gap,
            "steps": proposal.steps,
        },
    }


def cap_price(trust: Trust, coordinate: int) -> float | None:
    """What the objective falls by per unit of share when the cap of a coordinate rises; None where none binds."""
    certificate = trust.proposal.certificate
    if certificate is None or not trust.proposal.capped[coordinate]:
        return None
    price = float(certificate.prices[coordinate])
    return price if math.isfinite(price) else None


def interval_values(interval: Interval) -> dict[str, float]:
    """An estimate with its spread over the bootstrap."""
    return {
        "bpb": interval.value,
        "standard_error": interval.standard_error,
        "low": interval.low,
        "high": interval.high,
    }


def curve_values(curves: Sequence[Curve]) -> dict[str, Any]:
    """Learning curves by law."""
    return {
        curve.name: {
            "points": [
                {
                    "runs": p.runs,
                    "spearman": p.spearman,
                    "spearman_error": p.spearman_error,
                    "mean_spearman": p.mean_spearman,
                    "mean_spearman_error": p.mean_spearman_error,
                }
                for p in curve.points
            ],
            "amplitude": curve.amplitude,
            "rate": curve.rate,
        }
        for curve in curves
    }


def sweep_values(cells: Sequence[Cell], domains: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of a sweep, each with its mixture over `domains`, the law's first ones; null for an infeasible cell."""
    return [
        {
            "lambda": cell.kl,
            "repetition": cell.repetition,
            "target_tokens": cell.tokens,
            "feasible": cell.best is not None,
            "bpb": cell.bpb,
            "kl": cell.divergence,
            "group": cell.group,
            "capped": None if cell.best is None else int(cell.best.capped.sum()),
            "weights": None
            if cell.best is None
            else dict(zip(domains, cell.best.weights[: len(domains)].tolist(), strict=True)),
        }
        for cell in cells
    ]
