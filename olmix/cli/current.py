"""The project as it is on disk now: its dataset version, its plan, and whether a run could finish."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olmix.artifacts.swarm_file import make_swarm
from olmix.config.params import Params
from olmix.config.runtime import load_runtime
from olmix.core.limits import require_feasible
from olmix.core.plan import Plan
from olmix.data.manifest import manifest_is_current, prepare, read_manifest, sample_path, scan_entry
from olmix.data.parallel import Readers, together
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.data.tokensets import read_tokens
from olmix.errors import DataError
from olmix.pipeline import link_is_allowed
from olmix.progress import Report
from olmix.proxy.tasks import encode_task, read_task
from olmix.terminal.progress import ProgressDisplay

# What `olmix plan` prepares of domains that have changed, before dvc repro does.
PLANNED = Path(".olmix/plan")


def current_manifests(params: Params) -> tuple[dict[str, dict[str, Any]], dict[str, Tokens]]:
    """The manifest of every domain as its shards are now: the pipeline's own where it still holds, else made anew, and
    then its token sample too."""
    tokenizer = params.load_tokenizer()
    manifests: dict[str, dict[str, Any]] = {}
    samples: dict[str, Tokens] = {}
    domains = [params.entry(entry, tokenizer) for entry in params.entries]

    def current(domain: DomainSource, readers: Readers, report: Report) -> Current:
        return _current(domain, tokenizer, params.sample_tokens(tokenizer.vocabulary), readers, report)

    with ProgressDisplay(f"read {len(domains)} folders", "shards", "bytes") as display:
        found = together(current, domains, None, display)
    for domain, one in zip(domains, found, strict=True):
        for name, (manifest, tokens) in one.items():
            if name in manifests:
                raise DataError(f"params.yaml: {domain.entry}: another entry has a domain {name}; rename one of them")
            manifests[name] = manifest
            if tokens is not None:
                samples[name] = read_tokens(tokens)
    return manifests, samples


# The manifests of an entry's domains, and where the token samples are of those that were made anew.
Current = dict[str, tuple[dict[str, Any], Path | None]]


def _current(
    domain: DomainSource,
    tokenizer: Tokenizer,
    limit: int,
    readers: Readers,
    report: Report,
) -> Current:
    contents = scan_entry(domain, limit, link_is_allowed, readers, report)
    known = {name: manifest for name in contents if (manifest := read_manifest(domain, name)) is not None}
    if known.keys() == contents.keys() and all(
        manifest_is_current(known[name], domain, content, tokenizer, limit) for name, content in contents.items()
    ):
        return {name: (manifest, None) for name, manifest in known.items()}
    places = PLANNED / "manifests", PLANNED / "tokens"
    made = prepare(domain, tokenizer, limit, link_is_allowed, readers, report, *places)
    return {name: (manifest, sample_path(PLANNED / "tokens", name)) for name, manifest in made.items()}


def require_limits(params: Params, plan: Plan) -> None:
    """Raise InfeasibleError when no mixture of a plan meets the limits."""
    target = params.target_settings()
    require_feasible(plan.dataset, plan.space, params.caps(plan.dataset), target.tokens, target.repetition)


def preflight(params: Params, plan: Plan) -> None:
    """Raise now what would otherwise stop the pipeline only after its proxies are trained.

    Limits that no mixture meets, a swarm that identifies no law, a recipe whose numbers do not fit, a task that cannot
    be read. Recipe and tasks are of no account when the proxies are trained elsewhere.
    """
    load_runtime()
    require_limits(params, plan)
    make_swarm(plan, params.swarm.runs_per_domain, params.sampling(), params.swarm.repeats)
    if params.proxy.external:
        return
    tokenizer = params.load_tokenizer()
    params.recipe(tokenizer.vocabulary)
    for task in params.tasks.names:
        if not params.task_path(task).exists():
            raise DataError(f"{params.task_path(task)}: no such task; add the file or take it out of tasks.families")
        encode_task(read_task(params.task_path(task)), tokenizer, params.proxy.sequence_length)
