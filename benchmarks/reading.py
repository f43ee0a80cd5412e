"""How fast a domain is read and hashed, against DVC's md5 of the same file: `python benchmarks/reading.py`.

Generated .jsonl files, warm page cache, one core each: `scan_shard` (every document parsed and hashed), DVC's own md5,
xxh3_128 of the bytes and a plain read, interleaved; GB of file per CPU second, medians of the repeats. CPU seconds, so
that other work on the machine moves the ratios little. The mix is half English in ASCII, four tenths English with
typographic quotes, one tenth Russian; then each alone, and the mix as json.dumps writes it by default (\\uXXXX).
Then the peak memory of `prepare_domain` for a small and a large domain, each in a process of its own, and a second
scan with nothing changed.

It does not measure the disk, tokenising, shards of plain text, or several shards at once (scanning uses one core).
Words are random letters in Zipf's proportions: lengths, escapes and alphabets are those of text, its meaning is not.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import xxhash
from dvc_data.hashfile.hash import file_md5
from rich.console import Console
from rich.table import Table

from olmix.core.seeds import generator
from olmix.data.manifest import DomainSource, prepare_domain, scan_domain
from olmix.data.scan import scan_shard
from olmix.data.shards import list_shards
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


def allow(path: Path) -> bool:
    """Every shard may be read."""
    return True


def scan(path: Path) -> None:
    """What olmix does with a shard."""
    (shard,) = list_shards(path.parent, allow)
    scan_shard(shard, "text")


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


def throughputs(path: Path, repeats: int) -> list[str]:
    """GB per CPU second of each way, and the ratio of the first two; medians."""
    ways = (scan, md5, xxh3, read)
    seconds: dict[Callable[[Path], None], list[float]] = {way: [] for way in ways}
    read(path)
    for _ in range(repeats):
        for way in ways:
            begin = time.process_time()
            way(path)
            seconds[way].append(time.process_time() - begin)
    ratio = statistics.median(m / s for s, m in zip(seconds[scan], seconds[md5], strict=True))
    rates = [f"{path.stat().st_size / statistics.median(seconds[way]) / 1e9:.2f}" for way in ways]
    return [*rates[:2], f"{ratio:.2f}", *rates[2:]]


def peak_memory(folder: Path) -> int:
    """Bytes that this process, which prepares a domain, held at most."""
    prepare_domain(
        DomainSource(folder), Tokenizer(BYTES, "<|endoftext|>"), SAMPLE_TOKENS, folder / ".memory.json", allow
    )
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])  # getrusage would count what the parent held when it forked


def memory(console: Console, small: Path, large: Path) -> None:
    """Print the memory of preparing two domains."""
    table = Table("prepare_domain", "file, MB", "peak memory, MB")
    peaks, sizes = [], [path.stat().st_size for path in (small, large)]
    for path, size in zip((small, large), sizes, strict=True):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(peak_memory, path.parent).result())
        table.add_row(path.parent.name, f"{size / 1e6:.0f}", f"{peaks[-1] / 1e6:.1f}")
    console.print(table)
    slope = (peaks[1] - peaks[0]) / (sizes[1] - sizes[0])
    console.print(f"{1e3 * slope:.1f} kB of memory more for each MB of text more")


def main() -> None:
    """Generate the files, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="size of the mix; the other files are a third of it")
    parser.add_argument("--repeats", type=int, default=5, help="repeats, interleaved; the table shows medians")
    arguments = parser.parse_args()
    size = arguments.megabytes * 1_000_000
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / name / "part.jsonl" for name in ("mix", *ALPHABETS, "mix, escaped", "small mix")}
        write(paths["mix"], MIX, size)
        for kind in ALPHABETS:
            write(paths[kind], [kind], size // 3)
        write(paths["mix, escaped"], MIX, size // 3, lambda row: json.dumps(row).encode())
        write(paths["small mix"], MIX, size // 10)

        table = Table("GB/s, one core", "MB", "scan_shard", "DVC's md5", "scan / md5", "xxh3_128", "plain read")
        for name in list(paths)[:-1]:
            megabytes = f"{paths[name].stat().st_size / 1e6:.0f}"
            table.add_row(name, megabytes, *throughputs(paths[name], arguments.repeats))
        console.print(table)
        memory(console, paths["small mix"], paths["mix"])

        source, remembered = DomainSource(paths["mix"].parent), Path(folder) / "memory.json"
        scan_domain(source, remembered, allow)
        begin = time.perf_counter()
        scan_domain(source, remembered, allow)
        console.print(f"a second scan with nothing changed: {1e3 * (time.perf_counter() - begin):.2f} ms")


if __name__ == "__main__":
    main()
