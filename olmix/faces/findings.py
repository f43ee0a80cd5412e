"""What `olmix check` finds: each kind of difference in one line, with its numbers and its cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from olmix.core.digest import from_hex, to_hex, total
from olmix.data.content import WHOLE, Content
from olmix.data.corpus import Corpus, kept_documents
from olmix.data.examine import Bound, Examined, copies
from olmix.data.manifest import MEMORIES
from olmix.data.memory import Memory
from olmix.data.shards import Shard
from olmix.data.source import DomainSource
from olmix.errors import DataError

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
    domain: DomainSource, shards: Sequence[Shard], each: Mapping[str, Examined], corpus: Corpus | None
) -> list[Finding]:
    """Shards that cannot be read, or are not what they were when they were read last."""
    findings = []
    with Memory(MEMORIES / f"{domain.name}.sqlite", domain.reading.digest(shards[0].kind), 0) as memory:
        recorded = memory.recorded()
    rows = {} if corpus is None else _rows_of(corpus)
    sizes = {} if corpus is None else {row["name"]: row["size"] for row in corpus.table().iter_rows(named=True)}
    for shard in shards:
        now = each[shard.name]
        numbers: dict[str, Any] = {"shard": shard.name}
        if now.problem is not None:
            old = rows.get(shard.name) or recorded.get(shard.name, ("", Content()))[1]
            lost = f"; {_documents(old.documents)} were read there before" if old.documents else ""
            findings.append(Finding(ERROR, "unreadable", domain.name, f"{now.problem}{lost}", numbers))
            continue
        stamp, before = recorded.get(shard.name, ("", None))
        if stamp == shard.stamp and before is not None and before != now.content:
            text = (
                f"{shard.place}: changed though its size, time and inode did not ({_documents(before.documents)}, now "
                f"{now.content.documents:,}): a disk that forgets? {_redo(domain, corpus, full=True)}"
            )
            findings.append(Finding(ERROR, "silent-change", domain.name, text, numbers))
        elif corpus is not None and shard.name not in rows:
            text = f"{shard.place}: new; {_documents(now.content.documents)} count when {_redo(domain, corpus)}"
            findings.append(Finding(WARNING, "new-shard", domain.name, text, numbers))
        elif corpus is not None and rows[shard.name] != now.content:
            was, size = rows[shard.name], sizes[shard.name]
            cut = f"truncated, {shard.size:,} of {size:,} bytes" if shard.size < size else "changed"
            text = (
                f"{shard.place}: {cut}: {_documents(was.documents)}, now {now.content.documents:,}; the domain is "
                f"another when {_redo(domain, corpus)}"
            )
            kind = "truncated" if shard.size < size else "changed"
            findings.append(Finding(ERROR, kind, domain.name, text, numbers))
    names = {shard.name for shard in shards}
    for name in sorted(set(rows) - names):
        text = f"{domain.folder}: shard {name} of the manifest is gone, {_documents(rows[name].documents)} with it"
        findings.append(Finding(ERROR, "missing", domain.name, text, {"shard": name}))
    if corpus is not None:
        findings += _of_kept(domain, corpus)
    return findings


def _documents(count: int) -> str:
    return f"{count:,} {'document' if count == 1 else 'documents'}"


def _redo(domain: DomainSource, corpus: Corpus | None, full: bool = False) -> str:
    if corpus is not None:
        return f"olmix scan {domain.name} {'--full reads it again' if full else 'has run'}"
    return "touch it if this is what it should hold; else remove it, and dvc checkout or a backup brings back the other"


def _rows_of(corpus: Corpus) -> dict[str, Content]:
    rows: dict[str, Content] = {}
    for row in corpus.table().iter_rows(named=True):
        part = Content(from_hex(row["digest"], row["name"]), row["documents"], row["bytes"], row["tokens"])
        rows[row["name"]] = rows.get(row["name"], Content()) + part
    return rows


def _of_kept(domain: DomainSource, corpus: Corpus) -> list[Finding]:
    findings = []
    for topic in corpus.kept:
        try:
            for _ in kept_documents(domain, corpus, topic):
                pass
        except DataError as error:
            findings.append(Finding(ERROR, "kept", domain.name, str(error), {"topic": topic} if topic else {}))
    return findings


def of_manifests(
    domain: DomainSource, whole: Examined, manifests: Mapping[str, dict[str, Any]], names: Mapping[str, str]
) -> list[Finding]:
    """Domains whose manifest in build/ is of other content."""
    recorded = [manifests[name] for name in names.values() if name in manifests]
    if not recorded:
        return []
    if to_hex(total(from_hex(m["digest"], domain.name) for m in recorded)) == to_hex(whole.content.digest):
        return []
    before, now = sum(m["documents"] for m in recorded), whole.content.documents
    text = (
        f"{domain.folder}: is not what build/ was made from ({_documents(before)}, now {now:,}); dvc repro prepares "
        f"{domain.name} again and trains what follows (olmix plan says how much)"
    )
    return [Finding(WARNING, "stale", domain.name, text, {"documents_before": before, "documents": now})]


def duplicated_shards(shards: Mapping[tuple[int, int], list[str]]) -> list[Finding]:
    """Shards that hold the same documents, by digest and number of documents."""
    findings = []
    for (_, documents), places in sorted(shards.items(), key=lambda item: item[1]):
        if len(places) > 1:
            more = f" and {len(places) - 4} more" if len(places) > 4 else ""
            text = f"{' = '.join(places[:4])}{more}: the same {_documents(documents)}; they count {len(places)} times"
            numbers = {"shards": places, "documents": documents}
            findings.append(Finding(WARNING, "duplicate-shard", places[0].rpartition("/")[0], text, numbers))
    return findings


def duplicates(found: Mapping[str, Examined], domains: Mapping[str, Mapping[str, str]], bound: Bound) -> list[Finding]:
    """Documents that are there more than once, within a domain and in two."""
    hashes = {domains[e][t]: arrays for e, whole in found.items() for t, arrays in whole.hashes.items()}
    sizes = {domains[e][t]: count for e, whole in found.items() for t, count in whole.documents.items()}
    within, shared = copies(hashes, bound.value)  # type: ignore[arg-type]
    about = "about " if bound.of > 1 else ""
    findings = []
    for name, count in sorted(within.items(), key=lambda item: (-item[1], item[0])):
        if count:
            n = count * bound.of
            text = (
                f"{name}: {about}{n:,} of {sizes[name]:,} documents ({n / sizes[name]:.2%}) are copies of others in "
                "it: the domain looks that much larger than it is to the limits on repetition"
            )
            findings.append(Finding(WARNING, "duplicates", name, text, {"documents": n, "of": sizes[name]}))
    for (a, b), count in sorted(shared.items(), key=lambda item: (-item[1], item[0])):
        n = count * bound.of
        text = (
            f"{a}, {b}: {about}{_documents(n)} stand in both ({n / sizes[a]:.2%} of {a}, {n / sizes[b]:.2%} of {b}): "
            "a mixture reads them more often than either limit allows"
        )
        findings.append(Finding(WARNING, "shared-documents", a, text, {"other": b, "documents": n}))
    return findings


def contamination(
    found: Mapping[str, Examined], domains: Mapping[str, Mapping[str, str]], tasks: Sequence[str]
) -> list[Finding]:
    """Passages of tasks that stand word for word in a domain."""
    sizes = Counter(tasks)
    findings = []
    for entry, whole in found.items():
        for topic, counts in sorted(whole.passages.items()):
            name = domains[entry].get(topic, entry if topic == WHOLE else topic)
            by_task: Counter[str] = Counter()
            for passage in counts:
                by_task[tasks[passage]] += 1
            for task, items in sorted(by_task.items(), key=lambda item: (-item[1], item[0])):
                documents = max(count for passage, count in counts.items() if tasks[passage] == task)
                text = (
                    f"{name}: holds {items:,} of the {sizes[task]:,} passages of task {task} word for word (one of "
                    f"them in {_documents(documents)}): proxies that read {name} look better at it than they are; take "
                    "those documents out of the domain or the passages out of the task"
                )
                numbers = {"task": task, "passages": items, "of": sizes[task], "documents": documents}
                findings.append(Finding(WARNING, "contamination", name, text, numbers))
    return findings
