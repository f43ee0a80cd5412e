"""The project as it is on disk now: its dataset version, its plan, and whether a run could finish."""

from __future__ import annotations

from typing import Any

from olmix.core.limits import domain_caps, require_feasible
from olmix.core.plan import Plan
from olmix.data.manifest import (
    MANIFESTS,
    manifest_is_current,
    prepare_domain,
    scan_domain,
    scan_memory,
)
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.faces.config import Params, load_runtime
from olmix.faces.progress import ProgressDisplay
from olmix.files import read_json
from olmix.outputs.swarm_file import make_swarm
from olmix.pipeline import link_is_allowed
from olmix.proxy.tasks import read_task


def current_manifests(params: Params) -> dict[str, dict[str, Any]]:
    """The manifest of every domain as its shards are now: the pipeline's own where it still holds, else made anew."""
    tokenizer = params.load_tokenizer()
    return {name: _manifest(params, name, tokenizer) for name in sorted(params.domains)}


def _manifest(params: Params, name: str, tokenizer: Tokenizer) -> dict[str, Any]:
    domain = params.domain_source(name)
    with ProgressDisplay(f"read {domain.folder}", "shards", "bytes") as display:
        content = scan_domain(domain, scan_memory(name), link_is_allowed, display)
    path = MANIFESTS / f"{name}.json"
    limit = params.sample_tokens()
    if path.exists():
        manifest: dict[str, Any] = read_json(path)
        if manifest_is_current(manifest, domain, content, tokenizer, limit):
            return manifest
    with ProgressDisplay(f"count the tokens of {domain.folder}", "shards", "bytes") as display:
        manifest, _ = prepare_domain(domain, tokenizer, limit, scan_memory(name), link_is_allowed, display)
    return manifest


def preflight(params: Params, plan: Plan) -> None:
    """Raise now what would otherwise stop the pipeline only after its proxies are trained.

    Limits that no mixture meets, a swarm that identifies no law, a recipe whose numbers do not fit, a task that cannot
    be read. Recipe and tasks are of no account when the proxies are trained elsewhere.
    """
    load_runtime()
    target = params.target_settings()
    caps = domain_caps(plan.dataset, target.tokens, target.repetition)
    require_feasible(plan.dataset, plan.space, caps, target.tokens, target.repetition)
    make_swarm(plan, params.swarm.runs_per_domain, params.sampling())
    if params.proxy.external:
        return
    params.recipe(params.load_tokenizer().vocabulary)
    for task in params.tasks.names:
        if not params.task_path(task).exists():
            raise DataError(f"{params.task_path(task)}: no such task; add the file or take it out of tasks.families")
        read_task(params.task_path(task))
