"""Preparing an entry: the manifest of each of its domains (what it holds) and its token sample (what a proxy reads)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import from_hex, to_hex
from olmix.data.content import Content
from olmix.data.corpus import Corpus, corpus_of, is_corpus, kept_documents, require_kept
from olmix.data.memory import Memory, healed
from olmix.data.parallel import Readers
from olmix.data.sample import ESTIMATED_FROM, Sample, bytes_to_keep, write_sample
from olmix.data.scan import scan
from olmix.data.shards import Shard, list_shards
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError, MixtureError
from olmix.files import read_json, write_json
from olmix.progress import Report

Allowed = Callable[[Path], bool]


@dataclass(frozen=True)
class Holding:
    """What an entry holds by topic, and how to get at its documents: `documents` gives those that are kept of a topic
    in the order of their hashes, `whole` says whether they are all, `tokens` that they are token ids."""

    content: dict[str, Content]
    documents: Callable[[str], Iterator[bytes]]
    whole: Callable[[str], bool]
    tokens: bool


def prepare(
    domain: DomainSource,
    tokenizer: Tokenizer,
    limit: int,
    allowed: Allowed,
    readers: Readers,
    report: Report,
    manifests: Path,
    tokens: Path,
    memories: Path,
) -> dict[str, dict[str, Any]]:
    """Read an entry once and write, for each of its domains, `manifests`/<name>.json and `tokens`/<name>.npy, a sample
    of at most `limit` tokens; in a folder of the entry's name when it is partitioned.

    Returns the manifests; raises DataError.
    """
    if domain.reading.partition_by is not None:
        manifests, tokens = manifests / domain.name, tokens / domain.name
    with domain.named_in_errors():
        prepared = _read_and_prepare(domain, tokenizer, limit, allowed, readers, report, tokens, memories)
    for name, manifest in prepared.items():
        write_json(manifests / f"{name}.json", manifest)
    for folder, suffix in ((manifests, ".json"), (tokens, ".npy")):
        if domain.reading.partition_by is not None:
            _remove_others(folder, suffix, prepared)
    return prepared


def _read_and_prepare(
    domain: DomainSource,
    tokenizer: Tokenizer,
    limit: int,
    allowed: Allowed,
    readers: Readers,
    report: Report,
    tokens: Path,
    memories: Path,
) -> dict[str, dict[str, Any]]:
    if is_corpus(domain.folder):
        corpus = corpus_of(domain)
        for topic in corpus.kept:
            require_kept(domain, corpus, topic)
        prepared = _prepare(domain, _holding_of(domain, corpus), tokenizer, limit, tokens)
        if prepared is None:
            what = f"a sample of {limit:,}" if limit > ESTIMATED_FROM else f"an estimate from {ESTIMATED_FROM:,}"
            raise DataError(f"{domain.folder}: keeps too few documents for {what} tokens; run olmix scan {domain.name}")
        return prepared
    shards = shards_here(domain, allowed)

    def attempt(memory: Memory) -> dict[str, dict[str, Any]] | None:
        content = scan(shards, domain.reading, memory, readers, report, domain.domain_names).content
        return _prepare(domain, _remembered(memory, content, shards), tokenizer, limit, tokens)

    path, budget = memories / f"{domain.name}.sqlite", bytes_to_keep(limit)
    while True:
        with Memory(path, domain.reading.digest(shards[0].kind), budget) as memory:
            prepared = healed(memory, partial(attempt, memory))
            if prepared is not None:
                return prepared
            # Shards that are gone took documents with them, or the text has more bytes a token than was guessed.
            memory.clear()
            budget *= 4


def scan_entry(
    domain: DomainSource,
    limit: int,
    allowed: Allowed,
    readers: Readers,
    report: Report,
    memories: Path,
) -> dict[str, Content]:
    """The content of an entry's domains by name, as it is on disk now, reading only what has changed since the last
    look; `limit` is the size of the sample that will be wanted of it."""
    with domain.named_in_errors():
        if is_corpus(domain.folder):
            content = corpus_of(domain).content
        else:
            shards = shards_here(domain, allowed)
            way = domain.reading.digest(shards[0].kind)
            with Memory(memories / f"{domain.name}.sqlite", way, bytes_to_keep(limit)) as memory:
                content = healed(
                    memory, lambda: scan(shards, domain.reading, memory, readers, report, domain.domain_names).content
                )
        _require_documents(domain, content)
        names = domain.domain_names(content)
        return {names[topic]: part for topic, part in content.items()}


def shards_here(domain: DomainSource, allowed: Allowed) -> list[Shard]:
    """The shards in an entry's own folder, by name; raises DataError."""
    otherwise = f"put the domain's shards there, run dvc pull, or olmix scan {domain.name} --root with where they lie"
    if Path(f"{domain.folder}.dvc").exists():
        otherwise = "run dvc pull"
    return list_shards(domain.folder, allowed, domain.reading.format, otherwise)


def _remembered(memory: Memory, content: dict[str, Content], shards: Sequence[Shard]) -> Holding:
    def whole(topic: str) -> bool:
        return memory.holds(topic, content[topic].documents)

    return Holding(content, memory.documents, whole, shards[0].kind.tokens)


def _holding_of(domain: DomainSource, corpus: Corpus) -> Holding:
    return Holding(
        corpus.content,
        lambda topic: kept_documents(domain, corpus, topic),
        corpus.is_whole,
        corpus.kind.tokens,
    )


def _prepare(
    domain: DomainSource, holding: Holding, tokenizer: Tokenizer, limit: int, tokens: Path
) -> dict[str, dict[str, Any]] | None:
    """The manifests by domain, their samples written; None when a sample needs documents that are not kept."""
    _require_documents(domain, holding.content)
    prepared = {}
    for topic, name in domain.domain_names(holding.content).items():
        content = holding.content[topic]
        if not (content.tokens if holding.tokens else content.bytes):
            raise DataError(f"{domain.folder}: {content.documents} documents without any text; nothing to train on")
        sample = write_sample(
            tokens / f"{name}.npy",
            holding.documents(topic),
            holding.tokens,
            holding.whole(topic),
            tokenizer,
            limit,
        )
        if sample is None:
            return None
        prepared[name] = manifest_of(domain, content, sample, tokenizer)
    return prepared


def _require_documents(domain: DomainSource, content: Mapping[str, Content]) -> None:
    if not content:
        raise DataError(f"{domain.folder}: no document fits params.yaml: {domain.entry}.where; nothing to train on")


def manifest_of(domain: DomainSource, content: Content, sample: Sample, tokenizer: Tokenizer) -> dict[str, Any]:
    """The manifest: everything that later stages know of a domain. It names no path, so a moved domain is the same."""
    tokens, counted = _tokens_of(domain, content, sample)
    size, measured, ratio = content.bytes, "exact", sample.ratio
    if not size:  # token arrays
        size = ratio.total(content.tokens)
        measured = "estimate" if size else "unknown"
    documents, held = content.documents, content.tokens or tokens
    if counted == "declared" and not content.tokens:  # of more documents than are here
        documents, held = ratio.n, ratio.y
    errors = {
        f"{what}_error": ratio.error(content.tokens or content.bytes, content.documents)
        for what, found in (("bytes", measured), ("tokens", counted))
        if found == "estimate"
    }
    return {
        "digest": to_hex(content.digest),
        "documents": content.documents,
        "bytes": size or None,
        "bytes_are": measured,
        "tokens": tokens,
        "tokens_are": counted,
        "tokens_per_document": round(held / documents, 3),
        **errors,
        "source": domain.source,
        "tokenizer": {"digest": tokenizer.digest, "vocabulary": tokenizer.vocabulary},
        "sample": {
            "identity": sample.identity,
            "documents": sample.documents,
            "bytes": sample.bytes,
            "tokens": sample.tokens,
        },
    }


def _tokens_of(domain: DomainSource, content: Content, sample: Sample) -> tuple[int, str]:
    """Tokens of a domain, and whether they are exact, an estimate or declared."""
    if domain.declared_tokens is not None:
        return domain.declared_tokens, "declared"
    if content.tokens:
        return content.tokens, "exact"
    if not (sample.bytes and sample.ratio.x):
        empty = min(sample.documents, sample.ratio.n)
        raise DataError(f"{domain.folder}: its {empty} documents of lowest hash are empty; remove such documents")
    if sample.exact is not None:
        return sample.exact, "exact"
    return sample.ratio.total(content.bytes), "estimate"


def manifest_is_current(
    manifest: dict[str, Any], domain: DomainSource, content: Content, tokenizer: Tokenizer, limit: int
) -> bool:
    """Whether preparing the domain again would write the same manifest, as far as that can be told without reading."""
    sample = manifest["sample"]
    return (
        manifest["digest"] == to_hex(content.digest)
        and manifest["tokenizer"]["digest"] == tokenizer.digest
        and manifest["source"] == domain.source
        and (manifest["tokens_are"] == "declared") == (domain.declared_tokens is not None)
        and domain.declared_tokens in (None, manifest["tokens"])
        # Estimates without an error are an older olmix's, from as many tokens as the sample had.
        and all(f"{what}_error" in manifest for what in ("bytes", "tokens") if manifest[f"{what}_are"] == "estimate")
        and (sample["tokens"] == limit or (sample["tokens"] < limit and sample["documents"] == manifest["documents"]))
    )


def read_manifest(folder: Path, domain: DomainSource, name: str) -> dict[str, Any] | None:
    """The manifest in `folder` of the domain `name` of an entry, if any."""
    path = (folder if domain.reading.partition_by is None else folder / domain.name) / f"{name}.json"
    return read_json(path) if path.exists() else None


def read_manifests(folder: Path) -> dict[str, dict[str, Any]]:
    """The manifests in `folder`, by domain name; raises DataError when two entries make a domain of one name."""
    manifests: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.rglob("*.json")):
        if path.stem in manifests:
            raise DataError(f"{path}: another entry of params.yaml has a domain {path.stem}; rename one of them")
        manifests[path.stem] = read_json(path)
    return manifests


def sample_path(folder: Path, name: str) -> Path:
    """Where the token sample of a domain lies below `folder`: by itself, or in the folder of its source."""
    return next(iter(sorted(folder.glob(f"*/{name}.npy"))), folder / f"{name}.npy")


def forget_undeclared(manifests: Path, tokens: Path, domains: Collection[str], sources: Collection[str]) -> None:
    """Remove manifests and samples of entries that are no longer declared."""
    for root, suffix in ((manifests, ".json"), (tokens, ".npy")):
        _remove_others(root, suffix, domains)
        for folder in sorted(path for path in root.glob("*") if path.is_dir()):
            if folder.name not in sources:
                _remove_others(folder, suffix, ())
                folder.rmdir()


def _remove_others(folder: Path, suffix: str, names: Collection[str]) -> None:
    for path in sorted(folder.glob(f"*{suffix}")):
        if path.stem not in names:
            path.unlink()


def dataset_of(manifests: dict[str, dict[str, Any]]) -> Dataset:
    """The dataset version that the manifests describe; raises MixtureError when their tokenisers differ."""
    tokenizers = sorted({manifest["tokenizer"]["digest"] for manifest in manifests.values()})
    if len(tokenizers) > 1:
        raise MixtureError("build/manifests: domains were prepared with different tokenisers; run dvc repro")
    domains = {
        name: Domain(from_hex(manifest["digest"], name), manifest["tokens"], manifest["source"])
        for name, manifest in manifests.items()
    }
    return Dataset(domains, tokenizers[0] if tokenizers else None)
