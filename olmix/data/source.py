"""A source of documents: an entry of params.yaml, which is one domain, or several that a column tells apart."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from olmix.data.content import NO_TOPIC
from olmix.data.reading import Reading
from olmix.errors import DataError

_OTHER = re.compile(r"[^a-z0-9_]+")
LONGEST = 64


@dataclass(frozen=True)
class DomainSource:
    """Where an entry's documents are and how to read them.

    `declared_tokens` is the size of the whole domain when the shards are only a sample of it. Where
    `reading.partition_by` is set, every topic is a domain of its own, `source` is the entry's name, and `names` says
    what topics are called that are not to be called as they are.
    """

    name: str
    folder: Path
    reading: Reading = field(default_factory=Reading)
    source: str | None = None
    declared_tokens: int | None = None
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def entry(self) -> str:
        """The entry's key in params.yaml."""
        return f"{'domains' if self.reading.partition_by is None else 'sources'}.{self.name}"

    def located(self, error: DataError) -> DataError:
        """The error of a reader, which knows no entry, with the entry's key where its file does not tell the entry."""
        place = PurePath(str(error.file or ""))
        told = error.key is None and self.name in (*place.parts, place.stem)
        return error if told else error.at(key=self.entry)

    @contextlib.contextmanager
    def locate_errors(self) -> Iterator[None]:
        """Data errors raised in the block are `located`."""
        try:
            yield
        except DataError as error:
            raise self.located(error) from None

    def domain_names(self, topics: Iterable[str]) -> dict[str, str]:
        """The name of the domain of each topic; raises DataError when two topics would be one domain.

        The topic `Art & Design` of the source `web` is the domain `web-art-design`.
        """
        topic_of: dict[str, str] = {}
        for topic in topics:
            label = self.names.get(topic) or _OTHER.sub("-", topic.lower()).strip("-_")
            name = self.name if topic == NO_TOPIC and self.reading.partition_by is None else f"{self.name}-{label}"
            problem = None
            if self.reading.partition_by is not None and not label:
                problem = "has no letter of a-z or digit to make a name from"
            elif len(name) > LONGEST:
                problem = f"would become the domain {name[:80]}, a name of more than {LONGEST} characters"
            elif name in topic_of:
                problem = f"and topic {topic_of[name][:40]!r} would both become the domain {name}"
            if problem is not None:
                message = f"topic {topic[:40]!r} {problem}"
                raise DataError(message, file=self.folder, key="names", way_out="give it a name there")
            topic_of[name] = topic
        return {topic: name for name, topic in topic_of.items()}
