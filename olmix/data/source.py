"""A source of documents: an entry of params.yaml, which is one domain, or several that a column tells apart."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from olmix.data.content import WHOLE
from olmix.data.reading import Reading
from olmix.errors import DataError

_OTHER = re.compile(r"[^a-z0-9_]+")
LONGEST = 64


@dataclass(frozen=True)
class DomainSource:
    """Where an entry's documents are and how to read them.

    `declared_tokens` is the size of the whole domain when the shards are only a sample of it. Where
    `reading.partition_by` is set, every topic is a domain of its own, `source` is the entry's name, and `names` says
    what topics are called that shall not be called as they are.
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

    @contextlib.contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Data errors raised in the block name the entry, where their places do not."""
        try:
            yield
        except DataError as error:
            message = self.named(str(error))
            named = self.name in re.split(r"[/:\s]+", message) or self.entry in message
            raise DataError(message if named else f"{self.entry}: {message}") from None

    def named(self, message: str) -> str:
        """An error of a reader, which knows no entry, with the entry's key in params.yaml."""
        return re.sub(r"(domains|sources)\.<name>", self.entry, message)

    def domain_names(self, topics: Iterable[str]) -> dict[str, str]:
        """The name of the domain of each topic; raises DataError when two topics would be one domain.

        The topic `Art & Design` of the source `web` is the domain `web-art-design`.
        """
        names: dict[str, str] = {}
        advice = f"name it in params.yaml: {self.entry}.names"
        for topic in topics:
            label = self.names.get(topic) or _OTHER.sub("-", topic.lower()).strip("-_")
            name = self.name if topic == WHOLE and self.reading.partition_by is None else f"{self.name}-{label}"
            said = f"{self.folder}: topic {topic[:40]!r}"
            if self.reading.partition_by is not None and not label:
                raise DataError(f"{said} has no letter of a-z and no digit to name it by; {advice}")
            if len(name) > LONGEST:
                raise DataError(f"{said}: the name {name[:80]} is longer than {LONGEST}; {advice}")
            other = next((t for t, n in names.items() if n == name), None)
            if other is not None:
                raise DataError(f"{said} and topic {other[:40]!r} would both be the domain {name}; {advice}")
            names[topic] = name
        return names
