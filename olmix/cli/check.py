"""`olmix check`: what is on disk, read again as a whole, against what is recorded; and what each difference costs."""

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
from olmix.data.corpus import Corpus, corpus_of, is_corpus, shards_of
from olmix.data.examine import Bound, Examined, examine
from olmix.data.manifest import shards_here
from olmix.data.parallel import Readers, together
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
class Checked:
    """What was checked and what was found."""

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
        """A line a finding and a closing line."""
        lines = []
        for (severity, _), kind in groupby(self.findings, lambda finding: (finding.severity, finding.kind)):
            texts = [f"{severity}: {finding.text}" for finding in kind]
            more = len(texts) - LINES
            lines += texts if more <= 0 else [*texts[:LINES], f"{severity}: {more:,} more of this kind; --json has all"]
        counts = Counter(finding.severity for finding in self.findings)
        found = ", ".join(f"{counts[s]} {s}{'s' * (counts[s] != 1)}" for s in (ERROR, WARNING) if counts[s])
        lines += [""] if lines else []
        short = f" ({self.short:,} more are too short to tell)" if self.short else ""
        lines.append(
            f"{self.shards:,} shards with {self.documents:,} documents read again; {self.passages:,} passages of tasks "
            f"searched{short}; {found or 'nothing found'}"
        )
        if self.one_of > 1:
            lines.append(f"Copies of documents are estimates, from one document of {self.one_of}")
        if self.without_text:
            lines.append(f"Tasks without text here are not looked for: {', '.join(self.without_text)}")
        if self.unsearched:
            lines.append(f"Token arrays are not searched for text of tasks: {', '.join(self.unsearched)}")
        return "\n".join(lines)


def check(project: Project, names: Sequence[str], workers: int | None) -> Checked:
    """Check the entries `names`, or all; raises ConfigError for one that is not there."""
    params = load_params(project)
    tokenizer = params.load_tokenizer()
    passages = _passages(params)
    bound = Bound()
    findings: list[Finding] = []
    found: dict[str, Examined] = {}
    shards: dict[tuple[int, int], list[tuple[str, str]]] = {}
    counted = 0
    unsearched = []
    domains: dict[str, dict[str, str]] = {}
    entries = {name: params.entry(name, tokenizer) for name in names or params.entries}

    def read(domain: DomainSource, readers: Readers, report: Report) -> _Read | OlmixError:
        try:
            listed, corpus = _listed(project, domain)
            each, whole = examine(listed, domain.reading, passages.texts, bound, readers, report)
            return _Read(listed, corpus, each, whole, domain.domain_names(whole.parts))
        except OlmixError as error:
            return error

    with ProgressDisplay(f"check {len(entries)} domains", "shards", "bytes") as display:
        was_read = together(read, list(entries.values()), workers, display)
    for (name, domain), what in zip(entries.items(), was_read, strict=True):
        if isinstance(what, OlmixError):
            findings.append(Finding(ERROR, "unreadable", name, str(what)))
            continue
        listed, corpus, each, whole, domains[name] = what
        counted += len(listed)
        found[name] = whole
        unsearched += [name] if passages.texts and listed[0].kind.tokens else []
        for shard in listed:
            content = each[shard.name].content
            if each[shard.name].problem is None and content.documents:
                shards.setdefault((content.digest, content.documents), []).append((name, shard.place))
        findings += of_shards(project, domain, listed, each, whole, corpus)
        if corpus is None and whole.problem is None:
            findings += of_manifests(project, domain, whole, domains[name])
    findings += duplicated_shards(shards)
    findings += duplicates(found, domains, bound)
    findings += contamination(found, domains, passages.tasks)
    order = {ERROR: 0, WARNING: 1}
    findings.sort(key=lambda finding: order[finding.severity])  # of a kind they stand together
    documents = sum(whole.content.documents for whole in found.values())
    return Checked(
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
    each: dict[str, Examined]
    whole: Examined
    domains: dict[str, str]


def _listed(project: Project, domain: DomainSource) -> tuple[list[Shard], Corpus | None]:
    """The shards of an entry, and the corpus when they lie elsewhere."""
    if not is_corpus(domain.folder):
        return shards_here(domain, partial(link_is_allowed, project.root)), None
    corpus = corpus_of(domain)
    return shards_of(domain, corpus.root), corpus


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
    found = _Passages([], [], 0, [])
    short = 0
    for name in params.tasks.names:
        path = params.task_path(name)
        if not path.exists():
            raise ConfigError(f"{path}: no such task; add the file or take it out of params.yaml: tasks.families")
        task = read_task(path)
        if not task.items:
            found.without.append(name)
        for prompt, continuation in task.items:
            passage = (prompt + continuation).strip()
            if len(passage) < SHORTEST:
                short += 1
            elif passage not in found.texts:
                found.tasks.append(name)
                found.texts.append(passage)
    return found._replace(short=short)
