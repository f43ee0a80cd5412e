"""`olmix accept`: the proposal becomes the accepted mixture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from olmix.errors import PipelineError
from olmix.faces.config import load_params
from olmix.faces.keys import AGAIN, stale
from olmix.files import read_json
from olmix.outputs.mixture_file import ACCEPTED, PROPOSED, read_mixture, write_mixture
from olmix.outputs.plan_file import read_plan
from olmix.outputs.validation import CARRIED, NATURAL, PROPOSAL, UNIFORM, VALIDATION

HEADING = "The accepted mixture: what the next change of the data is planned from. Written by `olmix accept`."


def accept() -> str:
    """Write the proposal to `mixtures/accepted.yaml` with the base that it was planned from; returns what to say.

    Raises PipelineError when there is no proposal or the pipeline is not up to date.
    """
    if not PROPOSED.exists():
        raise PipelineError(f"{PROPOSED}: no proposal yet; run dvc repro first")
    proposed, accepted = read_mixture(PROPOSED), read_mixture(ACCEPTED)
    params = load_params()
    reuse = params.reuse_settings()
    if (accepted.dataset, accepted.mixture, accepted.reuse) == (proposed.dataset, proposed.mixture, reuse):
        return f"{ACCEPTED} already holds this proposal."
    pipeline = stale(params)
    if pipeline.upgraded:
        raise PipelineError(
            f"{', '.join(pipeline.upgraded)}: this olmix computes another version of it than the one that made build/; "
            f"{AGAIN}"
        )
    if pipeline.stages:
        raise PipelineError(
            f"the pipeline is not up to date ({', '.join(pipeline.stages)} changed); run dvc repro first"
        )
    sections = {**proposed.sections, **_measured()}
    write_mixture(ACCEPTED, replace(proposed, base=read_plan().base, reuse=reuse, sections=sections), HEADING)
    return f"{ACCEPTED} now holds the proposal; commit it. The next dvc repro re-runs plan, and nothing else."


def _measured() -> dict[str, Any]:
    """The proposal's measured BPB and its gains, for whoever reads the accepted file later."""
    validation = read_json(VALIDATION)
    if PROPOSAL not in validation:
        return {}
    measured: dict[str, Any] = {
        "bpb": round(validation[PROPOSAL]["mean_bpb"], 6),
        "seeds": len(validation[PROPOSAL]["seeds"]),
    }
    for name in (NATURAL, UNIFORM, CARRIED):
        if name in validation:
            measured[f"gain_over_{name}"] = round(validation[name]["gain_of_proposal"]["bpb"], 6)
    return {"measured": measured}
