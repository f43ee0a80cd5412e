"""`olmix scan`: corpora that lie elsewhere are read once, in parallel, and described in their domains' folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from olmix.config.params import load_params
from olmix.core.digest import to_hex
from olmix.data.corpus import MANIFEST, is_corpus
from olmix.data.corpus_scan import CorpusScan, scan_corpus
from olmix.data.parallel import Readers, read_concurrently
from olmix.data.sample import bytes_to_keep
from olmix.data.source import DomainSource
from olmix.errors import ConfigError
from olmix.progress import Report
from olmix.project import Project
from olmix.terminal.progress import ProgressDisplay
from olmix.terminal.table import table


def scan_entries(
    project: Project, names: Sequence[str], root: str | None, full: bool, workers: int | None
) -> dict[str, CorpusScan]:
    """Scan the entries `names`, or all that lie elsewhere; raises ConfigError when there are none."""
    params = load_params(project)
    tokenizer = params.load_tokenizer()
    budget = bytes_to_keep(params.sample_tokens(tokenizer.vocabulary))
    if root is not None and len(names) != 1:
        raise ConfigError("name the domain whose shards are there", key=f"--root {root}")
    entries = {name: params.entry(name, tokenizer) for name in names or params.entries}
    if not names:
        entries = {name: entry for name, entry in entries.items() if is_corpus(entry.folder)}
        if not entries:
            raise ConfigError(f"no domain has a {MANIFEST}", way_out="name a domain and its --root")
    for name, entry in entries.items():
        if root is None and not is_corpus(entry.folder):
            raise ConfigError(
                f"has no {MANIFEST}; shards in the project are read by `dvc repro`",
                file=entry.folder,
                way_out=f"for shards elsewhere, run `olmix scan {name} --root URL`",
            )

    def scan_one(entry: DomainSource, readers: Readers, report: Report) -> CorpusScan:
        return scan_corpus(entry, root, project.memories, budget, readers, full, report)

    what = next(iter(entries)) if len(entries) == 1 else f"{len(entries)} domains"
    with ProgressDisplay(f"scan {what}", "shards", "bytes") as display:
        return dict(zip(entries, read_concurrently(scan_one, list(entries.values()), workers, display), strict=True))


def scan_json(scans: Mapping[str, CorpusScan]) -> dict[str, Any]:
    """The scans, by entry and topic."""
    return {
        name: {
            "root": scan.corpus.root,
            "format": scan.corpus.kind.name,
            "shards": scan.shards,
            "read": scan.read,
            "new": list(scan.new),
            "changed": list(scan.changed),
            "gone": list(scan.gone),
            "content": {
                topic or name: {
                    "digest": to_hex(content.digest),
                    "documents": content.documents,
                    "bytes": content.bytes or None,
                    "tokens": content.tokens or None,
                    "kept": scan.corpus.kept[topic].documents,
                }
                for topic, content in scan.corpus.content.items()
            },
        }
        for name, scan in scans.items()
    }


def scan_text(scans: Mapping[str, CorpusScan]) -> str:
    """A table with a row for each domain, and a closing line."""
    rows = []
    for name, scan in scans.items():
        for topic, content in scan.corpus.content.items():
            size = f"{content.tokens:,} tokens" if scan.corpus.kind.are_tokens else f"{content.bytes:,} bytes"
            kept = f"{scan.corpus.kept[topic].documents:,}"
            label = f"{name}: {topic}" if topic else name
            rows.append([label, f"{content.documents:,}", size, kept, to_hex(content.digest)])
    text = table(["domain", "documents", "size", "kept", "digest"], rows)
    shards, read = (sum(getattr(scan, what) for scan in scans.values()) for what in ("shards", "read"))
    what = ("new", "changed", "gone")
    counts = [(kind, sum(len(getattr(scan, kind)) for scan in scans.values())) for kind in what]
    differs = ", ".join(f"{count:,} {what}" for what, count in counts if count) or "none changed"
    folders = [str(scan.folder) for scan in scans.values() if scan.new or scan.changed or scan.gone]
    todo = f"; commit {', '.join(folders)} (with `dvc add` or git), then run `dvc repro`" if folders else ""
    return f"{text}\n\n{shards:,} shards, {read:,} read now: {differs}{todo}"


def warnings(scans: Mapping[str, CorpusScan]) -> list[str]:
    """A line for each domain that lost shards."""
    lines = []
    for name, scan in scans.items():
        if scan.gone:
            are = "shard is" if len(scan.gone) == 1 else "shards are"
            lines.append(
                f"{name}: {len(scan.gone):,} {are} gone ({scan.gone[0]}), with {scan.lost:,} documents; if a disk is "
                f"only not mounted, mount it, and restore {scan.folder} with git or `dvc checkout`"
            )
    return lines
