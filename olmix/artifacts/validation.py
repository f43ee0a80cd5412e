"""`build/validation.json`: the proposal and its baselines, trained with fresh seeds and measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from olmix.artifacts.proxies import keep_run
from olmix.core.limits import cap_proportionally
from olmix.core.plan import Plan
from olmix.data.tokensets import TokenSet
from olmix.errors import InfeasibleError
from olmix.files import output_folder, read_json, write_json
from olmix.proxy.recipe import Recipe
from olmix.runs.journal import Journal
from olmix.runs.record import RunSpec, spec_for

VALIDATION = Path("build/validation.json")
# The journal's own files of the runs behind it: what a push must carry for a colleague not to train them.
RUNS = Path("build/validation")
EVALUATED = RUNS / "evaluations"
PROPOSAL, NATURAL, UNIFORM, CARRIED = "proposal", "natural", "uniform", "carried"
LABELS = {
    PROPOSAL: "the proposal",
    NATURAL: "the natural mixture",
    UNIFORM: "the uniform mixture",
    CARRIED: "the accepted mixture carried over",
}


def contenders(
    plan: Plan,
    proposal: Mapping[str, float],
    caps: Mapping[str, float],
    warn: Callable[[str], None] = lambda line: None,
) -> dict[str, dict[str, float]]:
    """The mixtures that are measured: the proposal, natural, uniform, and the accepted one where it still stands.

    `carried` is the accepted mixture on today's domains, with nothing of what was added: doing nothing. All are within
    `caps`, so that any of them can be trained: what a baseline has above a cap goes to its other domains in proportion.
    `warn` is told of a baseline that has too little room for that, and is left out.
    """
    names = plan.dataset.names
    mixtures = {NATURAL: plan.dataset.natural, UNIFORM: {name: 1 / len(names) for name in names}}
    if plan.carried:
        mixtures[CARRIED] = {name: plan.carried.get(name, 0.0) for name in names}
    within = {PROPOSAL: dict(proposal)}
    limits = np.array([caps[name] for name in names])
    for label, mixture in mixtures.items():
        try:
            weights = cap_proportionally(np.array([mixture[name] for name in names]), limits)
        except InfeasibleError:
            warn(f"{LABELS[label]} does not fit the limits and is not measured: its domains hold too few tokens")
            continue
        within[label] = dict(zip(names, weights.tolist(), strict=True))
    return within


def validation_specs(
    mixtures: Mapping[str, Mapping[str, float]],
    sets: Mapping[str, TokenSet],
    recipe: Recipe,
    swarm_seed: int,
    seeds: int,
) -> dict[str, list[RunSpec]]:
    """Runs by mixture: seeds that follow the swarm's, the same for every mixture, so that gains are paired."""
    return {
        name: [spec_for(f"{name}-{k}", weights, sets, recipe, swarm_seed + 1 + k) for k in range(seeds)]
        for name, weights in mixtures.items()
    }


def keep_runs(specs: Sequence[RunSpec], journal: Journal, keep_weights: bool) -> None:
    """Copy the runs of the validation out of the journal, each once."""
    output_folder(RUNS, empty=not specs, why="Nothing is validated here.")
    for key in sorted({spec.key for spec in specs}):
        keep_run(key, journal, RUNS, keep_weights)


def write_validation(summary: Mapping[str, Any]) -> None:
    """Write what `summarise` made; nothing of it where nothing was validated."""
    write_json(VALIDATION, summary)


def validation_size(plan: Plan, seeds: int) -> int:
    """Runs of a validation, apart from the swarm's."""
    return seeds * (3 + bool(plan.carried))


def summarise(
    mixtures: Mapping[str, Mapping[str, float]],
    specs: Mapping[str, Sequence[RunSpec]],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    task_weights: Mapping[str, float],
) -> dict[str, Any]:
    """Mean BPB and its standard error over seeds by mixture, and the proposal's gain over each other mixture.

    `scores` are by run key and task. With one seed there is no standard error (null).
    """
    total = math.fsum(task_weights.values())
    tasks = sorted(task_weights)
    share = np.array([task_weights[task] / total for task in tasks])
    result: dict[str, Any] = {}
    for name, runs in specs.items():
        bpb = np.array([[scores[run.key][task]["bpb"] for task in tasks] for run in runs])
        result[name] = {
            "mean_bpb": float((bpb @ share).mean()),
            "standard_error": _standard_error(bpb @ share),
            "seeds": [run.seed for run in runs],
            "by_seed": (bpb @ share).tolist(),
            "weights": dict(mixtures[name]),
            "tasks": dict(zip(tasks, bpb.mean(axis=0).tolist(), strict=True)),
        }
    for name in [name for name in specs if name != PROPOSAL]:
        result[name]["gain_of_proposal"] = gain_of(result, PROPOSAL, name)
    return result


def gain_of(validation: Mapping[str, Any], mixture: str, over: str) -> dict[str, Any]:
    """How much better `mixture` was measured than `over`, in BPB: the mean over seeds of the difference at the same
    seed, its standard error, and the gain relative to `over`."""
    before = np.array(validation[over]["by_seed"])
    gains = before - np.array(validation[mixture]["by_seed"])
    return {
        "bpb": float(gains.mean()),
        "standard_error": _standard_error(gains),
        "relative": float(gains.mean() / before.mean()),
    }


def _standard_error(values: np.ndarray[Any, np.dtype[np.float64]]) -> float | None:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def read_validation(weights: Mapping[str, float]) -> dict[str, Any] | None:
    """The validation, when it is there and is of the mixture `weights` (or empty); None otherwise."""
    return validation_of(read_json(VALIDATION), weights) if VALIDATION.exists() else None


def validation_of(validation: dict[str, Any], weights: Mapping[str, float]) -> dict[str, Any] | None:
    """A validation that was read, when it is of the mixture `weights` (or empty); None otherwise."""
    return validation if not validation or validation[PROPOSAL]["weights"] == dict(weights) else None
