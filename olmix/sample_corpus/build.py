"""Build the sample corpus: collect, train the tokeniser, cut the tasks, write to a temporary folder, rename.

Sizes are bytes of training text a domain. Junk is a fixed share of the bytes of the others, so that it
stays between 5 and 10% of the natural mixture in tokens: with a quarter of junk any method looks good.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import orjson

from olmix.data.byte_pairs import END, train_tokenizer
from olmix.data.tokenizer import Tokenizer
from olmix.errors import DataError
from olmix.sample_corpus.arithmetic import exercises
from olmix.sample_corpus.documents import Domain, collect
from olmix.sample_corpus.junk import noise
from olmix.sample_corpus.sources import docstring_prose, doctest_sessions, headers, python_code
from olmix.sample_corpus.stories import stories
from olmix.sample_corpus.tasks import ANSWER_ITEMS, TEXT_ITEMS, Item, make_tasks

MEGABYTE = 1_000_000
# A proxy of 100k parameters learns far faster from byte pairs than from bytes, and a larger vocabulary would spend its
# parameters on embeddings.
VOCABULARY = 1024
SOURCES: dict[str, tuple[Callable[[], Iterator[str]], float]] = {
    "py": (python_code, 3.0),
    "cpp": (headers, 2.2),
    "docs": (docstring_prose, 2.2),
    "doctest": (doctest_sessions, 1.0),
    "story": (stories, 1.4),
    "math": (exercises, 1.1),
}
JUNK_SHARE = 0.035  # of the bytes of the other domains: base64 has about half the bytes a token that text has
_SHARD = MEGABYTE
_HELD_OUT = {"doctest": 240, "math": 400}  # documents; the training text alone has too few for short answers
FOLDERS = (*SOURCES, "junk", "tasks", "tokenizer")


def build(out: Path, *, scale: float = 1.0, force: bool = False) -> str:
    """Fill `out` with the sample corpus and return the table of it, or say that it is there already.

    `scale` multiplies every size. Raises DataError when a package is missing, when `scale` is not in (0, 1],
    or when only a part is there (which may hold somebody's edits) and not `force`.
    """
    if not 0 < scale <= 1:
        raise DataError("not in (0, 1]", key=f"--scale {scale:g}")
    there = [name for name in FOLDERS if (out / name).exists()]
    if there and not force:
        missing = [name for name in FOLDERS if name not in there]
        if not missing:
            return f"{out}: the sample corpus already exists; --force builds it again"
        raise DataError(
            f"has {', '.join(there)} but not {', '.join(missing)}", file=out, way_out="build all again with --force"
        )
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=".sample-") as temporary:
        table = _write(Path(temporary), scale)
        for name in FOLDERS:
            if (out / name).exists():
                (out / name).rename(Path(temporary) / f"old-{name}")
            (Path(temporary) / name).rename(out / name)
    return table


def collect_domains(scale: float = 1.0) -> dict[str, Domain]:
    """Every domain, `scale` times its usual size."""
    domains = {
        name: collect(documents(), int(size * scale * MEGABYTE), int(_HELD_OUT.get(name, 0) * scale))
        for name, (documents, size) in SOURCES.items()
    }
    size = sum(len(text) for domain in domains.values() for text in domain.train)
    return domains | {"junk": collect(noise(), int(JUNK_SHARE * size))}


def _write(folder: Path, scale: float) -> str:
    domains = collect_domains(scale)
    for name, domain in domains.items():
        _write_shards(folder / name, domain.train)
    path = folder / "tokenizer" / "tokenizer.json"
    texts = (text for domain in domains.values() for text in domain.train)
    path.parent.mkdir()
    path.write_text(train_tokenizer(texts, VOCABULARY), encoding="utf-8")
    tokenizer = Tokenizer(path, END)
    tasks = make_tasks(domains, tokenizer, -int(-TEXT_ITEMS * scale), -int(-ANSWER_ITEMS * scale))
    (folder / "tasks").mkdir()
    for name, items in tasks.items():
        lines = b"".join(orjson.dumps(asdict(item)) + b"\n" for item in items)
        (folder / "tasks" / f"{name}.jsonl").write_bytes(lines)
    return _table(domains, tasks, tokenizer)


def _write_shards(folder: Path, documents: Sequence[str]) -> None:
    """Shards of about a megabyte, in the order in which the documents were drawn."""
    folder.mkdir()
    shards: list[list[bytes]] = [[]]
    size = 0
    for text in documents:
        if size >= _SHARD:
            shards.append([])
            size = 0
        shards[-1].append(orjson.dumps({"text": text}) + b"\n")
        size += len(text)
    for i, lines in enumerate(shards):
        (folder / f"part-{i:02d}.jsonl").write_bytes(b"".join(lines))


def _table(domains: Mapping[str, Domain], tasks: Mapping[str, Sequence[Item]], tokenizer: Tokenizer) -> str:
    tokens = {name: sum(len(ids) + 1 for ids in tokenizer.encode(domain.train)) for name, domain in domains.items()}
    total = sum(tokens.values())
    rows = [f"{'domain':<16}{'documents':>10}{'bytes':>12}{'tokens':>12}{'share':>8}"]
    for name, domain in domains.items():
        size = sum(map(len, domain.train))
        rows.append(f"{name:<16}{len(domain.train):>10}{size:>12}{tokens[name]:>12}{tokens[name] / total:>8.1%}")
    rows.append(f"\n{'task':<16}{'items':>10}{'bytes':>12}{'tokens':>12}")
    for name, items in tasks.items():
        scored = [item.continuation for item in items]
        counted = sum(map(len, tokenizer.encode(scored)))
        rows.append(f"{name:<16}{len(items):>10}{sum(map(len, scored)):>12}{counted:>12}")
    return "\n".join(rows)
