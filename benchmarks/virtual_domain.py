"""Whether a domain reads the same through the virtual domain as by itself: `python benchmarks/virtual_domain.py`.

One mixture of the sample corpus is trained three ways, with the same seeds: from each domain's own token set; with all
domains but one read through `@virtual`; and, as a control, through a virtual set that takes the first rows of each
member's sample, as many as its share (what a careless implementation does: it holds a fraction of the documents).
Two corpora: the sample's text cut into documents of 400 bytes at most, and joined into documents of 30 kB.

It prints the paired difference of the mean BPB of six tasks (arithmetic, word problems and doctest outputs are too
noisy at this size) with its standard error over seeds; every seed draws a virtual set of its own, so that the error
holds the noise of the draw. `@virtual` should be 0 within its error, and the control should not on long documents. It
shows nothing of larger proxies, nor of domains whose members' proportions change.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import orjson
import xxhash
from rich.console import Console
from rich.progress import track
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from olmix.config.params import load_params
from olmix.core.quantise import largest_remainder
from olmix.core.virtual import VIRTUAL
from olmix.cores import cores
from olmix.data.sample import write_sample
from olmix.data.tokenizer import Tokenizer, Tokens
from olmix.data.tokensets import TokenSet, draw_virtual, open_token_sets, read_tokens, rows_of, write_tokens
from olmix.project import Project
from olmix.proxy.evaluation import evaluate
from olmix.proxy.recipe import Recipe
from olmix.proxy.tasks import EncodedTask, encode_task, read_task
from olmix.proxy.training import single_thread, train
from olmix.runs.record import RunSpec, spec_for
from olmix.sample_corpus.build import build

MIXTURE = {"cpp": 0.13, "docs": 0.20, "doctest": 0.15, "math": 0.18, "py": 0.19, "story": 0.15}
AFFECTED = ("docs", "py")
QUIET = ("cpp-held-out", "py-held-out", "stdlib", "docs-held-out", "pydoc-topics", "story-held-out")
SHORT, LONG = 400, 30_000
WAYS = (VIRTUAL, "first rows")


def documents(folder: Path) -> list[str]:
    """The texts of a domain of the sample."""
    lines = [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]
    return [orjson.loads(line)["text"] for line in lines]


def cut(texts: list[str]) -> Iterator[str]:
    """The same text in documents of SHORT characters at most."""
    for text in texts:
        yield from (text[at : at + SHORT] for at in range(0, len(text), SHORT))


def joined(texts: list[str]) -> Iterator[str]:
    """The same text in documents of about LONG characters."""
    held: list[str] = []
    for text in texts:
        held.append(text)
        if sum(map(len, held)) >= LONG:
            yield "\n".join(held)
            held = []
    if held:
        yield "\n".join(held)


def write_samples(data: Path, out: Path, long: bool, tokenizer: Tokenizer, limit: int) -> None:
    """The canonical token sample of every domain, as `prepare` writes it."""
    for name in MIXTURE:
        texts = documents(data / name)
        encoded = [text.encode() for text in (joined(texts) if long else cut(texts))]
        encoded.sort(key=xxhash.xxh3_128_intdigest)
        write_sample(out / f"{name}.npy", encoded, False, True, tokenizer, limit)


def first_rows(ratios: Mapping[str, float], sets: Mapping[str, TokenSet], length: int, rows: int) -> Tokens:
    """The control: of each member the first rows of its sample."""
    names = sorted(ratios)
    counts = largest_remainder([ratios[name] for name in names], rows).tolist()
    parts = [rows_of(read_tokens(sets[n].path), length)[:count] for n, count in zip(names, counts, strict=True)]
    return np.concatenate(parts)


def through_virtual(
    way: str, affected: str, sets: Mapping[str, TokenSet], recipe: Recipe, seed: int, folder: Path
) -> RunSpec:
    """The run of MIXTURE whose domains but one are read through a virtual set."""
    mass = 1 - MIXTURE[affected]
    ratios = {name: weight / mass for name, weight in MIXTURE.items() if name != affected}
    # Draws are named by the sets' identities: another name is another draw.
    named = {name: replace(each, identity=f"{each.identity} {seed}") for name, each in sets.items()}
    draw = draw_virtual if way == VIRTUAL else first_rows
    place = folder / f"{way} {affected} {seed}"
    write_tokens(place / f"{VIRTUAL}.npy", draw(ratios, named, recipe.sequence_length, recipe.sequences))
    virtual = open_token_sets(place, recipe.sequence_length)[VIRTUAL]
    virtual = virtual if way == VIRTUAL else replace(virtual, in_order=False)
    return spec_for(way, {VIRTUAL: mass, affected: MIXTURE[affected]}, {**sets, VIRTUAL: virtual}, recipe, seed)


def measure(work: tuple[RunSpec, list[EncodedTask]]) -> list[float]:
    """Train a run and evaluate it: BPB of each task."""
    spec, tasks = work
    trained = train(
        spec.recipe,
        [rows_of(read_tokens(spec.sets[name].path), spec.recipe.sequence_length) for name in spec.used],
        [spec.sets[name].identity for name in spec.used],
        [spec.counts[name] for name in spec.used],
        spec.seed,
        in_order=spec.in_order,
    )
    return [evaluate(trained.weights, spec.recipe, task).bpb for task in tasks]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="seeds a row (8)")
    parser.add_argument("--first-seed", type=int, default=100, help="the first of them (100)")
    parser.add_argument("--data", type=Path, help="a sample corpus that is there already")
    arguments = parser.parse_args()
    params = load_params(Project())
    with tempfile.TemporaryDirectory() as temporary:
        data = arguments.data or Path(temporary) / "data"
        build(data)
        tokenizer = Tokenizer(data / "tokenizer/tokenizer.json", params.tokenizer.end_of_document)
        recipe = params.recipe(tokenizer.vocabulary)
        tasks = [
            encode_task(read_task(data / f"tasks/{name}.jsonl"), tokenizer, recipe.sequence_length) for name in QUIET
        ]
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        specs: dict[tuple[str, ...], list[RunSpec]] = {}
        for corpus in ("short", "long"):
            folder = Path(temporary) / corpus
            write_samples(data, folder / "tokens", corpus == "long", tokenizer, recipe.tokens + 1)
            sets = open_token_sets(folder / "tokens", recipe.sequence_length)
            specs[corpus, "", ""] = [spec_for("direct", MIXTURE, sets, recipe, seed) for seed in seeds]
            for affected in AFFECTED:
                for way in WAYS:
                    specs[corpus, affected, way] = [
                        through_virtual(way, affected, sets, recipe, seed, folder) for seed in seeds
                    ]
        work = [(spec, tasks) for row in specs.values() for spec in row]
        with multiprocessing.get_context("forkserver").Pool(cores(), single_thread) as pool:
            found = list(track(pool.imap(measure, work), f"{len(work)} runs", len(work), console=Console(stderr=True)))
    bpb = dict(zip(specs, np.array(found).mean(axis=1).reshape(len(specs), -1), strict=True))
    table = Table("documents", "all but", "read through", "BPB", "minus direct", "standard error")
    for (corpus, affected, way), values in bpb.items():
        if way:
            difference = values - bpb[corpus, "", ""]
            error = statistics.stdev(difference) / len(difference) ** 0.5
            table.add_row(corpus, affected, way, f"{values.mean():.4f}", f"{difference.mean():+.4f}", f"{error:.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
