"""Scanning a corpus that lies elsewhere, and writing what it holds into its domain's folder.

The documents are written beside `kept/` first, and moved into it when the manifest stands: what fails changes nothing,
and a kill in between leaves a manifest whose digests tell that `kept/` is of another scan.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
import polars as pl
import yaml
import zstandard

from olmix.core.digest import MODULUS, document_digest, to_hex
from olmix.data.content import NO_TOPIC, Content, Topics
from olmix.data.corpus import (
    ALL,
    COLUMNS,
    KEPT,
    KEPT_SUFFIX,
    MANIFEST,
    Corpus,
    Kept,
    is_corpus,
    kept_path,
    read_corpus,
    shards_of,
)
from olmix.data.memory import Memory, read_again_if_damaged
from olmix.data.parallel import Readers
from olmix.data.scan import Scanned, scan
from olmix.data.shards import Shard, is_remote, local_path
from olmix.data.source import DomainSource
from olmix.errors import DataError, OlmixError
from olmix.files import write_atomically, write_bytes
from olmix.progress import Report, silent

# Where the documents are written before they are moved to kept/.
STAGED = ".kept"
_HEADING = (
    "# A corpus that lies elsewhere. `olmix scan {name}` writes this file and kept/; only the root is yours to edit:\n"
    "# where the data lies is no part of what it is.\n"
)


@dataclass(frozen=True)
class CorpusScan:
    """The outcome of a scan: the domain's folder, the corpus, and how many shards it has and were read; by name those
    that are new to the manifest, changed or gone since, and the documents lost with these."""

    folder: Path
    corpus: Corpus
    shards: int
    read: int
    new: tuple[str, ...]
    changed: tuple[str, ...]
    gone: tuple[str, ...]
    lost: int


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
    with domain.locate_errors():
        before: dict[str, dict[str, Content]] = {}
        if is_corpus(domain.folder):
            try:
                corpus = read_corpus(domain.folder)
            except OlmixError:
                if root is None:
                    raise
            else:
                root, before = root or corpus.root, corpus.by_shard
        if root is None:
            raise DataError(
                f"has no {MANIFEST}", file=domain.folder, way_out="give the place of the shards with --root"
            )
        _require_apart(domain, root)
        shards = shards_of(domain, root)
        _require_own(domain.folder)
        with Memory(memories / f"{domain.name}.sqlite", domain.reading.digest(shards[0].kind), budget) as memory:
            if full:
                memory.clear()
            read = partial(scan, shards, domain.reading, memory, readers, report, domain.domain_names)

            def scan_and_write() -> tuple[Corpus, Scanned]:
                scanned = read()
                content = scanned.content
                if not all(memory.is_full(topic) for topic in content):  # shards that are gone took documents with them
                    memory.clear()
                    scanned = read()
                if not any(c.documents for c in content.values()):
                    raise DataError("no document matches; nothing was written", file=root, key="where")
                return write_corpus(domain, root, shards, scanned.parts, content, memory), scanned

            corpus, scanned = read_again_if_damaged(memory, scan_and_write)
    now = {name: {t: c for t, c in topics.items() if c.documents} for name, topics in scanned.parts.items()}
    gone = tuple(sorted(before.keys() - now.keys()))
    return CorpusScan(
        folder=domain.folder,
        corpus=corpus,
        shards=len(shards),
        read=scanned.read,
        new=tuple(sorted(now.keys() - before.keys())),
        changed=tuple(sorted(name for name in now.keys() & before.keys() if now[name] != before[name])),
        gone=gone,
        lost=sum(content.documents for name in gone for content in before[name].values()),
    )


def write_corpus(
    domain: DomainSource, root: str, shards: list[Shard], parts: Mapping[str, Topics], content: Topics, memory: Memory
) -> Corpus:
    """Write `kept/` and `manifest.yaml` of a corpus whose `shards` were read into `memory`.

    `parts` are the contents of the shards by name and topic, `content` their sum. The same documents in the same shards
    give the same bytes. What fails leaves both as they were; a kill in between leaves a manifest that tells that
    `kept/` is not its own.
    """
    folder, kind = domain.folder, shards[0].kind
    staged = folder / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    paths = {topic: kept_path(domain, topic) for topic in content}
    try:
        kept = {topic: _write_kept(staged / paths[topic].name, memory, topic, kind.are_tokens) for topic in content}
        rows = [
            (shard.name, shard.size, topic, to_hex(c.digest), c.documents, c.bytes, c.tokens)
            for shard in shards
            for topic, c in sorted(parts[shard.name].items()) or [(NO_TOPIC, Content())]  # where `where` leaves nothing
        ]
        table = pl.DataFrame(rows, schema=list(COLUMNS), orient="row").write_csv()
        corpus = Corpus(root, kind, domain.reading.digest(kind), dict(content), kept, table)
        write_bytes(folder / MANIFEST, _to_yaml(domain, corpus).encode())
        (folder / KEPT).mkdir(exist_ok=True)
        for path in paths.values():
            (staged / path.name).replace(path)
        for path in (folder / KEPT).glob(f"*{KEPT_SUFFIX}"):
            if path not in paths.values():
                path.unlink()
    except OSError as error:
        raise DataError(f"cannot be written: {error.strerror}; nothing was recorded", file=folder) from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return corpus


def _require_apart(domain: DomainSource, root: str) -> None:
    """Raise DataError when the domain's folder lies where the shards do."""
    folder = domain.folder
    if not is_remote(place := local_path(root)):
        shards, own = Path(place).resolve(), folder.resolve()
        if shards.is_relative_to(own) or own.is_relative_to(shards):
            raise DataError(
                f"overlaps the domain's own folder, {folder}", file=root, way_out="use another root or folder"
            )


def _require_own(folder: Path) -> None:
    """Raise DataError when a folder holds what `olmix scan` did not write."""
    ours = is_corpus(folder)
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_dir() or any(part.startswith(".") for part in name.parts):
            continue
        kept = len(name.parts) == 2 and name.parts[0] == KEPT and name.name.endswith(KEPT_SUFFIX)
        if not (ours and (kept or str(name) == MANIFEST)):
            raise DataError(
                f"the folder of a scanned corpus may contain only {MANIFEST} and {KEPT}/",
                file=path,
                way_out="move this file to the corpus, or elsewhere",
            )


def _write_kept(path: Path, memory: Memory, topic: str, tokens: bool) -> Kept:
    """Write the documents of lowest hash that hold the memory's budget: the same ones whatever else it remembers."""
    count = digest = size = 0

    def write(file: IO[bytes]) -> None:
        nonlocal count, digest, size
        with zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False) as out:
            last = None
            for document in memory.documents(topic):
                # Copies of a document stay together, or which of them are kept would depend on the shards.
                if size >= memory.budget and document != last:
                    break
                row = {"ids": np.frombuffer(document, "<u4").tolist()} if tokens else {"text": document.decode()}
                out.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
                count, size, last = count + 1, size + len(document), document
                digest += document_digest(document)

    write_atomically(path, write)
    return Kept(count, digest % MODULUS)


def _to_yaml(domain: DomainSource, corpus: Corpus) -> str:
    content = {}
    for topic, c in sorted(corpus.content.items()):
        row: dict[str, Any] = {**asdict(c), "digest": to_hex(c.digest)}
        row["kept"] = {**asdict(corpus.kept[topic]), "digest": to_hex(corpus.kept[topic].digest)}
        content[ALL if domain.reading.partition_by is None else f"topic {topic}"] = row
    head = {"root": corpus.root, "format": corpus.kind.name, "reading": corpus.reading, "content": content}
    text = yaml.safe_dump(head, sort_keys=False, allow_unicode=True, width=1000)
    rows = "".join(f"  {line}\n" for line in corpus.shards.split("\n")[:-1])
    return f"{_HEADING.format(name=domain.name)}{text}shards: |\n{rows}"
