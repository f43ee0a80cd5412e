"""What `olmix check` finds: each kind of difference in one line, with its numbers and its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from olmix.core.digest import to_hex
from olmix.data.audit import Audit, Bound, copies
from olmix.data.content import NO_TOPIC, Content
from olmix.data.corpus import Corpus, require_kept
from olmix.data.manifest import read_manifest
from olmix.data.memory import recorded
from olmix.data.shards import Shard
from olmix.data.source import DomainSource
from olmix.errors import DataError
from olmix.project import Project

Severity = Literal["error", "warning"]
ERROR: Severity = "error"
WARNING: Severity = "warning"


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be: `kind` is a word for scripts, `text` says it and what it costs."""

    severity: Severity
    kind: str
    domain: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The finding for scripts."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "domain": self.domain,
            **self.numbers,
            "text": self.text,
        }


def of_shards(
    project: Project,
    domain: DomainSource,
    shards: Sequence[Shard],
    each: Mapping[str, Audit],
    total: Audit,
    corpus: Corpus | None,
) -> list[Finding]:
    """Shards that cannot be read, or are not what they were when they were read last."""
    before = recorded(project.memories / f"{domain.name}.sqlite", domain.reading.digest(shards[0].kind))
    rows = {} if corpus is None else {n: sum(t.values(), Content()) for n, t in corpus.by_shard.items()}
    findings = []
    for shard in shards:
        now = each[shard.name]
        if now.problem is not None:
            old = rows.get(shard.name) or before.get(shard.name, ("", Content()))[1]
            lost = f"; {_documents(old.documents)} were read there before" if old.documents else ""
            numbers = {"shard": shard.name}
            findings.append(Finding(ERROR, "unreadable", domain.name, f"{domain.located(now.problem)}{lost}", numbers))
        elif before.get(shard.name, ("", now.content)) == (shard.stamp, now.content) or shard.name not in before:
            continue
        elif before[shard.name][0] == shard.stamp:
            was = before[shard.name][1]
            text = (
                f"{shard.place}: changed though its size, time and inode did not "
                f"({_before_and_now(was.documents, now.content.documents)}); the disk may be failing. "
                f"{_redo(domain, corpus)}"
            )
            findings.append(Finding(ERROR, "silent-change", domain.name, text, {"shard": shard.name}))
    if corpus is not None:
        reported = {finding.numbers["shard"] for finding in findings}
        others = [shard for shard in shards if shard.name not in reported]
        findings += _of_corpus(domain, others, reported, each, total, corpus, rows)
    return findings


def _of_corpus(
    domain: DomainSource,
    shards: Sequence[Shard],
    reported: Collection[str],
    each: Mapping[str, Audit],
    total: Audit,
    corpus: Corpus,
    rows: Mapping[str, Content],
) -> list[Finding]:
    """What differs from the manifest, but for the shards already `reported`."""
    findings = []
    changed = [shard for shard in shards if rows.get(shard.name) != each[shard.name].content]
    gone = sorted(set(rows) - {shard.name for shard in shards} - set(reported))
    if (changed or gone) and not reported and total.parts == corpus.content:
        text = (
            f"{domain.folder}: shards were renamed, or documents moved between them; the domain is the same; run "
            f"`olmix scan {domain.name}` to update the manifest"
        )
        return [Finding(WARNING, "moved", domain.name, text), *_of_kept(domain, corpus)]
    sizes = corpus.sizes
    for shard in changed:
        now, numbers = each[shard.name].content, {"shard": shard.name}
        if shard.name not in rows:
            text = f"{shard.place}: new; {_documents(now.documents)}, not counted until `olmix scan {domain.name}`"
            findings.append(Finding(WARNING, "new-shard", domain.name, text, numbers))
            continue
        was, size = rows[shard.name], sizes[shard.name]
        cut = shard.size < size
        text = (
            f"{shard.place}: {f'truncated, {shard.size:,} of {size:,} bytes' if cut else 'changed'}: "
            f"{_before_and_now(was.documents, now.documents)}; the domain changes with the next "
            f"`olmix scan {domain.name}`"
        )
        findings.append(Finding(ERROR, "truncated" if cut else "changed", domain.name, text, numbers))
    for name in gone:
        text = f"{domain.folder}: shard {name} of the manifest is missing, with {_documents(rows[name].documents)}"
        findings.append(Finding(ERROR, "missing", domain.name, text, {"shard": name}))
    return findings + _of_kept(domain, corpus)


def _documents(count: int) -> str:
    return f"{count:,} {'document' if count == 1 else 'documents'}"


def _before_and_now(before: int, now: int) -> str:
    return _documents(before) + (f", now {now:,}" if now != before else "")


def _redo(domain: DomainSource, corpus: Corpus | None) -> str:
    if corpus is not None:
        return f"If the new content is right, run `olmix scan {domain.name} --full`; if not, restore the shard"
    return (
        "If the new content is right, touch the file; if not, remove it and restore it with `dvc checkout` or from a "
        "backup"
    )


def _of_kept(domain: DomainSource, corpus: Corpus) -> list[Finding]:
    findings = []
    for topic in corpus.kept:
        try:
            require_kept(domain, corpus, topic)
        except DataError as error:
            findings.append(Finding(ERROR, "kept", domain.name, str(error), {"topic": topic} if topic else {}))
    return findings


def of_manifests(project: Project, domain: DomainSource, total: Audit, names: Mapping[str, str]) -> list[Finding]:
    """Domains whose manifest in build/ is of other content."""
    findings = []
    for topic, name in names.items():
        content, manifest = total.parts[topic], read_manifest(project.manifests, domain, name)
        if manifest is None or manifest["digest"] == to_hex(content.digest):
            continue
        before, now = manifest["documents"], content.documents
        text = (
            f"{name}: differs from what build/ was made from ({_before_and_now(before, now)}); `dvc repro` will "
            f"prepare {domain.name} again and train what follows (see `olmix plan`)"
        )
        findings.append(Finding(WARNING, "stale", name, text, {"documents_before": before, "documents": now}))
    return findings


def duplicated_shards(shards: Mapping[tuple[int, int], list[tuple[str, str]]]) -> list[Finding]:
    """Shards, (domain, place) each, that hold the same documents, by digest and number of documents."""
    findings = []
    for (_, documents), same in sorted(shards.items(), key=lambda item: item[1]):
        if len(same) > 1:
            places = [place for _, place in same]
            more = f" and {len(places) - 4} more" if len(places) > 4 else ""
            text = f"{' = '.join(places[:4])}{more}: the same {_documents(documents)}, counted {len(places)} times"
            numbers = {"shards": places, "documents": documents}
            findings.append(Finding(WARNING, "duplicate-shard", same[0][0], text, numbers))
    return findings


def duplicates(audits: Mapping[str, Audit], domains: Mapping[str, Mapping[str, str]], bound: Bound) -> list[Finding]:
    """Documents that are there more than once, within a domain and in two."""
    hashes = {domains[e][t]: arrays for e, total in audits.items() for t, arrays in total.hashes.items()}
    sizes = {domains[e][t]: part.documents for e, total in audits.items() for t, part in total.parts.items()}
    within, shared = copies(hashes, bound.value)  # type: ignore[arg-type]
    about = "about " if bound.of > 1 else ""
    findings = []
    for name, count in sorted(within.items(), key=lambda item: (-item[1], item[0])):
        if count:
            n = count * bound.of
            text = (
                f"{name}: {about}{n:,} of {sizes[name]:,} documents ({n / sizes[name]:.2%}) are copies of others in "
                "it, so the repetition limits take the domain for larger than it is"
            )
            findings.append(Finding(WARNING, "duplicates", name, text, {"documents": n, "of": sizes[name]}))
    for (a, b), count in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        n = count * bound.of
        text = (
            f"{a}, {b}: {about}{_documents(n)} in both ({n / sizes[a]:.2%} of {a}, {n / sizes[b]:.2%} of {b}): "
            "a mixture can repeat them more often than either limit allows"
        )
        findings.append(Finding(WARNING, "shared-documents", a, text, {"other": b, "documents": n}))
    return findings


def contamination(
    audits: Mapping[str, Audit], domains: Mapping[str, Mapping[str, str]], tasks: Sequence[str]
) -> list[Finding]:
    """Passages of tasks that stand word for word in a domain."""
    sizes = Counter(tasks)
    findings = []
    for entry, total in audits.items():
        for topic, counts in sorted(total.passages.items()):
            name = domains[entry].get(topic, entry if topic == NO_TOPIC else topic)
            by_task: Counter[str] = Counter()
            for passage in counts:
                by_task[tasks[passage]] += 1
            for task, items in sorted(by_task.items(), key=lambda item: (-item[1], item[0])):
                documents = max(count for passage, count in counts.items() if tasks[passage] == task)
                text = (
                    f"{name}: contains {items:,} of the {sizes[task]:,} passages of task {task} word for word (one of "
                    f"them in {_documents(documents)}): proxies that read {name} look better at it than they are; "
                    "remove those documents from the domain, or the passages from the task"
                )
                numbers = {"task": task, "passages": items, "of": sizes[task], "documents": documents}
                findings.append(Finding(WARNING, "contamination", name, text, numbers))
    return findings
