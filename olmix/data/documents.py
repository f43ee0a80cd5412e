"""A random sample of an entry's documents as text, for whoever learns from it what to do with all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from olmix.data.corpus import corpus_of, is_corpus, kept_documents
from olmix.data.manifest import shards_here
from olmix.data.memory import Memory, healed
from olmix.data.parallel import Readers
from olmix.data.scan import scan
from olmix.data.source import DomainSource
from olmix.progress import Report


def sample_documents(
    domain: DomainSource,
    most: int,
    budget: int,
    allowed: Callable[[Path], bool],
    readers: Readers,
    report: Report,
    memories: Path,
) -> list[bytes]:
    """Documents of lowest hash, as UTF-8, up to `most` bytes of all topics together; none of token ids.

    `budget` is the bytes of documents to remember of a topic, so that `prepare` need not read them again. Raises
    DataError.
    """
    with domain.named_in_errors():
        if is_corpus(domain.folder):
            corpus = corpus_of(domain)
            if corpus.kind.tokens:
                return []
            parts = most // max(1, len(corpus.content))
            return [text for topic in corpus.content for text in _first(kept_documents(domain, corpus, topic), parts)]
        shards = shards_here(domain, allowed)
        if shards[0].kind.tokens:
            return []
        path = memories / f"{domain.name}.sqlite"
        with Memory(path, domain.reading.digest(shards[0].kind), max(most, budget)) as memory:

            def read() -> list[bytes]:
                topics = scan(shards, domain.reading, memory, readers, report, domain.domain_names).content
                parts = most // max(1, len(topics))
                return [text for topic in topics for text in _first(memory.documents(topic), parts)]

            return healed(memory, read)


def _first(documents: Iterable[bytes], most: int) -> list[bytes]:
    """The first documents, until they hold `most` bytes."""
    taken, size = [], 0
    for document in documents:
        taken.append(document)
        size += len(document)
        if size >= most:
            break
    return taken
