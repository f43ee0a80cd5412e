"""How fast domains are read and hashed, side by side with what else reads them: `python benchmarks/reading.py`.

1. JSON lines, one core: `scan_piece` (every document parsed and hashed), DVC's own md5 of the same file, xxh3_128 of
   the bytes and a plain read, interleaved; GB of file per CPU second, medians of the repeats. The mix is half English
   in ASCII, four tenths English with typographic quotes, one tenth Russian; then each alone, and the mix as json.dumps
   writes it by default (\\uXXXX). CPU seconds, so that other work on the machine moves the ratios little.
2. Parquet, one core: `scan_piece` against polars' scan of the text column with the hashing of what it gives.
3. Two processes: `scan` of 40 shards of ASCII with one process, with two whose start is counted, and with two that run
   already, as they do from a command's second domain on; wall time.
4. Memory: `prepare` of domains of rising size, each in a process of its own; the largest has --gigabytes.
5. 100,000 shards: the first scan of a corpus elsewhere, and a second one with nothing changed.

It does not measure the disk or the network: everything is in the page cache, or should be. Words are random letters in
Zipf's proportions: lengths, escapes and alphabets are those of text, its meaning is not, and it compresses badly.
"""

from __future__ import annotations

import os

os.environ["POLARS_MAX_THREADS"] = "1"  # one core each; before polars is imported

import argparse
import json
import multiprocessing
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import polars as pl
import xxhash
from dvc_data.hashfile.hash import file_md5
from rich.console import Console
from rich.table import Table

from olmix.core.digest import document_digest
from olmix.core.seeds import generator
from olmix.data import scan as scanning
from olmix.data.corpus_scan import scan_corpus
from olmix.data.manifest import prepare
from olmix.data.memory import Memory
from olmix.data.parallel import Readers
from olmix.data.reading import Piece, Reading
from olmix.data.scan import scan_piece
from olmix.data.shards import Shard, list_shards
from olmix.data.source import DomainSource
from olmix.data.tokenizer import Tokenizer

BYTES = Path(__file__).resolve().parents[1] / "tokenizers" / "bytes.json"
SAMPLE_TOKENS = 160_001
VOCABULARY = 20_000
READ_SIZE = 1 << 20
LATIN, CYRILLIC = "etaoinshrdlcumwfgypbvk", "оеаинтсрвлкмдпуяыьгзб"
# Letters, an opening quote and an apostrophe.
ALPHABETS = {"ASCII": (LATIN, '"', "'"), "typographic": (LATIN, "\u201c", "\u2019"), "Russian": (CYRILLIC, "«", "-")}
MIX = ("ASCII", "typographic") * 4 + ("ASCII", "Russian")


def words(kind: str) -> np.ndarray:
    """A vocabulary, the commonest word first; some words carry a mark or end a paragraph."""
    draw = generator("reading benchmark", "words", kind)
    letters, quote, apostrophe = ALPHABETS[kind]
    lengths = draw.integers(2, 10, size=VOCABULARY)
    drawn = np.split(draw.choice(list(letters), size=lengths.sum()), np.cumsum(lengths)[:-1])
    endings = draw.choice(
        ["", ".", ",", ".\n\n", f" {quote}", f"{apostrophe}s"], VOCABULARY, p=[0.88, 0.05, 0.04, 0.01, 0.01, 0.01]
    )
    return np.array(["".join(word) + end for word, end in zip(drawn, endings, strict=True)], dtype=object)


def write(path: Path, kinds: Sequence[str], size: int, dumps: Callable[[object], bytes] = orjson.dumps) -> None:
    """Write about `size` bytes of documents, their kinds in turn, their lengths log-normal around 400 words."""
    path.parent.mkdir(parents=True)
    draw = generator("reading benchmark", "documents", *kinds)
    vocabularies = {kind: words(kind) for kind in kinds}
    ranks = np.cumsum(1.0 / (np.arange(VOCABULARY) + 10))
    written = number = 0
    with path.open("wb") as file:
        while written < size:
            places = np.searchsorted(ranks, ranks[-1] * draw.random(int(draw.lognormal(6.0, 1.0)) + 5))
            text = " ".join(vocabularies[kinds[number % len(kinds)]][places])
            row = {"id": f"doc-{number:08d}", "url": f"https://example.org/{number}", "text": text, "score": 0.5}
            written += file.write(dumps(row) + b"\n")
            number += 1


def shards_of(folder: Path) -> list[Shard]:
    """The shards of a folder."""
    return list_shards(folder, lambda _: True)


def scan(path: Path) -> None:
    """What olmix does with a shard; no document is kept."""
    (shard,) = shards_of(path.parent)
    scan_piece(Piece(shard), Reading(), {"": 0}, 0, "")


def md5(path: Path) -> None:
    """What DVC does with a file."""
    file_md5(str(path))


def xxh3(path: Path) -> None:
    """The hash alone, of the file's bytes."""
    hasher = xxhash.xxh3_128()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_SIZE):
            hasher.update(piece)


def read(path: Path) -> None:
    """The file into memory, and nothing else."""
    with path.open("rb", buffering=0) as file:
        while file.read(READ_SIZE):
            pass


def column(path: Path) -> None:
    """polars' scan of the text column, and the hashes of the texts."""
    for text in pl.scan_parquet(path).select("text").collect()["text"].cast(pl.Binary).to_list():
        document_digest(text)


def throughputs(path: Path, ways: Sequence[Callable[[Path], None]], repeats: int) -> list[str]:
    """GB per CPU second of each way, with the ratio of the first two behind them; medians."""
    seconds: dict[Callable[[Path], None], list[float]] = {way: [] for way in ways}
    read(path)
    for _ in range(repeats):
        for way in ways:
            begin = time.process_time()
            way(path)
            seconds[way].append(time.process_time() - begin)
    ratio = statistics.median(m / s for s, m in zip(seconds[ways[0]], seconds[ways[1]], strict=True))
    rates = [f"{path.stat().st_size / statistics.median(seconds[way]) / 1e9:.2f}" for way in ways]
    return [*rates[:2], f"{ratio:.2f}", *rates[2:]]


def two_processes(console: Console, source: Path, folder: Path, repeats: int) -> None:
    """Scan a domain of many shards with one process and with two, which are started for it or run already."""
    root = folder / "many-links"
    root.mkdir()
    for k in range(40):
        os.link(source, root / f"{k}.jsonl")
    shards = shards_of(root)
    size = sum(shard.size for shard in shards)

    def seconds(readers: Readers) -> float:
        with Memory(folder / "links.sqlite", "benchmark", 0) as memory:
            memory.clear()
            memory.lower("", 1 << 120)  # a sample of a 256th, as of a domain that is large
            begin = time.perf_counter()
            scanning.scan(shards, Reading(), memory, readers)
            return time.perf_counter() - begin

    taken: dict[str, list[float]] = {"one": [], "started": [], "running": []}
    with Readers(1) as one, Readers(2) as running:
        seconds(running)
        for _ in range(repeats):
            taken["one"].append(seconds(one))
            with Readers(2) as started:
                taken["started"].append(seconds(started))
            taken["running"].append(seconds(running))
    alone, started_now, run_already = (size / statistics.median(values) / 1e9 for values in taken.values())
    console.print(
        f"scan of {size / 1e9:.1f} GB in {len(shards)} shards: {alone:.2f} GB/s with one process, {started_now:.2f} "
        f"with two that are started for it ({started_now / alone:.2f} times), {run_already:.2f} with two that run "
        f"already ({run_already / alone:.2f} times)"
    )


def held_at_most() -> int:
    """Bytes that this process held at most; getrusage would count what the parent held when it forked."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


def peak_memory(folder: Path) -> tuple[int, int]:
    """Bytes that this process, which prepares a domain, held at most, and that the largest of its workers did."""
    places = [folder.parent / f"{folder.name}-{what}" for what in ("manifests", "tokens", "scan")]
    tokenizer = Tokenizer(BYTES, "<|endoftext|>")
    domain = DomainSource("domain", folder)
    with Readers() as readers:
        prepare(domain, tokenizer, SAMPLE_TOKENS, lambda _: True, readers, lambda _: None, *places)
    return held_at_most(), 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def memory(console: Console, source: Path, folder: Path, gigabytes: float) -> None:
    """Print the memory of preparing domains of three sizes."""
    table = Table("prepare, 2 processes read", "GB", "peak memory, MB", "of a process that reads, MB")
    points = []
    for part in (0.25, 0.5, 1.0):
        path = folder / f"memory-{part}" / "part.jsonl"
        path.parent.mkdir()
        with path.open("wb") as out:
            number = 0
            while out.tell() < part * gigabytes * 1e9:  # other documents each time: copies would be kept together
                number += 1
                content = source.read_bytes().replace(b'"text": "', f'"text": "{number} '.encode())
                out.write(content.replace(b'"text":"', f'"text":"{number} '.encode()))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            own, worker = pool.submit(peak_memory, path.parent).result()
        size = path.stat().st_size
        points.append((size, own))
        table.add_row("jsonl, one shard", f"{size / 1e9:.2f}", f"{own / 1e6:.0f}", f"{worker / 1e6:.0f}")
        shutil.rmtree(path.parent)
    console.print(table)
    (small, low), (large, high) = points[0], points[-1]
    slope = (high - low) / (large - small)
    console.print(
        f"{1e3 * slope:.2f} MB of memory more for each GB of text more: {(high + slope * (20e9 - large)) / 1e6:.0f} MB "
        "at 20 GB"
    )


def scan_twice(root: str, folder: Path) -> tuple[list[float], int, int]:
    """Seconds of the first scan of a corpus and of a second one, shards that the second read, and peak memory."""
    domain = DomainSource("many", folder / "manifest")
    seconds = []
    for _ in range(2):
        begin = time.perf_counter()
        with Readers() as readers:
            found = scan_corpus(domain, root, folder / "memories", 0, readers)
        seconds.append(time.perf_counter() - begin)
    return seconds, found.read, held_at_most()


def many_shards(console: Console, folder: Path, count: int) -> None:
    """Scan a corpus of `count` shards, and scan it again, in a process of its own."""
    root = folder / "many"
    for k in range(count):
        path = root / f"{k // 1000:03d}" / f"part-{k:06d}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b'{"text": "the one document of shard %d"}\n' % k)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        seconds, read, held = pool.submit(scan_twice, str(root), folder).result()
    console.print(
        f"{count:,} shards: first scan {seconds[0]:.1f} s, second scan {seconds[1]:.1f} s with {read} shards read; "
        f"{held / 1e6:.0f} MB at most"
    )


def main() -> None:
    """Generate the files, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the mix; the other files are a third of it")
    parser.add_argument("--gigabytes", type=float, default=2.2, help="size of the largest domain that is prepared")
    parser.add_argument("--shards", type=int, default=100_000, help="shards of the corpus that is scanned twice")
    parser.add_argument("--repeats", type=int, default=5, help="repeats, interleaved; the tables show medians")
    arguments = parser.parse_args()
    size = arguments.megabytes * 1_000_000
    if arguments.gigabytes * 1000 < 4 * arguments.megabytes:
        parser.error("--gigabytes must be at least 4 times --megabytes / 1000, or the three domains are no three sizes")
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = {kind: folder / kind / "part.jsonl" for kind in ("mix", *ALPHABETS, "mix, escaped")}
        write(paths["mix"], MIX, size)
        for kind in ALPHABETS:
            write(paths[kind], [kind], size // 3)
        write(paths["mix, escaped"], MIX, size // 3, lambda row: json.dumps(row).encode())

        table = Table("GB/s, one core", "MB", "scan_piece", "DVC's md5", "scan / md5", "xxh3_128", "plain read")
        for kind, path in paths.items():
            ways = (scan, md5, xxh3, read)
            table.add_row(kind, f"{path.stat().st_size / 1e6:.0f}", *throughputs(path, ways, arguments.repeats))
        console.print(table)

        packed = folder / "parquet" / "part.parquet"
        packed.parent.mkdir()
        pl.read_ndjson(paths["mix"]).write_parquet(packed)
        table = Table("GB/s of parquet, one core", "MB", "scan_piece", "polars and hashing", "ratio")
        megabytes = f"{packed.stat().st_size / 1e6:.0f}"
        table.add_row("mix", megabytes, *throughputs(packed, (scan, column), arguments.repeats))
        console.print(table)

        two_processes(console, paths["ASCII"], folder, arguments.repeats)
        memory(console, paths["mix"], folder, arguments.gigabytes)
        many_shards(console, folder, arguments.shards)


if __name__ == "__main__":
    main()
