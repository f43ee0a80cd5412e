"""Preparing an entry: the manifest of each of its domains (what it holds) and its token sample (what a proxy reads)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import from_hex, to_hex
from olmix.core.sketch import Sketch, sketch
from olmix.data.content import Content
from olmix.data.documents import Documents, TooFewDocumentsError, read_documents
from olmix.data.parallel import Readers
from olmix.data.sample import ESTIMATED_FROM, Sample, bytes_to_keep, write_sample
from olmix.data.shards import Allowed
from olmix.data.sketches import sketch_to_json
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError, MixtureError
from olmix.files import read_json, write_json
from olmix.progress import Report


def prepare(
    domain: DomainSource,
    tokenizer: Tokenizer,
    limit: int,
    allowed: Allowed,
    readers: Readers,
    report: Report,
    manifests: Path,
    samples: Path,
    memories: Path,
) -> dict[str, dict[str, Any]]:
    """Read an entry once and write, for each of its domains, `manifests`/NAME.json and `samples`/NAME.npy, a sample
    of at most `limit` tokens; in a folder of the entry's name when it is partitioned.

    Returns the manifests; raises DataError.
    """
    partitioned = domain.reading.partition_by is not None
    if partitioned:
        manifests, samples = manifests / domain.name, samples / domain.name

    def write_samples(documents: Documents) -> dict[str, dict[str, Any]]:
        prepared = {}
        for topic, name in domain.domain_names(documents.content).items():
            content, path = documents.content[topic], samples / f"{name}.npy"
            if not (content.tokens if documents.are_tokens else content.bytes):
                raise DataError(f"{content.documents:,} documents without any text", file=domain.folder)
            complete = documents.complete(topic)
            sample = write_sample(path, documents.of(topic), documents.are_tokens, complete, tokenizer, limit)
            if sample is None:
                what = f"a sample of {limit:,}" if limit > ESTIMATED_FROM else f"an estimate from {ESTIMATED_FROM:,}"
                raise TooFewDocumentsError(
                    f"too few documents were kept for {what} tokens",
                    file=domain.folder,
                    way_out=f"run `olmix scan {domain.name}`",
                )
            total = content.tokens if documents.are_tokens else content.bytes
            drawn = sketch(documents.of(topic), documents.are_tokens, total, complete, bytes_to_keep(0))
            prepared[name] = manifest_of(domain, content, sample, drawn, tokenizer)
        return prepared

    prepared = read_documents(domain, write_samples, bytes_to_keep(limit), allowed, readers, report, memories)
    for name, manifest in prepared.items():
        write_json(manifests / f"{name}.json", manifest)
    if partitioned:
        _remove_others(manifests, ".json", prepared)
        _remove_others(samples, ".npy", prepared)
    return prepared


def manifest_of(
    domain: DomainSource, content: Content, sample: Sample, drawn: Sketch, tokenizer: Tokenizer
) -> dict[str, Any]:
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
        for what, how in (("bytes", measured), ("tokens", counted))
        if how == "estimate"
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
        "sketch": sketch_to_json(replace(drawn, sample=sample.identity)),
    }


def _tokens_of(domain: DomainSource, content: Content, sample: Sample) -> tuple[int, str]:
    """Tokens of a domain, and whether they are exact, an estimate or declared."""
    if domain.declared_tokens is not None:
        return domain.declared_tokens, "declared"
    if content.tokens:
        return content.tokens, "exact"
    if not (sample.bytes and sample.ratio.x):
        empty = min(sample.documents, sample.ratio.n)
        raise DataError(
            f"the sample of {empty:,} documents has no text", file=domain.folder, way_out="remove empty documents"
        )
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
        and "sketch" in manifest  # or an older olmix wrote it
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
            raise DataError(
                f"another entry of params.yaml also has a domain {path.stem}", file=path, way_out="rename one of them"
            )
        manifests[path.stem] = read_json(path)
    return manifests


def sample_path(folder: Path, name: str) -> Path:
    """Where the token sample of a domain lies below `folder`: by itself, or in the folder of its source."""
    return next(iter(sorted(folder.glob(f"*/{name}.npy"))), folder / f"{name}.npy")


def forget_undeclared(manifests: Path, samples: Path, domains: Collection[str], sources: Collection[str]) -> None:
    """Remove manifests and samples of entries that are no longer declared."""
    for root, suffix in ((manifests, ".json"), (samples, ".npy")):
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
        raise MixtureError(
            "domains were prepared with different tokenisers", file="build/manifests", way_out="run `dvc repro`"
        )
    domains = {
        name: Domain(from_hex(manifest["digest"], name), manifest["tokens"], manifest["source"])
        for name, manifest in manifests.items()
    }
    return Dataset(domains, tokenizers[0] if tokenizers else None)
