"""The one door to an entry's documents, wherever its shards lie, and a random sample of them as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

from olmix.data.content import Content
from olmix.data.corpus import corpus_of, kept_documents, require_kept
from olmix.data.memory import Memory, read_again_if_damaged
from olmix.data.parallel import Readers
from olmix.data.sample import bytes_to_keep
from olmix.data.scan import scan
from olmix.data.shards import Allowed, Shard, list_shards
from olmix.data.source import DomainSource
from olmix.errors import DataError
from olmix.progress import Report

Result = TypeVar("Result")


class TooFewDocumentsError(DataError):
    """The documents at hand are not enough; others of the entry might be."""


@dataclass(frozen=True)
class Documents:
    """An entry's documents: of a topic, `of` gives those at hand in the order of their hashes, and `complete` tells
    whether they are all. `are_tokens` says that they are token ids, not text."""

    domain: DomainSource
    are_tokens: bool
    of: Callable[[str], Iterator[bytes]]
    _scan: Callable[[], dict[str, Content]]
    _complete: Callable[[str, Content], bool]

    @cached_property
    def content(self) -> dict[str, Content]:
        """What the entry holds by topic, for which changed shards are read; raises DataError when it is nothing."""
        content = self._scan()
        if not content:
            raise DataError(
                "no document matches, so there is nothing to train on", file=self.domain.folder, key="where"
            )
        return content

    def complete(self, topic: str) -> bool:
        """Whether all documents of a topic are at hand; raises DataError if they differ from those recorded."""
        return self._complete(topic, self.content[topic])


def read_documents(
    domain: DomainSource,
    use: Callable[[Documents], Result],
    budget: int,
    allowed: Allowed,
    readers: Readers,
    report: Report,
    memories: Path,
) -> Result:
    """Call `use` with an entry's documents, at least `budget` bytes of each topic, and return its result.

    `use` is called again if the memory of earlier reads is damaged, and with more documents if it raises
    TooFewDocumentsError and the entry has more. Raises DataError.
    """
    with domain.locate_errors():
        corpus = corpus_of(domain)
        if corpus is not None:

            def complete(topic: str, content: Content) -> bool:
                require_kept(domain, corpus, topic)
                return corpus.kept[topic].documents == content.documents

            of = partial(kept_documents, domain, corpus)
            return use(Documents(domain, corpus.kind.are_tokens, of, lambda: corpus.content, complete))
        shards = own_shards(domain, allowed)
        kind = shards[0].kind

        def attempt(memory: Memory) -> Result:
            def content() -> dict[str, Content]:
                return scan(shards, domain.reading, memory, readers, report, domain.domain_names).content

            def complete(topic: str, content: Content) -> bool:
                return memory.holds_all(topic, content.documents)

            return use(Documents(domain, kind.are_tokens, memory.documents, content, complete))

        while True:
            with Memory(memories / f"{domain.name}.sqlite", domain.reading.digest(kind), budget) as memory:
                try:
                    return read_again_if_damaged(memory, partial(attempt, memory))
                except TooFewDocumentsError:
                    # Shards that are gone took documents with them, or its text has more bytes a token than guessed.
                    memory.clear()
                    budget *= 4


def own_shards(domain: DomainSource, allowed: Allowed) -> list[Shard]:
    """The shards in an entry's own folder, by name; raises DataError."""
    way_out = (
        f"put the shards there, run `dvc pull`, or run `olmix scan {domain.name} --root URL` if they are elsewhere"
    )
    if Path(f"{domain.folder}.dvc").exists():
        way_out = "run `dvc pull`"
    return list_shards(domain.folder, allowed, domain.reading.format, way_out)


def scan_entry(
    domain: DomainSource, limit: int, allowed: Allowed, readers: Readers, report: Report, memories: Path
) -> dict[str, Content]:
    """The content of an entry's domains by name, as it is on disk now; only what has changed is read.

    `limit` is the size of the sample that will be wanted of it.
    """

    def by_name(documents: Documents) -> dict[str, Content]:
        names = domain.domain_names(documents.content)
        return {names[topic]: content for topic, content in documents.content.items()}

    return read_documents(domain, by_name, bytes_to_keep(limit), allowed, readers, report, memories)


def sample_documents(
    domain: DomainSource, most: int, budget: int, allowed: Allowed, readers: Readers, report: Report, memories: Path
) -> list[bytes]:
    """Documents of lowest hash, as UTF-8, up to `most` bytes of all topics together; none of token ids.

    `budget` is the bytes of documents to remember of a topic, so that `prepare` need not read them again. Raises
    DataError.
    """

    def lowest(documents: Documents) -> list[bytes]:
        if documents.are_tokens:
            return []
        share = most // len(documents.content)
        return [text for topic in documents.content for text in _first(documents.of(topic), share)]

    return read_documents(domain, lowest, max(most, budget), allowed, readers, report, memories)


def _first(documents: Iterable[bytes], most: int) -> list[bytes]:
    """The first documents, until they hold `most` bytes."""
    taken, size = [], 0
    for document in documents:
        taken.append(document)
        size += len(document)
        if size >= most:
            break
    return taken
