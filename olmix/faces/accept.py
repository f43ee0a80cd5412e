"""`olmix accept`: the proposal becomes the accepted mixture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from olmix.errors import PipelineError
from olmix.faces.config import load_params
from olmix.files import read_json
from olmix.outputs.mixture_file import ACCEPTED, PROPOSED, read_mixture, write_mixture
from olmix.outputs.plan_file import read_plan
from olmix.outputs.validation import CARRIED, NATURAL, PROPOSAL, UNIFORM, VALIDATION
from olmix.pipeline import stale_stages

HEADING = "The accepted mixture: what the next change of the data is planned from. Written by `olmix accept`."


def accept() -> str:
    """Write the proposal to `mixtures/accepted.yaml` with the base that it was planned from; returns what to say.

    Raises PipelineError when there is no proposal or the pipeline is not up to date.
    """
    if not PROPOSED.exists():
        raise PipelineError(f"{PROPOSED}: no proposal yet; run dvc repro first")
    proposed, accepted = read_mixture(PROPOSED), read_mixture(ACCEPTED)
    reuse = load_params().reuse_settings()
    if (accepted.dataset, accepted.mixture, accepted.reuse) == (proposed.dataset, proposed.mixture, reuse):
        return f"{ACCEPTED} already holds this proposal."
    stale = stale_stages()
    if stale:
        raise PipelineError(f"the pipeline is not up to date ({', '.join(stale)} changed); run dvc repro first")
    sections = {**proposed.sections, **_measured()}
    write_mixture(ACCEPTED, replace(proposed, base=read_plan().base, reuse=reuse, sections=sections), HEADING)
    return f"{ACCEPTED} now holds the proposal; commit it. The next dvc repro re-runs plan, and nothing else."


def _measured() -> dict[str, Any]:
    """The proposal's measured BPB and its gains with their errors, for whoever reads the accepted file later."""
    validation = read_json(VALIDATION)
    if PROPOSAL not in validation:
        return {}
    proposal = validation[PROPOSAL]
    measured = {"bpb": proposal["mean_bpb"], "standard_error": proposal["standard_error"]}
    for name in (NATURAL, UNIFORM, CARRIED):
        if name in validation:
            gain = validation[name]["gain_of_proposal"]
            measured[f"gain_over_{name}"] = gain["bpb"]
            measured[f"gain_over_{name}_standard_error"] = gain["standard_error"]
    known = {key: round(value, 6) for key, value in measured.items() if value is not None}
    return {"measured": {"seeds": len(proposal["seeds"]), **known}}
