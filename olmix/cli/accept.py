"""`olmix accept`: the proposal, or a baseline that was measured better, becomes the accepted mixture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from olmix.artifacts.mixture_file import MixtureFile, read_mixture, write_mixture
from olmix.artifacts.plan_file import read_plan
from olmix.artifacts.proposal import mixture_file
from olmix.artifacts.validation import gain_of
from olmix.cli.revisions import no_proposal
from olmix.config.keys import stale
from olmix.config.params import Params, load_params
from olmix.core.contenders import LABELS, PROPOSAL, contenders
from olmix.core.mixture import kl_divergence
from olmix.core.quantise import quantise_within
from olmix.data.manifest import read_manifests
from olmix.data.sketches import read_sketches, sketches_of, write_sketches
from olmix.errors import PipelineError
from olmix.files import read_json
from olmix.pipeline import require_chosen, require_present
from olmix.project import Project

HEADING = "The accepted mixture: what the next change of the data is planned from. Written by `olmix accept`."


def accept(project: Project, name: str, anyway: bool) -> str:
    """Write a mixture of the validation, the proposal or a baseline by `name`, to `mixtures/accepted.yaml`, with the
    base that it was planned from; returns what to say.

    Raises PipelineError when there is no such mixture, the pipeline is not up to date, or, unless `anyway`, the mixture
    was not measured, or another one was measured better by more than the error.
    """
    if not project.proposed.exists():
        raise no_proposal(project)
    params, proposed, accepted = load_params(project), read_mixture(project.proposed), read_mixture(project.accepted)
    reuse, pipeline = params.reuse_settings(), stale(params)
    if pipeline.advice:
        raise PipelineError(pipeline.advice)
    require_present(project.root, params.data_folders(), pipeline.stages)
    require_chosen(project.root, params.data_folders(), pipeline.stages)
    chosen = proposed if name == PROPOSAL else _baseline(name, proposed, params)
    validation = read_json(project.validation) if project.validation.exists() else {}
    if not isinstance(validation, dict):
        raise PipelineError("not a validation", file=project.validation, way_out="run `dvc repro -f validate`")
    plan = read_plan(project)
    only_drift = name == PROPOSAL and plan.only_drift  # the weights are those of the accepted mixture
    measured = accepted.sections.get("measured") if only_drift else _measured(name, validation)
    holds = (accepted.dataset, accepted.mixture, accepted.reuse, accepted.sections.get("measured"))
    # Accepting makes `plan` stale, which changes nothing.
    if holds == (chosen.dataset, chosen.mixture, reuse, measured) and set(pipeline.stages) <= {"plan"}:
        return f"{project.accepted} already contains {LABELS[name]}."
    if pipeline.stages:
        changed = ", ".join(pipeline.stages)
        raise PipelineError(f"the pipeline is not up to date ({changed} changed)", way_out="run `dvc repro` first")
    if not anyway and not only_drift:
        _require_best(name, validation)
    sections = {**chosen.sections, **({"measured": measured} if measured else {})}
    accepted = replace(chosen, base=plan.base, reuse=reuse, sections=sections)
    # First the sketches: with them alone, the accepted mixture is what it was.
    known = read_sketches(project.sketches) | sketches_of(read_manifests(project.manifests), project.manifests)
    shares = [*accepted.mixture.domains.values(), *accepted.base.domains.values()]
    write_sketches(project.sketches, known, [share.origin for share in shares])
    write_mixture(project.accepted, accepted, HEADING)
    return f"{project.accepted} now contains {LABELS[name]}. Run `dvc repro`, which runs only plan, and commit."


def _baseline(name: str, proposed: MixtureFile, params: Params) -> MixtureFile:
    """The file of a baseline; raises PipelineError for a name that has no mixture."""
    plan, target = read_plan(params.project), params.target_settings()
    caps, names = params.caps(plan.dataset), plan.dataset.names
    mixture = contenders(plan, proposed.mixture.weights, caps).get(name)
    if mixture is None:
        raise PipelineError("has no mixture that can be carried over to this dataset", file=params.project.accepted)
    rounded = quantise_within([mixture[domain] for domain in names], [caps[domain] for domain in names])
    weights = dict(zip(names, rounded.tolist(), strict=True))
    sections = {
        "certificate": {"kl_to_natural": round(kl_divergence(weights, plan.dataset.natural), 6)},
        **{section: proposed.sections[section] for section in ("target", "plan")},
    }
    return mixture_file(plan.dataset, weights, caps, target, sections, plan.measured_on)


def _require_best(name: str, validation: Mapping[str, Any]) -> None:
    """Raise PipelineError when the mixture was not measured, or another one was measured better by more than the
    standard error of their difference."""
    if name not in validation:
        raise PipelineError(
            f"{LABELS[name]} was not measured (validate.seeds is 0, or proxies are trained elsewhere)",
            way_out="accept it with --anyway",
        )
    ahead = {}
    for other in validation:
        gain = gain_of(validation, other, name)
        if gain["bpb"] > (gain["standard_error"] or 0.0):
            ahead[other] = gain
    if ahead:
        best = max(ahead, key=lambda other: float(ahead[other]["bpb"]))
        error = ahead[best]["standard_error"]
        by = f"{ahead[best]['bpb']:.4f}" + (f" ± {error:.4f}" if error is not None else "")
        option = "" if best == PROPOSAL else f" --{best}"
        raise PipelineError(
            f"{LABELS[name]} was measured {by} bits per byte worse than {LABELS[best]}: accept "
            f"{LABELS[best]} with `olmix accept{option}`, or {LABELS[name]} with --anyway"
        )


def _measured(name: str, validation: Mapping[str, Any]) -> dict[str, Any] | None:
    """The measured BPB of a mixture and its gains over the others, for whoever reads the accepted file later; None when
    it was not measured."""
    if name not in validation:
        return None
    of = validation[name]
    measured: dict[str, Any] = {"bpb": of["mean_bpb"], "standard_error": of["standard_error"]}
    for other in validation:
        if other != name:
            gain = gain_of(validation, name, other)
            measured[f"gain_over_{other}"] = gain["bpb"]
            measured[f"gain_over_{other}_standard_error"] = gain["standard_error"]
    rounded = {key: round(value, 6) for key, value in measured.items() if value is not None}
    return {**rounded, "seeds": len(of["seeds"])}
