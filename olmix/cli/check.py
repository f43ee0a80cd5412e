"""`olmix check`: re-reads every shard, compares it with what is recorded, and tells what each difference costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

from olmix.cli.findings import (
    ERROR,
    WARNING,
    Finding,
    contamination,
    duplicated_shards,
    duplicates,
    of_manifests,
    of_shards,
)
from olmix.config.params import Params, load_params
from olmix.data.audit import Audit, Bound, audit_shards
from olmix.data.corpus import Corpus, corpus_of, shards_of
from olmix.data.documents import own_shards
from olmix.data.parallel import Readers, read_concurrently
from olmix.data.shards import Shard
from olmix.data.source import DomainSource
from olmix.errors import ConfigError, OlmixError
from olmix.pipeline import link_is_allowed
from olmix.progress import Report
from olmix.project import Project
from olmix.proxy.tasks import read_task
from olmix.terminal.progress import ProgressDisplay

# A passage that is shorter may stand in a document by chance.
SHORTEST = 50
# So many findings of a kind are printed.
LINES = 20


@dataclass(frozen=True)
class CheckResult:
    """Findings, and how much was read and searched; copies are counted from one document of `one_of`."""

    findings: tuple[Finding, ...]
    shards: int
    documents: int
    passages: int
    short: int
    one_of: int
    unsearched: tuple[str, ...]
    without_text: tuple[str, ...]

    @property
    def failed(self) -> bool:
        """Whether anything is worse than a warning."""
        return any(finding.severity == ERROR for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """All of it for scripts."""
        checked = {
            "shards": self.shards,
            "documents": self.documents,
            "passages": self.passages,
            "passages_too_short": self.short,
            "compared_is_one_document_of": self.one_of,
            "not_searched_for_passages": list(self.unsearched),
            "tasks_without_text": list(self.without_text),
        }
        return {"findings": [finding.to_json() for finding in self.findings], "checked": checked}

    def to_text(self) -> str:
        """One line per finding, and a closing line."""
        lines = []
        for (severity, _), kind in groupby(self.findings, lambda finding: (finding.severity, finding.kind)):
            texts = [f"{severity}: {finding.text}" for finding in kind]
            more = len(texts) - LINES
            lines += (
                texts
                if more <= 0
                else [*texts[:LINES], f"{severity}: {more:,} more of this kind; use --json to see all"]
            )
        counts = Counter(finding.severity for finding in self.findings)
        severities = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] != 1)}" for s in (ERROR, WARNING) if counts[s])
        lines += [""] if lines else []
        short = f" ({self.short:,} more are too short)" if self.short else ""
        lines.append(
            f"re-read {self.shards:,} shards with {self.documents:,} documents; searched them for "
            f"{self.passages:,} passages of tasks{short}; {severities or 'nothing found'}"
        )
        if self.one_of > 1:
            lines.append(f"Numbers of copies are estimates, from one document in {self.one_of}")
        if self.without_text:
            lines.append(f"Tasks without text here were not searched for: {', '.join(self.without_text)}")
        if self.unsearched:
            lines.append(f"Token arrays were not searched for text of tasks: {', '.join(self.unsearched)}")
        return "\n".join(lines)


def check(project: Project, names: Sequence[str], workers: int | None) -> CheckResult:
    """Check the entries `names`, or all; raises ConfigError for one that is not there."""
    params = load_params(project)
    tokenizer = params.load_tokenizer()
    passages = _passages(params)
    bound = Bound()
    findings: list[Finding] = []
    audits: dict[str, Audit] = {}
    shards: dict[tuple[int, int], list[tuple[str, str]]] = {}
    counted = 0
    unsearched = []
    domains: dict[str, dict[str, str]] = {}
    allowed = partial(link_is_allowed, project.root)
    entries = {name: params.entry(name, tokenizer) for name in names or params.entries}

    def read(domain: DomainSource, readers: Readers, report: Report) -> _Read | OlmixError:
        try:
            with domain.locate_errors():
                corpus = corpus_of(domain)
                listed = own_shards(domain, allowed) if corpus is None else shards_of(domain, corpus.root)
                each, total = audit_shards(listed, domain.reading, passages.texts, bound, readers, report)
                return _Read(listed, corpus, each, total, domain.domain_names(total.parts))
        except OlmixError as error:
            return error

    with ProgressDisplay(f"check {len(entries)} domains", "shards", "bytes") as display:
        was_read = read_concurrently(read, list(entries.values()), workers, display)
    for (name, domain), what in zip(entries.items(), was_read, strict=True):
        if isinstance(what, OlmixError):
            findings.append(Finding(ERROR, "unreadable", name, str(what)))
            continue
        listed, corpus, each, total, domains[name] = what
        counted += len(listed)
        audits[name] = total
        unsearched += [name] if passages.texts and listed[0].kind.are_tokens else []
        for shard in listed:
            content = each[shard.name].content
            if each[shard.name].problem is None and content.documents:
                shards.setdefault((content.digest, content.documents), []).append((name, shard.place))
        findings += of_shards(project, domain, listed, each, total, corpus)
        if corpus is None and total.problem is None:
            findings += of_manifests(project, domain, total, domains[name])
    findings += duplicated_shards(shards)
    findings += duplicates(audits, domains, bound)
    findings += contamination(audits, domains, passages.tasks)
    order = {ERROR: 0, WARNING: 1}
    findings.sort(key=lambda finding: order[finding.severity])  # of a kind they stand together
    documents = sum(total.content.documents for total in audits.values())
    return CheckResult(
        findings=tuple(findings),
        shards=counted,
        documents=documents,
        passages=len(passages.texts),
        short=passages.short,
        one_of=bound.of,
        unsearched=tuple(unsearched),
        without_text=tuple(passages.without),
    )


class _Read(NamedTuple):
    """An entry's shards, its corpus when they lie elsewhere, and what each shard and all of them hold, and the
    names of its domains by topic."""

    shards: list[Shard]
    corpus: Corpus | None
    each: dict[str, Audit]
    total: Audit
    domains: dict[str, str]


class _Passages(NamedTuple):
    """The task and the text of each passage that is looked for, how many are too short for that, and the tasks that
    hold no text."""

    tasks: list[str]
    texts: list[str]
    short: int
    without: list[str]


def _passages(params: Params) -> _Passages:
    if params.proxy.external:
        return _Passages([], [], 0, params.tasks.names)
    passages = _Passages([], [], 0, [])
    short = 0
    for name in params.tasks.names:
        path = params.task_path(name)
        if not path.exists():
            raise ConfigError(
                "no such task", file=path, way_out="add the file or remove the task from params.yaml: tasks.families"
            )
        task = read_task(path)
        if not task.items:
            passages.without.append(name)
        for prompt, continuation in task.items:
            passage = (prompt + continuation).strip()
            if len(passage) < SHORTEST:
                short += 1
            elif passage not in passages.texts:
                passages.tasks.append(name)
                passages.texts.append(passage)
    return passages._replace(short=short)
