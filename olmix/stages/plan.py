"""plan: what changed since the accepted mixture, and which domains must be recomputed."""

from __future__ import annotations

from olmix.artifacts.mixture_file import read_mixture
from olmix.artifacts.plan_file import plan_to_json
from olmix.config.keys import params_for
from olmix.config.preflight import preflight
from olmix.data.manifest import dataset_of, forget_undeclared, read_manifests
from olmix.data.sketches import read_sketches, sketches_of
from olmix.files import write_json
from olmix.project import Project
from olmix.terminal.exits import run_stage


def plan(project: Project) -> None:
    """Write the plan, once it is sure that the pipeline could finish."""
    params = params_for(project, "plan")
    # A removed domain's outputs would change the hash of their folders for whoever still has them.
    forget_undeclared(project.manifests, project.tokens, params.domains, params.sources)
    manifests = read_manifests(project.manifests)
    sketches = read_sketches(project.sketches) | sketches_of(manifests, project.manifests)
    made = params.plan(dataset_of(manifests), read_mixture(project.accepted).accepted, sketches)
    preflight(params, made)
    write_json(project.plan, plan_to_json(made))


def main() -> None:
    """Run the stage in the working directory."""
    run_stage(plan)
