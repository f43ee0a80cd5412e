"""A corpus that lies elsewhere: a domain's folder then holds `manifest.yaml` and the documents that its sample needs.

`olmix scan` reads the corpus below its root once and writes both. The manifest says what every shard holds; the
documents of lowest hash lie beside it in `kept/`, so that `prepare` works wherever the folder is, without the root.
Where the root is, is no part of the domain's identity. What it gives up: a proxy that reads more than was kept needs
another scan, and says so.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import polars as pl
import zstandard

from olmix.core.digest import MODULUS, document_digest, from_hex
from olmix.data.content import NO_TOPIC, Content, add_topics
from olmix.data.shards import KINDS, Kind, Shard, list_shards, local_path
from olmix.data.source import DomainSource
from olmix.errors import DataError, OlmixError
from olmix.files import read_yaml

MANIFEST = "manifest.yaml"
KEPT = "kept"
KEPT_SUFFIX = ".jsonl.zst"
# How the topic of a corpus that is not partitioned is written.
ALL = "all"
COLUMNS = ("name", "size", "topic", "digest", "documents", "bytes", "tokens")


@dataclass(frozen=True)
class Kept:
    """The documents in `kept/` of a topic: how many, and their additive digest."""

    documents: int
    digest: int


@dataclass(frozen=True)
class Corpus:
    """What `manifest.yaml` says: the root, the format, how it was read (Reading.digest), and content and kept
    documents by topic. `shards` is the table of its shards, CSV."""

    root: str
    kind: Kind
    reading: str
    content: dict[str, Content]
    kept: dict[str, Kept]
    shards: str

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each shard, by name."""
        table = self._table()
        return dict(zip(table["name"].to_list(), table["size"].to_list(), strict=True))

    @cached_property
    def by_shard(self) -> dict[str, dict[str, Content]]:
        """The content of each shard by topic, empty for a shard without matching documents; raises ValueError and
        polars' errors for a damaged table."""
        by_shard: dict[str, dict[str, Content]] = {}
        for name, _, topic, digest, documents, size, tokens in self._table().rows():
            topics = by_shard.setdefault(name, {})
            if documents:
                topics[topic] = Content(from_hex(digest, name), documents, size, tokens)
        return by_shard

    def _table(self) -> pl.DataFrame:
        schema = {c: pl.String if c in ("name", "topic", "digest") else pl.Int64 for c in COLUMNS}
        table = pl.read_csv(io.StringIO(self.shards), schema=schema).with_columns(pl.col("topic").fill_null(""))
        if any(table.null_count().row(0)) or (table.select(pl.col(pl.Int64).min()).min_horizontal() < 0).any():
            raise ValueError("a count of a shard is missing or negative")
        return table


def is_corpus(folder: Path) -> bool:
    """Whether the folder of a domain holds the manifest of a corpus that lies elsewhere."""
    return (folder / MANIFEST).is_file()


def read_corpus(folder: Path) -> Corpus:
    """Read `manifest.yaml`; raises ConfigError or DataError in one line when it is not what `olmix scan` writes, or its
    numbers do not add up."""
    path = folder / MANIFEST
    content = read_yaml(path)
    try:
        topics = {_topic(name): row for name, row in content["content"].items()}
        corpus = Corpus(
            root=str(content["root"]),
            kind=KINDS[content["format"]],
            reading=str(content["reading"]),
            content={
                topic: Content(from_hex(row["digest"], str(path)), *_counts(row, "documents", "bytes", "tokens"))
                for topic, row in topics.items()
            },
            kept={
                topic: Kept(_counts(row["kept"], "documents")[0], from_hex(row["kept"]["digest"], str(path)))
                for topic, row in topics.items()
            },
            shards=str(content["shards"]),
        )
        sums = add_topics(corpus.by_shard.values())
    except (KeyError, TypeError, ValueError, AttributeError, OlmixError, pl.exceptions.PolarsError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"not what `olmix scan` wrote ({reason})", file=path, way_out="undo the edit, or scan with --root"
        ) from None
    if sums != corpus.content or not corpus.content:
        raise DataError(
            "the shards do not add up to the content", file=path, way_out="undo the edit, or scan with --root"
        )
    for topic, kept in corpus.kept.items():
        if not 0 < kept.documents <= corpus.content[topic].documents:
            raise DataError(
                f"keeps {kept.documents:,} of {corpus.content[topic].documents:,} documents",
                file=path,
                way_out="undo the edit, or scan with --root",
            )
    return corpus


def corpus_of(domain: DomainSource) -> Corpus | None:
    """The corpus of an entry, or None when its shards are in its own folder; raises DataError when the manifest was
    made with other settings than the entry has."""
    if not is_corpus(domain.folder):
        return None
    corpus = read_corpus(domain.folder)
    if corpus.reading != domain.reading.digest(corpus.kind):
        raise DataError(
            "its settings in params.yaml have changed since the scan",
            file=domain.folder,
            way_out=f"run `olmix scan {domain.name}`",
        )
    return corpus


def shards_of(domain: DomainSource, root: str) -> list[Shard]:
    """The shards below the root of a corpus, by name; raises DataError."""
    # A corpus may be linked together from other disks; what is refused is a link that leaves it.
    below = Path(local_path(root)).resolve()
    way_out = f"check root in {domain.folder / MANIFEST}, or --root" if is_corpus(domain.folder) else "check --root"
    return list_shards(root, lambda target: target.is_relative_to(below), domain.reading.format, way_out)


def kept_documents(domain: DomainSource, corpus: Corpus, topic: str) -> Iterator[bytes]:
    """The kept documents of a topic in the order of their hashes; raises DataError when they are not those of the
    manifest."""
    path = kept_path(domain, topic)
    digest = count = last = 0
    try:
        with path.open("rb") as file:
            for line in _lines(file):
                row = orjson.loads(line)
                ids = row.get("ids")
                document = row["text"].encode() if ids is None else np.array(ids, "<u4").tobytes()
                hashed = document_digest(document)
                if hashed < last:
                    break
                digest, count, last = digest + hashed, count + 1, hashed
                yield document
    except FileNotFoundError:
        raise DataError("no such file", file=path, way_out=f"run `dvc pull`, or `olmix scan {domain.name}`") from None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=path) from None
    except (zstandard.ZstdError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(
            f"damaged after {count:,} documents ({error})",
            file=path,
            way_out=f"run `dvc checkout`, or `olmix scan {domain.name}`",
        ) from None
    kept = corpus.kept[topic]
    if (count, digest % MODULUS) != (kept.documents, kept.digest):
        raise DataError(
            f"the documents ({count:,}) are not the {kept.documents:,} that {MANIFEST} lists",
            file=path,
            way_out=f"run `dvc checkout`, or `olmix scan {domain.name}`",
        )


def require_kept(domain: DomainSource, corpus: Corpus, topic: str) -> None:
    """Raise DataError unless the kept documents of a topic are those of the manifest."""
    deque(kept_documents(domain, corpus, topic), maxlen=0)


def _counts(row: Mapping[str, Any], *names: str) -> list[int]:
    """Whole numbers that are not negative; raises ValueError."""
    for name in names:
        if type(row[name]) is not int or row[name] < 0:
            raise ValueError(f"{name} is {row[name]!r}, not a count")
    return [row[name] for name in names]


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    yield from io.BufferedReader(reader, 1 << 20)


def kept_path(domain: DomainSource, topic: str) -> Path:
    """Where the kept documents of a topic are."""
    name = ALL if domain.reading.partition_by is None else domain.domain_names([topic])[topic]
    return domain.folder / KEPT / f"{name}{KEPT_SUFFIX}"


def _topic(name: str) -> str:
    return NO_TOPIC if name == ALL else name.removeprefix("topic ")
