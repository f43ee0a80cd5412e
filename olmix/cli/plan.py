"""`olmix plan`: from the project, or from files alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from olmix.artifacts.mixture_file import read_mixture
from olmix.artifacts.plan_file import dataset_from_json, read_plan
from olmix.cli.plan_view import PlanView
from olmix.config.fields import parse_count
from olmix.config.keys import Stale, stale
from olmix.config.params import Params, load_params
from olmix.config.runtime import load_runtime
from olmix.core.contenders import validation_size
from olmix.core.dataset import Dataset
from olmix.core.digest import to_hex
from olmix.core.limits import domain_caps
from olmix.core.plan import EMPTY, Accepted, Plan, Reuse, make_plan, swarm_size
from olmix.errors import ConfigError, DataError, OlmixError, PipelineError
from olmix.files import read_json, yaml_text
from olmix.project import Project

# What params.yaml decides in a project; without one, a plan from files takes the recipe's.
RUNS_PER_DOMAIN, REPETITION = 3, 4.0
# Digits of a digest that `reuse.keep` is written with.
KEEP_DIGITS = 12


def from_project(
    project: Project, accepted: Path | None, keep: tuple[str, ...] = (), recompute: tuple[str, ...] = ()
) -> PlanView:
    """The plan of a project, as its data is now; with `keep` and `recompute`, as if params.yaml named those domains."""
    from olmix.cli.cost import cost_of, runs_already_trained
    from olmix.cli.current import current_manifests
    from olmix.config.preflight import preflight
    from olmix.data.manifest import dataset_of
    from olmix.data.sketches import read_sketches, sketches_of
    from olmix.pipeline import require_chosen

    params = load_params(project)
    manifests, planned = current_manifests(params)
    dataset = dataset_of(manifests)
    start = read_mixture(accepted or project.accepted).accepted
    reuse = _overruled(params.reuse_settings(), dataset, keep, recompute)
    sketches = read_sketches(project.sketches) | sketches_of(manifests, project.manifests)
    plan = params.plan(dataset, start, sketches, reuse)
    preflight(params, plan)
    pipeline = stale(params)
    require_chosen(project.root, params.data_folders(), pipeline.stages)
    cost = None
    if not params.proxy.external:
        recipe = params.recipe(params.load_tokenizer().vocabulary)
        cost = cost_of(
            project,
            load_runtime(project),
            recipe,
            runs_already_trained(params, plan, recipe, planned) if plan.affected else 0,
        )
    return PlanView(
        plan=plan,
        start=accepted or project.accepted,
        caps=params.caps(dataset),
        runs=swarm_size(plan.dimensions, params.swarm.runs_per_domain) * params.swarm.repeats,
        runs_without_reuse=swarm_size(len(dataset.names), params.swarm.runs_per_domain) * params.swarm.repeats,
        validation_runs=validation_size(plan, params.validation_seeds()),
        stale=pipeline.stages,
        unseen=pipeline.unseen,
        advice="\n".join(_notes(params, pipeline, reuse, bool(keep or recompute))),
        accepted=start.stands_for(dataset, reuse),
        same_plan=_is_built(project, plan),
        external=params.proxy.external,
        cost=cost,
        token_errors={name: m["tokens_error"] for name, m in manifests.items() if "tokens_error" in m},
    )


def _is_built(project: Project, plan: Plan) -> bool:
    """Whether the pipeline's own plan is this one."""
    try:
        return project.plan.exists() and read_plan(project) == plan
    except DataError:  # it will be written anew
        return False


def _overruled(reuse: Reuse, dataset: Dataset, keep: tuple[str, ...], recompute: tuple[str, ...]) -> Reuse:
    """The settings with what the command line keeps and recomputes; raises ConfigError for an unknown domain."""
    for option, names in (("--keep", keep), ("--recompute", recompute)):
        unknown = sorted(set(names) - set(dataset.names))
        if unknown:
            message = f"no domain {', '.join(unknown)}"
            raise ConfigError(message, key=option, way_out=f"the domains are {', '.join(dataset.names)}")
    kept = {name: to_hex(dataset.domains[name].digest)[:KEEP_DIGITS] for name in keep}
    return replace(
        reuse,
        recompute=tuple(sorted({*reuse.recompute, *recompute} - set(keep))),
        keep=tuple(sorted({**dict(reuse.keep), **kept}.items())),
    )


def _notes(params: Params, pipeline: Stale, reuse: Reuse, overruled: bool) -> Iterator[str]:
    """What is said below a plan: stages that no `dvc repro` would run, a folder that is gone, and the line that makes
    an overruled plan the project's."""
    from olmix.pipeline import require_present

    if pipeline.advice:
        yield pipeline.advice
    try:
        require_present(params.project.root, params.data_folders(), pipeline.stages)
    except PipelineError as error:
        yield str(error)
    if overruled:
        yield _to_write(reuse, params.project)


def _to_write(reuse: Reuse, project: Project) -> str:
    keep = ", ".join(f"{yaml_text(name)}: '{digits}'" for name, digits in reuse.keep)
    lines = f"keep: {{{keep}}}, recompute: [{', '.join(map(yaml_text, reuse.recompute))}]"
    return f"To build this plan, write `{lines}` under reuse in {project.params}"


def from_files(
    project: Project,
    dataset_file: Path,
    accepted: Path | None,
    runs_per_domain: int | None,
    recompute: tuple[str, ...],
    no_reuse: bool,
    target_tokens: str | None,
    repetition: float | None,
) -> PlanView:
    """A plan for a dataset version that is only described; what no option says, params.yaml says if there is one."""
    params: Params | None = load_params(project) if project.params.exists() else None
    dataset = dataset_from_json(read_json(dataset_file), str(dataset_file))
    known = accepted or (project.accepted if project.accepted.exists() else None)
    start = read_mixture(known).accepted if known else Accepted(EMPTY)
    reuse = Reuse("none" if no_reuse else "full", recompute)
    try:
        plan = make_plan(dataset, start.base_for(dataset, reuse), reuse)
    except OlmixError as error:
        error.key = f"--{error.key}" if error.key == "recompute" else error.key
        raise
    c = (runs_per_domain or (params.swarm.runs_per_domain if params else RUNS_PER_DOMAIN)) * (
        params.swarm.repeats if params else 1
    )
    tokens = parse_count(target_tokens) if target_tokens is not None else (params.target.tokens if params else None)
    limit = (params.target.repetition if params else REPETITION) if repetition is None else repetition
    if not 0 < limit < math.inf:
        raise ConfigError("give a number above 0", key=f"--repetition {limit}")
    if tokens is not None and tokens <= 0:
        raise ConfigError("give a number above 0", key=f"--target-tokens {target_tokens}")
    return PlanView(
        plan=plan,
        start=known,
        caps=domain_caps(dataset, tokens, limit) if tokens else None,
        runs=swarm_size(plan.dimensions, c),
        runs_without_reuse=swarm_size(len(dataset.names), c),
        validation_runs=validation_size(plan, params.validation_seeds()) if params else 0,
        accepted=start.stands_for(dataset, reuse),
        same_plan=True,
        external=params is not None and params.proxy.external,
    )
