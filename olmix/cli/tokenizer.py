"""`olmix tokenizer`: byte pairs learned from the domains that params.yaml declares."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import orjson

from olmix.config.params import load_params
from olmix.data.byte_pairs import train_tokenizer
from olmix.data.documents import sample_documents
from olmix.data.parallel import Readers, read_concurrently
from olmix.data.sample import bytes_to_keep
from olmix.data.source import DomainSource
from olmix.errors import ConfigError
from olmix.files import write_bytes
from olmix.pipeline import link_is_allowed
from olmix.progress import Report
from olmix.project import Project
from olmix.terminal.progress import ProgressDisplay

# 256 bytes and the token that closes a document.
LEAST = 257


def learn_tokenizer(project: Project, vocabulary: int, most: int, out: Path | None) -> str:
    """Write a tokeniser of `vocabulary` tokens, learned from `most` bytes of the domains, an equal part of each, to
    `out` or where params.yaml has its own; returns what to say.

    Raises ConfigError for a vocabulary without room for the bytes, or when no domain holds text.
    """
    if vocabulary < LEAST:
        raise ConfigError(
            f"{vocabulary} tokens are too few",
            key="--vocab",
            way_out=f"ask for {LEAST} or more: 256 bytes and the token that ends a document",
        )
    params = load_params(project)
    end = params.tokenizer.end_of_document
    if not isinstance(end, str):
        raise ConfigError(
            "an id, but a tokeniser that is yet to be learned has none",
            file=project.params,
            key="tokenizer.end_of_document",
            way_out="write a token, such as <|endoftext|>",
        )
    entries = [params.entry(name, None) for name in params.entries]
    budget = bytes_to_keep(params.sample_tokens(vocabulary))

    def read_text(domain: DomainSource, readers: Readers, report: Report) -> list[bytes]:
        allowed = partial(link_is_allowed, project.root)
        return sample_documents(domain, most // len(entries), budget, allowed, readers, report, project.memories)

    with ProgressDisplay(f"read {len(entries)} folders", "shards", "bytes") as display:
        texts = read_concurrently(read_text, entries, None, display)
    if not any(texts):
        raise ConfigError("no domain has text", file=project.params, key="domains", way_out="declare one that does")
    path = out or params.tokenizer_path()
    content = train_tokenizer((text.decode() for each in texts for text in each), vocabulary, end)
    write_bytes(path, content.encode())
    size = sum(len(text) for each in texts for text in each)
    without = [domain.name for domain, each in zip(entries, texts, strict=True) if not each]
    read = f"{size:,} bytes of {len(entries) - len(without)} entries"
    learned = len(orjson.loads(content)["model"]["vocab"])
    fewer = f" (not {vocabulary:,}: the text has no more)" if learned < vocabulary else ""
    lines = [f"{path}: {learned:,} tokens{fewer}, learned from {read}"]
    if path.resolve() == params.tokenizer_path().resolve():
        lines[0] += "; the next `dvc repro` counts the tokens again"
    if without:
        lines.append(f"not read, because they contain token ids: {', '.join(without)}")
    return "\n".join(lines)
