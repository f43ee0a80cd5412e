"""How fast a proxy trains, and what each part of that is worth: `python benchmarks/proxy_training.py` prints one table,
medians of interleaved repeats.

Rows: one process on one thread; one such process a core, as a swarm runs on one machine; the same, each without one
thing that the training code does for it (freed memory kept, denormal numbers flushed; the loss in one function of its
own, the fused optimiser); and a plain loop over stock modules with the same width, depth, vocabulary, batch and
matrix parameters and default AdamW, on one thread and on torch's default.

FLOP/s are those of the proxy's own arithmetic, `Recipe.flops_per_token`: 6 a matrix parameter (layers and
head, not the embedding) and 6 layers sequence_length width for causal attention. The peak is a 1024 x 1024
fp32 matrix product by the same processes, right before and after training: a share of it says how much is
left to gain on this machine. Denormal numbers come with the length of a run: `--tokens` 1,000,000 shows them.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.pool import Pool
from multiprocessing.synchronize import Barrier
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from olmix.cores import cores
from olmix.data.tokenizer import Tokens
from olmix.proxy import model, optimiser
from olmix.proxy.recipe import Recipe
from olmix.proxy.training import single_thread, train

SAMPLE = Recipe(
    layers=2,
    heads=4,
    width=64,
    hidden=192,
    vocabulary=1024,
    sequence_length=64,
    tokens=200_000,
    batch_size=8,
    learning_rate=1e-2,
)
WARM_UP = 30  # steps before the clock starts


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one process: when its training began and ended (monotonic), and its fp32 peak in FLOP/s."""

    begin: float
    end: float
    peak: float


def zipf_rows(recipe: Recipe, dtype: str = "<u2") -> Tokens:
    """Tokens whose frequencies fall like those of text."""
    drawn = np.random.default_rng(0).zipf(1.2, size=(1000, recipe.sequence_length + 1))
    return (drawn % recipe.vocabulary).astype(dtype)


def matmul_peak() -> float:
    """FLOP/s of the best of three bursts of fp32 matrix products on this process's threads."""
    size, count = 1024, 8
    a, b = torch.randn(size, size), torch.randn(size, size)
    bursts = []
    for _ in range(3):
        begin = time.perf_counter()
        for _ in range(count):
            a @ b
        bursts.append(2 * size**3 * count / (time.perf_counter() - begin))
    return max(bursts)


def timed(recipe: Recipe, run: Callable[[Recipe], object], wait: Callable[[], object]) -> Timing:
    """Warm up, wait for the other processes, and time a run between two measurements of the peak."""
    run(dataclasses.replace(recipe, tokens=WARM_UP * recipe.batch_size * recipe.sequence_length))
    wait()
    before = matmul_peak()
    wait()
    begin = time.monotonic()
    run(recipe)
    end = time.monotonic()
    wait()
    return Timing(begin, end, (before + matmul_peak()) / 2)


def proxy(recipe: Recipe) -> object:
    """A run of olmix."""
    return train(recipe, [zipf_rows(recipe)], ["zipf"], [recipe.sequences], 0)


class StockTransformer(nn.Module):
    """Stock layers; a feed-forward width of 3/2 hidden has SwiGLU's parameters."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.embedding = nn.Embedding(recipe.vocabulary, recipe.width)
        self.positions = nn.Parameter(torch.zeros(recipe.sequence_length, recipe.width))
        layer = nn.TransformerEncoderLayer(
            recipe.width,
            recipe.heads,
            dim_feedforward=recipe.hidden * 3 // 2,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )
        self.layers = nn.TransformerEncoder(
            layer, recipe.layers, nn.LayerNorm(recipe.width), enable_nested_tensor=False
        )
        self.head = nn.Linear(recipe.width, recipe.vocabulary, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(recipe.sequence_length))

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token."""
        x = self.layers(self.embedding(tokens) + self.positions, mask=self.mask, is_causal=True)
        logits: Tensor = self.head(x)
        return logits


def stock(recipe: Recipe) -> None:
    """The loop that a tutorial would write."""
    tokens = torch.from_numpy(zipf_rows(recipe).astype(np.int64))
    model = StockTransformer(recipe)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for _ in range(recipe.steps):
        batch = tokens[torch.randint(len(tokens), (recipe.batch_size,))]
        logits = model(batch[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        loss.item()


_barrier: list[Barrier] = []


def _start(setup: Callable[[], None], barrier: Barrier) -> None:
    setup()
    _barrier.append(barrier)


def _measure(_: int, recipe: Recipe, run: Callable[[Recipe], object]) -> Timing:
    return timed(recipe, run, _barrier[0].wait)


def freed_memory_returned() -> None:
    """`single_thread` without what it does about freed memory."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def denormals_kept() -> None:
    """`single_thread` without flushing denormal numbers."""
    single_thread()
    torch.set_flush_denormal(False)


def library_loss() -> None:
    """The loss of torch, differentiated by autograd."""
    single_thread()

    def plain(hidden: Tensor, head: Tensor, targets: Tensor, scale: float, _: object) -> tuple[Tensor, Tensor]:
        losses = nn.functional.cross_entropy(hidden @ head, targets, reduction="none")
        return losses.sum() * scale, losses.detach()

    model.total_loss = plain


def stock_optimiser() -> None:
    """AdamW as torch chooses to run it on a CPU."""
    single_thread()

    def unfused(*tensors: list[Tensor], fused: bool, **settings: Any) -> None:
        adamw(*tensors, **settings)

    optimiser.adamw = unfused


def plain_thread() -> None:
    """One thread and nothing else."""
    torch.set_num_threads(1)


def default_threads() -> None:
    """As torch starts."""


@dataclasses.dataclass
class Row:
    """One way to run, with a pool of processes that lives through all repeats."""

    name: str
    run: Callable[[Recipe], object]
    pool: Pool
    processes: int
    repeats: list[list[Timing]] = dataclasses.field(default_factory=list)

    def repeat(self, recipe: Recipe) -> None:
        """Measure once more."""
        measure = partial(_measure, recipe=recipe, run=self.run)
        self.repeats.append(self.pool.map(measure, range(self.processes), chunksize=1))

    def rates(self, recipe: Recipe) -> list[float]:
        """Tokens/s of all processes, a repeat each."""
        tokens = recipe.sequences * recipe.sequence_length * self.processes
        return [tokens / (max(t.end for t in r) - min(t.begin for t in r)) for r in self.repeats]

    def times(self, other: Row, recipe: Recipe) -> float:
        """How many times as fast as another row: the median over repeats, which were measured side by side."""
        return statistics.median(a / b for a, b in zip(self.rates(recipe), other.rates(recipe), strict=True))

    def line(self, recipe: Recipe) -> str:
        """Medians: tokens/s of all processes, FLOP/s of all, and the share of their peak."""
        rates = self.rates(recipe)
        peaks = [sum(t.peak for t in r) for r in self.repeats]
        shares = [rate * recipe.flops_per_token / peak for rate, peak in zip(rates, peaks, strict=True)]
        flops, peak = statistics.median(rates) * recipe.flops_per_token / 1e9, statistics.median(peaks) / 1e9
        return (
            f"{self.name:44s} {statistics.median(rates):9,.0f} {min(rates):9,.0f} {max(rates):9,.0f} "
            f"{flops:9.1f} {peak:9.1f} {statistics.median(shares):7.0%}"
        )


def main() -> None:
    """Measure every row in turn, `--repeats` times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=SAMPLE.tokens, help="tokens of a run")
    parser.add_argument("--repeats", type=int, default=5, help="repeats, interleaved; the table shows medians")
    arguments = parser.parse_args()
    recipe = dataclasses.replace(SAMPLE, tokens=arguments.tokens)
    context = multiprocessing.get_context("spawn")

    def row(name: str, run: Callable[[Recipe], object], setup: Callable[[], None], processes: int = 1) -> Row:
        pool = context.Pool(processes, _start, (setup, context.Barrier(processes)))
        return Row(name, run, pool, processes)

    n = cores()
    one = row("olmix, 1 process, 1 thread", proxy, single_thread)
    every = row(f"olmix, {n} processes, 1 thread each", proxy, single_thread, n)
    stock_one = row("stock modules, 1 process, 1 thread", stock, plain_thread)
    rows = [
        one,
        row("olmix, 1 process, torch's loss", proxy, library_loss),
        row("olmix, 1 process, AdamW not fused", proxy, stock_optimiser),
        every,
        row(f"olmix, {n} processes, freed memory returned", proxy, freed_memory_returned, n),
        row(f"olmix, {n} processes, denormals kept", proxy, denormals_kept, n),
        stock_one,
        row("stock modules, 1 process, default threads", stock, default_threads),
    ]
    for _ in range(arguments.repeats):
        for each in rows:  # interleaved, so that a busy moment of the machine falls on all of them
            each.repeat(recipe)
    print(
        f"{recipe.parameters:,} parameters, {recipe.size.parameters(vocabulary=0):,} of them in layers; "
        f"{recipe.steps} steps of {recipe.batch_size} x {recipe.sequence_length} tokens; "
        f"{recipe.flops_per_token:,} FLOP a token; {n} cores; torch {torch.__version__}; medians of {arguments.repeats}"
    )
    heads = f"{'tokens/s':>9s} {'least':>9s} {'most':>9s} {'GFLOP/s':>9s} {'peak':>9s} {'share':>7s}"
    print(f"{'':44s} {heads} {'to the first':>13s}")
    for each in rows:
        print(f"{each.line(recipe)} {each.times(one, recipe):12.2f}x")
        each.pool.terminate()
    print(
        f"{n} processes to one: {every.times(one, recipe):.2f}x; one process to the stock loop on one thread: "
        f"{one.times(stock_one, recipe):.2f}x"
    )


if __name__ == "__main__":
    main()
