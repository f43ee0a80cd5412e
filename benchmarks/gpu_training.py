"""How fast a proxy trains on a GPU: `python benchmarks/gpu_training.py` prints one table, medians of the repeats.

Rows: sizes 15m and 30m at sequences of 2048 with a vocabulary of 100,352, as `olmix.proxy.training.train` trains them
(bfloat16 products, compiled layers, loss in chunks, fused AdamW), and a plain bfloat16 loop over stock modules of the
same matrix parameters (autocast, the cross-entropy of all logits, AdamW not fused, nothing compiled), in turn. A step
is one micro-batch of 16,384 tokens for both. The clock starts after the first steps, when kernels are compiled, and
the device is waited for when it starts and when it stops.

Utilisation is `Recipe.flops_per_token` times tokens/s over a large bfloat16 matrix product on the same device in the
same run. Without CUDA there is nothing to measure, and it says so; `--tiny --device cpu` walks through it anyway.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from proxy_training import StockTransformer, zipf_rows
from torch import nn

from olmix.data.tokenizer import Tokens
from olmix.proxy.arithmetic import Arithmetic, arithmetic_of
from olmix.proxy.recipe import MICRO_BATCH_TOKENS, Recipe
from olmix.proxy.sizes import SIZES
from olmix.proxy.training import train

VOCABULARY, LENGTH = 100_352, 2048  # the vocabulary is OLMo 2's, rounded up to a multiple of 128
TINY_VOCABULARY, TINY_LENGTH, TINY_BATCH = 512, 32, 4


@dataclasses.dataclass(frozen=True)
class Speed:
    """Tokens/s after the warm-up, and the most memory the device held, in GB (0 on a CPU)."""

    tokens: float
    memory: float


class Clock:
    """Counts steps, and times those after the warm-up."""

    def __init__(self, recipe: Recipe, warm_up: int, device: str) -> None:
        self.recipe, self.warm_up, self.device = recipe, warm_up, torch.device(device)
        self.steps, self.begin, self.end = 0, 0.0, 0.0
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def step(self, _: int = 0) -> None:
        """A step was queued."""
        self.steps += 1
        if self.steps in (self.warm_up, self.recipe.steps):
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.begin, self.end = self.end, time.perf_counter()

    def speed(self) -> Speed:
        """Of the steps after the warm-up."""
        tokens = (self.recipe.steps - self.warm_up) * self.recipe.batch_size * self.recipe.sequence_length
        memory = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else 0
        return Speed(tokens / (self.end - self.begin), memory / 1e9)


def olmix(recipe: Recipe, tokens: Tokens, device: str, warm_up: int) -> Speed:
    """A run as the project trains it; on a CPU in bfloat16 too, and not compiled."""
    arithmetic = arithmetic_of(device) if torch.device(device).type == "cuda" else Arithmetic(torch.bfloat16)
    clock = Clock(recipe, warm_up, device)
    counts = [recipe.sequences]
    train(recipe, [tokens], ["zipf"], counts, 0, device=device, on_progress=clock.step, arithmetic=arithmetic)
    return clock.speed()


def stock(recipe: Recipe, tokens: Tokens, device: str, warm_up: int) -> Speed:
    """The loop that a tutorial would write."""
    rows = torch.from_numpy(tokens.astype(np.int64))
    model = StockTransformer(recipe).to(device)
    loss_of = nn.CrossEntropyLoss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    clock = Clock(recipe, warm_up, device)
    for _ in range(recipe.steps):
        batch = rows[torch.randint(len(rows), (recipe.batch_size,))].to(device)
        with torch.autocast(torch.device(device).type, dtype=torch.bfloat16):
            logits = model(batch[:, :-1])
            loss = loss_of(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        clock.step()
    return clock.speed()


def product_peak(device: str, size: int) -> float:
    """FLOP/s of the best of five bursts of bfloat16 matrix products."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    bursts = []
    for _ in range(5):
        if a.is_cuda:
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        for _ in range(10):
            a @ b
        if a.is_cuda:
            torch.cuda.synchronize(device)
        bursts.append(20 * size**3 / (time.perf_counter() - begin))
    return max(bursts)


def main() -> None:
    """Measure every size both ways in turn, `--repeats` times, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1; cpu with --tiny")
    parser.add_argument("--sizes", nargs="+", default=["15m", "30m"], choices=list(SIZES), help="sizes to measure")
    parser.add_argument("--steps", type=int, default=120, help="steps of a run, 20 of them before the clock starts")
    parser.add_argument("--repeats", type=int, default=3, help="repeats, interleaved; the table shows medians")
    parser.add_argument(
        "--tiny", action="store_true", help="size 100k, short sequences, few steps: only to walk through"
    )
    arguments = parser.parse_args()
    device = arguments.device
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("no CUDA device: nothing was measured (--tiny --device cpu walks through it)")
        return
    if not on_gpu and not arguments.tiny:
        parser.error("a CPU takes hours for these sizes: add --tiny, or use benchmarks/proxy_training.py")
    name = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    print(f"{name}, torch {torch.__version__}; medians of {arguments.repeats} interleaved repeats")
    heads = f"{'tokens/s':>11s} {'least':>11s} {'most':>11s} {'TFLOP/s':>9s} {'peak':>9s} {'share':>7s} {'GB':>6s}"
    print(f"{'':28s} {heads}")

    warm_up, steps = (2, 6) if arguments.tiny else (20, max(arguments.steps, 21))
    vocabulary, length = (TINY_VOCABULARY, TINY_LENGTH) if arguments.tiny else (VOCABULARY, LENGTH)
    batch = TINY_BATCH if arguments.tiny else MICRO_BATCH_TOKENS // length
    ways: dict[str, Callable[[Recipe, Tokens, str, int], Speed]] = {"olmix": olmix, "stock modules": stock}
    for size in ["100k"] if arguments.tiny else arguments.sizes:
        recipe = Recipe(
            **dataclasses.asdict(SIZES[size]),
            vocabulary=vocabulary,
            sequence_length=length,
            tokens=steps * batch * length,
            batch_size=batch,
            learning_rate=1e-3,
        )
        tokens = zipf_rows(recipe, "<u4")
        speeds: dict[str, list[Speed]] = {way: [] for way in ways}
        peaks = []
        for _ in range(arguments.repeats):
            peaks.append(product_peak(device, 256 if arguments.tiny else 8192))
            for way, run in ways.items():
                speeds[way].append(run(recipe, tokens, device, warm_up))
        peak = statistics.median(peaks)
        for way, measured in speeds.items():
            rates = [speed.tokens for speed in measured]
            flops = statistics.median(rates) * recipe.flops_per_token
            print(
                f"{size + ', ' + way:28s} {statistics.median(rates):11,.0f} {min(rates):11,.0f} {max(rates):11,.0f} "
                f"{flops / 1e12:9.2f} {peak / 1e12:9.2f} {flops / peak:7.0%} {max(s.memory for s in measured):6.1f}"
            )
        ratios = [a.tokens / b.tokens for a, b in zip(*speeds.values(), strict=True)]
        print(f"{size}: {statistics.median(ratios):.2f} times the stock loop")


if __name__ == "__main__":
    main()
