"""Preparing a domain: its manifest (what it holds) and its token sample (what a proxy can read of it)."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmix.core.dataset import Dataset, Domain
from olmix.core.digest import from_hex, to_hex
from olmix.data.sample import Sample, read_and_sample
from olmix.data.scan import Content, ScanMemory, scan
from olmix.data.shards import list_shards
from olmix.data.tokenizer import Tokenizer
from olmix.data.tokensets import identity_of
from olmix.errors import DataError, MixtureError
from olmix.files import read_json
from olmix.progress import Report, silent

MANIFESTS = Path("build/manifests")
TOKENS = Path("build/tokens")


@dataclass(frozen=True)
class DomainSource:
    """Where a domain's documents are and how to read them.

    `declared_tokens` is the size of the whole domain when the shards are only a sample of it.
    """

    folder: Path
    text: str = "text"
    source: str | None = None
    declared_tokens: int | None = None


def prepare_domain(
    domain: DomainSource,
    tokenizer: Tokenizer,
    limit: int,
    memory: Path,
    allowed: Callable[[Path], bool],
    report: Report = silent,
) -> tuple[dict[str, Any], Sample]:
    """Read a domain once: its manifest and its sample of at most `limit` tokens; raises DataError."""
    shards = list_shards(domain.folder, allowed)
    parts, sample = read_and_sample(shards, domain.text, tokenizer, limit, report)
    ScanMemory(memory, domain.text).store(parts)
    content = sum((part for _, part in parts), Content())
    if not content.bytes:
        raise DataError(f"{domain.folder}: {content.documents} documents without any text; nothing to train on")
    return manifest_of(domain, content, sample, tokenizer), sample


def scan_domain(
    domain: DomainSource, memory: Path, allowed: Callable[[Path], bool], report: Report = silent
) -> Content:
    """The content of a domain as it is on disk now, reading only what has changed since the last look."""
    return scan(list_shards(domain.folder, allowed), domain.text, ScanMemory(memory, domain.text), report)


def manifest_of(domain: DomainSource, content: Content, sample: Sample, tokenizer: Tokenizer) -> dict[str, Any]:
    """The manifest: everything that later stages know of a domain. It names no path, so a moved domain is the same."""
    if domain.declared_tokens is not None:
        tokens, counted = domain.declared_tokens, "declared"
    elif not sample.bytes:
        raise DataError(
            f"{domain.folder}: its {sample.documents} documents of lowest hash are empty; remove such documents"
        )
    elif sample.whole:
        tokens, counted = sample.counted, "exact"
    else:
        tokens, counted = round(content.bytes * sample.counted / sample.bytes), "estimate"
    return {
        "digest": to_hex(content.digest),
        "documents": content.documents,
        "bytes": content.bytes,
        "tokens": tokens,
        "tokens_are": counted,
        "source": domain.source,
        "tokenizer": {"digest": tokenizer.digest, "vocabulary": tokenizer.vocabulary},
        "sample": {
            "identity": identity_of(sample.tokens),
            "documents": sample.documents,
            "bytes": sample.bytes,
            "tokens": len(sample.tokens),
        },
    }


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
        and (sample["tokens"] == limit or (sample["tokens"] < limit and sample["documents"] == manifest["documents"]))
    )


def read_manifests(folder: Path = MANIFESTS) -> dict[str, dict[str, Any]]:
    """The manifests in `folder`, by domain name."""
    return {path.stem: read_json(path) for path in sorted(folder.glob("*.json"))}


def scan_memory(name: str) -> Path:
    """Where the parts of a domain's digest are remembered."""
    return Path(f".olmix/scan/{name}.json")


def forget_undeclared(domains: Container[str]) -> None:
    """Remove manifests and samples of domains that are no longer declared."""
    for path in sorted([*MANIFESTS.glob("*.json"), *TOKENS.glob("*.npy")]):
        if path.stem not in domains:
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
