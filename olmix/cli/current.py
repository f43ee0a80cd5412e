"""The project as it is on disk now: its dataset version, its plan, and whether a run could finish."""

from __future__ import annotations

from functools import partial
from typing import Any

from olmix.config.params import Params
from olmix.data.documents import scan_entry
from olmix.data.manifest import manifest_is_current, prepare, read_manifest
from olmix.data.parallel import Readers, read_concurrently
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.pipeline import link_is_allowed
from olmix.progress import Report
from olmix.project import Project
from olmix.terminal.progress import ProgressDisplay


def current_manifests(params: Params) -> tuple[dict[str, dict[str, Any]], set[str]]:
    """The manifest of every domain as its shards are now: the pipeline's own where it still holds, else made again, and
    then its token sample too; and the domains of which they were made."""
    tokenizer = params.load_tokenizer()
    manifests: dict[str, dict[str, Any]] = {}
    planned: set[str] = set()
    domains = [params.entry(entry, tokenizer) for entry in params.entries]
    limit = params.sample_tokens(tokenizer.vocabulary)

    def current(domain: DomainSource, readers: Readers, report: Report) -> Current:
        return _current(params.project, domain, tokenizer, limit, readers, report)

    with ProgressDisplay(f"read {len(domains)} folders", "shards", "bytes") as display:
        readings = read_concurrently(current, domains, None, display)
    for domain, one in zip(domains, readings, strict=True):
        for name, (manifest, made) in one.items():
            if name in manifests:
                message = f"another entry also has a domain {name}"
                raise DataError(message, file=params.project.params, key=domain.entry, way_out="rename one of them")
            manifests[name] = manifest
            if made:
                planned.add(name)
    return manifests, planned


# The manifests of an entry's domains, and whether they were made again.
Current = dict[str, tuple[dict[str, Any], bool]]


def _current(
    project: Project,
    domain: DomainSource,
    tokenizer: Tokenizer,
    limit: int,
    readers: Readers,
    report: Report,
) -> Current:
    allowed = partial(link_is_allowed, project.root)
    contents = scan_entry(domain, limit, allowed, readers, report, project.memories)
    known = {
        name: manifest for name in contents if (manifest := read_manifest(project.manifests, domain, name)) is not None
    }
    if known.keys() == contents.keys() and all(
        manifest_is_current(known[name], domain, content, tokenizer, limit) for name, content in contents.items()
    ):
        return {name: (manifest, False) for name, manifest in known.items()}
    places = project.planned / "manifests", project.planned / "tokens"
    made = prepare(domain, tokenizer, limit, allowed, readers, report, *places, project.memories)
    return {name: (manifest, True) for name, manifest in made.items()}
