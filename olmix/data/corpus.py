"""A corpus that lies elsewhere: a domain's folder then holds `manifest.yaml` and the documents that its sample needs.

`olmix scan` reads the corpus below its root once and writes both. The manifest says what every shard holds; the
documents of lowest hash lie beside it in `kept/`, so that `prepare` works wherever the folder is, without the root.
Where the root is, is no part of the domain's identity. What it gives up: a proxy that reads more than was kept needs
another scan, and says so.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import polars as pl
import yaml
import zstandard

from olmix.core.digest import MODULUS, document_digest, from_hex, to_hex
from olmix.data.content import WHOLE, Content, Topics, add_topics
from olmix.data.memory import Memory
from olmix.data.parallel import Readers
from olmix.data.scan import scan_shards
from olmix.data.shards import KINDS, Kind, Shard, list_shards
from olmix.data.source import DomainSource
from olmix.errors import DataError, OlmixError
from olmix.files import read_yaml, write_atomically, write_bytes
from olmix.progress import Report, silent

MANIFEST = "manifest.yaml"
KEPT = "kept"
# How the topic of a corpus that is not partitioned is written.
_ALL = "all"
_HEADING = (
    "# A corpus that lies elsewhere. `olmix scan {name}` writes this file and kept/; only the root is yours to edit:\n"
    "# where the data lies is no part of what it is.\n"
)
_COLUMNS = ("name", "size", "topic", "digest", "documents", "bytes", "tokens")
# A document may be a book; a line that is longer than this is no document of ours.
_LONGEST_LINE = 1 << 31


@dataclass(frozen=True)
class Kept:
    """The documents in `kept/` of a topic: how many, their additive digest, and whether they are all of them."""

    documents: int
    digest: int
    whole: bool


@dataclass(frozen=True)
class Corpus:
    """What `manifest.yaml` says: the root, the format, how it was read (Reading.digest), and content and kept
    documents by topic. `shards` is the table of its shards, CSV."""

    root: str
    kind: Kind
    way: str
    content: dict[str, Content]
    kept: dict[str, Kept]
    shards: str

    def table(self) -> pl.DataFrame:
        """The shards' names, sizes and contents, a row for each topic of a shard."""
        schema = {c: pl.String if c in ("name", "topic", "digest") else pl.Int64 for c in _COLUMNS}
        return pl.read_csv(io.StringIO(self.shards), schema=schema).with_columns(pl.col("topic").fill_null(""))


def is_corpus(folder: Path) -> bool:
    """Whether the folder of a domain holds the manifest of a corpus that lies elsewhere."""
    return (folder / MANIFEST).is_file()


def read_corpus(folder: Path) -> Corpus:
    """Read `manifest.yaml`; raises ConfigError or DataError in one line when it is not what `olmix scan` writes."""
    path = folder / MANIFEST
    content = read_yaml(path)
    try:
        topics = {_topic(name): row for name, row in content["content"].items()}
        return Corpus(
            root=str(content["root"]),
            kind=KINDS[content["format"]],
            way=str(content["reading"]),
            content={
                topic: Content(from_hex(row["digest"], str(path)), row["documents"], row["bytes"], row["tokens"])
                for topic, row in topics.items()
            },
            kept={
                topic: Kept(row["kept"]["documents"], from_hex(row["kept"]["digest"], str(path)), row["kept"]["whole"])
                for topic, row in topics.items()
            },
            shards=str(content["shards"]),
        )
    except (KeyError, TypeError, AttributeError, OlmixError) as error:
        raise DataError(f"{path}: not a manifest that olmix scan wrote ({error}); run olmix scan again") from None


def write_corpus(
    domain: DomainSource, root: str, shards: list[Shard], parts: Mapping[str, Topics], content: Topics, memory: Memory
) -> Corpus:
    """Write `kept/` and then `manifest.yaml` of a corpus whose `shards` were read into `memory`.

    `parts` are the contents of the shards by name and topic, `content` their sum. The same documents in the same shards
    give the same bytes.
    """
    folder = domain.folder
    kept = {
        topic: _write_kept(_kept_path(folder, domain, topic), memory, topic, shards[0].kind.tokens) for topic in content
    }
    wanted = {_kept_path(folder, domain, topic) for topic in content}
    for path in (folder / KEPT).iterdir():
        if path not in wanted:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    rows = [
        (shard.name, shard.size, topic, to_hex(c.digest), c.documents, c.bytes, c.tokens)
        for shard in shards
        for topic, c in sorted(parts[shard.name].items())
    ]
    table = pl.DataFrame(rows, schema=list(_COLUMNS), orient="row").write_csv()
    kind = shards[0].kind
    corpus = Corpus(root, kind, domain.reading.digest(kind), dict(content), kept, table)
    write_bytes(folder / MANIFEST, _to_yaml(domain, corpus).encode())
    return corpus


@dataclass(frozen=True)
class CorpusScan:
    """What a scan found: the domain's folder, the corpus, and how many of its shards it had to read."""

    folder: Path
    corpus: Corpus
    shards: int
    read: int


def scan_corpus(
    domain: DomainSource,
    root: str | None,
    memories: Path,
    budget: int,
    readers: Readers,
    full: bool = False,
    report: Report = silent,
) -> CorpusScan:
    """Read the shards below `root` (that of the manifest when it is None) that have changed since the last scan, or
    all when `full`, and write the domain's folder.

    `budget` is the bytes of documents to keep of a topic. Raises DataError; shards that were read are remembered.
    """
    with domain.named_in_errors():
        return _scan_corpus(domain, root, memories, budget, readers, full, report)


def _scan_corpus(
    domain: DomainSource,
    root: str | None,
    memories: Path,
    budget: int,
    readers: Readers,
    full: bool,
    report: Report,
) -> CorpusScan:
    if root is None:
        root = read_corpus(domain.folder).root
    shards = shards_of(domain, root)
    with Memory(memories / f"{domain.name}.sqlite", domain.reading.digest(shards[0].kind), budget) as memory:
        if full:
            memory.clear()
        parts, read = scan_shards(shards, domain.reading, memory, readers, report)
        content = add_topics(parts.values())
        if not all(memory.is_full(topic) for topic in content):  # shards that are gone took documents with them
            memory.clear()
            parts, read = scan_shards(shards, domain.reading, memory, readers, report)
        if not any(c.documents for c in content.values()):
            raise DataError(f"{root}: no document fits params.yaml: {domain.entry}.where; nothing was written")
        corpus = write_corpus(domain, root, shards, parts, content, memory)
    return CorpusScan(domain.folder, corpus, len(shards), read)


def shards_of(domain: DomainSource, root: str) -> list[Shard]:
    """The shards below the root of a corpus, by name; raises DataError."""
    # A corpus may be linked together from other disks; what is refused is a link that leaves it.
    below = Path(root).resolve()
    otherwise = f"check root in {domain.folder / MANIFEST}, or --root" if is_corpus(domain.folder) else "check --root"
    return list_shards(root, lambda target: target.is_relative_to(below), domain.reading.format, otherwise)


def kept_documents(domain: DomainSource, corpus: Corpus, topic: str) -> Iterator[bytes]:
    """The kept documents of a topic in the order of their hashes; raises DataError when they are not those of the
    manifest."""
    path = _kept_path(domain.folder, domain, topic)
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
        raise DataError(f"{path}: no such file; run dvc pull, or olmix scan {domain.name}") from None
    except (zstandard.ZstdError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: damaged after {count} documents ({error}); run dvc checkout or olmix scan") from None
    kept = corpus.kept[topic]
    if (count, digest % MODULUS) != (kept.documents, kept.digest):
        raise DataError(
            f"{path}: {count} documents that are not the {kept.documents} of {MANIFEST}; run dvc checkout, or "
            f"olmix scan {domain.name}"
        )


def _write_kept(path: Path, memory: Memory, topic: str, tokens: bool) -> Kept:
    """Write the documents of lowest hash that hold the memory's budget: the same ones whatever else it remembers."""
    count = digest = size = 0
    whole = memory.is_whole(topic)

    def write(file: IO[bytes]) -> None:
        nonlocal count, digest, size, whole
        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False) as out:
            last = None
            for document in memory.documents(topic):
                # Copies of a document stay together, or which of them are kept would depend on the shards.
                if size >= memory.budget and document != last:
                    whole = False
                    break
                row = {"ids": np.frombuffer(document, "<u4").tolist()} if tokens else {"text": document.decode()}
                out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                count, size, last = count + 1, size + len(document), document
                digest += document_digest(document)

    write_atomically(path, write)
    return Kept(count, digest % MODULUS, whole)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    yield from io.BufferedReader(reader, 1 << 20)


def _kept_path(folder: Path, domain: DomainSource, topic: str) -> Path:
    name = _ALL if domain.reading.partition_by is None else domain.domain_names([topic])[topic]
    return folder / KEPT / f"{name}.jsonl.zst"


def _topic(name: str) -> str:
    return WHOLE if name == _ALL else name.removeprefix("topic ")


def _to_yaml(domain: DomainSource, corpus: Corpus) -> str:
    content = {}
    for topic, c in sorted(corpus.content.items()):
        row: dict[str, Any] = {**asdict(c), "digest": to_hex(c.digest)}
        row["kept"] = {**asdict(corpus.kept[topic]), "digest": to_hex(corpus.kept[topic].digest)}
        content[_ALL if domain.reading.partition_by is None else f"topic {topic}"] = row
    head = {"root": corpus.root, "format": corpus.kind.name, "reading": corpus.way, "content": content}
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    rows = "".join(f"  {line}\n" for line in corpus.shards.splitlines())
    return f"{_HEADING.format(name=domain.name)}{text}shards: |\n{rows}"
