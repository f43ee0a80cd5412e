"""How fast text is tokenised, against the tokenizers library by itself: `python benchmarks/tokenising.py`.

Generated text (benchmarks/reading.py), a byte-pair tokeniser of 8192 tokens trained on it, and bytes. Interleaved,
medians of the repeats, wall time on all cores of this machine: `Tokenizer.encode_stream`, which gives an array of ids
for every document; the library's encode_batch_fast over the same batches with the ids taken out; and the same with
nothing taken out, which no one can use but is the most that the library does. Then `write_sample`, which also writes
the token set.

It does not measure reading, and words of random letters are tokenised a little slower than text.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.reading import BYTES, MIX, write
from olmix.cores import cores
from olmix.data.sample import write_sample
from olmix.data.tokenizer import BATCH_BYTES, Tokenizer
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers, trainers

END = "<|endoftext|>"


def trained(path: Path, texts: list[bytes]) -> Path:
    """A byte-pair tokeniser of 8192 tokens."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=[END], show_progress=False)
    backend.train_from_iterator((text.decode() for text in texts[:2000]), trainer)
    backend.save(str(path))
    return path


def measure(path: Path, texts: list[bytes], folder: Path, repeats: int) -> list[str]:
    """MB/s of each way, and the ratios to the library."""
    tokenizer, backend = Tokenizer(path, END), Backend.from_file(str(path))
    batches: list[list[str]] = [[]]
    held = 0
    for text in texts:
        batches[-1].append(text.decode())
        held += len(text)
        if held >= BATCH_BYTES * cores():
            batches.append([])
            held = 0

    def stream() -> None:
        for _ in tokenizer.encode_stream(texts):
            pass

    def library() -> None:
        for batch in batches:
            for encoding in backend.encode_batch_fast(batch, add_special_tokens=False):
                encoding.ids  # noqa: B018

    def alone() -> None:
        for batch in batches:
            backend.encode_batch_fast(batch, add_special_tokens=False)

    def sample() -> None:
        write_sample(folder / "sample.npy", texts, False, True, tokenizer, 1 << 40)

    seconds: dict[Callable[[], None], list[float]] = {way: [] for way in (stream, library, alone, sample)}
    for _ in range(repeats):
        for way, taken in seconds.items():
            begin = time.perf_counter()
            way()
            taken.append(time.perf_counter() - begin)
    size = sum(map(len, texts)) / 1e6
    rates = [f"{size / statistics.median(seconds[way]):.1f}" for way in seconds]
    ratios = [
        f"{statistics.median(b / a for a, b in zip(seconds[way], seconds[other], strict=True)):.2f}"
        for way, other in ((stream, library), (stream, alone), (sample, library))
    ]
    return [*rates, *ratios]


def main() -> None:
    """Generate the text, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=20, help="text to tokenise")
    parser.add_argument("--repeats", type=int, default=5, help="repeats, interleaved; the table shows medians")
    arguments = parser.parse_args()
    table = Table(
        "MB/s", "stream", "library, ids", "library alone", "sample", "stream/ids", "stream/alone", "sample/ids"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "text" / "a.jsonl", MIX, arguments.megabytes * 1_000_000)
        texts = [orjson.loads(line)["text"].encode() for line in (folder / "text" / "a.jsonl").open("rb")]
        for label, path in (("byte pairs, 8192", trained(folder / "bpe.json", texts)), ("bytes", BYTES)):
            table.add_row(label, *measure(path, texts, folder, arguments.repeats))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
