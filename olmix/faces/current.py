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
from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.errors import DataError
from olmix.faces.config import Params
from olmix.faces.progress import ProgressDisplay
from olmix.faces.runtime import load_runtime
from olmix.files import read_json
from olmix.outputs.swarm_file import make_swarm
from olmix.pipeline import link_is_allowed
from olmix.proxy.tasks import read_task


def current_manifests(params: Params) -> tuple[dict[str, dict[str, Any]], dict[str, Tokens]]:
    """The manifest of every domain as its shards are now: the pipeline's own where it still holds, else made anew, and
    then its token sample too."""
    tokenizer = params.load_tokenizer()
    manifests, samples = {}, {}
    for name in sorted(params.domains):
        manifests[name], sample = _prepared(params, name, tokenizer)
        if sample is not None:
            samples[name] = sample
    return manifests, samples


def _prepared(params: Params, name: str, tokenizer: Tokenizer) -> tuple[dict[str, Any], Tokens | None]:
    domain = params.domain_source(name)
    with ProgressDisplay(f"read {domain.folder}", "shards", "bytes") as display:
        content = scan_domain(domain, scan_memory(name), link_is_allowed, display)
    path = MANIFESTS / f"{name}.json"
    limit = params.sample_tokens(tokenizer.vocabulary)
    if path.exists():
        manifest: dict[str, Any] = read_json(path)
        if manifest_is_current(manifest, domain, content, tokenizer, limit):
            return manifest, None
    with ProgressDisplay(f"count the tokens of {domain.folder}", "shards", "bytes") as display:
        manifest, sample = prepare_domain(domain, tokenizer, limit, scan_memory(name), link_is_allowed, display)
    return manifest, sample.tokens


def preflight(params: Params, plan: Plan) -> None:
    """Raise now what would otherwise stop the pipeline only after its proxies are trained.

    Limits that no mixture meets, a swarm that identifies no law, a recipe whose numbers do not fit, a task that cannot
    be read. Recipe and tasks are of no account when the proxies are trained elsewhere.
    """
    load_runtime()
    target = params.target_settings()
    caps = domain_caps(plan.dataset, target.tokens, target.repetition)
    require_feasible(plan.dataset, plan.space, caps, target.tokens, target.repetition)
    make_swarm(plan, params.swarm.runs_per_domain, params.sampling(), params.swarm.repeats)
    if params.proxy.external:
        return
    params.recipe(params.load_tokenizer().vocabulary)
    for task in params.tasks.names:
        if not params.task_path(task).exists():
            raise DataError(f"{params.task_path(task)}: no such task; add the file or take it out of tasks.families")
        read_task(params.task_path(task))
